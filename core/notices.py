"""Sentences for the human, each said once: to the screen, and kept as events.

What holds on (a full pool, a full disk) is said when it begins and may be said
again only after it was `settled`. Saying costs nothing; `keep` writes down what was
said since in one transaction, so that a hundred sentences do not cost a hundred.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable

from autocoder.core.models import Notice, Severity
from autocoder.core.store import NewEvent, ProjectStore

KEPT = 200
UNWRITTEN = 1000
"""So many events wait for a database that cannot be written; older ones are let go."""


class Notices:
    """The latest notices of one orchestrator, oldest first."""

    def __init__(self, store: ProjectStore, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._kept: deque[Notice] = deque(maxlen=KEPT)
        self._all: tuple[Notice, ...] | None = None
        self._next_id = 1
        self._standing: dict[str, str] = {}
        self._unwritten: deque[NewEvent] = deque(maxlen=UNWRITTEN)

    def all(self) -> tuple[Notice, ...]:
        """The same tuple as before while nothing was said."""
        if self._all is None:
            self._all = tuple(self._kept)
        return self._all

    def say(
        self, severity: Severity, subject: str, text: str, *, feature_id: int | None = None
    ) -> None:
        now = self._now()
        self._kept.append(Notice(self._next_id, now, severity, subject, text))
        self._all = None
        self._next_id += 1
        agent_id = subject if subject.startswith("a-") else ""
        self._unwritten.append(NewEvent(severity, "notice", text, agent_id, feature_id, at=now))

    def keep(self) -> None:
        """Write down as events what was said since.

        Raises:
            DatabaseError: nothing was written; the next call tries again.
        """
        if self._unwritten:
            self._store.add_events(tuple(self._unwritten))
            self._unwritten.clear()

    def relay(self, notices: Iterable[Notice]) -> None:
        """Take over what another module noticed."""
        for notice in notices:
            self.say(notice.severity, notice.subject, notice.text)

    def stand(self, severity: Severity, subject: str, text: str) -> None:
        """Say what holds on; silent while the same is already standing for the subject."""
        if self._standing.get(subject) != text:
            self._standing[subject] = text
            self.say(severity, subject, text)

    def settled(self, subject: str) -> None:
        self._standing.pop(subject, None)
