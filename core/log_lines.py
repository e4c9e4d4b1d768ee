"""The lines at any place of a log, in blocks, towards its end or its beginning.

A line begins behind a line feed. Where 16 MiB, counted from a multiple of that, hold
none, one begins behind them as well: so what a line is does not depend on where
reading began, and no place is more than a few blocks from the beginning of one.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from autocoder.core.log_files import LogFiles
from autocoder.core.logs import SHOWN_LIMIT, clipped

BLOCK: Final = 256 * 1024
LONGEST: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines, or the last one of a log as far as it has come."""

    start: int
    end: int
    text: bytes
    finished: bool = True
    """Whether nothing can be added to the last line any more."""
    length: int = 0
    """Of a line longer than a block, which comes alone: of `text` it has only what may be shown."""

    def raw_lines(self) -> list[bytes]:
        return self.text.removesuffix(b"\n").split(b"\n")

    def lines(self) -> list[bytes]:
        """As they are shown."""
        if self.length > len(self.text):
            return [clipped(self.text, self.length)]
        return [clipped(line) if len(line) > SHOWN_LIMIT else line for line in self.raw_lines()]

    def offsets(self) -> list[int]:
        """Where each line begins."""
        steps = (len(line) + 1 for line in self.raw_lines()[:-1])
        return list(accumulate(steps, initial=self.start))


def chunk_after(log: LogFiles, at: int) -> Chunk | None:
    """The lines from `at` on, where one begins; None at the end."""
    text = log.read(at, BLOCK)
    if len(text) < BLOCK:
        return Chunk(at, at + len(text), text, text.endswith(b"\n")) if text else None
    if whole := text.rfind(b"\n") + 1:
        return Chunk(at, at + whole, text[:whole])
    return _long_line(log, at, _line_end(log, at))


def chunk_before(log: LogFiles, at: int) -> Chunk | None:
    """The lines up to `at`, where one begins or the log ends; None at its beginning."""
    start = max(log.start, at - BLOCK)
    text = log.read(start, at - start)
    if len(text) < at - start or not text:
        return None
    if start == log.start:
        return Chunk(start, at, text, text.endswith(b"\n"))
    if cut := text.find(b"\n", 0, -1) + 1:
        return Chunk(start + cut, at, text[cut:], text.endswith(b"\n"))
    return _long_line(log, line_start(log, at - 1), at)


def line_start(log: LogFiles, at: int) -> int:
    """Where the line begins that the byte at `at` belongs to."""
    forced = at - at % LONGEST
    least = max(log.start, forced - LONGEST)
    for end in range(at, least, -BLOCK):
        start = max(least, end - BLOCK)
        if found := log.read(start, end - start).rfind(b"\n") + 1:
            return start + found
    return forced if forced - LONGEST >= log.start else log.start


def _line_end(log: LogFiles, at: int) -> int:
    """Behind the line that begins at `at`."""
    forced = -(-at // LONGEST) * LONGEST + LONGEST
    for start in range(at, forced, BLOCK):
        size = min(BLOCK, forced - start)
        text = log.read(start, size)
        if found := text.find(b"\n") + 1:
            return start + found
        if len(text) < size:
            return start + len(text)
    return forced


def _long_line(log: LogFiles, start: int, end: int) -> Chunk:
    ended = log.read(end - 1, 1) == b"\n"
    stop, room = end - ended, 2 * SHOWN_LIMIT
    text = log.read(start, min(room, stop - start))
    if b"\r" in text:
        # A progress bar that has redrawn itself many times: its latest state counts.
        text = log.read(max(start, stop - room), min(room, stop - start))
    return Chunk(start, end, text, ended or end < log.end, stop - start)
