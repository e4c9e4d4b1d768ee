"""Some lines of a log around any place of it, as many as somebody looks at and a few more.

Lines are numbered from the one that was entered, so that a number keeps its
line while others come and go before and behind it.
"""

import threading
from collections.abc import Callable
from typing import Final

from autocoder.core.log_files import LogFiles
from autocoder.core.log_lines import chunk_after, chunk_before, line_start

WINDOW_BYTES: Final = 8 * 1024 * 1024
GAP: Final = "… what stood here is gone".encode()


class LogWindow:
    """One thread polls, another enters, wants and reads; neither waits for the other's disk."""

    def __init__(self, log: LogFiles, *, max_lines: int = 10_000) -> None:
        """Nothing is read before a place is entered."""
        self.log = log
        self._max_lines = max_lines
        self._wish: Callable[[LogFiles], int] | None = None
        self._wanted = (0, 0)
        self._ready = False
        self._lines: list[bytes] = []
        self._offsets: list[int] = []
        self._first = 0
        self._finished = True
        self._start = self._end = 0
        self._bytes = 0
        self._lock = threading.Lock()

    def enter(self, where: Callable[[LogFiles], int]) -> None:
        """Line 0 becomes the one at this offset, asked for once the log has been opened."""
        with self._lock:
            self._wish, self._ready, self._wanted = where, False, (0, 0)

    def leave(self) -> None:
        """Nobody looks any more: nothing is read, and no line kept, until a place is entered."""
        with self._lock:
            self._wish, self._ready = None, False
            self._lines, self._offsets, self._first, self._bytes = [], [], 0, 0

    def want(self, start: int, stop: int) -> None:
        """Have `poll` read on until these lines are there, as far as the log has them."""
        self._wanted = start, stop

    @property
    def ready(self) -> bool:
        """Whether the lines are those of the place entered last."""
        return self._ready

    @property
    def bounds(self) -> tuple[int, int]:
        """Numbers of the first line that is there and of the one after the last."""
        with self._lock:
            return self._first, self._first + len(self._lines)

    @property
    def at_end(self) -> bool:
        """Whether the last line that is there is the last one of the log."""
        return self._end >= self.log.end

    def lines(self, start: int, stop: int) -> list[str]:
        """Lines numbered `start` up to `stop`, as far as they are there; not sanitised."""
        with self._lock:
            kept = self._lines[max(start - self._first, 0) : max(stop - self._first, 0)]
        return [line.decode("utf-8", "replace") for line in kept]

    def offset_of(self, number: int) -> int:
        """Where in the log line `number` begins; of one that is not there, where the next does."""
        with self._lock:
            index = max(number - self._first, 0)
            return self._offsets[index] if index < len(self._offsets) else self._end

    def poll(self) -> bool:
        """Read a block of what is wanted, where there is more; True when anything differs."""
        if self._wish is None and not self._ready and not self.log.timed:
            return False
        differs = self.log.refresh()
        with self._lock:
            wish, ready = self._wish, self._ready
        if wish is not None:
            self._enter(wish)
            return True
        if not ready:
            return differs
        first, stop = self._wanted
        if first < self._first and self._start > self.log.start:
            return self._read_before() or differs
        if stop > self._first + len(self._lines) - (not self._finished) and not self.at_end:
            return self._read_after() or differs
        return differs

    def _enter(self, wish: Callable[[LogFiles], int]) -> None:
        at = line_start(self.log, max(self.log.start, min(wish(self.log), self.log.end)))
        below = chunk_after(self.log, at)
        above = chunk_before(self.log, at)
        with self._lock:
            if self._wish is not wish:
                return
            self._wish = None
            self._lines, self._offsets, self._first, self._bytes = [], [], 0, 0
            self._start = self._end = at
            self._finished = True
            if below is not None:
                self._append(below.lines(), below.offsets(), below.end, finished=below.finished)
            if above is not None:
                self._prepend(above.lines(), above.offsets())
            self._ready = True

    def _read_before(self) -> bool:
        chunk = chunk_before(self.log, self._start)
        if chunk is None:
            return False
        lines, offsets = chunk.lines(), chunk.offsets()
        with self._lock:
            if self._ready:
                self._prepend(lines, offsets)
                self._let_go_last()
            return self._ready

    def _read_after(self) -> bool:
        start = self.log.start
        with self._lock:
            grows = not self._finished and bool(self._lines) and self._offsets[-1] >= start
            at = self._offsets[-1] if grows else max(self._end, start)
            lost = self._end < start
        chunk = chunk_after(self.log, at)
        if chunk is None:
            return False
        lines, offsets = chunk.lines(), chunk.offsets()
        with self._lock:
            if self._ready:
                if lost and self._lines:
                    self._append([GAP], [self._end], self._end, finished=True)
                elif grows:
                    self._bytes -= len(self._lines.pop())
                    self._offsets.pop()
                self._append(lines, offsets, chunk.end, finished=chunk.finished)
                self._let_go_first()
            return self._ready

    def _append(self, lines: list[bytes], offsets: list[int], end: int, *, finished: bool) -> None:
        most = self._max_lines // 2
        if len(lines) > most:
            end, finished = offsets[most], True
        self._lines += lines[:most]
        self._offsets += offsets[:most]
        self._bytes += sum(map(len, lines[:most]))
        self._end, self._finished = end, finished

    def _prepend(self, lines: list[bytes], offsets: list[int]) -> None:
        lines, offsets = lines[-self._max_lines // 2 :], offsets[-self._max_lines // 2 :]
        self._lines[:0] = lines
        self._offsets[:0] = offsets
        self._bytes += sum(map(len, lines))
        self._first -= len(lines)
        self._start = offsets[0]

    def _let_go_first(self) -> None:
        count = 0
        while self._too_many(count):
            self._bytes -= len(self._lines[count])
            count += 1
        if count:
            del self._lines[:count], self._offsets[:count]
            self._first += count
            self._start = self._offsets[0]

    def _let_go_last(self) -> None:
        count = 0
        while self._too_many(count):
            count += 1
            self._bytes -= len(self._lines[-count])
        if count:
            self._end, self._finished = self._offsets[-count], True
            del self._lines[-count:], self._offsets[-count:]

    def _too_many(self, gone: int) -> bool:
        left = len(self._lines) - gone
        return left > 1 and (left > self._max_lines or self._bytes > WINDOW_BYTES)
