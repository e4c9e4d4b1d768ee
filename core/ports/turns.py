"""The order in which processes write to one file; turns come as they were asked for.

SQLite alone lets whoever waited longest sleep longest: of 32 writers some waited 10 s
and were then refused. One lock is not enough either: on a busy machine whoever has just
let go of it takes it again before anyone who was woken runs. So there are two, and only
the holder of the first may ask for the second: who is next cannot be overtaken.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from autocoder.core.errors import DatabaseError


class Turns:
    """Turns at the file at `path`, by two lock files beside it.

    To be used by one thread at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._locks: tuple[int, int] | None = None
        self._changed = threading.Condition()
        self._queued = False
        """A thread waits in the kernel's queue, for this turn or for one that was given up."""
        self._wanted = False

    @contextlib.contextmanager
    def turn(self, within_s: float) -> Iterator[None]:
        """Wait for this process's turn.

        Raises:
            DatabaseError: none came in time, or the folder is not writable.
        """
        _, writing = locks = self._descriptors()
        if not self._take(locks, within_s):
            raise DatabaseError(
                f"{self._path} is locked by another program",
                f"Find it with `fuser {self._path.name}.lock` in that folder and let it finish.",
                cause="busy",
            )
        try:
            yield
        finally:
            fcntl.flock(writing, fcntl.LOCK_UN)

    def close(self) -> None:
        with self._changed:
            if not self._queued:
                self._close(self._locks or ())
            self._locks = None

    def _take(self, locks: tuple[int, int], within_s: float) -> bool:
        with self._changed:
            if not self._queued:
                with contextlib.suppress(BlockingIOError):
                    _lock_both(locks, fcntl.LOCK_NB)
                    return True
                # The kernel's queue has no time limit, hence a thread that may be left in it.
                self._queued = True
                waiting = threading.Thread(
                    target=self._wait, args=(locks,), name="ledger-turn", daemon=True
                )
                waiting.start()
            self._wanted = True
            taken = self._changed.wait_for(lambda: not self._queued, within_s)
            self._wanted = False
            return taken

    def _wait(self, locks: tuple[int, int]) -> None:
        _lock_both(locks)
        with self._changed:
            self._queued = False
            if self._locks is None:
                self._close(locks)
            elif self._wanted:
                self._changed.notify()
            else:
                fcntl.flock(locks[1], fcntl.LOCK_UN)

    def _descriptors(self) -> tuple[int, int]:
        if self._locks is None:
            opened: list[int] = []
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                for suffix in ("queue", "lock"):
                    path = self._path.with_name(f"{self._path.name}.{suffix}")
                    opened.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError as error:
                self._close(opened)
                raise DatabaseError(
                    f"{self._path} cannot be written: {error.strerror}",
                    "Make the file and its folder writable.",
                    cause="unwritable",
                ) from error
            self._locks = (opened[0], opened[1])
        return self._locks

    @staticmethod
    def _close(descriptors: Iterable[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)


def _lock_both(locks: tuple[int, int], flags: int = 0) -> None:
    """Raises `BlockingIOError`, with `LOCK_NB`: somebody else has one of them."""
    next_, writing = locks
    fcntl.flock(next_, fcntl.LOCK_EX | flags)
    try:
        fcntl.flock(writing, fcntl.LOCK_EX | flags)
    finally:
        fcntl.flock(next_, fcntl.LOCK_UN)
