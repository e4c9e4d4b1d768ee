"""An agent's log: where it is, the tail of it, and what of it may reach a screen.

Log bytes never travel through a queue: whoever shows a log follows the file by
offset. The file keeps everything; only what is shown is clipped, and all of it
goes through `sanitise`, because an agent's output is hostile text.
"""

import contextlib
import os
import re
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

SHOWN_LIMIT: Final = 4096
"""Longest part of one line that is kept for display, in bytes."""
_BLOCK: Final = 256 * 1024
_BURST: Final = 1024 * 1024
_WINDOW_BYTES: Final = 8 * 1024 * 1024


def log_path(project_dir: Path, agent_id: str) -> Path:
    """The agent's log; `log.1` beside it is what was written before the last rotation."""
    return project_dir / ".autocoder" / "agents" / agent_id / "log"


def add_line(path: Path, text: str) -> None:
    """Let an ended agent's log end with this line; one that has none, or a full disk, stays so."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        with open(fd, "wb", buffering=0) as log:
            log.write(sanitise(text).encode("utf-8", "replace") + b"\n")


class Place(NamedTuple):
    """A byte of a log, wherever rotation takes its file."""

    inode: tuple[int, int]
    """Device and number; `NO_FILE` once the file has been cut short since, or long gone."""
    offset: int


NO_FILE: Final = (0, 0)


class LogTail:
    """The last lines of a file that grows, is rotated, truncated or removed while it is read.

    One thread may poll while another reads lines. Lines are numbered from the
    first one ever seen, so that a number keeps its line when older ones are let go.
    """

    def __init__(self, path: Path, *, max_lines: int = 10_000, start: int = _BLOCK) -> None:
        """Nothing is opened yet; a file is entered `start` bytes from its end, at most 1 MiB."""
        self.path = path
        self._max_lines = max_lines
        self._start = min(start, _BURST)
        self._fd = -1
        self._inode = NO_FILE
        self._files: list[tuple[int, tuple[int, int]]] = []
        """From which line on which file was read."""
        self._offset = 0
        self._lines: list[bytes] = []
        self._offsets: list[int] = []
        self._kept_bytes = 0
        self._first = 0
        self._partial = b""
        self._partial_cut = 0
        self._partial_offset = 0
        self._lock = threading.Lock()

    def poll(self) -> bool:
        """Take in what was written since; True when a line was added, changed or let go.

        A file that does not exist yet is simply empty. Never reads more than
        1 MiB: of a flood beyond that only the end is taken.
        """
        if self._fd < 0 and not self._open(from_end=True):
            return False
        with self._lock:
            changed = self._read()
            if not changed and self._replaced():
                self._end_partial()
                os.close(self._fd)
                self._fd = -1
                changed = self._open(from_end=False) and self._read()
            return changed

    def close(self) -> None:
        """Give the descriptor back; what was read stays readable."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def size(self) -> int:
        """Bytes of the file up to where it has been read."""
        return self._offset

    @property
    def bounds(self) -> tuple[int, int]:
        """Numbers of the first kept line and of the one after the last."""
        with self._lock:
            return self._bounds()

    def lines(self, start: int, stop: int) -> list[str]:
        """Lines numbered `start` up to `stop`, as far as kept; not sanitised."""
        with self._lock:
            first, end = self._bounds()
            start, stop = max(start, first), min(stop, end)
            kept = self._lines[start - first : max(stop - first, 0)]
            if stop == end and self._partial and start < stop:
                kept = [*kept, self._partial]
        return [line.decode("utf-8", "replace") for line in kept]

    def place_of(self, number: int) -> Place:
        """Where line `number` begins; of one that was let go, where the first kept one does."""
        with self._lock:
            number = max(number, self._first)
            index = number - self._first
            offset = self._offsets[index] if index < len(self._offsets) else self._partial_offset
            inodes = (inode for first, inode in reversed(self._files) if first <= number)
            return Place(next(inodes, NO_FILE), offset)

    def _bounds(self) -> tuple[int, int]:
        return self._first, self._first + len(self._lines) + bool(self._partial)

    def _open(self, *, from_end: bool) -> bool:
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        status = os.fstat(self._fd)
        self._inode = (status.st_dev, status.st_ino)
        self._offset = max(0, status.st_size - self._start) if from_end else 0
        self._files = [*self._files[-1:], (self._first + len(self._lines), self._inode)]
        self._begin_partial()
        return True

    def _read(self) -> bool:
        size = os.fstat(self._fd).st_size
        changed = False
        if size < self._offset:
            self._end_partial()
            self._offset = 0
            self._files = [(self._first + len(self._lines), self._inode)]
            self._begin_partial()
            changed = True
        if size - self._offset > _BURST:
            self._first += len(self._lines) + bool(self._partial)
            self._lines, self._offsets, self._kept_bytes = [], [], 0
            self._offset = size - self._start
            self._begin_partial()
        budget = _BURST
        while budget > 0:
            try:
                data = os.pread(self._fd, min(_BLOCK, budget), self._offset)
            except OSError:
                # A folder, or a disk that fails: what was read before stays on show.
                return changed
            if not data:
                break
            self._take(data)
            budget -= len(data)
            changed = True
        return changed

    def _replaced(self) -> bool:
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) != self._inode

    def _take(self, data: bytes) -> None:
        position = self._offset
        self._offset += len(data)
        *complete, rest = data.split(b"\n")
        for piece in complete:
            if self._partial or self._partial_cut:
                self._extend_partial(piece)
                self._end_partial()
            else:
                self._add(piece, position)
            position += len(piece) + 1
            self._partial_offset = position
        if rest:
            self._extend_partial(rest)
        self._let_go()

    def _begin_partial(self) -> None:
        self._partial_offset = self._offset
        # Entered in the middle, the first line lacks its beginning.
        self._partial = "…".encode() if self._offset else b""
        self._partial_cut = 0

    def _extend_partial(self, piece: bytes) -> None:
        shown = shown_part(self._partial + piece[: SHOWN_LIMIT * 2])
        self._partial_cut += len(self._partial) + len(piece) - len(shown)
        self._partial = shown

    def _end_partial(self) -> None:
        if self._partial:
            self._add(self._partial, self._partial_offset, self._partial_cut)
        self._partial, self._partial_cut = b"", 0

    def _add(self, line: bytes, offset: int, cut: int = 0) -> None:
        if cut or len(line) > SHOWN_LIMIT:
            line = clipped(line, len(line) + cut)
        self._lines.append(line)
        self._offsets.append(offset)
        self._kept_bytes += len(line)

    def _let_go(self) -> None:
        # In steps of an eighth, so that a steady flood does not move the list at every poll.
        slack = self._max_lines // 8
        if len(self._lines) <= self._max_lines + slack and self._kept_bytes <= _WINDOW_BYTES:
            return
        count = max(len(self._lines) - self._max_lines, 0)
        freed = sum(map(len, self._lines[:count]))
        while self._kept_bytes - freed > _WINDOW_BYTES * 7 // 8 and count < len(self._lines) - 1:
            freed += len(self._lines[count])
            count += 1
        del self._lines[:count], self._offsets[:count]
        self._kept_bytes -= freed
        self._first += count


def shown_part(line: bytes) -> bytes:
    """What of a line is kept for display."""
    if len(line) > SHOWN_LIMIT and (redrawn := line.rfind(b"\r", 0, -1)) >= 0:
        # A progress bar that has redrawn itself many times: its latest state counts.
        line = line[redrawn + 1 :]
    return line[:SHOWN_LIMIT]


def clipped(line: bytes, length: int = 0) -> bytes:
    """`shown_part` of a line of `length` bytes, or its own length, and how many are not shown."""
    shown = shown_part(line)
    return shown + f" … {max(length, len(line)) - len(shown)} more bytes".encode()


@dataclass(frozen=True, slots=True)
class Ink:
    """How an agent coloured a piece of its text; backgrounds, blinking and hiding are dropped."""

    colour: int | tuple[int, int, int] | None = None
    """Number in the 256-colour table, or red, green and blue; None is the screen's own."""
    bold: bool = False
    dim: bool = False
    italic: bool = False
    underline: bool = False
    strike: bool = False


@dataclass(frozen=True, slots=True)
class InkSpan:
    """`ink` from character `start` up to `end`."""

    start: int
    end: int
    ink: Ink


PLAIN: Final = Ink()
MARKS_LIMIT: Final = 2
"""Combining marks kept on one character; Vietnamese needs two."""
_UNUSUAL = re.compile(r"[^ -~]")
_SEQUENCE = re.compile(
    # ECMA-48: CSI, in seven and in eight bits, complete or cut off
    r"(?:\x1b\[|\x9b)(?P<parameters>[0-?]*)[ -/]*(?P<final>[@-~]?)"
    # OSC, DCS, SOS, PM and APC up to their terminator, BEL, or the end
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    # every other escape
    r"|\x1b[ -/]*[0-~]?"
)
_OVERSTRUCK = re.compile(r"[^\x08]\x08")


_COLOUR = re.compile(rb"\x1b\[[0-9;:]*m")
_ODD = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u0300-\u036f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\U0001f3fb-\U0001f3ff]"
)
_ASCII = bytes(range(0x80))
_CONTROLS = bytes(code for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n")
"""Of `_ODD` what is ASCII, but for what ends a line."""


def shows(line: bytes, *wanted: str) -> bool:
    """Whether one of `wanted`, casefolded, can be read in a line of a log, whatever its colours."""
    # Of the many lines that a search sees, most need no more than their colours taken out.
    text = _uncoloured(line).rstrip(b"\r").decode("utf-8", "replace")
    if _ODD.search(text) or ("\t" in text and any(" " in each for each in wanted)):
        text = sanitise(line.decode("utf-8", "replace"))
    folded = text.casefold()
    return any(each in folded for each in wanted)


def may_show(lines: bytes, *wanted: str) -> bool:
    """False only where `shows` is false of each of the lines; much faster than asking that."""
    plain = _uncoloured(lines)
    if b"\r" in plain:
        plain = plain.replace(b"\r\n", b"\n")
    others = "".join(set(plain.translate(None, _ASCII).decode("utf-8", "replace")))
    if len(plain.translate(None, _CONTROLS)) < len(plain) or _ODD.search(others):
        return True
    if b"\t" in plain and any(" " in each for each in wanted):
        return True
    if all(map(str.isascii, wanted)) and not any(map(str.isascii, others.casefold())):
        # Nothing else folds into ASCII here, as ß does into ss.
        lower = plain.lower()
        return any(each.encode() in lower for each in wanted)
    folded = plain.decode("utf-8", "replace").casefold()
    return any(each in folded for each in wanted)


def _uncoloured(line: bytes) -> bytes:
    return _COLOUR.sub(b"", line) if b"\x1b" in line else line


def sanitise(text: str) -> str:
    """`text` as one line that cannot move the cursor, colour, hide or reorder anything.

    Printable ASCII comes back as it is. Of a line that was overwritten by
    carriage returns the last visible state remains, as on a terminal.
    """
    if not _UNUSUAL.search(text):
        return text
    return "".join(piece for piece, _ in _pieces(text))


def sanitise_styled(text: str) -> tuple[str, tuple[InkSpan, ...]]:
    """Like `sanitise`, and the text colours it asked for, as spans that do not overlap."""
    if not _UNUSUAL.search(text):
        return text, ()
    plain: list[str] = []
    spans: list[InkSpan] = []
    at = 0
    for piece, ink in _pieces(text):
        if ink != PLAIN:
            spans.append(InkSpan(at, at + len(piece), ink))
        plain.append(piece)
        at += len(piece)
    return "".join(plain), tuple(spans)


def _pieces(text: str) -> list[tuple[str, Ink]]:
    states = text.rstrip("\r\n").split("\r")
    while len(states) > 1:
        pieces = _inked(states.pop())
        if any(piece.strip() for piece, _ in pieces):
            return pieces
    return _inked(states[0])


def _inked(text: str) -> list[tuple[str, Ink]]:
    if "\x08" in text:
        text = _OVERSTRUCK.sub("", text)
    pieces: list[tuple[str, Ink]] = []
    ink, at, column = PLAIN, 0, 0
    for match in _SEQUENCE.finditer(text):
        column = _append(pieces, text[at : match.start()], ink, column)
        at = match.end()
        if match["final"] == "m":
            ink = _next_ink(ink, match["parameters"])
    _append(pieces, text[at:], ink, column)
    return pieces


def _append(pieces: list[tuple[str, Ink]], raw: str, ink: Ink, column: int) -> int:
    if not raw:
        return column
    if "\t" in raw:
        stop = column % 8
        raw = (" " * stop + raw).expandtabs(8)[stop:]
    plain = _limit_marks(raw.translate(_SHOWN))
    pieces.append((plain, ink))
    return column + len(plain)


_VARIANTS: Final = frozenset({*range(0xFE00, 0xFE10), *range(0x1F3FB, 0x1F400)})
"""Presentations and skin tones of emoji: no two terminals give them the same cells."""


class _Shown(dict[int, int | str | None]):
    """What each character becomes; filled on demand, for the basic plane only."""

    def __init__(self) -> None:
        super().__init__({ord("\n"): " "})
        self.marks: set[str] = set()
        """Combining marks met so far, to see at once that a line has none."""

    def __missing__(self, point: int) -> int | str | None:
        match unicodedata.category(chr(point)):
            case _ if point in _VARIANTS:
                shown: int | str | None = None
            case "Cc" | "Cf" | "Zl" | "Zp":
                shown = None
            case "Cs" | "Cn" | "Co":
                shown = "\ufffd"
            case "Zs":
                shown = " "
            case "Mn" | "Me":
                self.marks.add(chr(point))
                shown = point
            case _:
                shown = point
        if point < 0x10000:
            self[point] = shown
        return shown


_SHOWN = _Shown()


def _limit_marks(text: str) -> str:
    if text.isascii() or _SHOWN.marks.isdisjoint(text):
        return text
    kept: list[str] = []
    # A mark in front would sit on whatever the screen shows to the left of the text.
    marks = MARKS_LIMIT
    for char in text:
        if char in _SHOWN.marks:
            marks += 1
            if marks > MARKS_LIMIT:
                continue
        else:
            marks = 0
        kept.append(char)
    return "".join(kept)


@lru_cache(maxsize=1024)
def _next_ink(ink: Ink, parameters: str) -> Ink:
    """`ink` after one SGR sequence; unknown codes change nothing."""
    codes = _codes(parameters)
    for code in codes:
        match code:
            case 0:
                ink = PLAIN
            case 1:
                ink = replace(ink, bold=True)
            case 2:
                ink = replace(ink, dim=True)
            case 3 | 23:
                ink = replace(ink, italic=code == 3)
            case 4 | 24:
                ink = replace(ink, underline=code == 4)
            case 9 | 29:
                ink = replace(ink, strike=code == 9)
            case 22:
                ink = replace(ink, bold=False, dim=False)
            case 38:
                ink = replace(ink, colour=_extended_colour(codes))
            case 48 | 58:
                _extended_colour(codes)
            case 39:
                ink = replace(ink, colour=None)
            case _ if 30 <= code <= 37:
                ink = replace(ink, colour=code - 30)
            case _ if 90 <= code <= 97:
                ink = replace(ink, colour=code - 82)
    return ink


def _codes(parameters: str) -> Iterator[int]:
    for part in parameters.split(";")[:32]:
        head, *rest = part.split(":")
        yield _number(head)
        if rest and head in ("38", "48", "58"):
            mode, *values = rest
            yield _number(mode)
            # ITU-T T.416 has a colour space before the three values, most programs do not.
            yield from map(_number, values[-3:] if mode == "2" else values[:1])


def _number(digits: str) -> int:
    return int(digits[:4]) if digits[:4].isdecimal() else 0


def _extended_colour(codes: Iterator[int]) -> int | tuple[int, int, int] | None:
    match next(codes, 0):
        case 5:
            return next(codes, 0) & 255
        case 2:
            return next(codes, 0) & 255, next(codes, 0) & 255, next(codes, 0) & 255
        case _:
            return None
