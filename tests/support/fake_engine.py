"""An engine front for tests of the panel: publishes what it is told, records what it is asked."""

import queue
from collections.abc import Callable

from autocoder.core.commands import Command
from autocoder.core.models import Snapshot


class RecordingEngine:
    """Publishes the snapshots it is given, in order; ends when stopped."""

    def __init__(self, *snapshots: Snapshot, error: Exception | None = None) -> None:
        self.asked: list[Command] = []
        self.stopped = False
        self._error = error
        self._queue: queue.SimpleQueue[Snapshot | None] = queue.SimpleQueue()
        for snapshot in snapshots:
            self._queue.put(snapshot)

    def run(self, publish: Callable[[Snapshot], None]) -> None:
        if self._error is not None:
            raise self._error
        while (snapshot := self._queue.get()) is not None:
            publish(snapshot)

    def publish(self, snapshot: Snapshot) -> None:
        self._queue.put(snapshot)

    def submit(self, command: Command) -> None:
        self.asked.append(command)

    def stop(self) -> None:
        self.stopped = True
        self._queue.put(None)
