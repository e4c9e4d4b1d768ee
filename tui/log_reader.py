"""A thread that reads the logs on show, so that no disk ever holds up a key.

It only polls what a widget shows now, and says so often as a frame is long
that something moved; the lines themselves are fetched when they are painted.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from autocoder.core.logs import LogTail

if TYPE_CHECKING:
    from autocoder.core.log_window import LogWindow

FRAME_S = 0.05
QUIET_FRAMES = 4
"""Once no log has grown for so many frames, as many pass between two polls."""


class LogReader:
    """The tails of the paths asked for last; one thread, started with the first path."""

    def __init__(
        self, moved: Callable[[], object], *, frame_s: float = FRAME_S, max_lines: int = 10_000
    ) -> None:
        """`moved` is called from the reader's thread, once per frame in which a log grew."""
        self._moved = moved
        self._frame_s = frame_s
        self._max_lines = max_lines
        self._tails: Mapping[Path, LogTail] = MappingProxyType({})
        self._window: LogWindow | None = None
        self._wake = threading.Event()
        self._ending = False
        self._thread: threading.Thread | None = None

    def follow(self, paths: tuple[Path, ...]) -> Mapping[Path, LogTail]:
        """Read these from now on and no others; a path followed before keeps its tail."""
        known = self._tails
        self._tails = {
            path: known.get(path) or LogTail(path, max_lines=self._max_lines) for path in paths
        }
        self._wake.set()
        if self._thread is None and paths:
            self._thread = threading.Thread(target=self._run, name="log reader", daemon=True)
            self._thread.start()
        return self._tails

    def read(self, window: "LogWindow | None") -> None:
        """Read what this window wants, from now on and at once, and what no other one does."""
        self._window = window
        self._wake.set()

    def stop(self) -> None:
        """Returns when the thread has ended and every descriptor is closed."""
        self._ending = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        opened: dict[Path, LogTail] = {}
        quiet = 0
        while not self._ending:
            tails = dict(self._tails)
            for path in opened.keys() - tails.keys():
                opened.pop(path).close()
            opened |= tails
            moved = [tail.poll() for tail in tails.values()]
            window = self._window
            if window is not None and window.poll():
                moved.append(True)
                # It may want more than the one block that is read at a time.
                self._wake.set()
            del window
            quiet = 0 if any(moved) else quiet + 1
            if not quiet:
                self._moved()
            frames = QUIET_FRAMES if quiet > QUIET_FRAMES else 1
            self._wake.wait(frames * self._frame_s if tails else None)
            self._wake.clear()
        for tail in opened.values():
            tail.close()
