"""Lines of toned text, fitted into cells: the one currency between render and widgets.

A line is a tuple of (text, tone), compared by value, so that a widget repaints
what changed and nothing else.
"""

import time
from collections.abc import Iterable
from itertools import groupby

from rich.cells import cell_len, set_cell_size

from autocoder.tui.palette import Tone

Span = tuple[str, Tone]
Line = tuple[Span, ...]
LEAST_WRAP = 16


def plain(line: Line) -> str:
    return "".join(text for text, _ in line)


def width_of(line: Iterable[Span]) -> int:
    return sum(cell_len(text) for text, _ in line)


def clip(text: str, width: int) -> str:
    """`text` in at most `width` cells, its end replaced by an ellipsis when it is longer."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…" if width > 0 else ""


def fit(line: Line, width: int, *, right: bool = False) -> Line:
    """`line` in exactly `width` cells."""
    spare = width - width_of(line)
    if spare >= 0:
        pad = (" " * spare, Tone.PLAIN)
        return ((pad, *line) if right else (*line, pad)) if spare else line
    kept: list[Span] = []
    left = width
    for text, tone in line:
        shown = clip(text, left) if cell_len(text) >= left else text
        kept.append((shown, tone))
        left -= cell_len(shown)
        if left <= 0 or shown != text:
            break
    if left > 0:
        kept.append((" " * left, Tone.PLAIN))
    return tuple(kept)


def spread(left: Line, right: Line, width: int) -> Line:
    """`left` at the left edge, `right` at the right one; where both do not fit, `left` is cut."""
    room = width - width_of(right)
    if room < 8:
        return fit(left, width)
    return fit(left, room) + right


def joined(pieces: Iterable[Line], gap: str) -> Line:
    spans: list[Span] = []
    for piece in pieces:
        if spans:
            spans.append((gap, Tone.PLAIN))
        spans.extend(piece)
    return tuple(spans)


def wrapped(line: Line, width: int, hang: int = 2) -> list[Line]:
    """`line` in rows of at most `width` cells, broken between words.

    Later rows are indented like the first, and by `hang` more.
    """
    if width_of(line) <= width or width < LEAST_WRAP:
        return [line]
    text = plain(line)
    tones = [tone for piece, tone in line for _ in piece]
    indent = min(len(text) - len(text.lstrip()) + hang, width // 2)
    rows: list[Line] = []
    start = 0
    while start < len(text):
        lead = indent if rows else 0
        end = start + _fitting(text, start, width - lead)
        space = text.rfind(" ", start + 1, end + 1) if end < len(text) else -1
        if space > 0 and text[start:space].strip():
            end = space
        row = tuple((text[at], tones[at]) for at in range(start, end))
        rows.append(((" " * lead, Tone.PLAIN), *_merged(row)) if lead else _merged(row))
        start = end
        while rows and text[start : start + 1] == " ":
            start += 1
    return rows


def _fitting(text: str, start: int, width: int) -> int:
    """How many characters from `start` on fit, at least one."""
    used = count = 0
    # A character has two marks at most: more than this never fits.
    for char in text[start : start + 3 * width + 3]:
        used += cell_len(char)
        if used > width:
            break
        count += 1
    return max(1, count)


def _merged(row: Line) -> Line:
    """Neighbours of one tone as one span."""
    return tuple(
        ("".join(text for text, _ in run), tone)
        for tone, run in groupby(row, key=lambda span: span[1])
    )


# -- numbers


def duration(seconds: float) -> str:
    """At most five characters: 9s, 4m12, 3h05, 12d."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}"
    return f"{whole // 86400}d"


def age(since: float, now: float) -> str:
    """At most five characters: 9s, 4m, 3h05, 12d.

    Beyond a minute it moves with the clock's minutes, all of a screen together, so
    that nothing is repainted in between.
    """
    passed = int(max(0.0, now - since))
    if passed >= 60:
        passed = max(60, int(now - now % 60 - since))
    if passed >= 3600:
        return duration(passed)
    return f"{passed}s" if passed < 60 else f"{passed // 60}m"


def size(count: float) -> str:
    """At most five characters: 512, 9.1K, 214K, 1.4G."""
    for unit in ("", "K", "M", "G"):
        if count < 999.5:
            small = unit and count < 9.95
            return f"{count:.1f}{unit}" if small else f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}T"


def amount(count: int) -> str:
    """A count in thousands, at most five characters: 812, 9.1k, 214k, 1.4M."""
    if count < 1000:
        return str(count)
    value, unit = (count / 1000, "k") if count < 999_500 else (count / 1_000_000, "M")
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"


def clock(now: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now))


def hour_and_minute(now: float) -> str:
    return time.strftime("%H:%M", time.localtime(now))


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
