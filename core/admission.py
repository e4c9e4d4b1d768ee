"""Whether another agent may start by itself now, and if not, what it waits for.

Trouble of the host's (git, disk, a database) holds everybody back for a while,
longer each time. Agents that fail alike, one after the other and on different
features, have a cause that no further agent can mend: then nobody starts until a
human says so.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from autocoder.core.errors import RefusedError
from autocoder.core.settings import LimitSettings

MIB = 1 << 20
FIRST_HOLD_S = 1.0
LONGEST_HOLD_S = 60.0

FEATURES_ALIKE = 3
"""Fewer features than this that fail alike are blocked by themselves; the fleet goes on."""


class Admission:
    """Remembers, for one fleet, what went wrong lately."""

    def __init__(
        self,
        project_dir: Path,
        limits: LimitSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._project_dir = project_dir
        self._limits = limits
        self._clock = clock
        self._held_until = float("-inf")
        self._troubled: dict[int, int] = {}
        """How often in a row each feature met trouble that was not its agent's fault."""
        self._alike: list[int] = []
        """Features whose agents failed by `_kind`, in a row."""
        self._kind = ""
        self._tripped = False

    @property
    def held(self) -> bool:
        """Whether trouble that several features met is still waited out."""
        return self._clock() < self._held_until

    def check_room(self) -> None:
        """Raises `RefusedError` when memory or disk are too short for another agent."""
        floor = self._limits.min_free_mib * MIB
        try:
            free = {
                "memory": psutil.virtual_memory().available,
                f"disk at {self._project_dir}": shutil.disk_usage(self._project_dir).free,
            }
        except OSError as error:
            raise RefusedError(
                f"no agent starts: {error.filename}: {error.strerror}",
                "Bring the project folder back.",
            ) from error
        for what, amount in free.items():
            if amount < floor:
                raise RefusedError(
                    f"no agent starts: {amount // MIB} MiB of {what} left, limits.min_free_mib "
                    f"is {self._limits.min_free_mib}",
                    "Free some, or lower the limit.",
                )

    def trouble(self, feature_id: int) -> float:
        """Note trouble that was not the agent's fault; seconds its feature should wait.

        One feature's trouble may be its own, so the others go on; two have it in common.
        """
        times = self._troubled[feature_id] = self._troubled.get(feature_id, 0) + 1
        if len(self._troubled) > 1:
            hold = _doubled(sum(self._troubled.values()) - 1)
            self._held_until = self._clock() + hold
        return _doubled(times)

    def started(self) -> None:
        """A worker has reported: whatever trouble there was is over."""
        self._troubled.clear()
        self._held_until = float("-inf")

    def failed(self, feature_id: int, kind: str) -> bool:
        """Note an agent's own failure; True when with this one too many in a row were alike."""
        if kind != self._kind:
            self._kind, self._alike = kind, []
        self._alike.append(feature_id)
        limit = self._limits.alike_failures
        distinct = len(set(self._alike))
        if self._tripped or len(self._alike) < limit or distinct < min(FEATURES_ALIKE, limit):
            return False
        self._tripped = True
        return True

    def completed(self) -> None:
        """An agent has done its feature: what failed before has nothing in common."""
        self._kind, self._alike = "", []

    def forgive(self) -> None:
        """A human says that agents may start again."""
        self.completed()
        self.started()
        self._tripped = False


def _doubled(times: int) -> float:
    return min(FIRST_HOLD_S * 2.0 ** min(times - 1, 10), LONGEST_HOLD_S)
