"""Time passing in the ledger: every port moves on as soon as the kernel lets it.

A port is probed only inside the transaction that then decides about it. The probe binds
the port for a moment: outside, somebody could be granted it in that moment and find it
taken, or two probes each other. A row that somebody changed since it was found due is
left for the next look.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from autocoder.core.errors import RefusedError
from autocoder.core.models import LeaseState, Role, Severity
from autocoder.core.ports import transitions
from autocoder.core.ports.host import Host, Listeners
from autocoder.core.ports.ledger import Connection, LeaseRow, Ledger
from autocoder.core.ports.pools import HELD, PoolName, Pools
from autocoder.core.ports.saying import Saying, who
from autocoder.core.ports.transitions import Sight, Use
from autocoder.core.probe import Liveness

LOOK_S = 0.25
"""How often what only the kernel can tell is looked at: releasing ports, outside holders."""
AT_ONCE = 100
"""Leases moved on in one transaction; others wait for the ledger no longer than these take."""


@dataclass(slots=True)
class Settling:
    """Moves rows on; nearly free while the ledger is as it was and nothing is due."""

    ledger: Ledger
    pools: Pools
    host: Host
    saying: Saying
    cooldown_s: float
    now: Callable[[], float]
    _settled: tuple[int, ...] | None = None
    _settled_at: float = 0.0
    _look_again_at: float = 0.0

    def settle(self) -> None:
        now, version = self.now(), self.ledger.version()
        if version == self._settled and self._settled_at <= now < self._look_again_at:
            return
        rows = self.ledger.read(self.ledger.unsettled)
        due = self._due(rows, now)
        # The longest of the questions, and its answer only names who: asked with nothing locked.
        listeners = self.host.kernel.listeners() if due else {}
        for first in range(0, len(due), AT_ONCE):
            some = due[first : first + AT_ONCE]
            self.ledger.write(functools.partial(self._move_on, some, now, listeners))
        if grow := self.ledger.read(lambda reader: self.pools.nearly_used_up(self.ledger, reader)):
            self.ledger.write(lambda connection: self._grow(connection, grow))
        self._look_again_at = now + self._next_look(rows, now)
        # The version from before: what was written since is looked at next time.
        self._settled, self._settled_at = version, now

    def release(self, connection: Connection, rows: list[LeaseRow]) -> None:
        """Give back; what nothing uses any more rests at once."""
        now = self.now()
        done = self._after_release(rows, now, listeners=None)
        for row in rows:
            self.ledger.change(connection, row, done.get(row, transitions.releasing(now)))

    def probe(self, connection: Connection, port: int) -> LeaseRow | None:
        """Move a quarantined or releasing port on if that can be; what is written of it then."""
        row = self.ledger.row(connection, port)
        now, listeners = self.now(), self.host.kernel.listeners()
        changes: dict[LeaseRow, transitions.Values] = {}
        if row is not None and row.state == LeaseState.QUARANTINED:
            changes[row] = transitions.after_probe(row, self._look(row, listeners), now)
        elif row is not None and row.state == LeaseState.RELEASING:
            changes = self._after_release(self._pair(connection, row), now, listeners)
        self._apply(connection, changes)
        return self.ledger.row(connection, port)

    def take_back(self, connection: Connection, port: int) -> tuple[int, ...]:
        """Release the pair of a holder that is gone, or end a quarantine; the ports given back.

        Raises:
            RefusedError: the port is used, or nobody has it.
        """
        row = self.ledger.row(connection, port)
        if row is None:
            raise RefusedError(f"port {port} is not leased")
        pair = [row]
        if row.state in HELD:
            self._refuse_living(row)
            pair = self._pair(connection, row)
            if row.state == LeaseState.LEASED:
                self.release(connection, pair)
                text = f"the lease of {row.holder} has ended: pid {row.pid} was dead"
                self.saying.say(Severity.INFO, row.holder, text)
        left = self.probe(connection, port)
        if left is not None and left.state == LeaseState.QUARANTINED:
            raise RefusedError(
                f"port {port} is still held by {who(left.listener_pid, left.listener)}",
                "It is leased again as soon as it is free.",
            )
        return tuple(row.port for row in pair)

    def _pair(self, connection: Connection, row: LeaseRow) -> list[LeaseRow]:
        """Both rows of the grant that `row` is one of."""
        rows = self.ledger.held(connection, row.holder, row.project)
        return [other for other in rows if (other.epoch, other.state) == (row.epoch, row.state)]

    def _refuse_living(self, row: LeaseRow) -> None:
        liveness = self.host.liveness(row)
        let_go = row.state == LeaseState.RELEASING and self.host.holder_gone(row)
        if let_go or liveness is Liveness.DEAD:
            return
        of = f" of {row.project}" if row.project else ""
        held = f"port {row.port} is held by {row.holder}{of}"
        if row.pid is None:
            raise RefusedError(
                f"{held}, which names no process",
                f"Give it back by name: `autocoder ports release {row.holder}`.",
            )
        lives = "lives" if liveness is Liveness.ALIVE else "may live"
        raise RefusedError(
            f"{held}, whose process {row.pid} {lives}",
            f"Stop it first: `autocoder agents stop {row.holder}`." if of else "End it first.",
        )

    def _due(self, rows: Sequence[LeaseRow], now: float) -> list[list[LeaseRow]]:
        """The rows that may have to move on, those of one lease together."""
        due: list[list[LeaseRow]] = []
        held = []
        for row in rows:
            over = row.due_at is not None and row.due_at <= now
            # A clock that was set back makes no rest longer than it was meant to be, and
            # no wait for a probe longer than any is; a lease it may only make longer.
            misdated = row.due_at is not None and row.due_at - now > transitions.PROBE_S[1]
            match LeaseState(row.state):
                case LeaseState.COOLING if over or row.changed_at > now:
                    due.append([row])
                case LeaseState.QUARANTINED if over or misdated:
                    due.append([row])
                case LeaseState.LEASED if over or self.host.liveness(row) is Liveness.DEAD:
                    held.append(row)
                case LeaseState.RELEASING if self.host.holder_gone(row):
                    held.append(row)
        return [*due, *_by_lease(held)]

    def _move_on(
        self,
        due: Iterable[list[LeaseRow]],
        now: float,
        listeners: Listeners,
        connection: Connection,
    ) -> None:
        changes: dict[LeaseRow, transitions.Values] = {}
        for rows in due:
            if any(self.ledger.row(connection, row.port) != row for row in rows):
                continue
            match LeaseState(rows[0].state):
                case LeaseState.RELEASING:
                    changes |= self._after_release(rows, now, listeners)
                case LeaseState.LEASED:
                    changes |= dict.fromkeys(rows, transitions.releasing(now))
                case LeaseState.COOLING:
                    sight = self._look(rows[0], listeners)
                    changes[rows[0]] = transitions.after_rest(sight, now)
                case LeaseState.QUARANTINED:
                    sight = self._look(rows[0], listeners)
                    changes[rows[0]] = transitions.after_probe(rows[0], sight, now)
        self._apply(connection, changes)

    def _look(self, row: LeaseRow, listeners: Listeners | None) -> Sight:
        return self.host.look(row.port, row.address, listeners)

    def _after_release(
        self,
        rows: Iterable[LeaseRow],
        now: float,
        listeners: Listeners | None,
    ) -> dict[LeaseRow, transitions.Values]:
        """`listeners` None: what is taken is not asked about further."""
        rows = list(rows)
        if not all(self.host.holder_gone(row) for row in rows):
            return {}
        pair = {row: self._look(row, listeners) for row in rows}
        if listeners is None and any(sight.use is Use.TAKEN for sight in pair.values()):
            return {}
        return transitions.after_release(pair, now=now, cooldown_s=self.cooldown_s)

    def _apply(
        self, connection: Connection, changes: Mapping[LeaseRow, transitions.Values]
    ) -> None:
        for row, values in changes.items():
            if values:
                done = self.ledger.change(connection, row, values)
            else:
                done = self.ledger.remove(connection, row)
            if done:
                self._say_change(row, values)

    def _grow(self, connection: Connection, grow: Iterable[PoolName]) -> None:
        pools = self.pools.ranges(self.ledger, connection)
        for name in grow:
            try:
                self.pools.grow(self.ledger, connection, name, pools[name])
            except RefusedError as error:
                self.saying.say(
                    Severity.WARNING,
                    f"pool {name}",
                    f"pool {name} is nearly used up and cannot grow: {error.message}. {error.hint}",
                )

    def _next_look(self, rows: Iterable[LeaseRow], now: float) -> float:
        """Seconds until something may have to be done although nobody has written."""
        waits = [60.0]
        for row in rows:
            if row.state in HELD:
                waits.append(LOOK_S)
            if row.due_at is not None:
                waits.append(max(0.0, row.due_at - now))
        return min(waits)

    def _say_change(self, row: LeaseRow, values: transitions.Values) -> None:
        subject = f"port {row.port}"
        state = values.get("state")
        if row.state == LeaseState.QUARANTINED and not values:
            self.saying.say(Severity.INFO, subject, f"port {row.port} is free again")
        elif state == LeaseState.QUARANTINED:
            after = f", after {row.holder} gave it back" if row.holder else ""
            self.saying.taken(row.port, values["listener_pid"], values["listener"], after)
        elif row.state == LeaseState.LEASED and row.role == Role.API:
            over = row.due_at is not None and row.due_at <= values["changed_at"]
            why = "its time is over" if over else f"pid {row.pid} has ended"
            self.saying.say(
                Severity.INFO, row.holder, f"the lease of {row.holder} has ended: {why}"
            )


def _by_lease(rows: Iterable[LeaseRow]) -> Iterator[list[LeaseRow]]:
    """Rows grouped by the grant they came from."""
    groups: dict[tuple[str, str, int, str], list[LeaseRow]] = {}
    for row in rows:
        groups.setdefault((row.project, row.holder, row.epoch, row.state), []).append(row)
    yield from groups.values()
