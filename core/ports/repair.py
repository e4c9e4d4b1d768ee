"""Repair is a loop, not a start-up special case.

It acts on what it has seen several times in a row, because a worker that is just
starting or ending looks wrong for a moment. It ends no process.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from autocoder.core.models import Holder, Lease, LeaseState, PortRange, Role, Severity
from autocoder.core.ports import transitions
from autocoder.core.ports.findings import REMEDIES, Finding, Kind, Scene, compare
from autocoder.core.ports.host import Host
from autocoder.core.ports.ledger import EPOCH, Connection, LeaseRow, Ledger, as_lease
from autocoder.core.ports.pools import HELD, Pools
from autocoder.core.ports.saying import Saying
from autocoder.core.ports.workers import LiveWorker, WorkerSearch, live_workers
from autocoder.core.probe import HostView, Liveness

SIGHTING_S = 1.0
"""Two sightings lie at least this far apart."""
SIGHTINGS = {Kind.ROGUE_BIND: 1, Kind.FOREIGN_LISTENER: 2}
"""After how many sightings a finding is acted on, where not three: naming harms nobody."""
AGAIN = 60
"""What stays is acted on again after this many more, and not told again."""


@dataclass(frozen=True, slots=True)
class RepairReport:
    findings: tuple[Finding, ...]
    stop: tuple[LiveWorker, ...]
    """Agents that share a port with an older one: to be stopped, seen dead, then requeued.

    Who stops them says so.
    """

    def why_stop(self, worker: LiveWorker) -> str:
        mine = (worker.project, worker.agent_id)
        details = (
            finding.detail
            for finding in self.findings
            if finding.kind is Kind.DUPLICATE and (finding.project, finding.agent_id) == mine
        )
        return next(details, "an older agent has one of its ports")


@dataclass(frozen=True, slots=True)
class _Recorded:
    """The ledger as last read, valid while its version is the same."""

    version: tuple[int, ...]
    rows: list[LeaseRow]
    leases: list[Lease]
    ranges: list[PortRange]


@dataclass(slots=True)
class Repair:
    """Compares, counts sightings, and mends the ledger's side of what it finds."""

    ledger: Ledger
    pools: Pools
    host: Host
    saying: Saying
    now: Callable[[], float]
    _sightings: "Sightings" = field(init=False)
    _search: WorkerSearch = field(init=False)
    _recorded: "_Recorded | None" = None

    def __post_init__(self) -> None:
        self._sightings = Sightings(self.now)
        self._search = WorkerSearch(self.host.kernel)

    def check(
        self, agents: Iterable[LiveWorker], view: HostView | None = None
    ) -> tuple[Finding, ...]:
        recorded = self._record()
        projects = {row.project for row in recorded.rows if row.project}
        workers = {(worker.project, worker.agent_id): worker for worker in agents}
        view = view or HostView.of(self.host.kernel)
        known = {(worker.pid, worker.pid_start) for worker in workers.values()}
        others = {
            pid: process
            for pid, process in view.processes.items()
            if (pid, process.start) not in known
        }
        for worker in self._search.among(others):
            if worker.project in projects:
                workers.setdefault((worker.project, worker.agent_id), worker)
        return compare(
            Scene(
                leases=recorded.leases,
                workers=sorted(workers.values(), key=lambda w: (w.pid_start, w.pid)),
                ranges=recorded.ranges,
                listeners=view.listeners,
                processes=view.processes,
                liveness={
                    row.port: self.host.liveness(row, view.processes)
                    for row in recorded.rows
                    if row.state in HELD
                },
                now=self.now(),
            )
        )

    def repair(
        self,
        agents: Iterable[LiveWorker],
        view: HostView | None = None,
        told_to: str | None = None,
    ) -> RepairReport:
        if not self._sightings.due:
            return RepairReport((), ())
        agents = tuple(agents)
        findings = self.check(agents, view)
        stop: dict[tuple[str, str], LiveWorker] = {}
        due = self._sightings.add(findings)
        workers = live_workers(self.host.kernel) if due else ()
        known = {(w.project, w.agent_id): w for w in (*workers, *agents)}
        shared = {(f.project, f.agent_id) for f in findings if f.kind is Kind.DUPLICATE}
        for finding in due:
            holder = (finding.project, finding.agent_id)
            worker = known.get(holder)
            match finding.kind:
                case Kind.DUPLICATE if worker is not None:
                    stop[holder] = worker
                    continue
                case Kind.MISMATCH if holder in shared:
                    continue
                case Kind.LEAK:
                    self._reclaim(finding)
                case Kind.MISMATCH if worker is not None:
                    self._restore(worker)
            # Agents of two projects may have one name: each is told to its own human.
            if self._sightings.is_new(finding) and (
                told_to is None or finding.project in ("", told_to)
            ):
                said = finding.detail + REMEDIES.get(finding.kind, "")
                self.saying.say(Severity.WARNING, finding.agent_id, said)
        return RepairReport(findings, tuple(stop.values()))

    def _record(self) -> "_Recorded":
        """What the ledger says, read again only when somebody has written."""
        version = self.ledger.version()
        if self._recorded is None or self._recorded.version != version:
            rows = self.ledger.read(self.ledger.all_rows)
            pools = self.ledger.read(lambda reader: self.pools.ranges(self.ledger, reader))
            self._recorded = _Recorded(
                version=version,
                rows=rows,
                leases=[as_lease(row) for row in rows],
                ranges=[span for spans in pools.values() for span in spans],
            )
        return self._recorded

    def _reclaim(self, finding: Finding) -> None:
        """Take the ports of a dead holder back; what still listens on them keeps them out."""

        def action(connection: Connection) -> None:
            for row in self.ledger.held(connection, finding.agent_id, finding.project):
                if row.state == LeaseState.LEASED and self.host.liveness(row) is Liveness.DEAD:
                    self.ledger.change(connection, row, transitions.releasing(self.now()))

        self.ledger.write(action)

    def _restore(self, worker: LiveWorker) -> None:
        """Give a live worker its lease back unless another holder has one of its ports."""

        def action(connection: Connection) -> None:
            present = {row.port: row for row in self.ledger.all_rows(connection)}
            mine = (worker.project, worker.agent_id)
            rows = rows_of(worker, self.host, self.now())
            for port in rows:
                row = present.get(port)
                if row is not None and row.state in HELD and (row.project, row.holder) != mine:
                    return
            for port, values in rows.items():
                row = present.get(port)
                if row is None:
                    self.ledger.insert(connection, [values])
                else:
                    epoch = row.epoch if row.state in HELD else worker.epoch
                    self.ledger.change(connection, row, {**values, "epoch": epoch})

        self.ledger.write(action)


class Sightings:
    """How often in a row each finding has been seen."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._counts: dict[Finding, int] = {}
        self._last_at = float("-inf")

    @property
    def due(self) -> bool:
        return abs(self._now() - self._last_at) >= SIGHTING_S

    def add(self, findings: Iterable[Finding]) -> tuple[Finding, ...]:
        """Those that have now been seen often enough."""
        self._last_at = self._now()
        self._counts = {finding: self._counts.get(finding, 0) + 1 for finding in findings}
        return tuple(
            finding
            for finding, count in self._counts.items()
            if count % AGAIN == SIGHTINGS.get(finding.kind, 3)
        )

    def is_new(self, finding: Finding) -> bool:
        """Whether it is acted on for the first time since it has been there."""
        return self._counts[finding] < AGAIN


def retell(ledger: Ledger, connection: Connection, host: Host, saying: Saying, now: float) -> None:
    """Write the first rows of a ledger that was lost, as the workers that live tell them."""
    # Epochs of the lost ledger must not come again while somebody may still name them.
    ledger.count_up(connection, EPOCH, int(now))
    workers = live_workers(host.kernel)
    taken: set[int] = set()
    for worker in workers:
        if taken.isdisjoint((worker.api_port, worker.web_port)):
            ledger.insert(connection, rows_of(worker, host, now).values())
            taken |= {worker.api_port, worker.web_port}
    saying.say(
        Severity.WARNING,
        "ledger",
        f"the ledger {ledger.path} was begun anew from {len(workers)} live workers",
    )


def rows_of(worker: LiveWorker, host: Host, now: float) -> dict[int, dict[str, Any]]:
    """The rows that a live worker's own word stands for, by port."""
    holder = Holder(worker.agent_id, worker.project, worker.pid, worker.pid_start)
    values = {
        **host.columns(holder),
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
