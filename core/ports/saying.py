"""What the ledger has to say to the human, kept until somebody asks."""

from collections import deque
from collections.abc import Callable

from autocoder.core.models import Notice, Severity


class Saying:
    """Notices without an id; safe from any thread."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._said: deque[Notice] = deque()

    def say(self, severity: Severity, subject: str, text: str) -> None:
        self._said.append(Notice(0, self._now(), severity, subject, text))

    def taken(self, port: int, pid: int | None, command: str, after: str = "") -> None:
        """Say that a port is kept out of its pool, and by whom."""
        self.say(
            Severity.WARNING,
            f"port {port}",
            f"port {port} is held by {who(pid, command)}{after}; it is not leased until it is free",
        )

    def take(self) -> tuple[Notice, ...]:
        """Everything said since the last time."""
        taken = []
        while self._said:
            taken.append(self._said.popleft())
        return tuple(taken)


def who(pid: int | None, command: str) -> str:
    """A listener for the human; without either it only holds the port."""
    if pid is not None:
        return f"pid {pid} {command}"
    return command or "a program that does not listen on it"
