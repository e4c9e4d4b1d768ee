"""A sheet of text over the main screen: help, notices, details, a diff."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from autocoder.tui.messages import PageAnswered, QuestionRefused
from autocoder.tui.palette import Tone
from autocoder.tui.render_answers import error_page
from autocoder.tui.spans import Line
from autocoder.tui.widgets.pager import Pager
from autocoder.tui.widgets.painted import TextLines


class SheetScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter", "leave", "back", id="sheet.back"),
    ]

    def __init__(self, title: str, lines: Sequence[Line]) -> None:
        super().__init__()
        self._title = title
        self._lines = tuple(lines)

    def compose(self) -> ComposeResult:
        with Vertical(id="sheet"):
            title = TextLines(id="sheet-title")
            title.lines = (
                ((f"  {self._title}", Tone.STRONG), ("    esc back, ↑↓ scroll", Tone.DIM)),
            )
            yield title
            pager = Pager()
            pager.lines = self._lines
            yield pager

    def on_page_answered(self, message: PageAnswered) -> None:
        self.query_one(Pager).lines = message.page

    def on_question_refused(self, message: QuestionRefused) -> None:
        self.query_one(Pager).lines = error_page(message.error)

    def action_leave(self) -> None:
        self.dismiss(None)
