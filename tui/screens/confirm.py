"""Asks before work ends: names what it is about, and takes `y` or the same key again for yes.

Enter and Esc never confirm. The names are those of the moment the key was
pressed: nothing moves under the question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen

from autocoder.core.models import Feature
from autocoder.tui.palette import Tone
from autocoder.tui.render_features import merge_lines
from autocoder.tui.spans import Line
from autocoder.tui.widgets.painted import TextLines


@dataclass(frozen=True, slots=True)
class Question:
    title: str
    body: tuple[Line, ...]
    verb: str
    """What yes does, in the third person: "kills"."""
    otherwise: str
    """What no does: "keeps"."""
    key: str
    """The key that led here, by Textual's name; pressed again it means yes."""


def merge_question(features: Sequence[Feature], base: str, key: str) -> Question:
    count = len(features)
    return Question(
        title=f"Merge {count} {'branch' if count == 1 else 'branches'}?",
        body=merge_lines(features, base),
        verb="merges",
        otherwise="leaves them",
        key=key,
    )


FRAME_LINES = 8
"""Lines that are not the body, and a little room around the dialog."""


def key_of(screen: Screen[Any], action: str) -> str:
    """The key that leads to an action of the screen now, by Textual's name."""
    found = screen.active_bindings.items()
    return next((key for key, each in found if each.binding.action == action), "")


class ConfirmScreen(ModalScreen[bool]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "yes", id="confirm.yes"),
        Binding("escape,n,q", "answer(False)", "no", id="confirm.no"),
    ]

    def __init__(self, question: Question) -> None:
        super().__init__()
        self._question = question
        if question.key:
            self._bindings.bind(question.key, "answer(True)", show=False)

    def compose(self) -> ComposeResult:
        question = self._question
        body = question.body
        most = max(3, self.app.size.height - FRAME_LINES)
        if len(body) > most:
            rest = len(body) - most + 1
            body = (*body[: most - 1], ((f"    … {rest} more lines", Tone.DIM),))
        dialog = TextLines(id="dialog")
        dialog.lines = (
            (),
            ((f"  {question.title}", Tone.STRONG),),
            (),
            *body,
            (),
            (
                ("  y", Tone.ACCENT),
                (" or ", Tone.DIM),
                (question.key, Tone.ACCENT),
                (f" {question.verb},  ", Tone.DIM),
                ("esc", Tone.ACCENT),
                (f" {question.otherwise}", Tone.DIM),
            ),
        )
        dialog.styles.height = len(dialog.lines) + 1
        yield dialog

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)
