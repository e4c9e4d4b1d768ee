"""What a front end holds: two verbs down, a stream of snapshots up.

The orchestrator is one; a connection to another process's orchestrator is one too.
"""

from collections.abc import Callable
from typing import Protocol

from autocoder.core.commands import Command
from autocoder.core.models import RunReport, Snapshot


class Engine(Protocol):
    def run(self, publish: Callable[[Snapshot], None]) -> None:
        """Work until stopped; `publish` is called from this thread, once per change.

        Agents go on when it returns. Raises `AutocoderError` where it cannot start.
        """

    def submit(self, command: Command) -> None:
        """Wake the engine with a wish; safe from any thread, never blocks."""

    def stop(self) -> None:
        """Let `run` return soon; safe from any thread, and before `run` has begun."""


class ReportingEngine(Engine, Protocol):
    """An engine of this process: it knows what it did."""

    def run_to_report(self, publish: Callable[[Snapshot], None]) -> RunReport:
        """As `run`, then say what was done."""

    def close(self) -> None:
        """Let go of everything instead of running; agents go on."""
