"""What is true after a tick, put together for the front ends, and what a run did."""

import operator
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from autocoder.core.events import Progress
from autocoder.core.fleet import Fleet
from autocoder.core.live_agents import LiveAgent, Stage, Tally
from autocoder.core.models import (
    Agent,
    Feature,
    FeatureCounts,
    FeatureStatus,
    Lease,
    PoolStatus,
    RecoveryPlan,
    RunReport,
    Snapshot,
)
from autocoder.core.notices import Notices
from autocoder.core.observer import Observation, Observer, with_progress
from autocoder.core.past_progress import PastProgress
from autocoder.core.ports import Listeners, PortAllocator, with_listeners
from autocoder.core.recovery import recovery_plan
from autocoder.core.settings import Settings
from autocoder.core.store import AgentRecord, ProjectStore
from autocoder.core.upkeep import Upkeep
from autocoder.core.verify import Verifier
from autocoder.core.worktrees import Repository

ENDED_SHOWN = 500
OPEN_STATUSES = frozenset({FeatureStatus.PENDING, FeatureStatus.IN_PROGRESS})
"""Of features that an agent works on or may yet; after months, few among those that are done."""

UNSEEN = Observation()
_Shown = tuple[tuple[object, ...], Agent]
"""An agent as it was shown last, behind what that was made of."""


class Snapshots:
    """Changes nothing. Ended agents are read again only when one more has ended, or when more
    is known of how far they got."""

    def __init__(
        self,
        fleet: Fleet,
        *,
        observer: Observer,
        past: PastProgress,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        store: ProjectStore,
        allocator: PortAllocator,
        notices: Notices,
        upkeep: Upkeep,
        verifier: Verifier,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._fleet = fleet
        self._observer = observer
        self._past = past
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._store = store
        self._allocator = allocator
        self._notices = notices
        self._upkeep = upkeep
        self._verifier = verifier
        self._now = now
        self._started = time.monotonic()
        self.pools: tuple[PoolStatus, ...] = ()
        self._recorded: tuple[Lease, ...] = ()
        self._leases: tuple[Lease, ...] = ()
        self._leases_of: tuple[object, ...] = (None, None)
        self._found: tuple[Feature, ...] | None = None
        self._held_back: frozenset[int] = frozenset()
        self._features: tuple[Feature, ...] = ()
        """Those found, with what is held back: made anew only when one of the two differs."""
        self._open: tuple[Feature, ...] = ()
        self._counts = FeatureCounts()
        self._history: tuple[AgentRecord, ...] = ()
        self._ended: dict[str, _Shown] = {}
        self._left_files: dict[str, int] = {}
        self._history_of: tuple[Tally, int, frozenset[int]] | None = None
        self._shown: dict[str, _Shown] = {}

    def read(self) -> None:
        """Ask the databases what they say now.

        Raises:
            DatabaseError: what was known before still is.
        """
        self.pools = self._allocator.status().pools
        self._recorded = self._allocator.recorded()
        self._read_features()
        self._read_history()

    def take(
        self,
        observations: Mapping[str, Observation],
        listeners: Listeners,
        *,
        paused: bool,
        finished: bool,
    ) -> Snapshot:
        """What was read last, and the live agents as they are; touches no database."""
        live = tuple(
            self._live_agent(agent, observations.get(agent.agent_id, UNSEEN))
            for agent in self._fleet
        )
        self._shown = {agent.agent_id: self._shown[agent.agent_id] for agent in live}
        self._name_listeners(listeners)
        return Snapshot(
            taken_at=self._now(),
            project=self._project_dir.name,
            project_dir=str(self._project_dir),
            base=self._repository.base,
            base_commit=self._upkeep.base_commit,
            parallel=self._settings.parallel,
            paused=paused,
            finished=finished,
            features=self._counts,
            backlog=self._features,
            agents=live + tuple(agent for _, agent in self._ended.values()),
            pools=self.pools,
            leases=self._leases,
            notices=self._notices.all(),
            recovery=self.recovery(),
        )

    def recovery(self) -> RecoveryPlan:
        """What there is to recover, by what was read last."""
        return recovery_plan(
            project=str(self._project_dir),
            live={live.agent_id for live in self._fleet},
            strays=self._fleet.strays,
            under_way=self._fleet.to_recover,
            history=self._history,
            features=self._open,
            leases=self._recorded,
            own_pid=os.getpid(),
        )

    def report(self) -> RunReport:
        """What this orchestrator did since it started, by what was read last."""
        counts, tally = self._counts, self._fleet.tally
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

    def _name_listeners(self, listeners: Listeners) -> None:
        """The same leases as before while neither the ledger nor who listens was asked anew."""
        made_of = self._recorded, listeners
        if not all(map(operator.is_, made_of, self._leases_of)):
            self._leases, self._leases_of = with_listeners(*made_of), made_of

    def _read_features(self) -> None:
        found, held_back = self._store.features(), frozenset(self._fleet.held_back)
        if found is self._found and held_back == self._held_back:
            return
        self._found, self._held_back = found, held_back
        self._features = tuple(
            replace(feature, held=True)
            if feature.status is FeatureStatus.PENDING and feature.id in held_back
            else feature
            for feature in found
        )
        self._open = tuple(f for f in self._features if f.status in OPEN_STATUSES)
        self._counts = count_features(self._features)

    def _read_history(self) -> None:
        held = frozenset(feature.id for feature in self._open if feature.held)
        history_of = (replace(self._fleet.tally), self._upkeep.tidied, held)
        more_is_known, changed = self._past.collect(), self._history_of != history_of
        if changed:
            self._history = self._store.history(ENDED_SHOWN)
            ids = (record.agent_id for record in self._history)
            self._past.want([each for each in ids if not self._observer.has_seen(each)])
            self._upkeep.count_left(self._worktrees_left())
        left_files = dict(self._upkeep.left_files)
        if more_is_known or changed or left_files != self._left_files:
            self._left_files = left_files
            latest = {record.feature_id: record.agent_id for record in reversed(self._history)}
            holding = {latest.get(feature_id) for feature_id in held}
            self._ended = {
                record.agent_id: self._ended_agent(record, held=record.agent_id in holding)
                for record in self._history
            }
            self._history_of = history_of

    def _worktrees_left(self) -> dict[str, Path]:
        """Of ended agents, those that nobody works in; of several in one, its last's."""
        paths = {record.worktree_path: record.agent_id for record in reversed(self._history)}
        for live in self._fleet:
            paths.pop(live.record.worktree_path, None)
        return {agent_id: Path(path) for path, agent_id in paths.items() if path}

    def _ended_agent(self, record: AgentRecord, *, held: bool) -> _Shown:
        """The same agent as before while no more is known of it."""
        progress = self._progress(record.agent_id)
        dirty_files = self._left_files.get(record.agent_id, 0)
        made_of = (record, progress, dirty_files, held)
        before = self._ended.get(record.agent_id)
        if before is not None and before[0] == made_of:
            return before
        agent = with_progress(record.as_agent(), progress)
        return made_of, replace(agent, dirty_files=dirty_files, held=held)

    def _progress(self, agent_id: str) -> Progress:
        seen = self._observer.has_seen(agent_id)
        return self._observer.progress(agent_id) if seen else self._past.of(agent_id)

    def _live_agent(self, live: LiveAgent, seen: Observation) -> Agent:
        """The same agent as before while nothing about it has changed."""
        record = live.record
        step = ""
        if live.stage is Stage.PREPARING:
            step = "git worktree add"
        elif live.stage is Stage.CLOSING:
            step = self._verifier.step(live.agent_id) or "its end is settled"
        dirty_files = self._upkeep.dirty_files.get(record.agent_id, 0)
        made_of = (
            *(record, live.feature, live.stage, live.problem, seen),
            *(live.worker and live.worker.pid, step, live.last_beat, dirty_files),
        )
        before = self._shown.get(record.agent_id)
        if before is not None and before[0] == made_of:
            return before[1]
        agent = Agent(
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
            dirty_files=dirty_files,
            started_at=record.started_at,
            last_ping=live.last_beat,
            last_line=step or seen.last_line,
            log_path=record.log_path,
            model=live.feature.model,
            problem=live.problem or seen.problem,
        )
        agent = with_progress(agent, seen.progress)
        self._shown[record.agent_id] = made_of, agent
        return agent


def count_features(features: tuple[Feature, ...]) -> FeatureCounts:
    by_status = dict.fromkeys(FeatureStatus, 0)
    for feature in features:
        by_status[feature.status] += 1
    return FeatureCounts(
        total=len(features),
        done=by_status[FeatureStatus.DONE],
        in_progress=by_status[FeatureStatus.IN_PROGRESS],
        pending=by_status[FeatureStatus.PENDING],
        held=sum(feature.held for feature in features),
        blocked=by_status[FeatureStatus.BLOCKED],
        ready_to_merge=sum(feature.awaits_merge for feature in features),
    )
