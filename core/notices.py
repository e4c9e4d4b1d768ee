"""Sentences for the human, each said once: to the screen, and kept as events.

What holds on (a full pool, a full disk) is said when it begins and may be said
again only after it was `settled`.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable

from autocoder.core.errors import DatabaseError
from autocoder.core.models import Notice, Severity
from autocoder.core.store import ProjectStore

KEPT = 200


class Notices:
    """The latest notices of one orchestrator, oldest first."""

    def __init__(self, store: ProjectStore, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._kept: deque[Notice] = deque(maxlen=KEPT)
        self._next_id = 1
        self._standing: dict[str, str] = {}

    def all(self) -> tuple[Notice, ...]:
        return tuple(self._kept)

    def say(
        self, severity: Severity, subject: str, text: str, *, feature_id: int | None = None
    ) -> None:
        self._kept.append(Notice(self._next_id, self._now(), severity, subject, text))
        self._next_id += 1
        agent_id = subject if subject.startswith("a-") else ""
        try:
            self._store.add_event(
                severity, "notice", text, agent_id=agent_id, feature_id=feature_id
            )
        except DatabaseError as error:
            # The human still sees the notice itself; only its copy is lost, and that is said.
            self._kept.append(
                Notice(self._next_id, self._now(), Severity.ERROR, "database", error.message)
            )
            self._next_id += 1

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
