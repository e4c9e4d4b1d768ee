"""Time passing in the ledger: every port moves on as soon as the kernel lets it.

What is done is decided from what was read before; a row that somebody changed
meanwhile is left for the next look.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from autocoder.core.errors import RefusedError
from autocoder.core.models import LeaseState, Role, Severity
from autocoder.core.ports import transitions
from autocoder.core.ports.host import Host, Listeners
from autocoder.core.ports.ledger import Connection, LeaseRow, Ledger
from autocoder.core.ports.pools import HELD, PoolName, Pools
from autocoder.core.ports.saying import Saying, who
from autocoder.core.ports.transitions import Use
from autocoder.core.probe import Liveness

LOOK_S = 0.25
"""How often what only the kernel can tell is looked at: releasing ports, outside holders."""


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
        changes = self._changes(rows, now)
        grow = self.ledger.read(lambda reader: self.pools.nearly_used_up(self.ledger, reader))
        if changes or grow:
            self.ledger.write(lambda connection: self._apply(connection, changes, grow))
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
            sight = self.host.look(port, row.address, listeners)
            changes[row] = transitions.after_probe(row, sight, now)
        elif row is not None and row.state == LeaseState.RELEASING:
            changes = self._after_release(self._pair(connection, row), now, listeners)
        self._apply(connection, changes, grow=())
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

    def _changes(self, rows: list[LeaseRow], now: float) -> dict[LeaseRow, transitions.Values]:
        changes: dict[LeaseRow, transitions.Values] = {}
        listeners = self.host.kernel.listeners() if rows else {}
        for row in rows:
            due = row.due_at is not None and row.due_at <= now
            # A clock that was set back makes no rest longer than it was meant to be, and
            # no wait for a probe longer than any is; a lease it may only make longer.
            misdated = row.due_at is not None and row.due_at - now > transitions.PROBE_S[1]
            match LeaseState(row.state):
                case LeaseState.COOLING if due or row.changed_at > now:
                    sight = self.host.look(row.port, row.address, listeners)
                    changes[row] = transitions.after_rest(sight, now)
                case LeaseState.QUARANTINED if due or misdated:
                    sight = self.host.look(row.port, row.address, listeners)
                    changes[row] = transitions.after_probe(row, sight, now)
                case LeaseState.LEASED if due or self.host.liveness(row) is Liveness.DEAD:
                    changes[row] = transitions.releasing(now)
        for pair in _by_lease(row for row in rows if row.state == LeaseState.RELEASING):
            changes |= self._after_release(pair, now, listeners)
        return changes

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
        pair = {row: self.host.look(row.port, row.address, listeners) for row in rows}
        if listeners is None and any(sight.use is Use.TAKEN for sight in pair.values()):
            return {}
        return transitions.after_release(pair, now=now, cooldown_s=self.cooldown_s)

    def _apply(
        self,
        connection: Connection,
        changes: Mapping[LeaseRow, transitions.Values],
        grow: Iterable[PoolName],
    ) -> None:
        for row, values in changes.items():
            if values:
                done = self.ledger.change(connection, row, values)
            else:
                done = self.ledger.remove(connection, row)
            if done:
                self._say_change(row, values)
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
    groups: dict[tuple[str, str, int], list[LeaseRow]] = {}
    for row in rows:
        groups.setdefault((row.project, row.holder, row.epoch), []).append(row)
    yield from groups.values()
