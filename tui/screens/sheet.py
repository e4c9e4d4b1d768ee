"""A sheet of text over the main screen: help, notices, details, a diff."""

from collections.abc import Sequence
from typing import ClassVar

from textual import on
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

    def __init__(self, title: str, lines: Sequence[Line], *, hang: int = 2) -> None:
        """`hang`: how far the later rows of a line are indented, beyond the line itself."""
        super().__init__()
        self._hang = hang
        self._title = title
        self._lines = tuple(lines)

    def compose(self) -> ComposeResult:
        with Vertical(id="sheet"):
            yield TextLines(id="sheet-title")
            pager = Pager(hang=self._hang)
            pager.lines = self._lines
            yield pager

    @on(Pager.Moved)
    def _say_where(self) -> None:
        place = self.query_one(Pager).place
        keys = f"    esc back, ↑↓ scroll   {place}" if place else "    esc back"
        title: Line = ((f"  {self._title}", Tone.STRONG), (keys, Tone.DIM))
        self.query_one("#sheet-title", TextLines).lines = (title,)

    def on_page_answered(self, message: PageAnswered) -> None:
        self.query_one(Pager).lines = message.page

    def on_question_refused(self, message: QuestionRefused) -> None:
        self.query_one(Pager).lines = error_page(message.error)

    def action_leave(self) -> None:
        self.dismiss(None)
