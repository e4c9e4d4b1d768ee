"""Which rows of a log are on show: its last ones, or those from a line of it on.

The end is followed in the tail, which is in memory anyway. Whoever leaves it looks at
the log's files through a window, which reads around the line at the top and no more.
"""

from collections.abc import Callable

from autocoder.core.log_files import LogFiles
from autocoder.core.log_window import LogWindow
from autocoder.core.logs import LogTail
from autocoder.tui.spans import clock
from autocoder.tui.widgets.log_rows import Look, StyledRow, rows_of

AHEAD = 3
"""Screens that are read before they are scrolled to."""


class LogView:
    """The place in one log, in rows: of a wrapped line, the upper ones may be above the screen."""

    def __init__(self, tail: LogTail) -> None:
        self.log = LogFiles(tail.path)
        self.window = LogWindow(self.log)
        self.following = True
        self._tail = tail
        self._top = 0
        self._above = 0
        """Rows of the top line that are above the screen."""
        self._by = 0
        """Rows to go from there, once the window has them."""
        self._bottom = 0

    # -- moving

    def follow(self) -> None:
        self.following = True
        self.window.leave()

    def stand_still(self) -> None:
        """What is shown stays, whatever the log goes on to say."""
        if self.following:
            place, above = self._tail.place_of(self._top), self._above
            self._enter(lambda log: log.end if (at := log.offset_of(place)) is None else at)
            self._above = above

    def go_to_first(self) -> None:
        """To the first line that is still there, in `log.1` if need be."""
        self._enter(lambda log: log.start)

    def go_to(self, offset: int, *, row: int) -> None:
        """Show the line that begins there, with `row` rows above it as far as there are any."""
        self._enter(lambda _: offset)
        self._by = -row

    def scroll(self, by: int) -> None:
        """Move by rows; beyond the end is to follow it."""
        if not self.following or by < 0:
            self.stand_still()
            self._by += by

    def _enter(self, where: Callable[[LogFiles], int]) -> None:
        self.following = False
        self._top = self._above = self._by = 0
        self.window.enter(where)

    @property
    def offset(self) -> int | None:
        """Where the line at the top begins; None while the end is followed."""
        return None if self.following else self.window.offset_of(self._top)

    @property
    def size(self) -> int:
        """Bytes of the file that is followed, or of all that can be gone through."""
        return self._tail.size if self.following else self.log.end - self.log.start

    @property
    def passed(self) -> int:
        """How much of the log is above the lower edge, in per cent."""
        passed = self.window.offset_of(self._bottom) - self.log.start
        return passed * 100 // max(1, self.size)

    # -- the rows

    def rows(self, look: Look) -> list[StyledRow] | None:
        """The rows on show; None while what is to be shown has not been read yet."""
        if not self.following:
            if not self.window.ready:
                return None
            self._settle(look)
        return self._rows_at_end(look) if self.following else self._rows_from_top(look)

    def _rows_at_end(self, look: Look) -> list[StyledRow]:
        first, end = self._tail.bounds
        rows: list[StyledRow] = []
        self._top, self._above = end, 0
        while self._top > first and len(rows) < look.height:
            # Wrapped lines fill the pane before `height` of them are read.
            start = max(first, self._top - look.height)
            for line in reversed(self._tail.lines(start, self._top)):
                self._top -= 1
                offset = self.log.offset_of(self._tail.place_of(self._top)) if look.timed else None
                rows[:0] = self._rows_of(line, offset, look)
                if len(rows) >= look.height:
                    break
            else:
                self._top = start
        self._above = max(0, len(rows) - look.height)
        return rows[self._above :]

    def _rows_from_top(self, look: Look) -> list[StyledRow]:
        self.window.want(self._top - AHEAD * look.height, self._top + (AHEAD + 1) * look.height)
        rows: list[StyledRow] = []
        self._bottom = self._top
        for line in self.window.lines(self._top, self._top + look.height):
            rows += self._rows_of(line, self.window.offset_of(self._bottom), look)
            self._bottom += 1
            if len(rows) >= self._above + look.height:
                break
        return rows[self._above : self._above + look.height]

    def _rows_of(self, line: str, offset: int | None, look: Look) -> list[StyledRow]:
        margin = ""
        if look.timed and self.log.times_known:
            moment = None if offset is None else self.log.written_at(offset)
            margin = f"{clock(moment)}  " if moment is not None else " " * 10
        room = look.width - 2 if look.wrap else 0
        return rows_of(line, words=look.words, margin=margin, room=room)

    # -- settling where the top is

    def _settle(self, look: Look) -> None:
        """Go the rows that are still to go, as far as there is text."""
        first, end = self.window.bounds
        self._top = max(first, min(self._top, end - 1))
        self._above = min(self._above, self._height(self._top, look) - 1)
        by, self._by = self._by, 0
        if by > 0:
            room = self._rows_below(look, look.height + by) - look.height
            if room < by and self.window.at_end:
                self.follow()
                return
            by = max(0, min(by, room))
        self._move(by, look)
        if self.window.at_end:
            self._move(min(0, self._rows_below(look, look.height) - look.height), look)

    def _move(self, by: int, look: Look) -> None:
        first, _ = self.window.bounds
        self._above += by
        while self._above < 0 and self._top > first:
            self._top -= 1
            self._above += self._height(self._top, look)
        self._above = max(0, self._above)
        while self._above >= (height := self._height(self._top, look)):
            self._top += 1
            self._above -= height

    def _rows_below(self, look: Look, most: int) -> int:
        """How many rows there are from the top of the screen on, counted up to `most`."""
        number, count = self._top, -self._above
        end = self.window.bounds[1]
        while number < end and count < most:
            count += self._height(number, look)
            number += 1
        return min(count, most)

    def _height(self, number: int, look: Look) -> int:
        if not look.wrap:
            return 1
        lines = self.window.lines(number, number + 1)
        return len(self._rows_of(lines[0], self.window.offset_of(number), look)) if lines else 1
