"""What the ledger has to say to the human, kept until somebody asks."""

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from autocoder.core.models import Notice, Severity

T = TypeVar("T")

NAMED_SINGLY = 3
"""More ports than this, taken at one time, are told of together."""


class Saying:
    """Notices without an id; safe from any thread."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._said: deque[Notice] = deque()
        self._taken: deque[tuple[int, str]] = deque()

    def say(self, severity: Severity, subject: str, text: str) -> None:
        self._said.append(Notice(0, self._now(), severity, subject, text))

    def taken(self, port: int, pid: int | None, command: str, after: str = "") -> None:
        """Say that a port is kept out of its pool, and by whom."""
        self._taken.append((port, who(pid, command) + after))

    def take(self) -> tuple[Notice, ...]:
        """Everything said since the last time; many ports kept out are one notice."""
        taken = _drained(self._taken)
        if len(taken) > NAMED_SINGLY:
            named = ", ".join(f"{port} by {holder}" for port, holder in taken[:NAMED_SINGLY])
            text = f"{len(taken)} ports are held by other programs and not leased until they are "
            text += f"free: {named} and {len(taken) - NAMED_SINGLY} more"
            self.say(Severity.WARNING, "ports", text)
        else:
            for port, holder in taken:
                text = f"port {port} is held by {holder}; it is not leased until it is free"
                self.say(Severity.WARNING, f"port {port}", text)
        return tuple(_drained(self._said))


def _drained(queue: deque[T]) -> list[T]:
    """What was in it, without losing what another thread adds meanwhile."""
    return [queue.popleft() for _ in range(len(queue))]


def who(pid: int | None, command: str) -> str:
    """A listener for the human; without either it only holds the port."""
    if pid is not None:
        return f"pid {pid} {command}"
    return command or "a program that does not listen on it"
