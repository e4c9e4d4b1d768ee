"""The live agents, and every deed that begins, changes or ends one.

Intent is written before the deed: lease, then row and claim in one transaction,
then worktree, then worker; and in reverse the tree is dead before the row says
so. A crash at any point leaves something that `adopt` can tell apart and mend.
Methods are called from the orchestrator's thread; git works in threads of its own.
"""

import enum
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from autocoder.core import lifecycle
from autocoder.core.backends import backend_command, uses_prompt
from autocoder.core.errors import AutocoderError, GitError, RefusedError
from autocoder.core.launcher import Launcher, WorkerProcess, WorkerSpec, run_folder
from autocoder.core.lifecycle import ExitFacts, Verdict
from autocoder.core.logs import log_path
from autocoder.core.models import (
    AgentState,
    Feature,
    FeatureStatus,
    Holder,
    PortPair,
    Severity,
)
from autocoder.core.notices import Notices
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel, Liveness
from autocoder.core.prompts import render_prompt
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
from autocoder.core.worktrees import Conflict, Merged, MergeResult, ReadyToMerge, Repository

T = TypeVar("T")
K = TypeVar("K")

INFRASTRUCTURE_RETRY_S = 2.0
"""How long a feature waits after trouble that was not its agent's fault."""

DESTROY_AFTER_S = 5.0
"""What a worker gets beyond its agent's grace before it is ended itself."""

MAX_ITERATIONS = 5

ENDED_SEARCHED = 500
"""How far back the agent of a branch that is merged late is looked for."""


class Stage(enum.Enum):
    PREPARING = enum.auto()
    """Its worktree is being added."""
    RUNNING = enum.auto()
    """It has a worker, or is about to be found without one."""
    CLOSING = enum.auto()
    """Its worker has ended; its commits are counted and merged."""


@dataclass(frozen=True, slots=True)
class Prepared:
    worktree: Path
    start_commit: str
    """What the branch is measured against: commits after it are the agent's."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What git said of a finished agent's branch."""

    commits: int
    merge: MergeResult | None
    """None: nothing to merge."""


@dataclass(slots=True)
class LiveAgent:
    """One agent between its claim and its row in the history."""

    record: AgentRecord
    feature: Feature
    stage: Stage
    since: float
    """Monotonic seconds."""
    worker: WorkerProcess | None = None
    preparing: Future[Prepared] | None = None
    closing: Future[Closed] | None = None
    asked: AgentState | None = None
    """KILLED once a human has asked for its end."""
    asked_at: float = 0.0
    forced: bool = False
    facts: ExitFacts | None = None
    misses: int = 0
    then_recover: bool = False
    """Goes on in a new agent as soon as this one has ended."""
    dirty_files: int = 0
    last_beat: float | None = None

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
    tidied: int = 0
    """Worktrees removed."""


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
        wake: Callable[[], None],
        rng: random.Random | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._store = store
        self._allocator = allocator
        self._launcher = launcher
        self._kernel = kernel
        self._notices = notices
        self._wake = wake
        # Spreading retries needs no secrecy.
        self._rng = rng or random.Random()  # noqa: S311
        self._now = now
        self._agents: dict[str, LiveAgent] = {}
        self._git = ThreadPoolExecutor(2, thread_name_prefix="git")
        self._tidying: dict[str, Future[bool]] = {}
        self._merging: dict[int, Future[MergeResult]] = {}
        self._dirty: tuple[str, Future[int]] | None = None
        self._dirty_turn = 0
        self._base: Future[str] | None = None
        self._base_commit = ""
        self.tally = Tally()

    def __iter__(self) -> Iterator[LiveAgent]:
        return iter(tuple(self._agents.values()))

    def __len__(self) -> int:
        return len(self._agents)

    def get(self, agent_id: str) -> LiveAgent | None:
        return self._agents.get(agent_id)

    @property
    def busy(self) -> bool:
        """Whether something of an agent's is still to be done, a worktree's removal included."""
        return bool(self._agents or self._tidying or self._merging)

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
            DatabaseError: nothing has changed, or the lease is released again.
        """
        agent_id = self._store.next_agent_id(
            lambda taken: run_folder(self._project_dir, taken).exists()
        )
        pair = self._allocator.lease(self._holder(agent_id))
        self.tally.leases_granted += 1
        worktree = Path(source.worktree_path) if source and source.worktree_path else None
        goes_on = worktree is not None and worktree.is_dir()
        try:
            branch = (
                source.branch
                if goes_on and source
                else self._repository.branch_name(feature.id, feature.name)
            )
            claimed = self._store.claim(
                feature.id,
                NewAgent(
                    agent_id=agent_id,
                    api_port=pair.api_port,
                    web_port=pair.web_port,
                    epoch=pair.epoch,
                    branch=branch,
                    backend=self._settings.backend,
                    worktree_path=str(worktree) if goes_on else "",
                    log_path=str(log_path(self._project_dir, agent_id)),
                ),
                requested=requested,
            )
        except AutocoderError:
            self._release(agent_id, pair.epoch)
            raise
        if not claimed:
            self._release(agent_id, pair.epoch)
            return False
        if goes_on and source:
            self._store.set_worktree(source.agent_id, "")
        live = LiveAgent(
            record=self._store.agent(agent_id),
            feature=feature,
            stage=Stage.PREPARING,
            since=time.monotonic(),
        )
        self._agents[agent_id] = live
        self.tally.spawned += 1
        earlier = feature.branch_name
        live.preparing = self._in_git(
            lambda: self._prepare(agent_id, branch, earlier, worktree if goes_on else None)
        )
        return True

    def _prepare(self, agent_id: str, branch: str, earlier: str, worktree: Path | None) -> Prepared:
        """In a git thread: a worktree of `branch`, from an earlier attempt's commits if any."""
        repository = self._repository
        start = repository.base_commit()
        if worktree is not None:
            return Prepared(worktree, start)
        source = start
        if earlier and earlier != branch and repository.commits_ahead(earlier):
            source = earlier
        return Prepared(repository.add(agent_id, branch, source), start)

    def _start_worker(self, live: LiveAgent, prepared: Prepared) -> None:
        record, feature, settings = live.record, live.feature, self._settings
        agent_id, pair = record.agent_id, live.pair
        folder = run_folder(self._project_dir, agent_id)
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        self._store.set_worktree(agent_id, str(prepared.worktree))
        values = {
            "agent_id": agent_id,
            "feature_id": str(feature.id),
            "worktree": str(prepared.worktree),
            "api_port": str(pair.api_port),
            "web_port": str(pair.web_port),
            "model": settings.model,
            "prompt_file": str(folder / "prompt.md"),
        }
        if uses_prompt(settings):
            prompt = self._prompt(feature, values)
            (folder / "prompt.md").write_text(prompt, "utf-8")
            values["prompt"] = prompt
        limits = settings.limits
        pools = [
            (span.start, span.end) for p in self._allocator.status().pools for span in p.ranges
        ]
        run = {
            "agent_id": agent_id,
            "backend": record.backend,
            "command": backend_command(settings, folder / "run.json", values),
            "worktree": str(prepared.worktree),
            "branch": record.branch,
            "base": self._repository.base,
            "start_commit": prepared.start_commit,
            "prompt_file": values["prompt_file"],
            "model": settings.model,
            "max_iterations": MAX_ITERATIONS,
            "feature": {
                "id": feature.id,
                "name": feature.name,
                "description": feature.description,
                "steps": list(feature.steps),
                "category": feature.category,
                "attempt": feature.attempts + 1,
                "last_error": feature.last_error,
            },
            "options": {
                "step_s": settings.scripted.step_s,
                "misbehave": settings.scripted.misbehave,
            },
            "env": {"pass": list(settings.env.pass_), "drop": list(settings.env.drop)},
            "fence": {"mode": settings.fence, "pools": pools},
            "limits": {
                "wall_limit_s": limits.agent_minutes * 60,
                "idle_limit_s": limits.idle_minutes * 60,
                "stop_grace_s": limits.stop_grace_s,
                "log_bytes": limits.log_mib << 20,
            },
        }
        live.worker = self._launcher.start(
            WorkerSpec(
                agent_id=agent_id,
                feature_id=feature.id,
                backend=record.backend,
                worktree=prepared.worktree,
                pair=pair,
                model=settings.model,
                max_iterations=MAX_ITERATIONS,
                run=run,
            )
        )
        self._store.set_worker(
            agent_id,
            pid=live.worker.pid,
            pid_start=live.worker.start,
            boot_id=self._kernel.identity.boot_id,
            create_time=self._now(),
        )
        self._allocator.confirm(
            self._holder(agent_id, live.worker.pid, live.worker.start), pair.epoch
        )
        live.record = self._store.agent(agent_id)
        live.stage = Stage.RUNNING

    def _prompt(self, feature: Feature, values: dict[str, str]) -> str:
        return render_prompt(
            "coding",
            {
                **values,
                "feature_name": feature.name,
                "feature_description": feature.description,
                "feature_steps": "\n".join(f"- {step}" for step in feature.steps),
                "last_error": feature.last_error,
                "base": self._repository.base,
            },
            self._project_dir,
        )

    def adopt(self) -> None:
        """Take over the live agents of an orchestrator that is gone, at the start."""
        features = {feature.id: feature for feature in self._store.features()}
        for record in self._store.live_agents():
            feature = features.get(record.feature_id or 0, Feature(record.feature_id or 0, "?"))
            live = LiveAgent(record, feature, Stage.RUNNING, time.monotonic())
            self.tally.adopted += 1
            self._agents[record.agent_id] = live
            if record.pid is not None:
                _, live.worker = self._launcher.adopt(
                    record.agent_id, record.pid, record.pid_start, record.boot_id
                )
            if live.worker is not None:
                if live.worker.start != record.pid_start:
                    self._store.set_worker(
                        record.agent_id,
                        pid=live.worker.pid,
                        pid_start=live.worker.start,
                        boot_id=self._kernel.identity.boot_id,
                        create_time=record.create_time or self._now(),
                    )
                self._notices.say(
                    Severity.INFO, record.agent_id, f"adopted: {feature.name}, pid {record.pid}"
                )

    # ------------------------------------------------------------------ watching

    def advance(self) -> None:
        """Let every agent take the step its state and its worker allow."""
        for live in self:
            try:
                self._advance(live)
            except RefusedError as error:
                self._notices.stand(
                    Severity.ERROR,
                    live.record.agent_id,
                    f"{error.message}. {error.hint}".strip(),
                )
        self._collect_git()

    def _advance(self, live: LiveAgent) -> None:
        if live.stage is Stage.PREPARING:
            self._advance_preparing(live)
        elif live.stage is Stage.RUNNING:
            self._advance_running(live)
        elif live.closing is not None and live.closing.done():
            self._close_finished(live, live.closing)

    def _advance_preparing(self, live: LiveAgent) -> None:
        if live.preparing is None or not live.preparing.done():
            return
        failure = live.preparing.exception()
        if failure is None and live.asked is None:
            prepared = live.preparing.result()
            try:
                self._start_worker(live, prepared)
                return
            except (RefusedError, OSError) as error:
                failure = error
        if failure is None:
            verdict = Verdict(AgentState.KILLED, "stopped before it started", counted=False)
        elif isinstance(failure, AutocoderError | OSError):
            said = failure.message if isinstance(failure, AutocoderError) else str(failure)
            verdict = Verdict(AgentState.FAILED, f"not started: {said}", "start", counted=False)
        else:
            raise failure
        if live.worker is not None:
            self._launcher.kill(live.worker)
            live.stage = Stage.RUNNING
            return
        self._end(live, verdict)

    def _advance_running(self, live: LiveAgent) -> None:
        worker, record = live.worker, live.record
        if worker is None:
            self._advance_lost(live)
            return
        if not self._launcher.has_ended(worker):
            beat = self._launcher.heartbeat(record.agent_id)
            live.last_beat = beat
            state = lifecycle.next_live_state(
                record.state,
                worker_reported=beat is not None,
                ending_asked=live.asked is not None,
                worker=Liveness.ALIVE,
            )
            if state is not record.state:
                self._store.set_state(record.agent_id, state)
                live.record = self._store.agent(record.agent_id)
            self._insist(live, worker)
            return
        self._worker_ended(live)

    def _advance_lost(self, live: LiveAgent) -> None:
        """An agent of an earlier orchestrator whose worker was not adopted."""
        record = live.record
        liveness = Liveness.DEAD
        if record.pid is not None:
            liveness, live.worker = self._launcher.adopt(
                record.agent_id, record.pid, record.pid_start, record.boot_id
            )
        live.misses = live.misses + 1 if liveness is Liveness.DEAD else 0
        if live.misses >= lifecycle.MISSES_BEFORE_DEAD:
            self._worker_ended(live)

    def _insist(self, live: LiveAgent, worker: WorkerProcess) -> None:
        """A worker that was asked to end and does not is ended."""
        patience = DESTROY_AFTER_S + self._settings.limits.stop_grace_s
        if live.asked and time.monotonic() - live.asked_at > patience and not live.forced:
            live.forced = True
            self._launcher.destroy(worker)

    # ------------------------------------------------------------------ ending

    def stop(self, agent_id: str) -> None:
        """Ask it to end within its grace. Raises `RefusedError` when it is not live."""
        live = self._ask(agent_id)
        if live.worker is not None:
            self._launcher.stop(live.worker)

    def kill(self, agent_id: str) -> None:
        """End its tree at once. Raises `RefusedError` when it is not live."""
        live = self._ask(agent_id)
        if live.worker is not None:
            self._launcher.kill(live.worker)

    def recover(self, agent_id: str) -> None:
        """Go on with its work in a new agent, in its worktree; a live one is killed first.

        Raises:
            RefusedError: its feature is done, or worked on by another agent.
            PoolExhausted: no pair is free.
        """
        if agent_id in self._agents:
            self.kill(agent_id)
            self._agents[agent_id].then_recover = True
            return
        record = self._store.agent(agent_id)
        if record.feature_id is None:
            raise RefusedError(f"the feature of {agent_id} is gone")
        feature = self._store.feature(record.feature_id)
        if not self.spawn(feature, requested=True, source=record):
            raise RefusedError(
                f"{agent_id} cannot be recovered: feature {feature.id} is {feature.status.lower()}"
                + (f", worked on by {feature.agent_id}" if feature.agent_id else "")
            )

    def _ask(self, agent_id: str) -> LiveAgent:
        live = self._agents.get(agent_id)
        if live is None:
            raise RefusedError(f"agent {agent_id} is not running")
        live.asked = AgentState.KILLED
        live.asked_at = time.monotonic()
        if live.record.state is not AgentState.STOPPING:
            self._store.set_state(agent_id, AgentState.STOPPING)
            live.record = self._store.agent(agent_id)
        return live

    def _worker_ended(self, live: LiveAgent) -> None:
        """The worker is gone: end what it left, and find out what it achieved."""
        record = live.record
        live.facts = facts = self._launcher.facts(record.agent_id)
        ended = 0
        if facts is None:
            worktree = Path(record.worktree_path or "/nonexistent")
            ended = self._launcher.end_leftovers(record.agent_id, worktree, live.worker)
        if live.worker is not None:
            self._launcher.close(live.worker)
            live.worker = None
        if ended:
            self._notices.say(
                Severity.WARNING,
                record.agent_id,
                f"its worker was killed; {lifecycle.plural(ended, 'process', 'processes')} "
                "it left ended",
            )
        if facts is not None and facts.ending == "exited" and facts.exit_code == 0:
            live.stage = Stage.CLOSING
            if record.state is not AgentState.STOPPING:
                self._store.set_state(record.agent_id, AgentState.STOPPING)
                live.record = self._store.agent(record.agent_id)
            live.closing = self._in_git(lambda: self._finish_branch(record))
            return
        self._end(
            live,
            lifecycle.verdict(
                facts,
                ran_s=self._ran(live),
                commits=None,
                asked=live.asked,
            ),
        )

    def _finish_branch(self, record: AgentRecord) -> Closed:
        """In a git thread: count the agent's commits and merge them into base."""
        commits = self._repository.commits_ahead(record.branch, self._start_commit(record))
        if not commits:
            return Closed(0, None)
        if self._settings.merge == "manual":
            return Closed(commits, ReadyToMerge("merge = manual"))
        try:
            return Closed(commits, self._repository.merge(record.branch))
        except GitError as error:
            return Closed(commits, ReadyToMerge(error.message))

    def _close_finished(self, live: LiveAgent, closing: Future[Closed]) -> None:
        failure = closing.exception()
        if isinstance(failure, AutocoderError):
            # Its commits are safe on the branch; only counting them failed.
            self._end(
                live, Verdict(AgentState.FAILED, f"not closed: {failure.message}", counted=False)
            )
            return
        closed = closing.result()
        verdict = lifecycle.verdict(live.facts, ran_s=self._ran(live), commits=closed.commits)
        if isinstance(closed.merge, Conflict):
            paths = ", ".join(closed.merge.paths[:5])
            verdict = Verdict(
                AgentState.FAILED,
                f"merge conflict with {self._repository.base} in {paths}",
                "merge conflict",
            )
        self._end(live, verdict, closed.merge)

    def _end(self, live: LiveAgent, verdict: Verdict, merge: MergeResult | None = None) -> None:
        """Nothing of the agent lives: settle its feature, give its pair back, say so."""
        record, facts = live.record, live.facts
        feature = self._store.end_agent(
            record.agent_id,
            state=verdict.state,
            exit_code=facts.exit_code if facts else None,
            reason=verdict.reason,
            outcome=self._outcome(live, verdict, merge),
            eaddrinuse=facts.eaddrinuse if facts else 0,
        )
        del self._agents[record.agent_id]
        self._release(record.agent_id, record.epoch)
        self._count(verdict, facts)
        self._say_end(live, verdict, merge, feature)
        self._tidy(record, merged=isinstance(merge, Merged))
        if live.then_recover:
            self.recover(record.agent_id)

    def _outcome(
        self, live: LiveAgent, verdict: Verdict, merge: MergeResult | None
    ) -> FeatureOutcome:
        now = self._now()
        if verdict.state is AgentState.COMPLETED:
            return Finished(live.record.branch, merged=isinstance(merge, Merged))
        if live.asked or not verdict.counted:
            retry_at = None if live.asked else now + INFRASTRUCTURE_RETRY_S
            return Requeued(verdict.reason, retry_at)
        limits = self._settings.limits
        delay = lifecycle.retry_delay(live.feature.attempts + 1, limits.retry_s, self._rng)
        return Failed(verdict.reason, verdict.error_key, now + delay, limits.attempts)

    def _count(self, verdict: Verdict, facts: ExitFacts | None) -> None:
        match verdict.state:
            case AgentState.COMPLETED:
                self.tally.completed += 1
            case AgentState.FAILED:
                self.tally.failed += 1
            case AgentState.CRASHED:
                self.tally.crashed += 1
            case _:
                self.tally.killed += 1
        if facts is not None:
            self.tally.eaddrinuse += facts.eaddrinuse

    def _say_end(
        self,
        live: LiveAgent,
        verdict: Verdict,
        merge: MergeResult | None,
        feature: Feature | None,
    ) -> None:
        text = f"{verdict.state.lower()}: {live.feature.name}: {verdict.reason}"
        severity = Severity.WARNING
        if isinstance(merge, Merged):
            severity = Severity.INFO
            text = (
                f"completed: {live.feature.name}: merged "
                f"{lifecycle.plural(merge.count, 'commit')} into {self._repository.base}"
            )
        elif isinstance(merge, ReadyToMerge):
            text += f"; ready to merge from {live.record.branch}: {merge.reason}"
        elif live.asked:
            severity = Severity.INFO
        if live.asked and live.facts is not None:
            text += f"; {lifecycle.receipt(live.facts)}"
        if live.facts is not None and live.facts.foreign_ports:
            ports = ", ".join(map(str, live.facts.foreign_ports[:5]))
            text += f"; it tried {ports}, not its own"
        if feature is not None and feature.status == "BLOCKED":
            severity = Severity.ERROR
            text += f"; feature {feature.id} is blocked after {feature.attempts} attempts"
        self._notices.settled(live.record.agent_id)
        self._notices.say(severity, live.record.agent_id, text, feature_id=live.feature.id)

    def _release(self, agent_id: str, epoch: int) -> None:
        self._allocator.release(agent_id, str(self._project_dir), epoch=epoch)
        self.tally.leases_released += 1

    # ------------------------------------------------------------------ worktrees

    def _tidy(self, record: AgentRecord, *, merged: bool) -> None:
        """Remove, in a git thread, a worktree that holds nothing the repository has not."""
        shutil.rmtree(run_folder(self._project_dir, record.agent_id) / "tmp", ignore_errors=True)
        if not record.worktree_path:
            return
        path = Path(record.worktree_path)
        self._tidying[record.agent_id] = self._in_git(
            lambda: self._discard(path, record.branch, merged=merged)
        )

    def _discard(self, path: Path, branch: str, *, merged: bool) -> bool:
        """In a git thread: whether the worktree could go, its branch with it."""
        repository = self._repository
        if repository.dirty_files(path) or not (merged or not repository.commits_ahead(branch)):
            return False
        repository.remove(path)
        repository.delete_branch(branch)
        return True

    def _start_commit(self, record: AgentRecord) -> str:
        """Where the agent's branch began: base may contain it already, after a crash in between."""
        try:
            run = json.loads(
                (run_folder(self._project_dir, record.agent_id) / "run.json").read_text()
            )
            return str(run["start_commit"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._repository.base_commit()

    # ------------------------------------------------------------------ git, unhurried

    def merge(self, feature: Feature) -> None:
        """Try again to merge a finished feature's branch; the outcome comes as a notice."""
        if feature.status is not FeatureStatus.DONE or feature.review_status == "VERIFIED":
            raise RefusedError(f"feature {feature.id} has no branch that is ready to merge")
        if feature.id not in self._merging:
            branch = feature.branch_name
            self._merging[feature.id] = self._in_git(lambda: self._repository.merge(branch))

    def look_at_git(self) -> None:
        """Refresh base's commit and one agent's count of uncommitted files, some ticks later."""
        if self._base is None:
            self._base = self._in_git(self._repository.base_commit)
        candidates = [live for live in self if live.stage is Stage.RUNNING and live.worker]
        if self._dirty is None and candidates:
            self._dirty_turn += 1
            record = candidates[self._dirty_turn % len(candidates)].record
            path = Path(record.worktree_path)
            self._dirty = record.agent_id, self._in_git(lambda: self._repository.dirty_files(path))

    @property
    def base_commit(self) -> str:
        """As last seen; abbreviated, empty before the first look."""
        return self._base_commit

    def _collect_git(self) -> None:
        for agent_id, tidying in _done(self._tidying):
            failure = tidying.exception()
            if isinstance(failure, AutocoderError):
                text = f"its worktree was kept: {failure.message}"
                self._notices.say(Severity.WARNING, agent_id, text)
            elif tidying.result():
                self._store.set_worktree(agent_id, "")
                self.tally.tidied += 1
        for feature_id, merging in _done(self._merging):
            self._merged(self._store.feature(feature_id), merging)
        if self._base is not None and self._base.done():
            if self._base.exception() is None:
                self._base_commit = self._base.result()[:7]
            self._base = None
        if self._dirty is not None and self._dirty[1].done():
            agent_id, count = self._dirty
            # A worktree that is just being removed cannot be counted, and need not be.
            if agent_id in self._agents and count.exception() is None:
                self._agents[agent_id].dirty_files = count.result()
            self._dirty = None

    def _merged(self, feature: Feature, merging: Future[MergeResult]) -> None:
        subject = f"feature {feature.id}"
        failure = merging.exception()
        if isinstance(failure, AutocoderError):
            self._notices.stand(Severity.WARNING, subject, f"not merged: {failure.message}")
            return
        result = merging.result()
        base = self._repository.base
        if isinstance(result, Merged):
            self._store.set_merged(feature.id, True)
            self._notices.settled(subject)
            commits = lifecycle.plural(result.count, "commit")
            text = f"merged: {feature.name}: {commits} into {base}"
            self._notices.say(Severity.INFO, subject, text, feature_id=feature.id)
            for record in self._store.history(ENDED_SEARCHED):
                if record.branch == feature.branch_name and record.worktree_path:
                    self._tidy(record, merged=True)
        elif isinstance(result, Conflict):
            reason = f"merge conflict with {base} in {', '.join(result.paths[:5])}"
            limits = self._settings.limits
            delay = lifecycle.retry_delay(feature.attempts + 1, limits.retry_s, self._rng)
            failed = Failed(reason, "merge conflict", self._now() + delay, limits.attempts)
            self._store.settle_feature(feature.id, failed)
            self._notices.say(Severity.WARNING, subject, f"{feature.name}: {reason}")
        else:
            self._notices.stand(Severity.WARNING, subject, f"ready to merge: {result.reason}")

    def close(self) -> None:
        """Let go of everything; agents go on."""
        self._git.shutdown(wait=True, cancel_futures=True)
        for live in self:
            if live.worker is not None:
                self._launcher.close(live.worker)

    # ------------------------------------------------------------------ small things

    def _holder(self, agent_id: str, pid: int | None = None, start: int | None = None) -> Holder:
        """Until its worker runs, an agent's lease stands and falls with this process."""
        if pid is None:
            pid = os.getpid()
            start = self._kernel.start_ticks(pid)
        return Holder(agent_id, str(self._project_dir), pid, start)

    def _ran(self, live: LiveAgent) -> float:
        if live.facts is not None:
            return live.facts.ended_at - live.facts.started_at
        return self._now() - live.record.started_at

    def _in_git(self, work: Callable[[], T]) -> Future[T]:
        future = self._git.submit(work)
        future.add_done_callback(lambda _: self._wake())
        return future


def _done(futures: dict[K, Future[T]]) -> list[tuple[K, Future[T]]]:
    """Take those that are done out of `futures`."""
    done = [(key, future) for key, future in futures.items() if future.done()]
    for key, _ in done:
        del futures[key]
    return done
