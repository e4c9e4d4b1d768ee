"""The engine in a thread of its own, opened there too.

Opening imports the database layer, which takes longer than the first paint; so
the thread starts after it, and wishes that arrive earlier wait their turn.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from autocoder.core.commands import Command
from autocoder.core.engine import Engine
from autocoder.core.models import Snapshot


class EngineThread:
    def __init__(self, open_engine: Callable[[], Engine]) -> None:
        """`open_engine` may raise `AutocoderError`; it runs in the thread."""
        self._open = open_engine
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._early: list[Command] = []
        self._stopping = False
        self._reopening = False
        self._pool = ThreadPoolExecutor(1, "engine")

    def start(
        self, publish: Callable[[Snapshot], None], ended: Callable[[BaseException | None], None]
    ) -> None:
        """Both are called from the engine's thread; `ended` once, with what it raised."""

        def report(future: Future[None]) -> None:
            ended(future.exception())

        self._pool.submit(self._run, publish).add_done_callback(report)

    def submit(self, command: Command) -> None:
        """Hand on a wish; those from before the engine was open are handed on in order."""
        with self._lock:
            if self._engine is None:
                self._early.append(command)
            else:
                self._engine.submit(command)

    def stop(self) -> None:
        """Let the engine end; agents go on."""
        with self._lock:
            self._stopping = True
            if self._engine is not None:
                self._engine.stop()

    def reopen(self) -> None:
        """Let the engine end and open another; agents go on, wishes wait their turn."""
        with self._lock:
            if self._engine is not None:
                self._reopening = True
                self._engine.stop()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._pool.shutdown()

    def _run(self, publish: Callable[[Snapshot], None]) -> None:
        again = True
        while again:
            engine = self._open()
            with self._lock:
                self._engine = engine
                for command in self._early:
                    engine.submit(command)
                self._early.clear()
                if self._stopping:
                    engine.stop()
            engine.run(publish)
            with self._lock:
                again, self._reopening = self._reopening and not self._stopping, False
                self._engine = None
