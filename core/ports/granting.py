"""Who gets which ports: the lowest free one, unless something speaks against it.

Everything here happens inside one transaction, in which a refusal is counted and
ports found taken are kept out; so a refusal is answered, not raised.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autocoder.core.errors import PoolExhausted, RefusedError, StaleLease
from autocoder.core.models import Holder, LeaseState, PortPair, PortRange, Role, Severity
from autocoder.core.ports import transitions
from autocoder.core.ports.host import Host, Listeners, listener
from autocoder.core.ports.ledger import (
    CONSECUTIVE,
    EPOCH,
    FAILURES,
    Connection,
    LeaseRow,
    Ledger,
    as_lease,
)
from autocoder.core.ports.pools import PoolName, Pools
from autocoder.core.ports.rules import total
from autocoder.core.ports.saying import Saying, who
from autocoder.core.ports.transitions import Sight, Use
from autocoder.core.probe import HeldPort, Liveness
from autocoder.core.settings import PortSettings

ALERT_AFTER = 10
"""Refused leases in a row that are worth one alert."""


@dataclass(frozen=True, slots=True)
class _Choice:
    port: int
    row: LeaseRow | None
    """Its row, where the port has one already."""


@dataclass(slots=True)
class Granting:
    """Grants pairs, and holds what the kernel picked until its worker does."""

    ledger: Ledger
    pools: Pools
    host: Host
    saying: Saying
    settings: PortSettings
    now: Callable[[], float]
    _held: dict[tuple[str, str], list[HeldPort]] = field(default_factory=dict)

    def grant(
        self,
        connection: Connection,
        holder: Holder,
        ttl_s: float | None,
        preferred: PortPair | None = None,
    ) -> PortPair | PoolExhausted:
        """A pair, the preferred one where it is to be had, or why there is none."""
        now = self.now()
        held = self.leased(connection, holder.name, holder.project)
        if held:
            return self._granted_before(connection, holder, held, now, ttl_s)
        pools = self.pools.ranges(self.ledger, connection)
        self.let_go(holder.name, holder.project)
        chosen = self._as_before(connection, preferred, pools) if preferred else {}
        for role in Role:
            if role in chosen:
                continue
            name = PoolName(role, self.settings.address)
            if self.pools.kernel_picks:
                choice = self._hold(connection, holder)
            else:
                choice = self._choose(connection, name, pools)
            if choice is None:
                return self._refusal(connection, name, pools)
            chosen[role] = choice
        epoch = self.ledger.count_up(connection, EPOCH)
        values = {
            **self.host.columns(holder),
            "state": LeaseState.LEASED.value,
            "epoch": epoch,
            "leased_at": now,
            "changed_at": now,
            "due_at": None if ttl_s is None else now + ttl_s,
            "listener_pid": None,
            "listener": "",
        }
        fresh = []
        for role, choice in chosen.items():
            values |= {"role": role.value, "address": self.settings.address}
            if choice.row is None:
                fresh.append(values | {"port": choice.port})
            else:
                self.ledger.change(connection, choice.row, values)
        if fresh:
            self.ledger.insert(connection, fresh)
        self.ledger.reset(connection, CONSECUTIVE)
        return PortPair(chosen[Role.API].port, chosen[Role.WEB].port, epoch)

    def _granted_before(
        self,
        connection: Connection,
        holder: Holder,
        held: list[LeaseRow],
        now: float,
        ttl_s: float | None,
    ) -> PortPair:
        values: dict[str, Any] = {}
        if ttl_s is not None:
            values["due_at"] = now + ttl_s
        if self._follows(holder, held[0]):
            epoch = self.ledger.count_up(connection, EPOCH)
            values = self.host.columns(holder) | values | {"epoch": epoch, "changed_at": now}
        if values:
            for row in held:
                self.ledger.change(connection, row, values)
        return replace(_pair(held), epoch=values.get("epoch", held[0].epoch))

    def replaced(
        self, connection: Connection, holder: Holder, epoch: int
    ) -> PortPair | PoolExhausted:
        """Another pair than the one of that epoch, which turned out to be taken."""
        rows = self.leased(connection, holder.name, holder.project)
        refuse_stale(rows, holder.name, epoch)
        self.let_go(holder.name, holder.project)
        now, listeners = self.now(), self.host.kernel.listeners()
        for row in rows:
            sight = self.host.look(row.port, row.address, listeners)
            if sight.use is Use.TAKEN:
                values = transitions.quarantined(now, sight)
                self.saying.taken(row.port, values["listener_pid"], values["listener"])
            else:
                values = transitions.cooling(now, self.settings.cooldown_s)
            self.ledger.change(connection, row, values)
        ends_at = rows[0].due_at
        return self.grant(connection, holder, None if ends_at is None else ends_at - now)

    def leased(self, connection: Connection, name: str, project: str) -> list[LeaseRow]:
        """The rows of what a holder may use."""
        rows = self.ledger.held(connection, name, project)
        return [row for row in rows if row.state == LeaseState.LEASED]

    def let_go(self, name: str, project: str) -> None:
        """Close what `_hold` bound, now that the worker does or nobody will."""
        for held in self._held.pop((project, name), ()):
            held.close()

    def let_all_go(self) -> None:
        for project, name in list(self._held):
            self.let_go(name, project)

    def _hold(self, connection: Connection, holder: Holder) -> _Choice | None:
        """A port of the kernel's choice, bound by us until its holder has it."""
        for _ in range(100):
            held = self.host.kernel.hold_any()
            span = PortRange(held.port, held.port + 1)
            barred = held.port in self.pools.rules.never
            if not barred and any(self.ledger.unleased(connection, span)):
                self._held.setdefault((holder.project, holder.name), []).append(held)
                return _Choice(held.port, None)
            held.close()
        return None

    def _as_before(
        self,
        connection: Connection,
        preferred: PortPair,
        pools: Mapping[PoolName, list[PortRange]],
    ) -> dict[Role, _Choice]:
        """Both ports of an earlier pair, or nothing when one of them is no longer to be had."""
        chosen: dict[Role, _Choice] = {}
        for role, port in zip(Role, (preferred.api_port, preferred.web_port), strict=True):
            name = PoolName(role, self.settings.address)
            in_pool = not self.pools.kernel_picks and any(port in span for span in pools[name])
            if not in_pool or port in self.pools.rules.never:
                return {}
            row = self.ledger.row(connection, port)
            sight = self.host.look(port, name.address, None)
            if row is None:
                free = sight.use is Use.FREE
            else:
                # Nobody else had it since that epoch: its closed connections are its own.
                rests = row.state == LeaseState.COOLING and row.epoch == preferred.epoch
                free = rests and sight.use is not Use.TAKEN
            if not free:
                return {}
            chosen[role] = _Choice(port, row)
        return chosen

    def _choose(
        self, connection: Connection, name: PoolName, pools: Mapping[PoolName, list[PortRange]]
    ) -> _Choice | None:
        """The lowest free port, else a resting one, one no longer taken, or one of new growth."""
        spans = pools[name]
        if (choice := self._unleased(connection, name, spans)) is not None:
            return choice
        for state in (LeaseState.COOLING, LeaseState.QUARANTINED):
            for span in spans:
                for row in self.ledger.resting(connection, state, name.role, span):
                    barred = row.port in self.pools.rules.never
                    if not barred and self.host.is_free(row.port, name.address):
                        return _Choice(row.port, row)
        if not self.settings.auto_expand:
            return None
        try:
            grown = self.pools.grow(self.ledger, connection, name, spans)
        except RefusedError:
            return None  # the caller's own refusal names the remedy
        return None if grown is None else self._unleased(connection, name, [grown])

    def _unleased(
        self, connection: Connection, name: PoolName, spans: Iterable[PortRange]
    ) -> _Choice | None:
        """The lowest port without a row that is free; those found taken are quarantined."""
        listeners: Listeners | None = None
        for span in spans:
            for port in self.ledger.unleased(connection, span):
                if port in self.pools.rules.never:
                    continue
                if self.host.is_free(port, name.address):
                    return _Choice(port, None)
                listeners = self.host.kernel.listeners() if listeners is None else listeners
                self._quarantine(connection, name, port, listeners)
        return None

    def _quarantine(
        self,
        connection: Connection,
        name: PoolName,
        port: int,
        listeners: Listeners,
    ) -> None:
        sight = Sight(Use.TAKEN, listener(port, name.address, listeners))
        columns = transitions.quarantined(self.now(), sight)
        self.ledger.insert(
            connection,
            [{**columns, "port": port, "role": name.role.value, "address": name.address}],
        )
        self.saying.taken(port, columns["listener_pid"], columns["listener"])

    def _refusal(
        self, connection: Connection, name: PoolName, pools: Mapping[PoolName, list[PortRange]]
    ) -> PoolExhausted:
        rows = [as_lease(row) for row in self.ledger.all_rows(connection)]
        pool = self.pools.count(name, pools[name], rows)
        blockers = [
            f"{lease.port} by {who(lease.listener_pid, lease.listener)}"
            for lease in rows
            if lease.state is LeaseState.QUARANTINED and any(lease.port in s for s in pool.ranges)
        ]
        text = f"no port of pool {name} is free: of {pool.usable}, {pool.leased} are leased"
        if pool.cooling:
            text += f", {pool.cooling} are still closing connections"
        if blockers:
            text += f", {len(blockers)} are held by other programs: {', '.join(blockers[:3])}"
            text += f" and {len(blockers) - 3} more" if len(blockers) > 3 else ""
        hint = f"Stop an agent, or extend the pool: `autocoder ports expand {name.role}`."
        if total(pool.ranges) >= self.settings.max_ports:
            hint = (
                "Stop an agent, or raise ports.max_ports ($AUTOCODER_PORTS_MAX_PORTS), "
                f"which is {self.settings.max_ports}."
            )
        self.ledger.count_up(connection, FAILURES)
        if self.ledger.count_up(connection, CONSECUTIVE) == ALERT_AFTER:
            self.saying.say(
                Severity.ERROR,
                f"pool {name}",
                f"{ALERT_AFTER} leases in a row were refused: {text}. {hint}",
            )
        return PoolExhausted(
            text, hint, role=name.role.value, usable=pool.usable, leased=pool.leased
        )

    def _follows(self, holder: Holder, row: LeaseRow) -> bool:
        """Whether the holder comes after a namesake that is seen dead."""
        if row.pid is None or holder.pid in (None, row.pid):
            return False
        return self.host.liveness(row) is Liveness.DEAD


def _pair(rows: Iterable[LeaseRow]) -> PortPair:
    ports = {Role(row.role): row for row in rows}
    return PortPair(ports[Role.API].port, ports[Role.WEB].port, ports[Role.API].epoch)


def refuse_stale(rows: Iterable[LeaseRow], name: str, epoch: int) -> None:
    """Let only whoever has the lease of that epoch go on.

    Raises:
        StaleLease: the holder has none of that epoch.
    """
    epochs = {row.epoch for row in rows}
    # Epoch 0: told by the worker itself, which does not know it.
    if epochs not in ({epoch}, {0}):
        now = f"its epoch is {max(epochs)}" if epochs else "it holds none"
        raise StaleLease(
            f"{name} has no lease of epoch {epoch} any more: {now}",
            "Lease again before using any port.",
        )
