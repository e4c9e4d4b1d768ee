"""How an agent begins: lease, row and claim, worktree, worker.

Intent is written before the deed: lease, then row and claim in one transaction,
then worktree, then worker, so that a crash at any point leaves something that
`adoption` can tell apart. Git makes the worktree in a thread of its own; every
other step is the orchestrator's thread's.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autocoder.core.agent_leases import AgentLeases
from autocoder.core.branch_names import BranchNames
from autocoder.core.errors import AutocoderError, DatabaseError, RefusedError, UsageError
from autocoder.core.git_threads import GitThreads
from autocoder.core.launcher import Launcher, WorkerProcess, WorkerSpec, run_folder
from autocoder.core.lifecycle import Verdict
from autocoder.core.live_agents import LiveAgent, LiveAgents, Prepared, Stage
from autocoder.core.logs import log_path
from autocoder.core.models import AgentState, Feature, PortPair
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel
from autocoder.core.run_description import describe_run
from autocoder.core.settings import Settings
from autocoder.core.store import AgentRecord, NewAgent, ProjectStore
from autocoder.core.worktrees import Repository

PAIRS_TRIED = 3
"""An agent that meets a listener on so many pairs in a row does not meet chance."""


class Spawning:
    def __init__(
        self,
        agents: LiveAgents,
        leases: AgentLeases,
        *,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        store: ProjectStore,
        allocator: PortAllocator,
        launcher: Launcher,
        kernel: Kernel,
        git: GitThreads,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._agents = agents
        self._leases = leases
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._store = store
        self._allocator = allocator
        self._launcher = launcher
        self._kernel = kernel
        self._git = git
        self._branch_names = BranchNames(repository, git)
        self._now = now

    def can_name(self) -> bool:
        """As `BranchNames.known`: an agent that waits until then keeps the loop from waiting."""
        return self._branch_names.known()

    def spawn(
        self, feature: Feature, *, requested: bool = False, source: AgentRecord | None = None
    ) -> bool:
        """Lease, claim and start; False when the feature was claimed by somebody else.

        `source` is an ended agent whose worktree and branch are gone on with, and its
        pair if that is still free. The worker runs once git has made the worktree,
        some ticks later.

        Raises:
            PoolExhausted: no pair is free; nothing has changed.
            AutocoderError: nothing has changed, or the lease is released again.
        """
        goes_on = (
            source if source and Path(source.worktree_path or "/nonexistent").is_dir() else None
        )
        agent_id = self._store.free_agent_id(self._is_known)
        repository = self._repository.on(feature.base)
        branch = goes_on.branch if goes_on else self._branch_names.give(feature)
        worktree = (
            goes_on.worktree_path if goes_on else str(self._repository.worktrees_dir / agent_id)
        )
        pair = self._leases.grant(agent_id, _pair_of(goes_on))
        try:
            claimed = self._store.claim(
                feature.id,
                NewAgent(
                    agent_id=agent_id,
                    api_port=pair.api_port,
                    web_port=pair.web_port,
                    epoch=pair.epoch,
                    branch=branch,
                    backend=feature.backend or self._settings.backend,
                    worktree_path=worktree,
                    log_path=str(log_path(self._project_dir, agent_id)),
                ),
                requested=requested,
            )
            record = self._store.agent(agent_id) if claimed else None
        except AutocoderError:
            self._leases.release(agent_id, pair.epoch)
            raise
        if record is None:
            self._leases.release(agent_id, pair.epoch)
            return False
        live = LiveAgent(record, feature, Stage.PREPARING, goes_on_with=goes_on)
        self._agents.add(live)
        self._agents.tally.spawned += 1
        live.preparing = self._git.submit(
            lambda: _prepare(repository, record, feature.branch_name, made=goes_on is not None)
        )
        if goes_on:
            self._store.clear_worktrees([goes_on.agent_id])
        return True

    def advance(self, live: LiveAgent) -> Verdict | None:
        """Start the worker once the worktree is made; why there will be none, where so."""
        if live.preparing is None or not live.preparing.done():
            return None
        failure = live.preparing.exception()
        if failure is None and live.asked is None:
            try:
                self._start_worker(live, live.preparing.result())
                return None
            except (RefusedError, UsageError, OSError) as error:
                failure = error
        if failure is None:
            return Verdict(AgentState.KILLED, "stopped before it started", counted=False)
        if isinstance(failure, AutocoderError):
            said = failure.message
        elif isinstance(failure, OSError):
            said = f"{failure.filename or 'system call'}: {failure.strerror}"
        else:
            raise failure
        return Verdict(AgentState.FAILED, f"not started: {said}", "infrastructure", counted=False)

    def move(self, live: LiveAgent) -> Verdict | None:
        """Start again on another pair, since others use its own; why not, where so.

        Raises:
            DatabaseError: the next tick tries again.
        """
        if live.pairs_tried == PAIRS_TRIED:
            assert live.facts is not None
            said = f"not started: the last of {PAIRS_TRIED} pairs: {live.facts.error}"
            return Verdict(AgentState.FAILED, said, "infrastructure", counted=False)
        try:
            if live.moved is None:
                live.moved = self._leases.replace(live.agent_id, live.pair.epoch)
            self._store.set_pair(live.agent_id, live.moved)
        except DatabaseError:
            raise
        except RefusedError as error:
            said = f"not started: {error.message}"
            return Verdict(AgentState.FAILED, said, "infrastructure", counted=False)
        live.record = replace(
            live.record,
            api_port=live.moved.api_port,
            web_port=live.moved.web_port,
            epoch=live.moved.epoch,
            pid=None,
            pid_start=None,
        )
        live.moved = live.facts = None
        live.pairs_tried += 1
        live.stage = Stage.PREPARING
        record, repository = live.record, self._repository.on(live.feature.base)
        live.preparing = self._git.submit(lambda: _prepare(repository, record, "", made=True))
        return None

    def record(self, live: LiveAgent, worker: WorkerProcess) -> None:
        """Let row and lease name the worker.

        Raises:
            DatabaseError: the worker goes on; the next tick tries again.
        """
        boot_id = self._kernel.identity.boot_id
        self._store.set_worker(
            live.agent_id,
            pid=worker.pid,
            pid_start=worker.start,
            boot_id=boot_id,
            create_time=self._now(),
        )
        live.record = replace(live.record, pid=worker.pid, pid_start=worker.start, boot_id=boot_id)
        self._leases.confirm(worker, live.pair.epoch)
        live.recorded = True

    def _is_known(self, agent_id: str) -> bool:
        return agent_id in self._agents or run_folder(self._project_dir, agent_id).exists()

    def _start_worker(self, live: LiveAgent, prepared: Prepared) -> None:
        """Raises `RefusedError`, `UsageError` or `OSError`: no worker runs."""
        record = live.record
        run = describe_run(
            project_dir=self._project_dir,
            settings=self._settings,
            record=record,
            feature=live.feature,
            pair=live.pair,
            worktree=prepared.worktree,
            base=live.feature.base or self._repository.base,
            start_commit=prepared.start_commit,
            pools=self._allocator.status().pools,
            goes_on_with=live.goes_on_with,
        )
        live.worker = self._launcher.start(
            WorkerSpec(
                agent_id=record.agent_id,
                feature_id=live.feature.id,
                backend=record.backend,
                worktree=prepared.worktree,
                pair=live.pair,
                model=run["model"],
                max_iterations=run["max_iterations"],
                run=run,
            )
        )
        live.stage = Stage.RUNNING
        live.recorded = False


def _prepare(repository: Repository, record: AgentRecord, earlier: str, *, made: bool) -> Prepared:
    """In a git thread: a worktree of its branch, from an earlier attempt's commits if any."""
    start = repository.base_commit()
    if made:
        path = Path(record.worktree_path)
        repository.remove_stale_locks(path)
        return Prepared(path, start)
    source = start
    if earlier and earlier != record.branch and repository.commits_ahead(earlier):
        source = earlier
    return Prepared(repository.add(record.agent_id, record.branch, source), start)


def _pair_of(record: AgentRecord | None) -> PortPair | None:
    if record is None or record.api_port is None or record.web_port is None:
        return None
    return PortPair(record.api_port, record.web_port, record.epoch)
