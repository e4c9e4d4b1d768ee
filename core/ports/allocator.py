"""Leases of TCP ports, so that no two agents of a host listen on the same one.

A lease lives in the database, not in memory: it outlives the panel, and is
reclaimed when its holder is seen dead. A port is granted only after an exclusive
bind has succeeded, because other programs do not ask us.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row

from autocoder.core.database import network_file_system
from autocoder.core.errors import (
    DatabaseError,
    PoolExhausted,
    RefusedError,
    StaleLease,
    UsageError,
)
from autocoder.core.models import (
    Holder,
    Lease,
    LeaseState,
    LedgerStatus,
    Notice,
    PoolStatus,
    PortPair,
    PortRange,
    Role,
    Severity,
)
from autocoder.core.ports import settling
from autocoder.core.ports.ledger import (
    CONSECUTIVE,
    EPOCH,
    FAILURES,
    Ledger,
    as_lease,
)
from autocoder.core.ports.pools import HELD, PoolName, Pools
from autocoder.core.ports.rules import PortRules, host_rules, total
from autocoder.core.ports.settling import Sight, Use
from autocoder.core.ports.workers import LiveWorker, live_workers
from autocoder.core.probe import Kernel, ListeningSocket, Liveness
from autocoder.core.settings import PortSettings

ALERT_AFTER = 10
"""Refused leases in a row that are worth one alert."""
EXPAND_AT_PERCENT = 90
_LOOK_S = 0.25
"""How often what only the kernel can tell is looked at: releasing ports, outside holders."""


@dataclass(frozen=True, slots=True)
class _Choice:
    port: int
    row: Row[Any] | None
    """Its row, where the port has one already."""


@dataclass(frozen=True, slots=True)
class _View:
    """The ledger as last read, valid while its version is the same."""

    version: tuple[int, ...]
    leases: tuple[Lease, ...]
    status: LedgerStatus


class PortAllocator:
    """Grants, watches and takes back the port pairs of one host.

    Safe from any thread or process of the host. What it has to say to the human
    comes out of `settle`.

    Raises:
        DatabaseError: the ledger cannot be used; a damaged one is replaced instead.
        UsageError: a declared range overlaps the kernel's ephemeral ports.
    """

    def __init__(
        self,
        path: Path,
        settings: PortSettings,
        *,
        ui_port: int,
        kernel: Kernel,
        now: Callable[[], float] = time.time,
        rules: PortRules | None = None,
    ) -> None:
        self._settings = settings
        self._kernel = kernel
        self._now = now
        self._rules = rules or host_rules(ui_port)
        self._pools = Pools(settings, self._rules, now)
        self._said: deque[Notice] = deque()
        self._lock = threading.RLock()
        self._view: _View | None = None
        self._settled: tuple[int, ...] | None = None
        self._settled_at = self._look_again_at = 0.0
        self._crossed: set[PoolName] = set()
        self._ledger = Ledger(
            path,
            kernel.identity.host_id,
            on_new=self._tell_first_rows,
            on_damage=self._say_damage,
        )
        self._say_opening()

    def close(self) -> None:
        """Let go of the file; every lease stays."""
        self._ledger.close()

    # ------------------------------------------------------------------ leasing

    def lease(self, holder: Holder) -> PortPair:
        """Grant `holder` a free port of each pool, or return the pair it holds.

        Durable when it returns. A holder that had died is followed by its namesake
        under a new epoch.

        Raises:
            PoolExhausted: no pair is free; names the pool and what blocks it, no
                port has changed hands.
            RefusedError: the process that is to bound the lease does not exist.
        """
        holder = self._checked(holder)
        return self._granted(lambda connection: self._grant(connection, holder))

    def replace(self, holder: Holder, epoch: int) -> PortPair:
        """Grant another pair because the one of that epoch turned out to be taken.

        What is taken is quarantined, what is free goes on resting.

        Raises:
            PoolExhausted: no other pair is free; the old one is given back all the same.
            StaleLease: the holder has no lease of that epoch.
        """
        holder = self._checked(holder)

        def action(connection: Connection) -> PortPair | PoolExhausted:
            rows = self._leased(connection, holder.name, holder.project)
            self._refuse_stale(rows, holder.name, epoch)
            now, listeners = self._now(), self._kernel.listeners()
            for row in rows:
                sight = self._look(row.port, row.address, listeners)
                self._ledger.change(
                    connection,
                    row,
                    settling.cooling(now, self._settings.cooldown_s)
                    if sight.use is Use.FREE
                    else settling.quarantined(now, sight),
                )
            return self._grant(connection, holder)

        return self._granted(action)

    def confirm(self, holder: Holder, epoch: int) -> None:
        """Let the life of `holder.pid` bound the lease from now on.

        Raises:
            StaleLease: the holder has no lease of that epoch any more.
            RefusedError: there is no such process.
        """
        holder = self._checked(holder)

        def action(connection: Connection) -> None:
            rows = self._leased(connection, holder.name, holder.project)
            self._refuse_stale(rows, holder.name, epoch)
            for row in rows:
                self._ledger.change(connection, row, self._holder_columns(holder))

        self._ledger.write(action)

    def release(self, name: str, project: str, *, epoch: int | None = None) -> None:
        """Give a pair back; it is leased again once nothing uses it any more.

        Nothing happens when the holder has none. Where nothing of the holder lives
        and both ports are free, they rest at once.

        Raises:
            StaleLease: `epoch` is not that of the lease; the lease stays.
        """
        self._ledger.write(lambda connection: self._release(connection, name, project, epoch))

    def allocate_ports(self, agent_id: str) -> tuple[int, int] | None:
        """The pair of `agent_id`, bounded by the life of this process; None when none is free.

        The predecessor's call; `lease` says more and knows projects.
        """
        try:
            pair = self.lease(Holder(agent_id, pid=os.getpid()))
        except PoolExhausted:
            return None
        return pair.api_port, pair.web_port

    def release_ports(self, agent_id: str) -> bool:
        """Give the pair of `allocate_ports` back; False when there is none."""
        return self._ledger.write(lambda connection: self._release(connection, agent_id, "", None))

    # ------------------------------------------------------------------ time passing

    def settle(self) -> tuple[Notice, ...]:
        """Move every port on that can be, grow what is nearly used up, say what happened.

        Called every tick; microseconds when the ledger is as it was and nothing is
        due. Notices have no id yet.
        """
        with self._lock:
            now, version = self._now(), self._ledger.version()
            quiet = version == self._settled and self._settled_at <= now < self._look_again_at
            if not quiet:
                self._settle(now)
                self._settled, self._settled_at = version, now
            said = tuple(self._said)
            self._said.clear()
            return said

    # ------------------------------------------------------------------ growth

    def expand(
        self, role: Role, amount: int | PortRange | None = None, *, address: str | None = None
    ) -> PortRange:
        """Grow a pool by a range, or by the next block of that many ports free of conflicts.

        None: as many as the pool's first range has. Durable, and for every project
        of the host.

        Raises:
            RefusedError: no such range is to be had; names the reason.
            UsageError: the range or the count is no such thing.
        """
        name = self._pool(role, address)
        return self._ledger.write(
            lambda connection: self._pools.expand(self._ledger, connection, name, amount, "asked")
        )

    def shrink(
        self, role: Role, span: PortRange | None = None, *, address: str | None = None
    ) -> PortRange:
        """Take back what a pool was grown by, its youngest range by default.

        Raises:
            RefusedError: one of the ports is held; nothing has changed.
            UsageError: the pool was not grown by that range.
        """
        name = self._pool(role, address)
        return self._ledger.write(
            lambda connection: self._pools.shrink(self._ledger, connection, name, span)
        )

    # ------------------------------------------------------------------ looking

    def status(self) -> LedgerStatus:
        """The counts of every pool."""
        return self._current().status

    def leases(self) -> tuple[Lease, ...]:
        """Every row of the host by port, with who listens there now."""
        leases = self._current().leases
        listeners = self._kernel.listeners() if leases else {}
        return tuple(_with_listener(lease, listeners) for lease in leases)

    def get_status(self) -> dict[str, object]:
        """The counts as scripts read them."""
        status = self.status()
        return {
            "host_id": status.host_id,
            "pools": {
                pool.role.value: {
                    "ranges": [[span.start, span.end] for span in pool.ranges],
                    "total": pool.total,
                    "usable": pool.usable,
                    "leased": pool.leased,
                    "cooling": pool.cooling,
                    "quarantined": pool.quarantined,
                    "available": pool.available,
                    "capacity_percent": pool.capacity_percent,
                }
                for pool in status.pools
            },
            "port_allocation_failures": status.port_allocation_failures,
            "consecutive_failures": status.consecutive_failures,
        }

    # ------------------------------------------------------------------ granting

    def _granted(self, action: Callable[[Connection], PortPair | PoolExhausted]) -> PortPair:
        # The refusal is counted and the ports found taken are kept: no exception inside.
        answer = self._ledger.write(action)
        if isinstance(answer, PoolExhausted):
            raise answer
        return answer

    def _grant(self, connection: Connection, holder: Holder) -> PortPair | PoolExhausted:
        held = self._leased(connection, holder.name, holder.project)
        if held:
            if not self._follows(holder, held[0]):
                return _pair(held)
            epoch = self._ledger.count_up(connection, EPOCH)
            values = self._holder_columns(holder) | {"epoch": epoch, "changed_at": self._now()}
            for row in held:
                self._ledger.change(connection, row, values)
            return replace(_pair(held), epoch=epoch)
        pools = self._pools.ranges(self._ledger, connection)
        chosen: dict[Role, _Choice] = {}
        for role in Role:
            choice = self._choose(connection, self._pool(role, None), pools)
            if choice is None:
                return self._refusal(connection, self._pool(role, None), pools)
            chosen[role] = choice
        epoch = self._ledger.count_up(connection, EPOCH)
        now = self._now()
        values = {
            **self._holder_columns(holder),
            "state": LeaseState.LEASED.value,
            "epoch": epoch,
            "leased_at": now,
            "changed_at": now,
            "listener_pid": None,
            "listener": "",
        }
        fresh = []
        for role, choice in chosen.items():
            if choice.row is None:
                address = self._settings.address
                fresh.append(
                    {**values, "port": choice.port, "role": role.value, "address": address}
                )
            else:
                self._ledger.change(connection, choice.row, {**values, "role": role.value})
        if fresh:
            self._ledger.insert(connection, fresh)
        self._ledger.reset(connection, CONSECUTIVE)
        return PortPair(chosen[Role.API].port, chosen[Role.WEB].port, epoch)

    def _choose(
        self, connection: Connection, name: PoolName, pools: Mapping[PoolName, list[PortRange]]
    ) -> _Choice | None:
        """The lowest free port, else a resting one, one no longer taken, or one of new growth."""
        spans = pools[name]
        if (choice := self._unleased(connection, name, spans)) is not None:
            return choice
        for state in (LeaseState.COOLING, LeaseState.QUARANTINED):
            for span in spans:
                for row in self._ledger.resting(connection, state, span):
                    if row.port not in self._rules.never and self._is_free(row.port, name.address):
                        return _Choice(row.port, row)
        if not self._settings.auto_expand:
            return None
        try:
            grown = self._grow(connection, name, pools)
        except RefusedError:
            return None  # the caller's own refusal names the remedy
        return None if grown is None else self._unleased(connection, name, [grown])

    def _unleased(
        self, connection: Connection, name: PoolName, spans: Iterable[PortRange]
    ) -> _Choice | None:
        """The lowest port without a row that is free; those found taken are quarantined."""
        listeners: Mapping[int, tuple[ListeningSocket, ...]] | None = None
        for span in spans:
            for port in self._ledger.unleased(connection, span):
                if port in self._rules.never:
                    continue
                if self._is_free(port, name.address):
                    return _Choice(port, None)
                listeners = self._kernel.listeners() if listeners is None else listeners
                self._quarantine(connection, name, port, listeners)
        return None

    def _quarantine(
        self,
        connection: Connection,
        name: PoolName,
        port: int,
        listeners: Mapping[int, tuple[ListeningSocket, ...]],
    ) -> None:
        sight = Sight(Use.TAKEN, _listener(port, name.address, listeners))
        columns = settling.quarantined(self._now(), sight)
        self._ledger.insert(
            connection,
            [{**columns, "port": port, "role": name.role.value, "address": name.address}],
        )
        self._say(
            Severity.WARNING,
            f"port {port}",
            _taken(port, columns),
        )

    def _refusal(
        self, connection: Connection, name: PoolName, pools: Mapping[PoolName, list[PortRange]]
    ) -> PoolExhausted:
        rows = [as_lease(row) for row in self._ledger.all_rows(connection)]
        pool = self._count(name, pools[name], rows)
        blockers = [
            f"{lease.port} by {_who(lease.listener_pid, lease.listener)}"
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
        if total(pool.ranges) >= self._settings.max_ports:
            hint = (
                "Stop an agent, or raise ports.max_ports ($AUTOCODER_PORTS_MAX_PORTS), "
                f"which is {self._settings.max_ports}."
            )
        self._ledger.count_up(connection, FAILURES)
        if self._ledger.count_up(connection, CONSECUTIVE) == ALERT_AFTER:
            self._say(
                Severity.ERROR,
                f"pool {name}",
                f"{ALERT_AFTER} leases in a row were refused: {text}. {hint}",
            )
        return PoolExhausted(
            text, hint, role=name.role.value, usable=pool.usable, leased=pool.leased
        )

    def _follows(self, holder: Holder, row: Row[Any]) -> bool:
        """Whether the holder comes after a namesake that is seen dead."""
        if row.pid is None or holder.pid in (None, row.pid):
            return False
        return self._liveness(row) is Liveness.DEAD

    def _checked(self, holder: Holder) -> Holder:
        if not holder.name or not holder.name.isprintable() or len(holder.name) > 200:
            raise UsageError(
                f"{holder.name!r} cannot be the name of a holder",
                "A holder has a printable name of 1 to 200 characters.",
            )
        if holder.pid is None or holder.pid_start is not None:
            return holder
        start = self._kernel.start_ticks(holder.pid)
        if start is None:
            raise RefusedError(
                f"{holder.name} cannot hold ports: there is no process {holder.pid}",
                "Name the process that will use them, or none.",
            )
        return replace(holder, pid_start=start)

    def _holder_columns(self, holder: Holder) -> dict[str, Any]:
        return {
            "holder": holder.name,
            "project": holder.project,
            "pid": holder.pid,
            "pid_start": holder.pid_start,
            "boot_id": self._kernel.identity.boot_id,
            "due_at": None,
        }

    # ------------------------------------------------------------------ giving back

    def _release(self, connection: Connection, name: str, project: str, epoch: int | None) -> bool:
        rows = self._leased(connection, name, project)
        if not rows:
            return False
        if epoch is not None:
            self._refuse_stale(rows, name, epoch)
        now = self._now()
        done = self._after_release(rows, now, listeners=None)
        for row in rows:
            self._ledger.change(connection, row, done.get(row, settling.releasing(now)))
        return True

    def _after_release(
        self,
        rows: Iterable[Row[Any]],
        now: float,
        listeners: Mapping[int, tuple[ListeningSocket, ...]] | None,
    ) -> dict[Row[Any], settling.Values]:
        """`listeners` None: what is taken is not asked about further."""
        rows = list(rows)
        if not all(self._holder_gone(row) for row in rows):
            return {}
        pair = {row: self._look(row.port, row.address, listeners) for row in rows}
        if listeners is None and any(sight.use is Use.TAKEN for sight in pair.values()):
            return {}
        return settling.after_release(pair, now=now, cooldown_s=self._settings.cooldown_s)

    def _holder_gone(self, row: Row[Any]) -> bool:
        """Whether nothing but a bound port can still be of a holder that let go."""
        # An outside holder's word counts, and so does ours for a worker we never started.
        if not row.project or row.pid is None or row.pid == os.getpid():
            return True
        return self._liveness(row) is Liveness.DEAD

    def _settle(self, now: float) -> None:
        rows = self._ledger.read(self._ledger.unsettled)
        changes = self._changes(rows, now)
        grow = self._nearly_used_up() if self._settings.auto_expand else []
        if changes or grow:
            self._ledger.write(lambda connection: self._apply(connection, changes, grow))
        self._look_again_at = now + self._next_look(rows, now)

    def _changes(self, rows: list[Row[Any]], now: float) -> dict[Row[Any], settling.Values]:
        changes: dict[Row[Any], settling.Values] = {}
        listeners = self._kernel.listeners() if rows else {}
        for row in rows:
            # A clock that was set back must not make a rest longer than it was meant to be.
            due = row.due_at is not None and (row.due_at <= now or row.changed_at > now)
            match LeaseState(row.state):
                case LeaseState.COOLING if due:
                    sight = self._look(row.port, row.address, listeners)
                    changes[row] = settling.after_rest(sight, now)
                case LeaseState.QUARANTINED if due:
                    sight = self._look(row.port, row.address, listeners)
                    changes[row] = settling.after_probe(row, sight, now)
                case LeaseState.LEASED if due or self._liveness(row) is Liveness.DEAD:
                    changes[row] = settling.releasing(now)
        for pair in _by_lease(row for row in rows if row.state == LeaseState.RELEASING):
            changes |= self._after_release(pair, now, listeners)
        return changes

    def _apply(
        self,
        connection: Connection,
        changes: Mapping[Row[Any], settling.Values],
        grow: Iterable[PoolName],
    ) -> None:
        for row, values in changes.items():
            if values:
                done = self._ledger.change(connection, row, values)
            else:
                done = self._ledger.remove(connection, row)
            if done:
                self._say_change(row, values)
        pools = self._pools.ranges(self._ledger, connection)
        for name in grow:
            try:
                self._grow(connection, name, pools)
            except RefusedError as error:
                self._say(
                    Severity.WARNING,
                    f"pool {name}",
                    f"pool {name} is nearly used up and cannot grow: {error.message}. {error.hint}",
                )

    def _next_look(self, rows: Iterable[Row[Any]], now: float) -> float:
        """Seconds until something may have to be done although nobody has written."""
        waits = [60.0]
        for row in rows:
            if row.state in HELD:
                waits.append(_LOOK_S)
            if row.due_at is not None:
                waits.append(max(0.0, row.due_at - now))
        return min(waits)

    def _look(
        self,
        port: int,
        address: str,
        listeners: Mapping[int, tuple[ListeningSocket, ...]] | None,
    ) -> Sight:
        if self._is_free(port, address):
            return Sight(Use.FREE)
        listener = _listener(port, address, listeners or {})
        if listener is None and self._kernel.is_lingering(port):
            return Sight(Use.LINGERING)
        return Sight(Use.TAKEN, listener)

    def _is_free(self, port: int, address: str) -> bool:
        return self._settings.skip_check or self._kernel.is_free(port, address)

    # ------------------------------------------------------------------ growing by itself

    def _nearly_used_up(self) -> list[PoolName]:
        """Pools that have just passed the mark; each once until it falls below it again."""
        crossed = {
            name: pool.capacity_percent >= EXPAND_AT_PERCENT and pool.usable > 0
            for name, pool in self._current_pools().items()
        }
        fresh = [name for name, above in crossed.items() if above and name not in self._crossed]
        self._crossed = {name for name, above in crossed.items() if above}
        return fresh

    def _grow(
        self, connection: Connection, name: PoolName, pools: Mapping[PoolName, list[PortRange]]
    ) -> PortRange | None:
        """Expand a pool that is nearly used up; None when it is not, or no more.

        Raises:
            RefusedError: it cannot be expanded.
        """
        rows = [as_lease(row) for row in self._ledger.all_rows(connection)]
        percent = self._count(name, pools[name], rows).capacity_percent
        if percent < EXPAND_AT_PERCENT:
            return None  # another process was faster
        reason = f"Port pool {name} at {percent}% capacity"
        span = self._pools.expand(self._ledger, connection, name, None, reason)
        self._say(
            Severity.INFO, f"pool {name}", f"{reason}, expanded range {span.start}-{span.end}"
        )
        return span

    # ------------------------------------------------------------------ the view

    def _current(self) -> _View:
        with self._lock:
            version = self._ledger.version()
            if self._view is None or self._view.version != version:
                self._view = self._ledger.read(lambda connection: self._read(connection, version))
            return self._view

    def _read(self, connection: Connection, version: tuple[int, ...]) -> _View:
        leases = tuple(as_lease(row) for row in self._ledger.all_rows(connection))
        pools = self._pools.ranges(self._ledger, connection)
        counters = self._ledger.counters(connection)
        status = LedgerStatus(
            host_id=self._ledger.host_id,
            pools=tuple(self._count(name, spans, leases) for name, spans in pools.items()),
            port_allocation_failures=counters.get(FAILURES, 0),
            consecutive_failures=counters.get(CONSECUTIVE, 0),
        )
        return _View(version, leases, status)

    def _current_pools(self) -> dict[PoolName, PoolStatus]:
        status = self._current().status
        return {PoolName(pool.role, pool.address): pool for pool in status.pools}

    def _count(
        self, name: PoolName, spans: Iterable[PortRange], leases: Iterable[Lease]
    ) -> PoolStatus:
        ranges = tuple(spans)
        counts = dict.fromkeys(LeaseState, 0)
        for lease in leases:
            if lease.port not in self._rules.never and any(lease.port in span for span in ranges):
                counts[lease.state] += 1
        usable = self._rules.usable(ranges)
        return PoolStatus(
            role=name.role,
            address=name.address,
            ranges=ranges,
            total=total(ranges),
            usable=usable,
            leased=counts[LeaseState.LEASED] + counts[LeaseState.RELEASING],
            cooling=counts[LeaseState.COOLING],
            quarantined=counts[LeaseState.QUARANTINED],
            available=usable - sum(counts.values()),
        )

    def _pool(self, role: Role, address: str | None) -> PoolName:
        return PoolName(role, self._settings.address if address is None else address)

    # ------------------------------------------------------------------ rows

    def _leased(self, connection: Connection, name: str, project: str) -> list[Row[Any]]:
        rows = self._ledger.held(connection, name, project)
        return [row for row in rows if row.state == LeaseState.LEASED]

    def _liveness(self, row: Row[Any]) -> Liveness:
        if row.pid is None:
            return Liveness.UNKNOWN
        return self._kernel.liveness(row.pid, row.pid_start, row.boot_id)

    def _refuse_stale(self, rows: Iterable[Row[Any]], name: str, epoch: int) -> None:
        epochs = {row.epoch for row in rows}
        if epochs != {epoch}:
            now = f"its epoch is {max(epochs)}" if epochs else "it holds none"
            raise StaleLease(
                f"{name} has no lease of epoch {epoch} any more: {now}",
                "Lease again before using any port.",
            )

    # ------------------------------------------------------------------ a new ledger

    def _tell_first_rows(self, ledger: Ledger, connection: Connection) -> None:
        """A ledger that is not there any more is told anew by the workers that live."""
        workers = live_workers(self._kernel)
        # Epochs of the lost ledger must not come again while somebody may still name them.
        first = int(self._now()) if workers else 1
        ledger.count_up(connection, FAILURES, 0)
        taken: set[int] = set()
        for worker in workers:
            if taken.isdisjoint((worker.api_port, worker.web_port)):
                ledger.insert(
                    connection,
                    self._worker_rows(worker, ledger.count_up(connection, EPOCH, first)),
                )
                taken |= {worker.api_port, worker.web_port}
        if workers:
            self._say(
                Severity.WARNING,
                "ledger",
                f"the ledger {ledger.path} was begun anew from {len(workers)} live workers",
            )

    def _worker_rows(self, worker: LiveWorker, epoch: int) -> list[dict[str, Any]]:
        now = self._now()
        holder = Holder(worker.agent_id, worker.project, worker.pid, worker.pid_start)
        values = {
            **self._holder_columns(holder),
            "state": LeaseState.LEASED.value,
            "epoch": epoch,
            "leased_at": now,
            "changed_at": now,
        }
        return [
            {**values, "port": worker.api_port, "role": Role.API.value},
            {**values, "port": worker.web_port, "role": Role.WEB.value},
        ]

    # ------------------------------------------------------------------ saying

    def _say(self, severity: Severity, subject: str, text: str) -> None:
        self._said.append(Notice(0, self._now(), severity, subject, text))

    def _say_opening(self) -> None:
        for text in self._ledger.read(lambda c: self._pools.ignored(self._ledger, c)):
            self._say(Severity.WARNING, "ledger", text)
        if kind := network_file_system(self._ledger.path):
            self._say(
                Severity.WARNING,
                "ledger",
                f"the ledger {self._ledger.path} is on a network file system ({kind}), where "
                "locks may not hold; set AUTOCODER_LEDGER_URL to a local file",
            )

    def _say_damage(self, error: DatabaseError, kept: Path) -> None:
        self._say(
            Severity.ERROR, "ledger", f"{error.message}; it is kept as {kept.name} and begun anew"
        )

    def _say_change(self, row: Row[Any], values: settling.Values) -> None:
        subject = f"port {row.port}"
        state = values.get("state")
        if row.state == LeaseState.QUARANTINED and not values:
            self._say(Severity.INFO, subject, f"port {row.port} is free again")
        elif state == LeaseState.QUARANTINED:
            after = f", after {row.holder} gave it back" if row.holder else ""
            self._say(Severity.WARNING, subject, _taken(row.port, values, after))
        elif row.state == LeaseState.LEASED and row.role == Role.API:
            why = "its time is over" if row.due_at is not None else f"pid {row.pid} has ended"
            self._say(Severity.INFO, row.holder, f"the lease of {row.holder} has ended: {why}")


def _pair(rows: Iterable[Row[Any]]) -> PortPair:
    ports = {Role(row.role): row for row in rows}
    return PortPair(ports[Role.API].port, ports[Role.WEB].port, ports[Role.API].epoch)


def _by_lease(rows: Iterable[Row[Any]]) -> Iterator[list[Row[Any]]]:
    """Rows grouped by the grant they came from."""
    groups: dict[tuple[str, str, int], list[Row[Any]]] = {}
    for row in rows:
        groups.setdefault((row.project, row.holder, row.epoch), []).append(row)
    yield from groups.values()


def _listener(
    port: int, address: str, listeners: Mapping[int, tuple[ListeningSocket, ...]]
) -> ListeningSocket | None:
    found = listeners.get(port, ())
    exact = [listening for listening in found if address in ("", listening.address)]
    return next(iter(exact or found), None)


def _with_listener(lease: Lease, listeners: Mapping[int, tuple[ListeningSocket, ...]]) -> Lease:
    found = _listener(lease.port, "", listeners)
    if found is None:
        return replace(lease, listener_pid=None, listener="") if lease.listener else lease
    return replace(lease, listener_pid=found.pid, listener=found.command)


def _who(pid: int | None, command: str) -> str:
    if pid is not None:
        return f"pid {pid} {command}"
    return command or "a program that does not listen on it"


def _taken(port: int, columns: settling.Values, after: str = "") -> str:
    who = _who(columns["listener_pid"], columns["listener"])
    return f"port {port} is held by {who}{after}; it is not leased until it is free"
