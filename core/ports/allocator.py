"""Leases of TCP ports, so that no two agents of a host listen on the same one.

A lease lives in the database, not in memory: it outlives the panel, and is
reclaimed when its holder is seen dead. A port is granted only after an exclusive
bind has succeeded, because other programs do not ask us.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from autocoder.core.database import BUSY_TIMEOUT_S, network_file_system
from autocoder.core.errors import DatabaseError, PoolExhausted, UsageError
from autocoder.core.models import (
    Holder,
    Lease,
    LedgerStatus,
    Notice,
    PoolStatus,
    PortPair,
    PortRange,
    Role,
    Severity,
)
from autocoder.core.ports.findings import Finding
from autocoder.core.ports.granting import Granting, refuse_stale
from autocoder.core.ports.host import Host, with_listener, with_listeners
from autocoder.core.ports.ledger import CONSECUTIVE, FAILURES, Connection, Ledger, as_lease
from autocoder.core.ports.pools import PoolName, Pools
from autocoder.core.ports.repair import Repair, RepairReport, retell
from autocoder.core.ports.rules import PortRules, host_rules
from autocoder.core.ports.saying import Saying
from autocoder.core.ports.settling import Settling
from autocoder.core.ports.workers import LiveWorker
from autocoder.core.probe import HostView, Kernel, Liveness
from autocoder.core.settings import PortSettings

MAX_TTL_S = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class _View:
    """The ledger as last read, valid while its version is the same."""

    version: tuple[int, ...]
    leases: tuple[Lease, ...]
    status: LedgerStatus


class PortAllocator:
    """Grants, watches and takes back the port pairs of one host.

    Safe from any thread or process of the host. What it has to say to the human
    comes out of `settle`. A method waits `patience_s` for another program that has locked
    the ledger; once one has waited in vain, the next hardly do for a while.

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
        patience_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        self._settings = settings
        self._saying = saying = Saying(now)
        self._host = host = Host(kernel, skip_check=settings.skip_check)
        self._pools = pools = Pools(settings, rules or host_rules(ui_port), saying=saying, now=now)
        self._ledger = ledger = Ledger(
            path,
            kernel.identity.host_id,
            on_loss=lambda new, connection: retell(new, connection, host, saying, now()),
            on_damage=self._say_damage,
            patience_s=patience_s,
        )
        self._granting = Granting(ledger, pools, host, saying, settings, now)
        self._settling = Settling(ledger, pools, host, saying, settings.cooldown_s, now)
        self._repair = Repair(ledger, pools, host, saying, now)
        self._lock = threading.RLock()
        self._view: _View | None = None
        self._say_opening()

    @property
    def kernel_picks(self) -> bool:
        """Whether pairs are the kernel's choice (mode `os`).

        Such a pair is kept from other programs by this process, until it is confirmed
        or this process ends; after that only by whoever binds it.
        """
        return self._pools.kernel_picks

    def close(self) -> None:
        """Let go of the file and of ports held for workers to come; every lease stays."""
        self._granting.let_all_go()
        self._ledger.close()

    # ------------------------------------------------------------------ leasing

    def lease(
        self, holder: Holder, *, ttl_s: float | None = None, preferred: PortPair | None = None
    ) -> PortPair:
        """Grant `holder` a free port of each pool, or return the pair it holds.

        Durable when it returns. It ends by itself after `ttl_s` seconds, counted
        anew by every call that names them. A holder that had died is followed by its
        namesake under a new epoch.

        `preferred` is the pair of an earlier lease, whose work goes on: granted again,
        both ports under a new epoch, when nobody has had either since and the kernel says
        they are free, even while they rest from that very lease. Otherwise, and always
        in `os` mode, it is as if none were preferred.

        Raises:
            PoolExhausted: no pair is free; names the pool and what blocks it, no
                port has changed hands.
            RefusedError: the process that is to bound the lease does not exist.
        """
        holder = self._host.checked(holder)
        if ttl_s is not None and not 0 < ttl_s <= MAX_TTL_S:
            raise UsageError(f"a lease cannot end after {ttl_s:g} s", "A second to a year will do.")
        return self._granted(
            lambda connection: self._granting.grant(connection, holder, ttl_s, preferred)
        )

    def replace(self, holder: Holder, epoch: int) -> PortPair:
        """Grant another pair because the one of that epoch turned out to be taken.

        For a listener that appears between lease and bind. To be called once nothing of
        the holder uses the old pair any more: what is taken then is quarantined, and a
        notice names by whom; what is free rests. The new pair has an epoch of its own
        and ends when the old one would have. A holder whose third pair is taken too
        does not meet chance: give up, and `release` with that pair's epoch.

        Raises:
            PoolExhausted: no other pair is free; the old one is given back all the same.
            StaleLease: the holder has no lease of that epoch.
        """
        holder = self._host.checked(holder)
        return self._granted(lambda connection: self._granting.replaced(connection, holder, epoch))

    def confirm(self, holder: Holder, epoch: int) -> None:
        """Let the life of `holder.pid` bound the lease from now on.

        Raises:
            StaleLease: the holder has no lease of that epoch any more.
            RefusedError: there is no such process.
        """
        holder = self._host.checked(holder)

        def action(connection: Connection) -> None:
            rows = self._granting.leased(connection, holder.name, holder.project)
            refuse_stale(rows, holder.name, epoch)
            for row in rows:
                self._ledger.change(connection, row, self._host.columns(holder))

        self._ledger.write(action)
        self._granting.let_go(holder.name, holder.project)

    def release(self, name: str, project: str, *, epoch: int | None = None) -> None:
        """Give a pair back; it is leased again once nothing uses it any more.

        Nothing happens when the holder has none. Where nothing of the holder lives
        and both ports are free, they rest at once.

        Raises:
            StaleLease: `epoch` is not that of the lease; the lease stays.
        """
        self._granting.let_go(name, project)
        self._ledger.write(lambda connection: self._release(connection, name, project, epoch))

    def release_port(self, port: int) -> tuple[int, ...]:
        """Give the pair of a dead holder back, or end a quarantine; the ports given back.

        Raises:
            RefusedError: nobody has it, its holder lives or may live, or another program
                still uses it; names who. It is what it was.
        """
        return self._ledger.write(lambda connection: self._settling.take_back(connection, port))

    def probe_port(self, port: int) -> Lease | None:
        """Look now, not when it is due, whether a quarantined or releasing port is free.

        The port as it is afterwards, with who listens there; None when nobody has it.
        A lease or a rest is not ended by it.
        """
        row = self._ledger.write(lambda connection: self._settling.probe(connection, port))
        return with_listener(as_lease(row), self._host.kernel.listeners()) if row else None

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
            self._settling.settle()
            return self._saying.take()

    # ------------------------------------------------------------------ repair

    def check(self, agents: Iterable[LiveWorker] = ()) -> tuple[Finding, ...]:
        """Everything that is not as it should be now, by port; changes nothing.

        `agents` are those a project knows to live; the workers of other projects
        that use this ledger are known by their arguments.
        """
        with self._lock:
            return self._repair.check(agents)

    def repair(
        self,
        agents: Iterable[LiveWorker] = (),
        *,
        view: HostView | None = None,
        told_to: str | None = None,
    ) -> RepairReport:
        """Mend what `check` has found several times in a row, at least a second apart.

        Called every tick; nothing happens within a second of the last look. Ports of
        dead holders are given back, live agents get their lost leases back; of two
        agents with one port the newer is returned to be stopped, not stopped here.
        `view` is the host as the caller has just seen it; without, the kernel is asked.
        `told_to` is the project whose human hears of it; None hears of every project.
        """
        with self._lock:
            return self._repair.repair(agents, view, told_to)

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
        leases = self.recorded()
        return with_listeners(leases, self._host.kernel.listeners() if leases else {})

    def recorded(self) -> tuple[Lease, ...]:
        """Every row of the host by port, as written; the same tuple while nobody writes."""
        return self._current().leases

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
        rows = self._ledger.read(
            lambda connection: self._granting.leased(connection, name, project)
        )
        return any(
            row.pid is not None and self._host.liveness(row) is not Liveness.DEAD for row in rows
        )

    # ------------------------------------------------------------------ within

    def _granted(self, action: Callable[[Connection], PortPair | PoolExhausted]) -> PortPair:
        # The refusal is counted and the ports found taken are kept: no exception inside.
        answer = self._ledger.write(action)
        if isinstance(answer, PoolExhausted):
            raise answer
        return answer

    def _release(self, connection: Connection, name: str, project: str, epoch: int | None) -> bool:
        rows = self._granting.leased(connection, name, project)
        if not rows:
            return False
        if epoch is not None:
            refuse_stale(rows, name, epoch)
        self._settling.release(connection, rows)
        return True

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
            pools=tuple(self._pools.count(name, spans, leases) for name, spans in pools.items()),
            port_allocation_failures=counters.get(FAILURES, 0),
            consecutive_failures=counters.get(CONSECUTIVE, 0),
        )
        return _View(version, leases, status)

    def _pool(self, role: Role, address: str | None) -> PoolName:
        return PoolName(role, self._settings.address if address is None else address)

    def _say_opening(self) -> None:
        for text in self._ledger.read(lambda c: self._pools.ignored(self._ledger, c)):
            self._saying.say(Severity.WARNING, "ledger", text)
        if kind := network_file_system(self._ledger.path):
            self._saying.say(
                Severity.WARNING,
                "ledger",
                f"the ledger {self._ledger.path} is on a network file system ({kind}), where "
                "locks may not hold; set AUTOCODER_LEDGER_URL to a local file",
            )

    def _say_damage(self, error: DatabaseError, kept: Path) -> None:
        self._saying.say(
            Severity.ERROR, "ledger", f"{error.message}; it is kept as {kept.name} and begun anew"
        )


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
