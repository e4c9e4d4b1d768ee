"""What should be, rebuilt from live workers, rows and sockets, compared with what is; pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath

from autocoder.core.models import Lease, LeaseState, PortRange
from autocoder.core.ports.workers import LiveWorker
from autocoder.core.probe import ListeningSocket, Liveness, Process, descendants

OVERDUE_S = 15.0
"""A port given back by a holder that is gone has left its state by then."""


class Kind(StrEnum):
    DUPLICATE = "duplicate"
    """Two live agents have one port; told of the newer."""
    LEAK = "leak"
    """Held for a holder that is dead."""
    FOREIGN_LISTENER = "foreign_listener"
    """A program that is not its holder's listens on a leased port."""
    ROGUE_BIND = "rogue_bind"
    """An agent listens on a port of the pools that is not its own."""
    MISMATCH = "mismatch"
    """A live agent uses ports that the ledger does not record as its."""


REMEDIES = {
    Kind.ROGUE_BIND: "; kill it, or recover it to start anew on its own pair",
    Kind.FOREIGN_LISTENER: "; end that process, or recover the agent to give it another pair",
}
"""What a human can do about it, to follow what a finding says."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    port: int
    agent_id: str
    """Whom it is about; empty when no agent is."""
    project: str
    pid: int | None
    detail: str
    """For the human: who else has to do with it."""

    def as_dict(self) -> dict[str, object]:
        return {
            "kind": self.kind.value,
            "port": self.port,
            "agent_id": self.agent_id,
            "project": self.project,
            "pid": self.pid,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is compared, as of one moment."""

    leases: Sequence[Lease]
    workers: Sequence[LiveWorker]
    """Oldest first."""
    ranges: Collection[PortRange]
    """Of every pool."""
    listeners: Mapping[int, Sequence[ListeningSocket]]
    processes: Mapping[int, Process]
    liveness: Mapping[int, Liveness]
    """Of the holder of each leased port, by port."""
    now: float


def compare(scene: Scene) -> tuple[Finding, ...]:
    """Every finding, by port."""
    found = [*_duplicates(scene), *_leaks(scene), *_mismatches(scene), *_listening(scene)]
    return tuple(sorted(found, key=lambda finding: (finding.port, finding.kind)))


def _duplicates(scene: Scene) -> Iterable[Finding]:
    first: dict[int, LiveWorker] = {}
    for worker in scene.workers:
        for port in (worker.api_port, worker.web_port):
            older = first.setdefault(port, worker)
            if older is not worker:
                yield Finding(
                    Kind.DUPLICATE,
                    port,
                    worker.agent_id,
                    worker.project,
                    worker.pid,
                    f"{older.agent_id} (pid {older.pid}) has port {port} already",
                )


def _leaks(scene: Scene) -> Iterable[Finding]:
    alive = {(worker.project, worker.agent_id) for worker in scene.workers}
    for lease in scene.leases:
        dead = scene.liveness.get(lease.port) is Liveness.DEAD
        overdue = (
            lease.state is LeaseState.RELEASING
            and scene.now - lease.changed_at > OVERDUE_S
            and dead
        )
        lost = lease.state is LeaseState.LEASED and dead
        if (lost or overdue) and (lease.project, lease.holder) not in alive:
            yield Finding(
                Kind.LEAK,
                lease.port,
                lease.holder,
                lease.project,
                lease.pid,
                f"port {lease.port} is {lease.state} for {lease.holder}, whose process "
                f"{lease.pid} is dead",
            )


def _mismatches(scene: Scene) -> Iterable[Finding]:
    rows = {lease.port: lease for lease in scene.leases if lease.holder}
    for worker in scene.workers:
        for port in (worker.api_port, worker.web_port):
            lease = rows.get(port)
            if lease is None:
                detail = f"{worker.agent_id} uses port {port} without a lease"
            elif (lease.project, lease.holder) != (worker.project, worker.agent_id):
                holder = _named(lease, worker.project)
                detail = f"{worker.agent_id} uses port {port}, which is leased to {holder}"
            elif scene.liveness.get(port) is Liveness.DEAD and lease.pid != worker.pid:
                detail = f"the lease of {port} names pid {lease.pid}, which is dead"
            else:
                continue
            yield Finding(Kind.MISMATCH, port, worker.agent_id, worker.project, worker.pid, detail)


def _listening(scene: Scene) -> Iterable[Finding]:
    """Who listens on ports of the pools without having leased them."""
    workers = {worker.pid: worker for worker in scene.workers}
    held = {lease.port: lease for lease in scene.leases if lease.state is LeaseState.LEASED}
    for port, sockets in scene.listeners.items():
        lease = held.get(port)
        for listening in sockets[:1]:
            agent = _worker_above(listening.pid, workers, scene.processes)
            who = f"pid {listening.pid} {listening.command}" if listening.pid else listening.command
            if agent is not None and port in (agent.api_port, agent.web_port):
                continue
            if agent is not None and (lease or any(port in span for span in scene.ranges)):
                whose = f"{_named(lease, agent.project)}'s" if lease else "not its own"
                yield Finding(
                    Kind.ROGUE_BIND,
                    port,
                    agent.agent_id,
                    agent.project,
                    listening.pid,
                    f"{agent.agent_id} ({who}) listens on {port}, which is {whose}",
                )
            if lease is not None and not _is_holders(lease, agent, listening.pid, scene):
                yield Finding(
                    Kind.FOREIGN_LISTENER,
                    port,
                    lease.holder,
                    lease.project,
                    listening.pid,
                    f"{who} listens on {port}, which is leased to {lease.holder}",
                )


def _named(lease: Lease, project: str) -> str:
    """The holder as a human of `project` tells it from an agent of theirs."""
    if not lease.project or lease.project == project:
        return lease.holder
    return f"{lease.holder} of {PurePath(lease.project).name}"


def _worker_above(
    pid: int | None, workers: Mapping[int, LiveWorker], processes: Mapping[int, Process]
) -> LiveWorker | None:
    """The worker that is the process or has started it; only the few that listen are asked for."""
    climbed: set[int] = set()
    while pid is not None and pid not in climbed:
        if pid in workers:
            return workers[pid]
        climbed.add(pid)
        process = processes.get(pid)
        pid = process.ppid if process else None
    return None


def _is_holders(lease: Lease, agent: LiveWorker | None, pid: int | None, scene: Scene) -> bool:
    if agent is not None:
        return (agent.project, agent.agent_id) == (lease.project, lease.holder)
    if lease.pid is None:
        return not lease.project  # an outside holder may use any process it likes
    return pid is not None and (pid == lease.pid or pid in descendants(scene.processes, lease.pid))
