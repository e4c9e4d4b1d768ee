"""A project's agents, looked at and ended without its orchestrator.

For the moment when there is none, or one that no longer answers. Only the holder
of the project's lock settles what an ended agent leaves; without the lock the
process is ended and the rest is left to whoever holds it.
"""

import contextlib
import os
import select
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from autocoder.core.errors import ProjectLocked, RefusedError, UsageError
from autocoder.core.launcher import LocalLauncher, WorkerProcess
from autocoder.core.lifecycle import receipt
from autocoder.core.models import Agent, AgentState, Listener, WorktreeStatus
from autocoder.core.observer import Observation, Observer, Watched, with_progress
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import HostView, Kernel, Liveness, local_kernel
from autocoder.core.project_lock import ProjectLock
from autocoder.core.settings import Settings, database_path, ledger_path
from autocoder.core.store import AgentRecord, ProjectStore, Requeued
from autocoder.core.worktrees import Cleaned, clean_up, open_repository, survey

ENDED_LISTED = 500
KILL_LIMIT_S = 15.0
"""A worker sweeps its tree for at most 10 s; then it is ended itself."""


@dataclass(frozen=True, slots=True)
class Killed:
    """What is true once `kill` has returned: nothing of the agent's tree lives."""

    receipt: str
    settled: bool
    """Its feature and ports are given back; else the orchestrator does it."""


def agents(project_dir: Path, settings: Settings) -> tuple[Agent, ...]:
    """Live agents by start, then the latest ended; with what the kernel says right now.

    A live row whose worker is gone has no `pid` and says so in `problem`.
    """
    with _store(project_dir, settings) as store:
        if store is None:
            return ()
        live, ended = store.live_agents(), store.history(ENDED_LISTED)
    kernel = local_kernel()
    pids = {record.agent_id: _live_pid(kernel, record) for record in live}
    watched = [
        Watched(
            record.agent_id,
            pids[record.agent_id],
            record.api_port or 0,
            record.web_port or 0,
            Path(record.log_path),
        )
        for record in live
    ]
    seen = Observer().look(watched, HostView.of(kernel), frozenset(), time.monotonic())
    return tuple(
        _live_agent(record, pids[record.agent_id], seen[record.agent_id]) for record in live
    ) + tuple(record.as_agent() for record in ended)


def agent(project_dir: Path, settings: Settings, agent_id: str) -> Agent:
    """One agent as the database knows it. Raises `UsageError` where there never was one."""
    with _store(project_dir, settings) as store:
        if store is None:
            raise UsageError(
                f"there is no agent {agent_id!r}", f"Nothing ever ran in {project_dir}."
            )
        return store.agent(agent_id).as_agent()


def kill(project_dir: Path, settings: Settings, agent_id: str) -> Killed:
    """End the agent's whole tree; its feature goes back to the backlog uncounted.

    Raises:
        UsageError: there never was such an agent.
        RefusedError: it is not live, or its worker would not end.
    """
    with _store(project_dir, settings) as store:
        record = store.agent(agent_id) if store else None
    if record is None or not record.live:
        raise RefusedError(
            f"agent {agent_id} is not running", "`autocoder agents list` shows those that are."
        )
    kernel = local_kernel()
    launcher = LocalLauncher(project_dir, settings, kernel)
    worker = _adopt(launcher, record)
    if worker is not None:
        launcher.kill(worker)
        if not _wait_for_end(launcher, worker):
            launcher.destroy(worker)
            if not _wait_for_end(launcher, worker):
                raise RefusedError(f"the worker of {agent_id}, pid {worker.pid}, does not end")
    facts = launcher.facts(agent_id)
    worktree = Path(record.worktree_path or "/nonexistent")
    left = launcher.end_leftovers(agent_id, worktree, worker)
    if worker is not None:
        launcher.close(worker)
    said = receipt(facts) if facts is not None else f"{left} processes ended"
    return Killed(said, _settle(project_dir, settings, kernel, agent_id))


def worktrees(project_dir: Path, settings: Settings) -> tuple[WorktreeStatus, ...]:
    """The worktrees that agents left on disk, by name."""
    with _store(project_dir, settings) as store:
        repository = open_repository(project_dir, settings.base)
        if store is None:
            return survey(repository, ())
        return survey(repository, store.worktrees_in_use(), store.branch_bases())


def clean(project_dir: Path, settings: Settings, agent_ids: Collection[str]) -> tuple[Cleaned, ...]:
    """Remove these agents' worktrees where nothing would be lost; what became of each.

    Raises:
        ProjectLocked: an orchestrator runs, and has to be asked.
    """
    lock = ProjectLock(project_dir)
    try:
        with _store(project_dir, settings) as store:
            repository = open_repository(project_dir, settings.base)
            if store is None:
                return clean_up(repository, agent_ids, ())
            in_use, bases = store.worktrees_in_use(), store.branch_bases()
            cleaned = clean_up(repository, agent_ids, in_use, bases)
            for each in cleaned:
                if not each.kept:
                    store.forget_worktree(each.path)
            return cleaned
    finally:
        lock.release()


def _live_agent(record: AgentRecord, pid: int | None, seen: Observation) -> Agent:
    gone = record.pid is not None and pid is None
    agent = replace(
        record.as_agent(),
        pid=pid,
        pid_start=record.pid_start if pid is not None else None,
        api_port=record.api_port,
        web_port=record.web_port,
        api_listener=seen.api_listener if record.api_port else Listener.NONE,
        web_listener=seen.web_listener if record.web_port else Listener.NONE,
        memory_bytes=seen.memory_bytes,
        processes=seen.processes,
        last_line=seen.last_line,
        problem="its worker is gone" if gone else seen.problem,
    )
    return with_progress(agent, seen.progress)


def _live_pid(kernel: Kernel, record: AgentRecord) -> int | None:
    if record.pid is None:
        return None
    liveness = kernel.liveness(record.pid, record.pid_start, record.boot_id)
    return None if liveness is Liveness.DEAD else record.pid


def _adopt(launcher: LocalLauncher, record: AgentRecord) -> WorkerProcess | None:
    if record.pid is None:
        return None
    liveness, worker = launcher.adopt(record.agent_id, record.pid, record.pid_start, record.boot_id)
    if liveness is Liveness.UNKNOWN:
        raise RefusedError(
            f"whether pid {record.pid} is still the worker of {record.agent_id} is not known",
            "Nothing was signalled. Ask again as the user who started it.",
        )
    return worker


def _wait_for_end(launcher: LocalLauncher, worker: WorkerProcess) -> bool:
    deadline = time.monotonic() + KILL_LIMIT_S
    poller = select.poll()
    if worker.pidfd is not None:
        poller.register(worker.pidfd, select.POLLIN)
    while not launcher.has_ended(worker):
        if time.monotonic() > deadline:
            return False
        poller.poll(20)
    return True


def _settle(project_dir: Path, settings: Settings, kernel: Kernel, agent_id: str) -> bool:
    try:
        lock = ProjectLock(project_dir)
    except ProjectLocked:
        return False
    try:
        with _store(project_dir, settings) as store:
            if store is None or not store.agent(agent_id).live:
                return True
            record = store.agent(agent_id)
            store.end_agent(
                agent_id,
                state=AgentState.KILLED,
                exit_code=None,
                reason="killed on request",
                outcome=Requeued("killed on request"),
            )
        allocator = PortAllocator(
            ledger_path(settings), settings.ports, ui_port=settings.ui.port, kernel=kernel
        )
        with contextlib.closing(allocator):
            allocator.release(agent_id, str(project_dir), epoch=record.epoch)
    finally:
        lock.release()
    return True


@contextlib.contextmanager
def _store(project_dir: Path, settings: Settings) -> Iterator[ProjectStore | None]:
    """The project's database; None, and none is made, where nothing ever ran."""
    path = database_path(settings, project_dir)
    if not os.path.lexists(path):
        yield None
        return
    with contextlib.closing(ProjectStore(path)) as store:
        yield store
