"""How full each pool has been, as far back as a small line of blocks can show.

A sample stands for `STEP_S` seconds. Nothing ticks: what lies between two snapshots
is filled in from the earlier one when it is next added to or read.
"""

from collections import deque

from autocoder.core.models import PoolStatus, Role

STEP_S = 15.0
SAMPLES = 60


class PoolHistory:
    def __init__(self) -> None:
        self._slot = 0
        self._now: dict[Role, int] = {}
        self._past: dict[Role, deque[int]] = {}

    def add(self, pools: tuple[PoolStatus, ...], at: float) -> None:
        """Take in what is true at a time; within one step the fullest moment counts."""
        self._advance(at)
        found: dict[Role, int] = {}
        for role in {pool.role for pool in pools}:
            mine = [pool for pool in pools if pool.role is role]
            usable = sum(pool.usable for pool in mine)
            kept = usable - sum(pool.available for pool in mine)
            found[role] = round(100 * kept / usable) if usable else 100
        for role, percent in found.items():
            past = self._past.setdefault(role, deque([percent], maxlen=SAMPLES))
            past[-1] = max(past[-1], percent)
        self._now = found

    def of(self, role: Role, at: float) -> tuple[int, ...]:
        """How many per cent were not to be had, oldest first, at most `SAMPLES` steps."""
        self._advance(at)
        return tuple(self._past.get(role, ()))

    def _advance(self, at: float) -> None:
        slot = int(at // STEP_S)
        passed = slot - self._slot if self._slot else 0
        self._slot = max(slot, self._slot)
        for role, past in self._past.items():
            past.extend([self._now.get(role, 0)] * max(0, min(passed, SAMPLES)))
