"""Tells running agents something, in a line or more; each reads it at its next turn.

Whether an agent can be told anything is the engine's to know: a refusal is a notice.
"""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from autocoder.core.models import Agent
from autocoder.tui import keys, render
from autocoder.tui.palette import Tone
from autocoder.tui.spans import counted
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.writing import Writing

NAMED = 4
"""Agents whose names there is room for."""


class TellScreen(ModalScreen[str]):
    """Dismissed with the text, empty when nothing is to be told."""

    BINDINGS: ClassVar[list[BindingType]] = list(keys.WRITING)

    def __init__(self, agents: Sequence[Agent]) -> None:
        super().__init__()
        self._agents = agents

    def compose(self) -> ComposeResult:
        with Vertical(id="tell"):
            title = TextLines(id="tell-title")
            named = [*render.name_lines(self._agents[:NAMED])]
            if len(self._agents) > NAMED:
                named.append(((f"    … {len(self._agents) - NAMED} more", Tone.DIM),))
            title.lines = (
                ((f"  Tell {counted(len(self._agents), 'agent')}", Tone.STRONG),),
                (),
                *named,
                (),
            )
            title.styles.height = len(title.lines)
            yield title
            yield Writing(id="tell-text", placeholder="read at the next turn")
            yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(Writing).focus()

    def action_send(self) -> None:
        text = self.query_one(Writing).text.strip()
        if text:
            self.dismiss(text)

    def action_new_line(self) -> None:
        self.query_one(Writing).insert("\n")

    def action_back(self) -> None:
        self.dismiss("")
