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
    Connection,
    LeaseRow,
    Ledger,
    as_lease,
)
from autocoder.core.ports.pools import HELD, PoolName, Pools
from autocoder.core.ports.repair import (
    Finding,
    Kind,
    RepairReport,
    Scene,
    Sightings,
    compare,
)
from autocoder.core.ports.rules import PortRules, host_rules, total
from autocoder.core.ports.settling import Sight, Use
from autocoder.core.ports.workers import LiveWorker, live_workers
from autocoder.core.probe import HeldPort, Kernel, ListeningSocket, Liveness
from autocoder.core.settings import PortSettings

ALERT_AFTER = 10
"""Refused leases in a row that are worth one alert."""
EXPAND_AT_PERCENT = 90
MAX_TTL_S = 366 * 86_400.0
_LOOK_S = 0.25
"""How often what only the kernel can tell is looked at: releasing ports, outside holders."""


@dataclass(frozen=True, slots=True)
class _Choice:
    port: int
    row: LeaseRow | None
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
        self._sightings = Sightings(now)
        self._held: dict[tuple[str, str], list[HeldPort]] = {}
        self._ledger = Ledger(
            path,
            kernel.identity.host_id,
            on_loss=self._tell_first_rows,
            on_damage=self._say_damage,
        )
        self._say_opening()

    def close(self) -> None:
        """Let go of the file and of ports held for workers to come; every lease stays."""
        for project, name in list(self._held):
            self._let_go(name, project)
        self._ledger.close()

    # ------------------------------------------------------------------ leasing

    def lease(self, holder: Holder, *, ttl_s: float | None = None) -> PortPair:
        """Grant `holder` a free port of each pool, or return the pair it holds.

        Durable when it returns. It ends by itself after `ttl_s` seconds, counted
        anew by every call that names them. A holder that had died is followed by its
        namesake under a new epoch.

        Raises:
            PoolExhausted: no pair is free; names the pool and what blocks it, no
                port has changed hands.
            RefusedError: the process that is to bound the lease does not exist.
        """
        holder = self._checked(holder)
        if ttl_s is not None and not 0 < ttl_s <= MAX_TTL_S:
            raise UsageError(f"a lease cannot end after {ttl_s:g} s", "A second to a year will do.")
        return self._granted(lambda connection: self._grant(connection, holder, ttl_s))

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
            return self._grant(connection, holder, None)

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
        self._let_go(holder.name, holder.project)

    def release(self, name: str, project: str, *, epoch: int | None = None) -> None:
        """Give a pair back; it is leased again once nothing uses it any more.

        Nothing happens when the holder has none. Where nothing of the holder lives
        and both ports are free, they rest at once.

        Raises:
            StaleLease: `epoch` is not that of the lease; the lease stays.
        """
        self._let_go(name, project)
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

    # ------------------------------------------------------------------ repair

    def check(self, agents: Iterable[LiveWorker] = ()) -> tuple[Finding, ...]:
        """Everything that is not as it should be now, by port; changes nothing.

        `agents` are those a project knows to live; the workers of other projects
        that use this ledger are known by their arguments.
        """
        leases = self._current().leases
        projects = {lease.project for lease in leases if lease.project}
        workers = {(worker.project, worker.agent_id): worker for worker in agents}
        processes = self._kernel.processes()
        for worker in live_workers(self._kernel, processes):
            if worker.project in projects:
                workers.setdefault((worker.project, worker.agent_id), worker)
        return compare(
            Scene(
                leases=leases,
                workers=sorted(workers.values(), key=lambda w: (w.pid_start, w.pid)),
                ranges=[span for pool in self.status().pools for span in pool.ranges],
                listeners=self._kernel.listeners(),
                processes=processes,
                liveness=self._holders_liveness(),
                now=self._now(),
            )
        )

    def repair(self, agents: Iterable[LiveWorker] = ()) -> RepairReport:
        """Mend what `check` has found several times in a row, at least a second apart.

        Called every tick; nothing happens within a second of the last look. Ports of
        dead holders are given back, live agents get their lost leases back; of two
        agents with one port the newer is returned to be stopped, not stopped here.
        """
        if not self._sightings.due:
            return RepairReport((), ())
        agents = tuple(agents)
        findings = self.check(agents)
        stop: dict[tuple[str, str], LiveWorker] = {}
        known = {(w.project, w.agent_id): w for w in (*live_workers(self._kernel), *agents)}
        for finding in self._sightings.add(findings):
            worker = known.get((finding.project, finding.agent_id))
            match finding.kind:
                case Kind.LEAK:
                    self._reclaim(finding)
                case Kind.MISMATCH if worker is not None:
                    self._restore(worker)
                case Kind.DUPLICATE if worker is not None:
                    stop[(worker.project, worker.agent_id)] = worker
            self._say(Severity.WARNING, finding.agent_id, finding.detail)
        return RepairReport(findings, tuple(stop.values()))

    def _holders_liveness(self) -> dict[int, Liveness]:
        rows = self._ledger.read(self._ledger.all_rows)
        return {row.port: self._liveness(row) for row in rows if row.state in HELD}

    def _reclaim(self, finding: Finding) -> None:
        """Take the ports of a dead holder back; what still listens on them keeps them out."""

        def action(connection: Connection) -> None:
            for row in self._leased(connection, finding.agent_id, finding.project):
                if self._liveness(row) is Liveness.DEAD:
                    self._ledger.change(connection, row, settling.releasing(self._now()))

        self._ledger.write(action)

    def _restore(self, worker: LiveWorker) -> None:
        """Give a live worker its lease back unless another holder has one of its ports."""

        def action(connection: Connection) -> None:
            present = {row.port: row for row in self._ledger.all_rows(connection)}
            mine = (worker.project, worker.agent_id)
            rows = self._worker_rows(worker)
            for port in rows:
                row = present.get(port)
                if row is not None and row.state in HELD and (row.project, row.holder) != mine:
                    return
            for port, values in rows.items():
                row = present.get(port)
                if row is None:
                    self._ledger.insert(connection, [values])
                else:
                    epoch = row.epoch if row.state in HELD else worker.epoch
                    self._ledger.change(connection, row, {**values, "epoch": epoch})

        self._ledger.write(action)

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
        pools = [(pool, _counts(pool)) for pool in status.pools]
        return {
            "host_id": status.host_id,
            "pools": {pool.role.value: counts for pool, counts in pools if not pool.address},
            "address_pools": [
                {"role": pool.role.value, "address": pool.address, **counts}
                for pool, counts in pools
                if pool.address
            ],
            "port_allocation_failures": status.port_allocation_failures,
            "consecutive_failures": status.consecutive_failures,
        }

    def holder_lives(self, name: str, project: str) -> bool:
        """Whether the process that bounds the lease may still live; False where there is none."""
        rows = self._ledger.read(lambda connection: self._leased(connection, name, project))
        return any(row.pid is not None and self._liveness(row) is not Liveness.DEAD for row in rows)

    # ------------------------------------------------------------------ granting

    def _granted(self, action: Callable[[Connection], PortPair | PoolExhausted]) -> PortPair:
        # The refusal is counted and the ports found taken are kept: no exception inside.
        answer = self._ledger.write(action)
        if isinstance(answer, PoolExhausted):
            raise answer
        return answer

    def _grant(
        self, connection: Connection, holder: Holder, ttl_s: float | None
    ) -> PortPair | PoolExhausted:
        now = self._now()
        held = self._leased(connection, holder.name, holder.project)
        if held:
            return self._granted_before(connection, holder, held, now, ttl_s)
        pools = self._pools.ranges(self._ledger, connection)
        chosen: dict[Role, _Choice] = {}
        self._let_go(holder.name, holder.project)
        for role in Role:
            name = self._pool(role, None)
            if self._pools.kernel_picks:
                choice = self._hold(connection, holder)
            else:
                choice = self._choose(connection, name, pools)
            if choice is None:
                return self._refusal(connection, name, pools)
            chosen[role] = choice
        epoch = self._ledger.count_up(connection, EPOCH)
        values = {
            **self._holder_columns(holder),
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
            values |= {"role": role.value, "address": self._settings.address}
            if choice.row is None:
                fresh.append(values | {"port": choice.port})
            else:
                self._ledger.change(connection, choice.row, values)
        if fresh:
            self._ledger.insert(connection, fresh)
        self._ledger.reset(connection, CONSECUTIVE)
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
            epoch = self._ledger.count_up(connection, EPOCH)
            values = self._holder_columns(holder) | values | {"epoch": epoch, "changed_at": now}
        if values:
            for row in held:
                self._ledger.change(connection, row, values)
        return replace(_pair(held), epoch=values.get("epoch", held[0].epoch))

    def _hold(self, connection: Connection, holder: Holder) -> _Choice | None:
        """A port of the kernel's choice, bound by us until its holder has it."""
        for _ in range(100):
            held = self._kernel.hold_any()
            span = PortRange(held.port, held.port + 1)
            if held.port not in self._rules.never and any(self._ledger.unleased(connection, span)):
                self._held.setdefault((holder.project, holder.name), []).append(held)
                return _Choice(held.port, None)
            held.close()
        return None

    def _let_go(self, name: str, project: str) -> None:
        """Close what `_hold` bound, now that the worker does or nobody will."""
        for held in self._held.pop((project, name), ()):
            held.close()

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

    def _follows(self, holder: Holder, row: LeaseRow) -> bool:
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
        rows: Iterable[LeaseRow],
        now: float,
        listeners: Mapping[int, tuple[ListeningSocket, ...]] | None,
    ) -> dict[LeaseRow, settling.Values]:
        """`listeners` None: what is taken is not asked about further."""
        rows = list(rows)
        if not all(self._holder_gone(row) for row in rows):
            return {}
        pair = {row: self._look(row.port, row.address, listeners) for row in rows}
        if listeners is None and any(sight.use is Use.TAKEN for sight in pair.values()):
            return {}
        return settling.after_release(pair, now=now, cooldown_s=self._settings.cooldown_s)

    def _holder_gone(self, row: LeaseRow) -> bool:
        """Whether nothing but a bound port can still be of a holder that let go."""
        # An outside holder's word counts, and so does ours for a worker we never started.
        if not row.project or row.pid is None or row.pid == os.getpid():
            return True
        return self._liveness(row) is Liveness.DEAD

    def _settle(self, now: float) -> None:
        rows = self._ledger.read(self._ledger.unsettled)
        changes = self._changes(rows, now)
        may_grow = self._settings.auto_expand and not self._pools.kernel_picks
        grow = self._ledger.read(self._nearly_used_up) if may_grow else []
        if changes or grow:
            self._ledger.write(lambda connection: self._apply(connection, changes, grow))
        self._look_again_at = now + self._next_look(rows, now)

    def _changes(self, rows: list[LeaseRow], now: float) -> dict[LeaseRow, settling.Values]:
        changes: dict[LeaseRow, settling.Values] = {}
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
        changes: Mapping[LeaseRow, settling.Values],
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

    def _next_look(self, rows: Iterable[LeaseRow], now: float) -> float:
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

    def _nearly_used_up(self, connection: Connection) -> list[PoolName]:
        """Pools that have just passed the mark; each once until it falls below it again."""
        pools = self._pools.ranges(self._ledger, connection)
        above = {
            name
            for name, spans in pools.items()
            if self._percent(connection, spans) >= EXPAND_AT_PERCENT
        }
        fresh = above - self._crossed
        self._crossed = above
        return sorted(fresh, key=str)

    def _percent(self, connection: Connection, spans: Iterable[PortRange]) -> int:
        """How much of these ranges cannot be granted at once."""
        spans = tuple(spans)
        usable = self._rules.usable(spans)
        return 100 * self._ledger.count_rows(connection, spans) // usable if usable else 0

    def _grow(
        self, connection: Connection, name: PoolName, pools: Mapping[PoolName, list[PortRange]]
    ) -> PortRange | None:
        """Expand a pool that is nearly used up; None when it is not, or no more.

        Raises:
            RefusedError: it cannot be expanded.
        """
        percent = self._percent(connection, pools[name])
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

    def _count(
        self, name: PoolName, spans: Iterable[PortRange], leases: Iterable[Lease]
    ) -> PoolStatus:
        ranges = tuple(spans)
        counts = dict.fromkeys(LeaseState, 0)
        for lease in leases:
            elsewhere = self._pools.kernel_picks and lease.role is not name.role
            if lease.port in self._rules.never or elsewhere:
                continue
            if any(lease.port in span for span in ranges):
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

    def _leased(self, connection: Connection, name: str, project: str) -> list[LeaseRow]:
        rows = self._ledger.held(connection, name, project)
        return [row for row in rows if row.state == LeaseState.LEASED]

    def _liveness(self, row: LeaseRow) -> Liveness:
        if row.pid is None:
            return Liveness.UNKNOWN
        return self._kernel.liveness(row.pid, row.pid_start, row.boot_id)

    def _refuse_stale(self, rows: Iterable[LeaseRow], name: str, epoch: int) -> None:
        epochs = {row.epoch for row in rows}
        # Epoch 0: told by the worker itself, which does not know it.
        if epochs not in ({epoch}, {0}):
            now = f"its epoch is {max(epochs)}" if epochs else "it holds none"
            raise StaleLease(
                f"{name} has no lease of epoch {epoch} any more: {now}",
                "Lease again before using any port.",
            )

    # ------------------------------------------------------------------ a new ledger

    def _tell_first_rows(self, ledger: Ledger, connection: Connection) -> None:
        """A ledger that was lost is told anew by the workers that live."""
        # Epochs of the lost ledger must not come again while somebody may still name them.
        ledger.count_up(connection, EPOCH, int(self._now()))
        workers = live_workers(self._kernel)
        taken: set[int] = set()
        for worker in workers:
            if taken.isdisjoint((worker.api_port, worker.web_port)):
                ledger.insert(connection, self._worker_rows(worker).values())
                taken |= {worker.api_port, worker.web_port}
        self._say(
            Severity.WARNING,
            "ledger",
            f"the ledger {ledger.path} was begun anew from {len(workers)} live workers",
        )

    def _worker_rows(self, worker: LiveWorker) -> dict[int, dict[str, Any]]:
        """The rows that a live worker's own word stands for, by port."""
        now = self._now()
        holder = Holder(worker.agent_id, worker.project, worker.pid, worker.pid_start)
        values = {
            **self._holder_columns(holder),
            "state": LeaseState.LEASED.value,
            "epoch": worker.epoch,
            "leased_at": now,
            "changed_at": now,
            "due_at": None,
            "listener_pid": None,
            "listener": "",
        }
        ports = {worker.api_port: Role.API, worker.web_port: Role.WEB}
        return {port: {**values, "port": port, "role": role.value} for port, role in ports.items()}

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

    def _say_change(self, row: LeaseRow, values: settling.Values) -> None:
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


def _counts(pool: PoolStatus) -> dict[str, object]:
    return {
        "ranges": [[span.start, span.end] for span in pool.ranges],
        "total": pool.total,
        "usable": pool.usable,
        "leased": pool.leased,
        "cooling": pool.cooling,
        "quarantined": pool.quarantined,
        "available": pool.available,
        "capacity_percent": pool.capacity_percent,
    }


def _pair(rows: Iterable[LeaseRow]) -> PortPair:
    ports = {Role(row.role): row for row in rows}
    return PortPair(ports[Role.API].port, ports[Role.WEB].port, ports[Role.API].epoch)


def _by_lease(rows: Iterable[LeaseRow]) -> Iterator[list[LeaseRow]]:
    """Rows grouped by the grant they came from."""
    groups: dict[tuple[str, str, int], list[LeaseRow]] = {}
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
