"""Which agents start by themselves, and when none does: as many as `parallel` says.

Nothing starts while paused, while trouble of the host's is waited out, or while
the ledger would refuse a pair as it did the last time.
"""

import time

from autocoder.core.admission import Admission
from autocoder.core.errors import AutocoderError, DatabaseError, PoolExhausted, RefusedError
from autocoder.core.fleet import Fleet
from autocoder.core.models import PoolStatus, Severity
from autocoder.core.notices import Notices
from autocoder.core.ports import PortAllocator
from autocoder.core.settings import Settings
from autocoder.core.store import ProjectStore

EXHAUSTED_S = 1.0
"""How long after a refused lease the ledger is asked again although its counts are the same."""


class Filling:
    def __init__(
        self,
        fleet: Fleet,
        *,
        settings: Settings,
        store: ProjectStore,
        allocator: PortAllocator,
        notices: Notices,
        admission: Admission,
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._store = store
        self._allocator = allocator
        self._notices = notices
        self._admission = admission
        self._exhausted: tuple[tuple[PoolStatus, ...], float] | None = None
        self.paused = False
        """No agent starts by itself until a human says so."""

    def fill(self, until: float) -> bool:
        """Start what was asked to be gone on with, then new agents until `parallel` live.

        `until` is monotonic: later none is begun. True where more could be started at once.
        """
        self._stop_failing_alike()
        try:
            if not self._still_exhausted() and self._fleet.go_on(until):
                return True
            while not self.paused and len(self._fleet) < self._settings.parallel:
                if self._admission.held or self._still_exhausted():
                    return False
                if time.monotonic() >= until:
                    return True
                if not self._start_next():
                    return False
        except PoolExhausted as error:
            refused_until = time.monotonic() + EXHAUSTED_S
            self._exhausted = self._allocator.status().pools, refused_until
            self._notices.stand(Severity.WARNING, f"pool {error.role}", error.said)
        return False

    def _start_next(self) -> bool:
        """Whether one more may start. Raises `PoolExhausted` and `DatabaseError`."""
        feature = self._store.next_claimable(self._fleet.held_back)
        if feature is None:
            return False
        try:
            self._admission.check_room()
            if not self._fleet.can_name():
                return False
            self._fleet.spawn(feature)
        except (PoolExhausted, DatabaseError):
            raise
        except AutocoderError as error:
            if not isinstance(error, RefusedError):
                self._admission.trouble(feature.id)
            self._notices.stand(Severity.WARNING, "spawn", error.said)
            return False
        self._exhausted = None
        for subject in ("spawn", "pool api", "pool web"):
            self._notices.settled(subject)
        return True

    def _still_exhausted(self) -> bool:
        """Whether a lease would be refused as the last one was; asking is counted and written."""
        if self._exhausted is None:
            return False
        pools, until = self._exhausted
        return pools == self._allocator.status().pools and time.monotonic() < until

    def _stop_failing_alike(self) -> None:
        reason = self._fleet.take_stopped_alike()
        if reason:
            self.paused = True
            self._notices.say(
                Severity.ERROR,
                "",
                f"paused: the last {self._settings.limits.alike_failures} agents failed alike: "
                f"{reason}. Mend the cause, then resume.",
            )
