"""What becomes of a port that is not simply leased: one pure step at a time.

releasing -> cooling -> gone, or quarantined -> gone where something else holds the
port. A holder whose life is unknown keeps its ports.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from autocoder.core.models import LeaseState
from autocoder.core.ports.ledger import LeaseRow
from autocoder.core.probe import ListeningSocket

PATIENCE_S = 10.0
"""How long a port of a dead holder may stay taken before it is quarantined."""
PROBE_S = (0.5, 10.0)
"""Shortest and longest time between two probes of a quarantined port."""
LINGER_S = 5.0
"""A port that only closed connections hold is looked at again after this long."""


class Use(Enum):
    """What the kernel says about a port."""

    FREE = auto()
    LINGERING = auto()
    """Only closed connections hold it: TIME_WAIT and its like."""
    TAKEN = auto()


@dataclass(frozen=True, slots=True)
class Sight:
    use: Use
    listener: ListeningSocket | None = None

    @property
    def listener_columns(self) -> dict[str, Any]:
        if self.listener is None:
            return {"listener_pid": None, "listener": ""}
        return {"listener_pid": self.listener.pid, "listener": self.listener.command}


Values = Mapping[str, Any]
"""Columns to write; none at all means that the row goes."""
GONE: Values = {}
_UNHELD: Values = {"holder": "", "project": "", "pid": None, "pid_start": None, "leased_at": None}


def cooling(now: float, cooldown_s: float) -> Values:
    state = LeaseState.COOLING.value
    listener = {"listener_pid": None, "listener": ""}
    return {
        **_UNHELD,
        **listener,
        "state": state,
        "changed_at": now,
        "due_at": now + cooldown_s,
    }


def quarantined(now: float, sight: Sight) -> Values:
    return {
        **_UNHELD,
        **sight.listener_columns,
        "state": LeaseState.QUARANTINED.value,
        "changed_at": now,
        "due_at": now + PROBE_S[0],
    }


def releasing(now: float) -> Values:
    return {"state": LeaseState.RELEASING.value, "changed_at": now, "due_at": None}


def after_release(
    pair: Mapping[LeaseRow, Sight], *, now: float, cooldown_s: float
) -> dict[LeaseRow, Values]:
    """What the ports of a holder that is gone become: it lets go of both or of none."""
    since = min(row.changed_at for row in pair)
    quiet = all(sight.use is not Use.TAKEN for sight in pair.values())
    if not quiet and 0 <= now - since < PATIENCE_S:
        return {}
    return {
        row: quarantined(now, sight) if sight.use is Use.TAKEN else cooling(now, cooldown_s)
        for row, sight in pair.items()
    }


def after_rest(sight: Sight, now: float) -> Values:
    match sight.use:
        case Use.FREE:
            return GONE
        case Use.LINGERING:
            return {"due_at": now + LINGER_S}
        case Use.TAKEN:
            return quarantined(now, sight)


def after_probe(row: LeaseRow, sight: Sight, now: float) -> Values:
    """A quarantined port goes free, or is probed again after half of its time so far."""
    if sight.use is Use.FREE:
        return GONE
    shortest, longest = PROBE_S
    wait = min(longest, max(shortest, (now - row.changed_at) / 2))
    return {**sight.listener_columns, "due_at": now + wait}
