"""Another process's engine, used like one's own: two verbs down, a stream of snapshots up.

When that process ends, whoever is attached tries to become the orchestrator itself;
the project's lock decides who it is, and the others attach to that one.
"""

import http.client
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autocoder.core.client import Client, Lines, NoOrchestrator
from autocoder.core.commands import Command, Pause
from autocoder.core.engine import Engine
from autocoder.core.errors import AutocoderError, ProjectLocked, RefusedError
from autocoder.core.models import Notice, Severity, Snapshot
from autocoder.core.wire import SnapshotReader, command_to_json

SILENCE_S = 30.0
"""A stream says something every 10 s; one that does not is begun anew."""

RETRY_S = 0.1
FIRST_ANSWER_S = 20.0
"""How long an orchestrator that holds the lock may take until its socket answers."""


class Attached:
    """An `Engine` that runs elsewhere, until that is gone."""

    def __init__(self, project_dir: Path, take_over: Callable[[], Engine]) -> None:
        """`take_over` opens an engine here; it raises `ProjectLocked` while there is another."""
        self._project_dir = project_dir
        self._take_over = take_over
        self._client = Client(project_dir)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._lines: Lines | None = None
        self._own: Engine | None = None
        self._last: Snapshot | None = None
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._unsent: list[Command] = []
        self._refusals: list[str] = []

    def run(self, publish: Callable[[Snapshot], None]) -> None:
        sender = threading.Thread(target=self._send, name="attached", daemon=True)
        sender.start()
        engine = None
        silent_s = 0.0
        try:
            while not self._stopped.is_set() and engine is None:
                if self._follow(publish):
                    silent_s = 0.0
                engine = self._try_take_over()
                if engine is None:
                    self._stopped.wait(RETRY_S)
                    silent_s += RETRY_S
                    if self._last is None and silent_s > FIRST_ANSWER_S:
                        raise RefusedError(
                            f"the orchestrator of {self._project_dir} does not answer",
                            "Look at `.autocoder/control.log`, or end it.",
                        )
        finally:
            self._commands.put(None)
            sender.join()
        if engine is not None:
            self._run_own(engine, publish)

    def submit(self, command: Command) -> None:
        with self._lock:
            own = self._own
            if own is None:
                self._commands.put(command)
        if own is not None:
            own.submit(command)

    def stop(self) -> None:
        self._stopped.set()
        with self._lock:
            own, lines = self._own, self._lines
        if lines is not None:
            lines.stop()
        if own is not None:
            own.stop()

    # ------------------------------------------------------------------ while attached

    def _follow(self, publish: Callable[[Snapshot], None]) -> bool:
        """Publish what the other process says until it is gone; whether it said anything."""
        reader, heard = SnapshotReader(), False
        try:
            with self._client.lines("/api/snapshots", SILENCE_S) as lines:
                with self._lock:
                    self._lines = lines
                if self._stopped.is_set():
                    return heard
                for line in lines:
                    if line:
                        heard = True
                        self._last = reader.read(line)
                        publish(self._with_refusals(self._last))
        except (NoOrchestrator, OSError, http.client.HTTPException):
            return heard
        finally:
            with self._lock:
                self._lines = None
        return heard

    def _send(self) -> None:
        """Give commands in their order, in a thread of its own: the caller never waits."""
        while (command := self._commands.get()) is not None:
            try:
                self._client.ask("POST", "/api/commands", command_to_json(command))
            except NoOrchestrator:
                # Whoever takes over gets it.
                self._unsent.append(command)
            except AutocoderError as error:
                self._refusals.append(error.message)

    def _with_refusals(self, snapshot: Snapshot) -> Snapshot:
        if not self._refusals:
            return snapshot
        last = snapshot.notices[-1].id if snapshot.notices else 0
        told = tuple(
            Notice(last + number, snapshot.taken_at, Severity.WARNING, "", f"not sent: {text}")
            for number, text in enumerate(self._refusals[-10:], 1)
        )
        return replace(snapshot, notices=(*snapshot.notices, *told))

    # ------------------------------------------------------------------ afterwards

    def _try_take_over(self) -> Engine | None:
        if self._stopped.is_set():
            return None
        try:
            return self._take_over()
        except ProjectLocked:
            return None

    def _run_own(self, engine: Engine, publish: Callable[[Snapshot], None]) -> None:
        with self._lock:
            self._own = engine
        if self._last is not None and self._last.paused:
            # Who paused, or stopped all, did not ask for it to begin again.
            engine.submit(Pause())
        for command in self._unsent:
            engine.submit(command)
        while not self._commands.empty():
            late = self._commands.get()
            if late is not None:
                engine.submit(late)
        if self._stopped.is_set():
            engine.stop()
        engine.run(publish)
