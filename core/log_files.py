"""All that is kept of one log as one run of bytes: `log.1`, `log`, and what comes after them.

A byte keeps its offset in that run while the log grows and is rotated; the run
begins later when old files go. A file stays open while it is part of the run,
or is being read, so that its bytes outlive its name.
"""

import contextlib
import os
import stat
import threading
import weakref
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from autocoder.core.logs import Place

KEPT_FILES: Final = 3
"""Two are what a worker keeps; the third one is read when another rotation comes."""
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_INDEX_BLOCK: Final = 1024 * 1024
_INDEX_MOST: Final = 16 * _INDEX_BLOCK
"""More than a worker writes in a day; what an agent may put there itself is not taken in."""
_LATEST_MOMENT: Final = 1e10


class LogFiles:
    """Any thread may read, and never waits for another; `refresh` belongs to background threads."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened before the first `refresh`."""
        self.timed = False
        """Set to have `refresh` read when parts were written, too."""
        self._path = path
        self._older = path.with_name(path.name + ".1")
        self._files: tuple[_File, ...] = ()
        self._next_base = 0
        self._lock = threading.Lock()

    @property
    def start(self) -> int:
        """Offset of the first byte that is still there."""
        files = self._files
        return files[0].base if files else self._next_base

    @property
    def end(self) -> int:
        """Offset behind the last byte, as of the last `refresh`."""
        files = self._files
        return files[-1].end if files else self._next_base

    @property
    def times_known(self) -> bool:
        return any(file.times is not None for file in self._files)

    def refresh(self) -> bool:
        """Take in what was appended, rotated or truncated; True when more than the size differs."""
        with self._lock:
            before = self._files
            if before and not before[-1].measure():
                # Truncated: what was there is gone, and what comes now begins behind it.
                self._next_base, self._files = before[-1].end, ()
            self._take_in()
            indexed = [self._index(file) for file in self._files if self.timed]
            return any(indexed) or self._files is not before

    def read(self, at: int, count: int) -> bytes:
        """The bytes from `at` on; fewer than `count` at the end, or where a file has lost them."""
        parts: list[bytes] = []
        for file in self._files:
            if count > 0 and file.base <= at < file.end:
                part = file.read(at - file.base, min(count, file.end - at))
                parts.append(part)
                at += len(part)
                count -= len(part)
        return b"".join(parts)

    def offset_of(self, place: Place) -> int | None:
        """Where a line that a tail has read is; None when its file is not part of the log."""
        found = (file.base for file in self._files if file.inode == place.inode)
        base = next(found, None)
        return None if base is None else base + place.offset

    def written_at(self, at: int) -> float | None:
        """Seconds since the epoch when the byte was written, as far as is known."""
        for file in self._files:
            if file.base <= at < file.end and file.times is not None:
                return file.times.at(at - file.base)
        return None

    def _take_in(self) -> None:
        known = {file.inode for file in self._files}
        if known and _inode(self._path) in (None, *known):
            return
        # The newer one is opened first: should it become `log.1` meanwhile, no file is missed.
        found = [_opened(self._path), _opened(self._older)]
        for file in reversed(found):
            if file is None or file.inode in known:
                continue
            if self._files:
                self._files[-1].finish()
                self._next_base = self._files[-1].end
            file.base = self._next_base
            self._files = (*self._files, file)[-KEPT_FILES:]
            known.add(file.inode)

    def _index(self, file: "_File") -> bool:
        if file.times is None:
            file.times = self._opened_times(file)
        return file.times is not None and file.times.read()

    def _opened_times(self, file: "_File") -> "_Times | None":
        for path in (self._path, self._older):
            # A worker that rotates moves the log, then its times, and then makes the new
            # log: while there is one, the times beside either are those of the same file.
            if _inode(self._path) is None or _inode(path) != file.inode:
                continue
            with contextlib.suppress(OSError):
                times = _Times(os.open(path.with_name(path.name + ".times"), _FLAGS))
                return times if _inode(path) == file.inode else None
        return None


@dataclass(eq=False, slots=True, weakref_slot=True)
class _File:
    """One of the files; its descriptor is closed when nobody holds it any more."""

    fd: int
    inode: tuple[int, int]
    size: int
    base: int = 0
    """Its place in the run."""
    closing: bytes = b""
    """Ends a last line that was never finished."""
    times: "_Times | None" = field(default=None)

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.fd)

    @property
    def end(self) -> int:
        return self.base + self.size + len(self.closing)

    def measure(self) -> bool:
        """Take in how long it is by now; False when it is shorter than before."""
        try:
            size = os.fstat(self.fd).st_size
        except OSError:
            # A disk that fails: what was there before still counts.
            return True
        self.size, before = max(size, self.size), self.size
        return size >= before

    def finish(self) -> None:
        """Another file follows it."""
        self.measure()
        if self.size and self.read(self.size - 1, 1) != b"\n":
            self.closing = b"\n"

    def read(self, offset: int, count: int) -> bytes:
        within = max(0, min(count, self.size - offset))
        try:
            data = os.pread(self.fd, within, offset) if within else b""
        except OSError:
            return b""
        return data + self.closing if len(data) == within < count else data


class _Times:
    """When the parts of one file were written, from the worker's index beside it.

    Each entry holds for what begins at its offset, up to the next one.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._read = 0
        self._offsets: list[int] = []
        self._moments: list[float] = []
        weakref.finalize(self, os.close, fd)

    def read(self) -> bool:
        """Take in what was added; True when it was anything."""
        before = self._read
        while entries := self._more():
            for entry in entries:
                offset, _, moment = entry.partition(b" ")
                with contextlib.suppress(ValueError):
                    pair = int(offset), float(moment)
                    if 0 <= pair[1] < _LATEST_MOMENT:
                        self._offsets.append(pair[0])
                        self._moments.append(pair[1])
        return self._read > before

    def _more(self) -> list[bytes]:
        try:
            data = os.pread(self._fd, min(_INDEX_BLOCK, _INDEX_MOST - self._read), self._read)
        except OSError:
            return []
        complete = data[: data.rfind(b"\n") + 1]
        self._read += len(complete)
        return complete.splitlines()

    def at(self, offset: int) -> float | None:
        index = bisect_right(self._offsets, offset) - 1
        return self._moments[index] if index >= 0 else None


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _opened(path: Path) -> _File | None:
    try:
        fd = os.open(path, _FLAGS)
    except OSError:
        return None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        return None
    return _File(fd, (status.st_dev, status.st_ino), status.st_size)
