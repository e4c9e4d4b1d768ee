"""Git, off the orchestrator's thread: work goes in as a function, comes back as a future.

Two threads: git itself serialises what changes worktrees, so more would only wait.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from autocoder.core.errors import GitError

T = TypeVar("T")
K = TypeVar("K")


class GitThreads:
    """Runs git for one orchestrator; `wake` is called, in some thread, when something is done."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="git")

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """The future fails with an `AutocoderError` only, unless the program is at fault."""
        future = self._threads.submit(_translated, work)
        future.add_done_callback(lambda _: self._wake())
        return future

    def close(self) -> None:
        """Wait for what runs; what has not begun never does."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def _translated(work: Callable[[], T]) -> T:
    try:
        return work()
    except OSError as error:
        raise GitError(f"{error.filename or 'system call'}: {error.strerror or error}") from error


def take_done(futures: dict[K, Future[T]]) -> list[tuple[K, Future[T]]]:
    """Take those that are done out of `futures`."""
    done = [(key, future) for key, future in futures.items() if future.done()]
    for key, _ in done:
        del futures[key]
    return done
