"""One lock for everything that rewrites a repository's list of worktrees or branches.

git does not lock these itself: concurrent `git worktree add` lose entries, and
are slower than one after the other.
"""

import contextlib
import fcntl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from autocoder.core.errors import GitError

WAIT_S = 120.0
_LOOK_AGAIN_S = 0.005


class RepositoryLock:
    """Held by one thread of one process of the host at a time; a process that dies frees it."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._threads = threading.Lock()
        self._pause = threading.Event()

    @contextlib.contextmanager
    def held(self, wait_s: float = WAIT_S) -> Iterator[None]:
        """Hold the lock for the block.

        Raises:
            GitError: somebody else held it for all of `wait_s`.
        """
        deadline = time.monotonic() + wait_s
        if not self._threads.acquire(timeout=wait_s):
            raise self._taken(wait_s)
        try:
            with self._file.open("a") as handle:
                while not self._try(handle.fileno()):
                    if time.monotonic() >= deadline:
                        raise self._taken(wait_s)
                    self._pause.wait(_LOOK_AGAIN_S)
                yield
        finally:
            self._threads.release()

    def _try(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _taken(self, wait_s: float) -> GitError:
        return GitError(
            f"another program has held {self._file} for {wait_s:g} s",
            f"Find it with `fuser {self._file}`.",
        )
