"""Rows of a log: sanitised, in the colours the agent gave them, cut and padded to cells.

Colours of an agent are kept, but for those that would hide its text.
"""

import re
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from rich.color import Color, ColorType
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from autocoder.core.logs import PLAIN, Ink, InkSpan, sanitise_styled

StyledRow = tuple[str, tuple[InkSpan, ...]]
LEADING_INK = {
    "tool": Ink(colour=4),
    "text": Ink(colour=8),
    "note": Ink(colour=8),
    "error": Ink(colour=1),
    "autocoder:": Ink(colour=6),
}
"""First words of the lines that workers and backends write themselves."""
LEADING = re.compile(rf"(?:{'|'.join(LEADING_INK)})(?=\s)")
LEAST_ROOM = 8
MATCH_INK = Ink(colour=3, bold=True, underline=True)
FAINT_INK = Ink(dim=True)
UNREADABLE = frozenset({0, 16, *range(232, 240)})
"""Blacks of the 256-colour table: an agent may colour its text, not hide it."""


class Look(NamedTuple):
    """What decides about the rows of a log besides its lines."""

    width: int
    height: int
    words: str
    wrap: bool
    timed: bool


def inked(line: str) -> StyledRow:
    """A line sanitised, with its own colours, or else its first word toned by what it says."""
    text, inks = sanitise_styled(line)
    if not inks and (word := LEADING.match(text)):
        inks = (InkSpan(0, word.end(), LEADING_INK[word[0]]),)
    return text, inks


def rows_of(line: str, *, words: str, margin: str, room: int) -> list[StyledRow]:
    """A line with `words` marked and `margin` before it, wrapped to `room` cells unless it is 0."""
    text, inks = inked(line)
    if words:
        inks = _with_matches(text, inks, words)
    room -= len(margin)
    if room < LEAST_ROOM or cell_len(text) <= room:
        return [_shifted(margin, text, inks)]
    rows, at = [], 0
    for piece in chop_cells(text, room):
        end = at + len(piece)
        cut = tuple(
            InkSpan(max(span.start, at) - at, min(span.end, end) - at, span.ink)
            for span in inks
            if span.start < end and span.end > at
        )
        rows.append(_shifted(margin if not at else " " * len(margin), piece, cut))
        at = end
    return rows


def _shifted(margin: str, text: str, inks: tuple[InkSpan, ...]) -> StyledRow:
    if not margin:
        return text, inks
    by = len(margin)
    moved = (InkSpan(span.start + by, span.end + by, span.ink) for span in inks)
    return margin + text, (InkSpan(0, by, FAINT_INK), *moved)


def _with_matches(text: str, inks: tuple[InkSpan, ...], words: str) -> tuple[InkSpan, ...]:
    """The spans with every occurrence of `words` laid over them."""
    found = [match.span() for match in re.finditer(re.escape(words), text, re.IGNORECASE)]
    if not found:
        return inks
    per_character = [PLAIN] * len(text)
    for span in inks:
        per_character[span.start : span.end] = [span.ink] * (span.end - span.start)
    for start, end in found:
        per_character[start:end] = [MATCH_INK] * (end - start)
    spans, at = [], 0
    for ink, run in groupby(per_character):
        end = at + len(list(run))
        if ink != PLAIN:
            spans.append(InkSpan(at, end, ink))
        at = end
    return tuple(spans)


def painted_row(row: StyledRow, width: int, base: Style) -> Strip:
    """One row of a log in exactly `width` cells, an empty one in front."""
    text, inks = row
    segments = [Segment(" ", base)]
    at = 0
    for span in inks:
        if at < span.start:
            segments.append(Segment(text[at : span.start], base))
        segments.append(Segment(text[span.start : span.end], base + _style_of(span.ink)))
        at = span.end
    segments.append(Segment(text[at:], base))
    return Strip(segments).adjust_cell_length(width, base)


@lru_cache(maxsize=1024)
def _style_of(ink: Ink) -> Style:
    colour: Color | None = None
    if isinstance(ink.colour, tuple):
        if max(ink.colour) >= 0x60:
            colour = Color.from_rgb(*ink.colour)
    elif ink.colour is not None and ink.colour not in UNREADABLE:
        kind = ColorType.STANDARD if ink.colour < 16 else ColorType.EIGHT_BIT
        colour = Color(str(ink.colour), kind, number=ink.colour)
    return Style(
        color=colour,
        bold=ink.bold or None,
        dim=ink.dim or None,
        italic=ink.italic or None,
        underline=ink.underline or None,
        strike=ink.strike or None,
    )
