"""Looking for words through all of a log, block by block.

Most blocks are passed over as a whole; only in those that may hold the words is
one line looked at after the other.
"""

from collections.abc import Iterator
from typing import NamedTuple

from autocoder.core.log_files import LogFiles
from autocoder.core.log_lines import Chunk, chunk_after, chunk_before, line_start
from autocoder.core.logs import may_show, shown_part, shows


class Match(NamedTuple):
    """A line that was found."""

    offset: int
    words: str
    """Which of those looked for it shows, casefolded."""


def search(
    log: LogFiles, words: tuple[str, ...], step: int, start: int | None = None
) -> Iterator[tuple[int, Match | None]]:
    """Look for the nearest line that shows one of `words`, in either case.

    With `step` 1 among the lines that begin at `start` or later, with -1 among those
    before it; None is the one end of the log or the other. Yields, block by block, the
    part of the way that is done, in per cent, and the line once it is found.
    """
    wanted = tuple(each.casefold() for each in words)
    first, last = log.start, log.end
    if step > 0:
        start = first if start is None else start
        at, way = line_start(log, start), last - start
    else:
        start = last if start is None else start
        at, way = start, start - first
    found: Match | None = None
    while found is None and (chunk := (chunk_after if step > 0 else chunk_before)(log, at)):
        at = chunk.end if step > 0 else chunk.start
        if may_show(chunk.text, *wanted):
            found = _nearest(chunk, wanted, start, step)
        yield min(100, abs(at - start) * 100 // max(1, way)), found


def _nearest(chunk: Chunk, wanted: tuple[str, ...], start: int, step: int) -> Match | None:
    lines = list(zip(chunk.offsets(), chunk.raw_lines(), strict=True))
    for offset, line in lines[::step]:
        shown = shown_part(line)
        if (step < 0 or offset >= start) and shows(shown, *wanted):
            return Match(offset, next(each for each in wanted if shows(shown, each)))
    return None
