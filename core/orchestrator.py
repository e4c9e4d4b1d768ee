"""The loop: drain commands, look, let every agent take its step, start new ones, publish.

One thread owns database, git and processes. It sleeps until a worker ends, a
command arrives, git has finished something, or `tick_s` has passed.
"""

import os
import queue
import random
import select
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from autocoder.core.admission import Admission
from autocoder.core.commands import (
    Command,
    ExpandPool,
    KillAgent,
    MergeFeature,
    Pause,
    RecoverAgent,
    RecoverAll,
    Resume,
    RetryFeature,
    SpawnAgent,
    StopAgent,
    StopAll,
)
from autocoder.core.errors import AutocoderError, PoolExhausted, RefusedError
from autocoder.core.fleet import Fleet, LiveAgent, Stage, Tally
from autocoder.core.git_threads import GitThreads
from autocoder.core.launcher import Launcher
from autocoder.core.models import (
    Agent,
    AgentState,
    Feature,
    FeatureCounts,
    FeatureStatus,
    Lease,
    LeaseState,
    PoolStatus,
    RecoveryPlan,
    RunReport,
    Severity,
    Snapshot,
)
from autocoder.core.notices import Notices
from autocoder.core.observer import Observation, Observer, Watched
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel
from autocoder.core.project_lock import ProjectLock
from autocoder.core.recovery import recovery_plan
from autocoder.core.settings import Settings
from autocoder.core.store import AgentRecord, FeatureDraft, ProjectStore
from autocoder.core.upkeep import Upkeep
from autocoder.core.verify import Verifier
from autocoder.core.worktrees import Repository

ENDED_SHOWN = 500

SHORTEST_LOOK_S = 0.1
"""However often the loop is woken, the kernel is asked no more often than this."""

LOOK_SHARE, LONGEST_LOOK_S = 0.015, 2.0
"""Looking may take this share of a core: a large fleet is looked at more rarely."""

MEND_S = 2.0
"""How often leases are compared with what lives."""

BEAT_S = 2.0
"""How often heartbeats are copied into the database."""

READY_MERGE_S = 5.0
"""How often finished branches that could not be merged are tried again."""

STARTING_S = 0.1
"""A worker's first report wakes nobody, so it is looked for this often."""

EXHAUSTED_S = 1.0
"""How long after a refused lease the ledger is asked again although its counts are the same."""


class Orchestrator:
    """Runs one project's agents; an `Engine`."""

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
        lock: ProjectLock,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._store = store
        self._allocator = allocator
        self._lock = lock
        self._now = now
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._paused = False
        self._finished = False
        self._notices = Notices(store, now)
        self._observer = Observer(kernel)
        self._observations: Mapping[str, Observation] = {}
        self._looked_at = self._look_after = self._beat_at = float("-inf")
        self._merged_at = self._mended_at = float("-inf")
        self._history: tuple[AgentRecord, ...] = ()
        self._ended: tuple[Agent, ...] = ()
        self._history_of: tuple[Tally, int] | None = None
        self._exhausted: tuple[tuple[PoolStatus, ...], float] | None = None
        self._started = time.monotonic()
        self._git = GitThreads(self._wake)
        self._admission = Admission(project_dir, settings.limits)
        # Spreading retries needs no secrecy.
        rng = random.Random()  # noqa: S311
        self._verifier = Verifier(
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            launcher=launcher,
            allocator=allocator,
            kernel=kernel,
            wake=self._wake,
        )
        self._upkeep = Upkeep(
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            store=store,
            notices=self._notices,
            git=self._git,
            verifier=self._verifier,
            rng=rng,
            now=now,
        )
        self._fleet = Fleet(
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            store=store,
            allocator=allocator,
            launcher=launcher,
            kernel=kernel,
            notices=self._notices,
            admission=self._admission,
            upkeep=self._upkeep,
            git=self._git,
            verifier=self._verifier,
            rng=rng,
            now=now,
        )

    # ------------------------------------------------------------------ Engine

    def submit(self, command: Command) -> None:
        self._commands.put(command)
        self._wake()

    def stop(self) -> None:
        self._stopping = True
        self._wake()

    def run(self, publish: Callable[[Snapshot], None]) -> None:
        """Ends after `stop`, or, with `stop_when_done`, once nothing is left to do."""
        self.run_to_report(publish)

    def run_to_report(self, publish: Callable[[Snapshot], None]) -> RunReport:
        """As `run`, then say what was done."""
        published: Snapshot | None = None
        try:
            self._fleet.adopt()
            while not self._stopping:
                snapshot: Snapshot | None
                try:
                    snapshot = self.tick()
                    self._notices.settled("orchestrator")
                except AutocoderError as error:
                    # Nothing was lost: what the tick left undone, the next one does.
                    self._notices.stand(Severity.ERROR, "orchestrator", _said(error))
                    snapshot = (
                        replace(published, notices=self._notices.all()) if published else None
                    )
                if snapshot is not None and snapshot != published:
                    publish(snapshot)
                    published = snapshot
                if self._finished and self._settings.stop_when_done:
                    break
                self._wait()
            return self._report()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything. Agents go on; whoever opens the project next adopts them."""
        self._verifier.close()
        self._git.close()
        self._fleet.close()
        self._store.close()
        self._lock.release()

    # ------------------------------------------------------------------ the loop

    def tick(self) -> Snapshot:
        """One pass; returns what is true after it."""
        self._drain_commands()
        self._fleet.advance()
        self._stop_failing_alike()
        self._merge_ready()
        self._go_on()
        self._fill()
        self._mend_ledger()
        self._look()
        self._finished = self._is_finished()
        self._notices.keep()
        return self._snapshot()

    def _wait(self) -> None:
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        for pidfd in self._fleet.pidfds():
            poller.register(pidfd, select.POLLIN)
        starting = any(live.record.state is AgentState.STARTING for live in self._fleet)
        seconds = min(self._settings.tick_s, STARTING_S if starting else float("inf"))
        poller.poll(seconds * 1000)
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            return

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # a full pipe wakes as well

    def _drain_commands(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            try:
                self._obey(command)
            except AutocoderError as error:
                subject = getattr(command, "agent_id", "")
                self._notices.say(Severity.WARNING, subject, _said(error))

    def _obey(self, command: Command) -> None:
        match command:
            case SpawnAgent(feature_id, task):
                self._spawn(feature_id, task)
            case StopAgent(agent_id):
                self._fleet.stop(agent_id)
            case KillAgent(agent_id):
                self._fleet.kill(agent_id)
            case RecoverAgent(agent_id):
                self._fleet.recover(agent_id)
            case RecoverAll():
                self._recover_all(self._recovery(self._store.features(), self._allocator.leases()))
            case ExpandPool(role, amount):
                added = self._allocator.expand(role, amount)
                self._notices.say(
                    Severity.INFO, f"pool {role}", f"Port pool {role} extended by {added}"
                )
            case Pause():
                self._paused = True
                self._notices.say(Severity.INFO, "", "paused: no agent starts by itself")
            case Resume():
                self._paused = False
                self._admission.forgive()
                self._notices.say(Severity.INFO, "", "resumed")
            case StopAll():
                self._paused = True
                for live in self._fleet:
                    self._fleet.stop(live.record.agent_id)
            case RetryFeature(feature_id):
                self._store.retry_feature(feature_id)
            case MergeFeature(feature_id):
                self._upkeep.merge(self._store.feature(feature_id), asked=True)

    def _spawn(self, feature_id: int | None, task: str) -> None:
        if task.strip():
            name, _, description = task.strip().partition("\n")
            draft = FeatureDraft(name=name.strip()[:200], description=description.strip())
            feature: Feature | None = self._store.add_features([draft])[0]
        elif feature_id is not None:
            feature = self._store.feature(feature_id)
        else:
            feature = self._store.next_claimable() or self._next_waiting()
        if feature is None:
            raise RefusedError(
                "no feature can be started now",
                "Add one (`autocoder features add`), or retry a blocked one.",
            )
        self._admission.check_room()
        if not self._fleet.spawn(feature, requested=True):
            raise RefusedError(
                f"feature {feature.id} cannot be started: it is {feature.status.lower()} "
                "or waits for another feature"
            )

    def _next_waiting(self) -> Feature | None:
        """The next feature that only its back-off keeps from being claimed."""
        if self._store.next_due_at() is None:
            return None
        done = {f.id for f in self._store.features() if f.status is FeatureStatus.DONE}
        for feature in self._store.features():
            waiting = feature.status is FeatureStatus.PENDING and feature.enabled
            if waiting and done.issuperset(feature.depends_on):
                return feature
        return None

    # ------------------------------------------------------------------ spawning

    def _go_on(self) -> None:
        """Start what a human, or `RecoverAll`, has asked to be gone on with."""
        if self._still_exhausted():
            return
        try:
            self._fleet.go_on()
        except PoolExhausted as error:
            self._note_exhausted(error)

    def _fill(self) -> None:
        """Start agents until `parallel` of them live."""
        while not self._paused and len(self._fleet) < self._settings.parallel:
            if self._admission.held or self._still_exhausted():
                return
            feature = self._store.next_claimable()
            if feature is None:
                return
            try:
                self._admission.check_room()
                self._fleet.spawn(feature)
            except PoolExhausted as error:
                self._note_exhausted(error)
                return
            except AutocoderError as error:
                if not isinstance(error, RefusedError):
                    self._admission.trouble(feature.id)
                self._notices.stand(Severity.WARNING, "spawn", _said(error))
                return
            self._exhausted = None
            self._notices.settled("spawn")
            for role in ("api", "web"):
                self._notices.settled(f"pool {role}")

    def _still_exhausted(self) -> bool:
        """Whether a lease would be refused as the last one was; asking is counted and written."""
        if self._exhausted is None:
            return False
        pools, until = self._exhausted
        return pools == self._allocator.status().pools and time.monotonic() < until

    def _note_exhausted(self, error: PoolExhausted) -> None:
        until = time.monotonic() + EXHAUSTED_S
        self._exhausted = self._allocator.status().pools, until
        self._notices.stand(Severity.WARNING, f"pool {error.role}", _said(error))

    def _stop_failing_alike(self) -> None:
        reason, self._fleet.stopped_alike = self._fleet.stopped_alike, ""
        if reason:
            self._paused = True
            self._notices.say(
                Severity.ERROR,
                "",
                f"paused: the last {self._settings.limits.alike_failures} agents failed alike: "
                f"{reason}. Mend the cause, then resume.",
            )

    def _recover_all(self, plan: RecoveryPlan) -> None:
        for agent_id in plan.crashed:
            self._fleet.recover(agent_id, at_once=False)
        for lease in self._allocator.leases():
            if lease.port in plan.release and lease.state is LeaseState.LEASED:
                self._allocator.release(lease.holder, lease.project, epoch=lease.epoch)
        for feature_id in plan.requeue:
            self._store.unassign(feature_id)
        for agent_id in plan.adopt:
            self._fleet.adopt_stray(agent_id)

    def _mend_ledger(self) -> None:
        """Let ports move on, and end agents of ours that share a port with an older one."""
        now = time.monotonic()
        if now - self._mended_at >= MEND_S:
            self._mended_at = now
            for worker in self._allocator.repair(self._fleet.workers()).stop:
                if worker.project == str(self._project_dir):
                    why = "stopped: an older agent has one of its ports"
                    self._fleet.displace(worker.agent_id, why)
        self._notices.relay(self._allocator.settle())

    def _merge_ready(self) -> None:
        """Try finished branches again that could not be merged, one at a time."""
        if self._settings.merge != "auto" or self._looked_at - self._merged_at < READY_MERGE_S:
            return
        self._merged_at = self._looked_at
        for feature in self._store.features():
            if feature.status is FeatureStatus.DONE and feature.review_status != "VERIFIED":
                self._upkeep.merge(feature, asked=False)
                return

    def _is_finished(self) -> bool:
        if self._fleet.busy or not self._commands.empty():
            return False
        if self._paused:
            return self._settings.stop_when_done
        if self._store.next_claimable() is not None or self._store.next_due_at() is not None:
            return False
        for stuck in self._store.stuck_features():
            self._notices.stand(
                Severity.WARNING,
                f"feature {stuck.feature.id}",
                f"{stuck.feature.name} cannot run: {stuck.why}",
            )
        return True

    # ------------------------------------------------------------------ looking

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._look_after:
            return
        self._looked_at = now
        watched = [
            Watched(
                live.record.agent_id,
                live.worker.pid if live.worker else None,
                live.pair.api_port,
                live.pair.web_port,
                live.log,
            )
            for live in self._fleet
        ]
        pools = self._allocator.status().pools
        pool_ports = frozenset(
            port for pool in pools for span in pool.ranges for port in range(span.start, span.end)
        )
        self._observations = self._observer.look(watched, pool_ports, now)
        for live in self._fleet:
            self._take_in(live)
        took = time.monotonic() - now
        self._look_after = now + min(max(SHORTEST_LOOK_S, took / LOOK_SHARE), LONGEST_LOOK_S)
        if now - self._beat_at >= BEAT_S:
            self._beat_at = now
            beats = {a.record.agent_id: a.last_beat for a in self._fleet if a.last_beat is not None}
            self._store.beat(beats)
            self._upkeep.look(
                [
                    (live.agent_id, Path(live.record.worktree_path))
                    for live in self._fleet
                    if live.stage is Stage.RUNNING and live.worker
                ]
            )

    def _take_in(self, live: LiveAgent) -> None:
        seen = self._observations[live.agent_id]
        if live.worker is not None and seen.tree:
            live.seen_tree = seen.tree
        if seen.rogue:
            self._notices.stand(Severity.WARNING, live.agent_id, seen.rogue)

    def _recovery(self, features: tuple[Feature, ...], leases: tuple[Lease, ...]) -> RecoveryPlan:
        return recovery_plan(
            project=str(self._project_dir),
            live={live.agent_id for live in self._fleet},
            strays=self._fleet.strays,
            under_way=self._fleet.to_recover,
            history=self._history,
            features=features,
            leases=leases,
            own_pid=os.getpid(),
        )

    def _snapshot(self) -> Snapshot:
        features, leases = self._store.features(), self._allocator.leases()
        history_of = (replace(self._fleet.tally), self._upkeep.tidied)
        if self._history_of != history_of:
            self._history_of = history_of
            self._history = self._store.history(ENDED_SHOWN)
            self._ended = tuple(record.as_agent() for record in self._history)
        live = tuple(self._live_agent(agent) for agent in self._fleet)
        return Snapshot(
            taken_at=self._now(),
            project=self._project_dir.name,
            project_dir=str(self._project_dir),
            base=self._repository.base,
            base_commit=self._upkeep.base_commit,
            parallel=self._settings.parallel,
            paused=self._paused,
            finished=self._finished,
            features=count_features(features),
            backlog=features,
            agents=live + self._ended,
            pools=self._allocator.status().pools,
            leases=leases,
            notices=self._notices.all(),
            recovery=self._recovery(features, leases),
        )

    def _live_agent(self, live: LiveAgent) -> Agent:
        record = live.record
        seen = self._observations.get(record.agent_id, Observation())
        step = {
            Stage.PREPARING: "git worktree add",
            Stage.CLOSING: self._verifier.step(live.agent_id) or "its end is settled",
        }.get(live.stage, "")
        return Agent(
            agent_id=record.agent_id,
            state=record.state,
            feature_id=live.feature.id,
            feature=live.feature.name,
            backend=record.backend,
            worktree_path="" if live.stage is Stage.PREPARING else record.worktree_path,
            branch=record.branch,
            pid=live.worker.pid if live.worker else None,
            pid_start=live.worker.start if live.worker else None,
            api_port=record.api_port,
            web_port=record.web_port,
            api_listener=seen.api_listener,
            web_listener=seen.web_listener,
            cpu_percent=seen.cpu_percent,
            memory_bytes=seen.memory_bytes,
            processes=seen.processes,
            dirty_files=self._upkeep.dirty_files.get(record.agent_id, 0),
            started_at=record.started_at,
            last_ping=None if live.last_beat is None else live.last_beat // BEAT_S * BEAT_S,
            last_line=step or seen.last_line,
            log_path=record.log_path,
            problem=live.problem or seen.problem,
        )

    def _report(self) -> RunReport:
        counts, tally = count_features(self._store.features()), self._fleet.tally
        return RunReport(
            features_total=counts.total,
            features_done=counts.done,
            features_blocked=counts.blocked,
            features_pending=counts.pending + counts.in_progress,
            spawned=tally.spawned,
            adopted=tally.adopted,
            live=len(self._fleet),
            completed=tally.completed,
            failed=tally.failed,
            crashed=tally.crashed,
            killed=tally.killed,
            leases_granted=tally.leases_granted,
            leases_released=tally.leases_released,
            eaddrinuse=tally.eaddrinuse,
            notices=self._notices.all(),
            seconds=time.monotonic() - self._started,
        )


def _said(error: AutocoderError) -> str:
    return f"{error.message}. {error.hint}" if error.hint else error.message


def count_features(features: tuple[Feature, ...]) -> FeatureCounts:
    by_status = dict.fromkeys(FeatureStatus, 0)
    ready = 0
    for feature in features:
        by_status[feature.status] += 1
        ready += feature.status is FeatureStatus.DONE and feature.review_status != "VERIFIED"
    return FeatureCounts(
        total=len(features),
        done=by_status[FeatureStatus.DONE],
        in_progress=by_status[FeatureStatus.IN_PROGRESS],
        pending=by_status[FeatureStatus.PENDING],
        blocked=by_status[FeatureStatus.BLOCKED],
        ready_to_merge=ready,
    )
