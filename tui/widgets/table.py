"""A table of keyed rows: cursor and marks stay with their row, whatever moves around it.

A row is repainted only when what it says has changed, so an idle fleet costs
nothing and a thousand rows cost what is visible.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, Generic

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.reactive import var
from textual.strip import Strip

from autocoder.tui.columns import Column, Row, columns_for
from autocoder.tui.palette import CURSOR, MARKED, MORE_ABOVE, MORE_BELOW, MORE_BOTH, Tone
from autocoder.tui.spans import Line, fit, joined, plain, width_of
from autocoder.tui.widgets.painted import Painted

GAP = "  "
GUTTER = 3


class Table(Painted, Generic[Row], can_focus=True):
    """Rows under a fixed line of titles."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "move(1)", "down", show=False, id="table.down"),
        Binding("k,up", "move(-1)", "up", show=False, id="table.up"),
        Binding("pagedown,ctrl+d", "page(1)", "page down", show=False, id="table.page_down"),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False, id="table.page_up"),
        Binding("g,home", "edge(0)", "first row", show=False, id="table.first"),
        Binding("G,end", "edge(-1)", "last row", show=False, id="table.last"),
        Binding("s", "sort", "sort by the next column", show=False, id="table.sort"),
        Binding("S", "reverse", "reverse the order", show=False, id="table.reverse"),
    ]

    cursor_key: var[str | None] = var(None, init=False)
    """Key of the row under the cursor; None where there is no row. To be watched, not set."""

    class MarksChanged(Message):
        """Other rows are marked than before."""

    def __init__(
        self,
        columns: Sequence[Column[Row]],
        key: Callable[[Row], str],
        clock: Callable[[], float],
        *,
        empty: Sequence[Line] = (),
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.empty = empty
        self._key = key
        self._clock = clock
        self._given: list[Row] = []
        self._hidden: frozenset[str] = frozenset()
        self._rows: list[Row] = []
        self._sorted_by: str = ""
        self._reversed = False
        self._index: dict[str, int] = {}
        self._cursor = 0
        self._top = 0
        self._widest: dict[str, int] = {}
        self._layout: list[tuple[Column[Row], int]] = []
        self._painted: dict[int, tuple[Line, str]] = {}
        self._chosen: str | None = None
        """Key of the row the user went to last, which a filter may hide meanwhile."""
        self.marks: frozenset[str] = frozenset()
        """Keys of all marked rows, those that a filter hides included."""

    # -- what it shows

    @property
    def cursor_row(self) -> Row | None:
        return self._rows[self._cursor] if self._rows else None

    @property
    def rows(self) -> Sequence[Row]:
        return self._rows

    def left_out(self, name: str) -> Line:
        """What the row under the cursor says in a column for which there is no room."""
        row = self.cursor_row
        if row is None or any(column.name == name for column, _ in self._layout):
            return ()
        column = next(column for column in self.columns if column.name == name)
        return column.cell(row, self._clock())

    @property
    def marks_shown(self) -> frozenset[str]:
        """Keys of the marked rows that no filter hides."""
        return self.marks & self._index.keys()

    @property
    def targets(self) -> list[Row]:
        """The marked rows, else the one under the cursor; never one that is not shown."""
        marked = [row for row in self._rows if self._key(row) in self.marks]
        return marked or self._rows[self._cursor : self._cursor + 1]

    def show(
        self, rows: Iterable[Row], *, hidden: Collection[str] = (), refiltered: bool = False
    ) -> None:
        """Replace the rows; the cursor stays on its key, or where it was when that is gone.

        `hidden` are the keys of rows that a filter holds back: they keep their marks. Only
        when it has been `refiltered` the cursor goes back to a row that was hidden.
        """
        before = self.cursor_key
        self._hidden = frozenset(hidden)
        self._given = list(rows)
        self._rows = self._in_order()
        self._index = {self._key(row): index for index, row in enumerate(self._rows)}
        if self._chosen not in self._index and self._chosen not in self._hidden:
            self._chosen = None
        if refiltered and self._chosen in self._index:
            before = self._chosen
        last = max(0, len(self._rows) - 1)
        moved = self._index.get(before) if before is not None else None
        if moved is not None and self._top:
            # The row stays at its place on the screen when others come or go above it; but
            # where the first rows are seen they go on being seen: the worst comes first.
            self._top += moved - self._cursor
        self._cursor = min(self._cursor, last) if moved is None else moved
        gone = self.marks - self._index.keys() - self._hidden
        if gone:
            self.marks -= gone
            self.post_message(self.MarksChanged())
        self._scroll_to_cursor()
        self._measure()
        self._arrange()
        self.update_lines()
        self._tell_cursor()

    def _in_order(self) -> list[Row]:
        column = next((each for each in self.columns if each.name == self._sorted_by), None)
        if column is None:
            return self._given[::-1] if self._reversed else list(self._given)
        now, order, cell = self._clock(), column.order, column.cell
        keyed = [
            (order(row) if order else plain(cell(row, now)).casefold(), row) for row in self._given
        ]
        known = [pair for pair in keyed if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=self._reversed)  # type: ignore[arg-type, return-value]
        return [row for _, row in known] + [row for value, row in keyed if value is None]

    def go_to(self, key: str) -> bool:
        """Put the cursor on a row; False when it is not shown."""
        if key not in self._index:
            return False
        self._move_to(self._index[key])
        return True

    def mark(self, keys: Iterable[str]) -> None:
        """Afterwards these rows are marked, of those shown or marked before, and no others."""
        self.marks = frozenset(keys) & (self._index.keys() | self.marks)
        self.update_lines()
        self.post_message(self.MarksChanged())

    def update_lines(self) -> None:
        """Repaint the lines whose words, marks or cursor differ from what was painted."""
        width = self.size.width
        for y in range(self.size.height):
            if self._painted.get(y) != self._line(y):
                self.refresh(Region(0, y, width, 1))

    # -- painting

    def render_line(self, y: int) -> Strip:
        line, style = self._painted[y] = self._line(y)
        return self.paint(line, self.size.width, style)

    def _line(self, y: int) -> tuple[Line, str]:
        if y == 0:
            titles = [
                fit(self._title(column), width, right=column.right)
                for column, width in self._layout
            ]
            return self._joined(((f" {self._more} ", Tone.ACCENT),), titles), ""
        if not self._rows:
            return (self.empty[y - 1] if y <= len(self.empty) else ()), ""
        index = self._top + y - 1
        if index >= len(self._rows):
            return (), ""
        row, now = self._rows[index], self._clock()
        here, marked = index == self._cursor, self._key(row) in self.marks
        glyph = MARKED if marked else CURSOR if here else " "
        gutter: Line = ((f" {glyph} ", Tone.ACCENT),)
        cells = [
            fit(column.cell(row, now), width, right=column.right) for column, width in self._layout
        ]
        style = "row--cursor" if here else "row--marked" if marked else ""
        return self._joined(gutter, cells), style

    @property
    def _more(self) -> str:
        """Where there are rows that are not seen."""
        above, below = self._top > 0, self._top + self._visible < len(self._rows)
        if above and below:
            return MORE_BOTH
        return MORE_ABOVE if above else MORE_BELOW if below else " "

    def _title(self, column: Column[Row]) -> Line:
        if column.name != self._sorted_by:
            return ((column.title, Tone.DIM),)
        arrow = "▴" if self._reversed else "▾"
        return ((column.title, Tone.ACCENT), (arrow, Tone.ACCENT))

    def _joined(self, gutter: Line, cells: Iterable[Line]) -> Line:
        return (*gutter, *joined(cells, GAP))

    def _measure(self) -> None:
        # Only ever wider, so that columns stand still while rows come and go.
        now = self._clock()
        shown = self._rows[self._top : self._top + self._visible]
        for column in self.columns:
            if column.natural:
                widest = max((width_of(column.cell(row, now)) for row in shown), default=0)
                known = self._widest.get(column.name, column.least)
                self._widest[column.name] = max(known, min(widest, column.most))

    def _arrange(self) -> None:
        room = self.size.width - GUTTER - 1
        columns = [
            replace(column, least=width, most=width)
            if (width := self._widest.get(column.name))
            else column
            for column in self.columns
        ]
        layout = columns_for(columns, room, len(GAP))
        if sum(width + len(GAP) for _, width in layout) - len(GAP) > room:
            # Too narrow even for what must stay: then as little of each as can be read.
            layout = columns_for(self.columns, room, len(GAP))
        if layout != self._layout:
            self._layout = layout
            self.refresh()

    # -- moving

    def on_mount(self) -> None:
        self.set_interval(1.0, self.update_lines)

    def on_resize(self, _event: events.Resize) -> None:
        self._painted.clear()
        self._scroll_to_cursor()
        self._measure()
        self._arrange()
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        if event.y >= 1:
            self._move_to(self._top + event.y - 1)

    def on_mouse_scroll_down(self, _event: events.MouseScrollDown) -> None:
        self._move_to(self._cursor + 3)

    def on_mouse_scroll_up(self, _event: events.MouseScrollUp) -> None:
        self._move_to(self._cursor - 3)

    def action_move(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def action_page(self, pages: int) -> None:
        self._move_to(self._cursor + pages * max(1, self._visible - 1))

    def action_edge(self, index: int) -> None:
        self._move_to(index if index >= 0 else len(self._rows) - 1)

    def action_sort(self) -> None:
        names = ["", *(column.name for column, _ in self._layout)]
        at = names.index(self._sorted_by) if self._sorted_by in names else 0
        self._sorted_by = names[(at + 1) % len(names)]
        self.show(self._given, hidden=self._hidden)

    def action_reverse(self) -> None:
        self._reversed = not self._reversed
        self.show(self._given, hidden=self._hidden)

    @property
    def _visible(self) -> int:
        return max(0, self.size.height - 1)

    def _move_to(self, index: int) -> None:
        index = max(0, min(index, len(self._rows) - 1))
        if index != self._cursor:
            self._cursor = index
            self._scroll_to_cursor()
            self._measure()
            self._arrange()
            self.update_lines()
            self._tell_cursor()
        self._chosen = self.cursor_key

    def _tell_cursor(self) -> None:
        # By a watcher, not a message: what shows the row is then painted in the same frame.
        self.cursor_key = self._key(self._rows[self._cursor]) if self._rows else None

    def _scroll_to_cursor(self) -> None:
        highest = max(0, len(self._rows) - self._visible)
        self._top = min(max(self._top, self._cursor - self._visible + 1), self._cursor, highest)
        self._top = max(0, self._top)
