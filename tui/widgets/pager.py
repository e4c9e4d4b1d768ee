"""Lines to read and scroll: help, notices, details."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from autocoder.tui.spans import Line, wrapped
from autocoder.tui.widgets.painted import Painted


class Pager(Painted, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll_rows(1)", "down", show=False, id="pager.down"),
        Binding("k,up", "scroll_rows(-1)", "up", show=False, id="pager.up"),
        Binding("pagedown,ctrl+d,space", "page(1)", "page down", show=False, id="pager.page_down"),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False, id="pager.page_up"),
        Binding("g,home", "scroll_rows(-1000000000)", "top", show=False, id="pager.first"),
        Binding("G,end", "scroll_rows(1000000000)", "end", show=False, id="pager.last"),
    ]

    lines: reactive[tuple[Line, ...]] = reactive((), init=False)
    top: reactive[int] = reactive(0)

    class Moved(Message):
        """What is seen of the lines is another part of them."""

    def __init__(self, *, follow: bool = False, hang: int = 2, id: str | None = None) -> None:
        """`follow`: what is added at the end is shown, unless one has scrolled away from it."""
        super().__init__(id=id)
        self._follow = follow
        self._hang = hang
        self._rows: list[Line] = []

    def validate_top(self, top: int) -> int:
        return max(0, min(top, self._last))

    @property
    def place(self) -> str:
        """Which rows of how many are seen; empty when that is all of them."""
        count, height = len(self._rows), self.size.height
        return f"{self.top + 1}-{min(self.top + height, count)} of {count}" if self._last else ""

    @property
    def _last(self) -> int:
        return max(0, len(self._rows) - self.size.height)

    def watch_lines(self) -> None:
        self._lay_out()

    def watch_top(self) -> None:
        self.post_message(self.Moved())

    def on_resize(self, _event: events.Resize) -> None:
        self._lay_out()

    def _lay_out(self) -> None:
        at_end = self._follow and self.top >= self._last
        width = self.size.width
        self._rows = [row for line in self.lines for row in wrapped(line, width - 1, self._hang)]
        self.top = self._last if at_end else self.top
        self.post_message(self.Moved())
        self.refresh()

    def render_line(self, y: int) -> Strip:
        number = self.top + y
        line = self._rows[number] if number < len(self._rows) else ()
        return self.paint(line, self.size.width)

    def action_scroll_rows(self, by: int) -> None:
        self.top += by

    def action_page(self, pages: int) -> None:
        self.top += pages * max(1, self.size.height - 1)

    def on_mouse_scroll_down(self, _event: events.MouseScrollDown) -> None:
        self.top += 3

    def on_mouse_scroll_up(self, _event: events.MouseScrollUp) -> None:
        self.top -= 3
