"""The live agents, and every deed that begins, changes or ends one.

Intent is written before the deed: lease, then row and claim in one transaction,
then worktree, then worker; and in reverse the tree is dead before the row says
so. A crash at any point leaves something that `adopt` can tell apart and mend, and
a step whose row cannot be written is taken again at the next tick.
Methods are called from the orchestrator's thread; git works in threads of its own.
"""

import enum
import json
import os
import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autocoder.core import lifecycle
from autocoder.core.admission import Admission
from autocoder.core.endings import closed_verdict, said_at_end, told_next
from autocoder.core.errors import AutocoderError, DatabaseError, RefusedError, UsageError
from autocoder.core.git_threads import GitThreads
from autocoder.core.launcher import Launcher, WorkerProcess, WorkerSpec, run_folder
from autocoder.core.leftovers import ProcessKey
from autocoder.core.lifecycle import ExitFacts, Verdict
from autocoder.core.logs import log_path
from autocoder.core.models import (
    AgentState,
    Feature,
    FeatureStatus,
    Holder,
    LeaseState,
    PortPair,
    Severity,
)
from autocoder.core.notices import Notices
from autocoder.core.observer import last_logged
from autocoder.core.ports import LiveWorker, PortAllocator, live_workers
from autocoder.core.probe import Kernel, Liveness
from autocoder.core.run_description import MAX_ITERATIONS, describe_run
from autocoder.core.settings import Settings
from autocoder.core.store import (
    AgentRecord,
    Failed,
    FeatureOutcome,
    Finished,
    NewAgent,
    ProjectStore,
    Requeued,
)
from autocoder.core.upkeep import Upkeep
from autocoder.core.verify import Cancelled, Closed, Finish, Verifier
from autocoder.core.worktrees import Merged, Repository

PATIENCE_S = 5.0
"""What a worker gets beyond its agent's grace before it is ended itself."""

MISSED_AGAIN_S = 0.2
"""Two looks that agree on a missing worker are at least this far apart: one may be starting."""


class Stage(enum.Enum):
    PREPARING = enum.auto()
    """Its worktree is being added."""
    RUNNING = enum.auto()
    """It has a worker, or is about to be found without one."""
    CLOSING = enum.auto()
    """Its worker has ended; its commits are counted, tested and merged."""
    ENDING = enum.auto()
    """How it ended is known; its row is still to be moved to the history."""


@dataclass(frozen=True, slots=True)
class Prepared:
    worktree: Path
    start_commit: str
    """What the branch is measured against: commits after it are the agent's."""


@dataclass(slots=True)
class LiveAgent:
    """One agent between its claim and its row in the history."""

    record: AgentRecord
    feature: Feature
    stage: Stage
    worker: WorkerProcess | None = None
    recorded: bool = True
    """Row and lease name its worker."""
    preparing: Future[Prepared] | None = None
    closing: Future[Closed] | None = None
    asked: AgentState | None = None
    """KILLED once a human has asked for its end."""
    patience_until: float = 0.0
    """Monotonic; a worker that was asked to end and lives then is ended."""
    displaced: str = ""
    """Why it had to go although it did nothing wrong."""
    facts: ExitFacts | None = None
    misses: int = 0
    missed_at: float = 0.0
    seen_tree: frozenset[ProcessKey] = frozenset()
    """What was last seen below its worker."""
    verdict: Verdict | None = None
    outcome: FeatureOutcome | None = None
    closed: Closed | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set to end its verification."""
    then_recover: bool = False
    """Goes on in a new agent as soon as this one has ended."""
    last_beat: float | None = None
    problem: str = ""
    """What is wrong with it as the fleet sees it."""
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = Path(self.record.log_path)

    @property
    def agent_id(self) -> str:
        return self.record.agent_id

    @property
    def pair(self) -> PortPair:
        record = self.record
        return PortPair(record.api_port or 0, record.web_port or 0, record.epoch)


@dataclass(slots=True)
class Tally:
    """What this orchestrator did since it started; every number only grows."""

    spawned: int = 0
    adopted: int = 0
    completed: int = 0
    failed: int = 0
    crashed: int = 0
    killed: int = 0
    leases_granted: int = 0
    leases_released: int = 0
    eaddrinuse: int = 0


class Fleet:
    """Owns every live agent of the project."""

    def __init__(
        self,
        *,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        store: ProjectStore,
        allocator: PortAllocator,
        launcher: Launcher,
        kernel: Kernel,
        notices: Notices,
        admission: Admission,
        upkeep: Upkeep,
        git: GitThreads,
        verifier: Verifier,
        rng: random.Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._project_dir = project_dir
        self._project = str(project_dir)
        self._settings = settings
        self._repository = repository
        self._store = store
        self._allocator = allocator
        self._launcher = launcher
        self._kernel = kernel
        self._notices = notices
        self._admission = admission
        self._upkeep = upkeep
        self._git = git
        self._verifier = verifier
        self._rng = rng
        self._now = now
        self._agents: dict[str, LiveAgent] = {}
        self._unwritten: dict[str, AgentState] = {}
        self._owed: dict[str, int] = {}
        """Leases still to be given back: agent id and epoch."""
        self._to_recover: dict[str, bool] = {}
        """Ended agents whose work goes on as soon as there is a pair, and whether at once then."""
        self.stopped_alike = ""
        """Why no agent starts by itself any more; empty while agents may."""
        self.strays: frozenset[str] = frozenset()
        """Agents of the project whose worker runs although they are not known to live."""
        self.tally = Tally()

    def __iter__(self) -> Iterator[LiveAgent]:
        return iter(tuple(self._agents.values()))

    def __len__(self) -> int:
        return len(self._agents)

    def get(self, agent_id: str) -> LiveAgent | None:
        return self._agents.get(agent_id)

    @property
    def to_recover(self) -> Collection[str]:
        """Ended agents whose work is about to be gone on with."""
        return self._to_recover.keys()

    @property
    def busy(self) -> bool:
        """Whether something of an agent's is still to be done, a worktree's removal included."""
        return bool(self._agents or self._to_recover or self._owed or self._upkeep.busy)

    def pidfds(self) -> list[int]:
        """What becomes readable when a worker ends."""
        workers = (agent.worker for agent in self)
        return [w.pidfd for w in workers if w is not None and w.pidfd is not None]

    # ------------------------------------------------------------------ beginning

    def spawn(
        self, feature: Feature, *, requested: bool = False, source: AgentRecord | None = None
    ) -> bool:
        """Lease, claim and start; False when the feature was claimed by somebody else.

        `source` is an ended agent whose worktree and branch are gone on with. The
        worker runs once git has made the worktree, some ticks later.

        Raises:
            PoolExhausted: no pair is free; nothing has changed.
            AutocoderError: nothing has changed, or the lease is released again.
        """
        goes_on = (
            source if source and Path(source.worktree_path or "/nonexistent").is_dir() else None
        )
        agent_id = self._store.free_agent_id(self._is_known)
        branch = (
            goes_on.branch if goes_on else self._repository.branch_name(feature.id, feature.name)
        )
        worktree = (
            goes_on.worktree_path if goes_on else str(self._repository.worktrees_dir / agent_id)
        )
        pair = self._allocator.lease(self._holder(agent_id))
        self.tally.leases_granted += 1
        try:
            claimed = self._store.claim(
                feature.id,
                NewAgent(
                    agent_id=agent_id,
                    api_port=pair.api_port,
                    web_port=pair.web_port,
                    epoch=pair.epoch,
                    branch=branch,
                    backend=self._settings.backend,
                    worktree_path=worktree,
                    log_path=str(log_path(self._project_dir, agent_id)),
                ),
                requested=requested,
            )
            record = self._store.agent(agent_id) if claimed else None
        except AutocoderError:
            self._release(agent_id, pair.epoch)
            raise
        if record is None:
            self._release(agent_id, pair.epoch)
            return False
        live = LiveAgent(record, feature, Stage.PREPARING)
        self._agents[agent_id] = live
        self.tally.spawned += 1
        live.preparing = self._git.submit(
            lambda: self._prepare(record, feature.branch_name, made=goes_on is not None)
        )
        if goes_on:
            self._store.set_worktree(goes_on.agent_id, "")
        return True

    def _is_known(self, agent_id: str) -> bool:
        return agent_id in self._agents or run_folder(self._project_dir, agent_id).exists()

    def _prepare(self, record: AgentRecord, earlier: str, *, made: bool) -> Prepared:
        """In a git thread: a worktree of its branch, from an earlier attempt's commits if any."""
        repository = self._repository
        start = repository.base_commit()
        if made:
            path = Path(record.worktree_path)
            repository.remove_stale_locks(path)
            return Prepared(path, start)
        source = start
        if earlier and earlier != record.branch and repository.commits_ahead(earlier):
            source = earlier
        return Prepared(repository.add(record.agent_id, record.branch, source), start)

    def _advance_preparing(self, live: LiveAgent) -> None:
        if live.preparing is None or not live.preparing.done():
            return
        failure = live.preparing.exception()
        if failure is None and live.asked is None:
            try:
                self._start_worker(live, live.preparing.result())
                return
            except (RefusedError, OSError) as error:
                failure = error
        if failure is None:
            verdict = Verdict(AgentState.KILLED, "stopped before it started", counted=False)
        elif isinstance(failure, AutocoderError):
            said = f"not started: {failure.message}"
            verdict = Verdict(AgentState.FAILED, said, "infrastructure", counted=False)
        elif isinstance(failure, OSError):
            said = f"not started: {failure.filename or 'system call'}: {failure.strerror}"
            verdict = Verdict(AgentState.FAILED, said, "infrastructure", counted=False)
        else:
            raise failure
        self._end(live, verdict)

    def _start_worker(self, live: LiveAgent, prepared: Prepared) -> None:
        """Raises `RefusedError` or `OSError`: no worker runs."""
        record = live.record
        run = describe_run(
            project_dir=self._project_dir,
            settings=self._settings,
            record=record,
            feature=live.feature,
            pair=live.pair,
            worktree=prepared.worktree,
            base=self._repository.base,
            start_commit=prepared.start_commit,
            pools=self._allocator.status().pools,
        )
        live.worker = self._launcher.start(
            WorkerSpec(
                agent_id=record.agent_id,
                feature_id=live.feature.id,
                backend=record.backend,
                worktree=prepared.worktree,
                pair=live.pair,
                model=self._settings.model,
                max_iterations=MAX_ITERATIONS,
                run=run,
            )
        )
        live.stage = Stage.RUNNING
        live.recorded = False

    def _record(self, live: LiveAgent, worker: WorkerProcess) -> None:
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
        try:
            holder = self._holder(live.agent_id, worker.pid, worker.start)
            self._allocator.confirm(holder, live.pair.epoch)
        except DatabaseError:
            raise
        except RefusedError as error:
            # A ledger that was lost: it is told of live workers again by its repair.
            self._notices.say(Severity.WARNING, live.agent_id, error.message)
        live.recorded = True

    # ------------------------------------------------------------------ adopting

    def adopt(self) -> None:
        """Take over the live agents of an orchestrator that is gone, at the start.

        Raises:
            DatabaseError: nothing was taken over; agents go on as they are.
        """
        self._store.reconcile(lambda _: None)
        features = {feature.id: feature for feature in self._store.features()}
        running = self._launcher.running()
        for record in self._store.live_agents():
            feature = features.get(record.feature_id or 0, Feature(record.feature_id or 0, "?"))
            live = LiveAgent(record, feature, Stage.RUNNING)
            self._agents[record.agent_id] = live
            self.tally.adopted += 1
            self._find_worker(live, running)
        found = [live.agent_id for live in self if live.worker is not None]
        if found:
            names = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if found[10:] else "")
            text = f"adopted {lifecycle.plural(len(found), 'live agent')}: {names}"
            self._notices.say(Severity.INFO, "", text)
        self.strays = frozenset(running) - self._agents.keys()
        for agent_id in self.strays:
            text = f"its worker runs as pid {running[agent_id][0]}, but is not known to live"
            self._notices.say(Severity.WARNING, agent_id, text)
        self._release_unheld(running)
        self._upkeep.tidy_ended({live.record.worktree_path for live in self})

    def adopt_stray(self, agent_id: str) -> None:
        """Take over a worker that the database does not know as live, its feature with it.

        Raises:
            RefusedError: it has ended, or its feature is not free for it.
        """
        found = {w.agent_id: w for w in live_workers(self._kernel) if w.project == self._project}
        worker, run = found.get(agent_id), self._run(agent_id)
        feature_id = run.get("feature", {}).get("id") if run else None
        self.strays -= {agent_id}
        if worker is None or run is None or not isinstance(feature_id, int):
            raise RefusedError(f"{agent_id} cannot be adopted: it has ended, or left no trace")
        leases = [lease for lease in self._allocator.leases() if lease.holder == agent_id]
        claimed = self._store.claim(
            feature_id,
            NewAgent(
                agent_id=agent_id,
                api_port=worker.api_port,
                web_port=worker.web_port,
                epoch=max((lease.epoch for lease in leases), default=0),
                branch=str(run.get("branch", "")),
                backend=str(run.get("backend", "")),
                worktree_path=str(run.get("worktree", "")),
                log_path=str(log_path(self._project_dir, agent_id)),
            ),
            requested=True,
        )
        if not claimed:
            raise RefusedError(
                f"{agent_id} cannot be adopted: feature {feature_id} is done, or another's"
            )
        live = LiveAgent(
            self._store.agent(agent_id), self._store.feature(feature_id), Stage.RUNNING
        )
        self._agents[agent_id] = live
        self.tally.adopted += 1
        self._find_worker(live, {agent_id: (worker.pid, worker.pid_start)})

    def _find_worker(self, live: LiveAgent, running: Mapping[str, ProcessKey]) -> Liveness:
        """Take its worker over if it lives; whether the one its row names does."""
        record, liveness = live.record, Liveness.DEAD
        if record.pid is not None:
            liveness, live.worker = self._launcher.adopt(
                record.agent_id, record.pid, record.pid_start, record.boot_id
            )
        elif record.agent_id in running:
            # It was started, and its orchestrator ended before it could write that down.
            liveness, live.worker = self._launcher.adopt(
                record.agent_id, *running[record.agent_id], self._kernel.identity.boot_id
            )
        if live.worker is not None:
            live.recorded = live.worker.start == record.pid_start
        return liveness

    def _release_unheld(self, running: Mapping[str, ProcessKey]) -> None:
        """Give back what an orchestrator leased and did not live to give to an agent."""
        for lease in self._allocator.leases():
            held = lease.holder in self._agents or lease.holder in running
            if lease.project == self._project and lease.state is LeaseState.LEASED and not held:
                self._allocator.release(lease.holder, self._project, epoch=lease.epoch)

    def workers(self) -> list[LiveWorker]:
        """The live workers as the ledger compares them with its leases."""
        return [
            LiveWorker(
                agent_id=live.agent_id,
                project=self._project,
                pid=live.worker.pid,
                pid_start=live.worker.start,
                api_port=live.pair.api_port,
                web_port=live.pair.web_port,
                epoch=live.pair.epoch,
            )
            for live in self
            if live.worker is not None
        ]

    # ------------------------------------------------------------------ watching

    def advance(self) -> None:
        """Let every agent take the step its state and its worker allow.

        Raises:
            DatabaseError: what could not be written is written at the next tick.
        """
        for live in self:
            if live.stage is Stage.RUNNING:
                self._watch(live)
        self._give_back()
        for live in self:
            self._advance(live)
        if self._unwritten:
            self._store.set_states(self._unwritten)
            self._unwritten.clear()
        self._upkeep.collect(self._agents.keys())

    def _advance(self, live: LiveAgent) -> None:
        if live.stage is Stage.PREPARING:
            self._advance_preparing(live)
        elif live.stage is Stage.RUNNING and live.worker is not None and not live.recorded:
            self._record(live, live.worker)
        elif live.stage is Stage.CLOSING and live.closing is not None and live.closing.done():
            self._close_finished(live, live.closing)
        if live.stage is Stage.ENDING:
            self._settle(live)

    def _watch(self, live: LiveAgent) -> None:
        """Look after a running agent; touches no database, so a locked one hides no end."""
        worker = live.worker
        if worker is None:
            self._watch_lost(live)
        elif self._launcher.has_ended(worker):
            self._worker_ended(live)
        else:
            live.last_beat = self._launcher.heartbeat(live.agent_id)
            before = live.record.state
            state = lifecycle.next_live_state(
                before,
                worker_reported=live.last_beat is not None,
                ending_asked=live.asked is not None,
                worker=Liveness.ALIVE,
            )
            if state is AgentState.ACTIVE and before is AgentState.STARTING:
                self._admission.started()
                self._notices.settled("infrastructure")
            self._set_state(live, state)
            if live.asked and time.monotonic() > live.patience_until:
                live.patience_until = float("inf")
                self._launcher.destroy(worker)

    def _watch_lost(self, live: LiveAgent) -> None:
        """An agent of an earlier orchestrator whose worker was not found."""
        now = time.monotonic()
        if now - live.missed_at < MISSED_AGAIN_S:
            return
        live.missed_at = now
        liveness = self._find_worker(live, self._launcher.running())
        live.misses = live.misses + 1 if liveness is Liveness.DEAD else 0
        live.problem = ""
        if live.misses >= lifecycle.MISSES_BEFORE_DEAD:
            self._worker_ended(live)
        elif liveness is Liveness.UNKNOWN:
            live.problem = f"whether its worker, pid {live.record.pid}, lives is not known"
            if live.asked:
                said = "given up on request; whether its worker lives is not known"
                self._end(live, Verdict(AgentState.KILLED, said, counted=False))

    def _set_state(self, live: LiveAgent, state: AgentState) -> None:
        if state is not live.record.state:
            live.record = replace(live.record, state=state)
            self._unwritten[live.agent_id] = state

    # ------------------------------------------------------------------ ending

    def stop(self, agent_id: str) -> None:
        """Ask it to end within its grace. Raises `RefusedError` when it is not live."""
        live = self._ask(agent_id, self._settings.limits.stop_grace_s + PATIENCE_S)
        if live.worker is not None:
            self._launcher.stop(live.worker)

    def kill(self, agent_id: str) -> None:
        """End its tree at once. Raises `RefusedError` when it is not live."""
        live = self._ask(agent_id, PATIENCE_S)
        if live.worker is not None:
            self._launcher.kill(live.worker)

    def displace(self, agent_id: str, reason: str) -> None:
        """End an agent that has to go through no fault of its own; its feature is requeued."""
        live = self._agents.get(agent_id)
        if live is not None and not live.displaced:
            live.displaced = reason
            self.kill(agent_id)

    def recover(self, agent_id: str, *, at_once: bool = True) -> None:
        """Go on with its work in a new agent, in its worktree; a live one is killed first.

        Where no pair is free it waits for one. Not `at_once`: it also waits until
        fewer than `parallel` agents live.

        Raises:
            RefusedError: its feature is done, blocked, or worked on by another agent.
        """
        if agent_id in self._agents:
            self.kill(agent_id)
            self._agents[agent_id].then_recover = True
            return
        record = self._store.agent(agent_id)
        if record.feature_id is None:
            raise RefusedError(f"the feature of {agent_id} is gone")
        feature = self._store.feature(record.feature_id)
        if feature.status is not FeatureStatus.PENDING:
            worked_on = f", worked on by {feature.agent_id}" if feature.agent_id else ""
            raise RefusedError(
                f"{agent_id} cannot be recovered: feature {feature.id} is "
                f"{feature.status.lower().replace('_', ' ')}{worked_on}"
            )
        self._to_recover[agent_id] = at_once

    def go_on(self) -> None:
        """Start the agents that go on with the work of ended ones.

        Raises:
            PoolExhausted: those left wait for a free pair.
        """
        for agent_id, at_once in tuple(self._to_recover.items()):
            if not at_once and len(self._agents) >= self._settings.parallel:
                continue
            record = self._store.agent(agent_id)
            try:
                feature = self._store.feature(record.feature_id or 0)
                if not self.spawn(feature, requested=True, source=record):
                    text = f"not recovered: feature {feature.id} is worked on already, or waits"
                    self._notices.say(Severity.WARNING, agent_id, text)
            except UsageError as error:
                self._notices.say(Severity.WARNING, agent_id, f"not recovered: {error.message}")
            del self._to_recover[agent_id]

    def _ask(self, agent_id: str, patience_s: float) -> LiveAgent:
        live = self._agents.get(agent_id)
        if live is None:
            raise RefusedError(f"agent {agent_id} is not running")
        until = time.monotonic() + patience_s
        live.patience_until = min(live.patience_until, until) if live.asked else until
        live.asked = AgentState.KILLED
        live.cancelled.set()
        self._set_state(live, AgentState.STOPPING)
        return live

    def _worker_ended(self, live: LiveAgent) -> None:
        """The worker is gone: end what it left, and find out what it achieved."""
        record = live.record
        live.facts = facts = self._launcher.facts(record.agent_id)
        if facts is None:
            worktree = Path(record.worktree_path or "/nonexistent")
            ended = self._launcher.end_leftovers(
                record.agent_id, worktree, live.worker, live.seen_tree
            )
            if ended:
                left = lifecycle.plural(ended, "process", "processes")
                text = f"its worker was killed; {left} it left ended"
                self._notices.say(Severity.WARNING, record.agent_id, text)
        verdict = lifecycle.verdict(
            facts,
            ran_s=self._ran(live),
            commits=None,
            asked=live.asked,
            last_line=last_logged(Path(record.log_path)) if facts is None else "",
            not_its_fault=self._not_its_fault(live),
        )
        if live.displaced:
            verdict = Verdict(AgentState.KILLED, live.displaced, counted=False)
        if live.worker is not None:
            self._launcher.close(live.worker)
            live.worker = None
        self._set_state(live, AgentState.STOPPING)
        if facts is not None and facts.ending == "exited" and facts.exit_code == 0:
            live.stage = Stage.CLOSING
            live.closing = self._verifier.submit(self._finish(live))
        else:
            self._end(live, verdict)

    def _not_its_fault(self, live: LiveAgent) -> str:
        """Why the host or this program, not the agent, ended the worker; empty if it did not."""
        record, worker = live.record, live.worker
        if worker is not None and worker.status is not None and worker.status >= 0:
            said = last_logged(Path(record.log_path))
            return f"its worker gave up with code {worker.status}" + (f": {said}" if said else "")
        if record.pid is None and worker is None:
            return "its orchestrator ended before it had a worker"
        if record.boot_id and record.boot_id != self._kernel.identity.boot_id:
            return "the host was restarted"
        return ""

    def _finish(self, live: LiveAgent) -> Finish:
        record = live.record
        return Finish(
            agent_id=record.agent_id,
            feature_id=live.feature.id,
            branch=record.branch,
            start_commit=self._start_commit(record),
            worktree=Path(record.worktree_path),
            pair=live.pair,
            cancelled=live.cancelled,
        )

    def _close_finished(self, live: LiveAgent, closing: Future[Closed]) -> None:
        failure = closing.exception()
        if isinstance(failure, Cancelled):
            said = live.displaced or "stopped before its branch was merged"
            self._end(live, Verdict(AgentState.KILLED, said, counted=False))
            return
        if isinstance(failure, AutocoderError):
            # Its commits are safe on the branch; only counting them failed.
            said = f"not closed: {failure.message}"
            self._end(live, Verdict(AgentState.FAILED, said, "infrastructure", counted=False))
            return
        live.closed = closing.result()
        base = self._repository.base
        self._end(live, closed_verdict(live.closed, live.facts, ran_s=self._ran(live), base=base))

    def _end(self, live: LiveAgent, verdict: Verdict) -> None:
        """Nothing of the agent lives: decide what becomes of its feature."""
        live.stage = Stage.ENDING
        live.verdict = verdict
        live.outcome = self._outcome(live, verdict)

    def _outcome(self, live: LiveAgent, verdict: Verdict) -> FeatureOutcome:
        now, limits = self._now(), self._settings.limits
        if verdict.state is AgentState.COMPLETED:
            merged = live.closed is not None and isinstance(live.closed.merge, Merged)
            return Finished(live.record.branch, merged=merged)
        if live.asked:
            return Requeued(verdict.reason)
        if not verdict.counted:
            return Requeued(verdict.reason, now + self._admission.trouble(live.feature.id))
        delay = lifecycle.retry_delay(live.feature.attempts + 1, limits.retry_s, self._rng)
        told = told_next(verdict, live.closed, self._repository.base)
        return Failed(told, verdict.error_key, now + delay, limits.attempts)

    def _settle(self, live: LiveAgent) -> None:
        """Move its row to the history, give its pair back, say so.

        Raises:
            DatabaseError: nothing has changed; the next tick tries again.
        """
        verdict, outcome = live.verdict, live.outcome
        assert verdict is not None
        assert outcome is not None
        record, facts = live.record, live.facts
        try:
            feature = self._store.end_agent(
                record.agent_id,
                state=verdict.state,
                exit_code=facts.exit_code if facts else None,
                reason=verdict.reason,
                outcome=outcome,
                eaddrinuse=facts.eaddrinuse if facts else 0,
            )
        except DatabaseError:
            raise
        except RefusedError:
            feature = None  # another program has ended its row already
        del self._agents[record.agent_id]
        self._unwritten.pop(record.agent_id, None)
        self._upkeep.forget(record.agent_id)
        self._release(record.agent_id, record.epoch)
        self._count(live, verdict)
        self._say_end(live, verdict, feature)
        if live.then_recover and feature is not None and feature.status is FeatureStatus.PENDING:
            self._to_recover[record.agent_id] = True
        else:
            merged = isinstance(outcome, Finished) and outcome.merged
            self._upkeep.tidy(record, merged=merged)

    def _count(self, live: LiveAgent, verdict: Verdict) -> None:
        match verdict.state:
            case AgentState.COMPLETED:
                self.tally.completed += 1
                self._admission.completed()
            case AgentState.FAILED:
                self.tally.failed += 1
            case AgentState.CRASHED:
                self.tally.crashed += 1
            case _:
                self.tally.killed += 1
        if live.facts is not None:
            self.tally.eaddrinuse += live.facts.eaddrinuse
        failed = verdict.state in (AgentState.FAILED, AgentState.CRASHED) and verdict.counted
        if failed and self._admission.failed(live.feature.id, verdict.error_key):
            self.stopped_alike = verdict.reason

    def _say_end(self, live: LiveAgent, verdict: Verdict, settled: Feature | None) -> None:
        if verdict.error_key == "infrastructure":
            # The next one meets the same: said once, until an agent has started again.
            text = f"{verdict.reason}; its feature waits, its attempts are unchanged"
            self._notices.stand(Severity.WARNING, "infrastructure", text)
            return
        severity, text = said_at_end(
            verdict,
            live.feature,
            closed=live.closed,
            facts=live.facts,
            asked=live.asked is not None,
            branch=live.record.branch,
            base=self._repository.base,
            settled=settled,
        )
        self._notices.say(severity, live.agent_id, text, feature_id=live.feature.id)

    # ------------------------------------------------------------------ leases

    def _holder(self, agent_id: str, pid: int | None = None, start: int | None = None) -> Holder:
        """Until its worker runs, an agent's lease stands and falls with this process."""
        if pid is None:
            pid = os.getpid()
            start = self._kernel.start_ticks(pid)
        return Holder(agent_id, self._project, pid, start)

    def _release(self, agent_id: str, epoch: int) -> None:
        self._owed[agent_id] = epoch
        self._give_back()

    def _give_back(self) -> None:
        """Give back the leases of ended agents; what a ledger refuses now is tried again."""
        for agent_id, epoch in tuple(self._owed.items()):
            try:
                self._allocator.release(agent_id, self._project, epoch=epoch)
            except DatabaseError as error:
                self._notices.stand(Severity.ERROR, "ledger", f"{error.message}. {error.hint}")
                return
            except RefusedError as error:
                # Granted anew meanwhile, so no longer this agent's to give back.
                self._notices.say(Severity.WARNING, agent_id, error.message)
            del self._owed[agent_id]
            self.tally.leases_released += 1
        self._notices.settled("ledger")

    # ------------------------------------------------------------------ small things

    def _start_commit(self, record: AgentRecord) -> str:
        """Where the agent's branch began: base may contain it already, after a crash in between."""
        run = self._run(record.agent_id)
        return str(run.get("start_commit") or "") if run else ""

    def _run(self, agent_id: str) -> dict[str, Any] | None:
        """What its worker was told; None where it was never told anything."""
        try:
            run = json.loads((run_folder(self._project_dir, agent_id) / "run.json").read_text())
        except (OSError, ValueError):
            return None
        return run if isinstance(run, dict) else None

    def _ran(self, live: LiveAgent) -> float:
        if live.facts is not None:
            return live.facts.ended_at - live.facts.started_at
        return self._now() - live.record.started_at

    def close(self) -> None:
        """Let go of every worker; agents go on."""
        for live in self:
            if live.worker is not None:
                self._launcher.close(live.worker)
