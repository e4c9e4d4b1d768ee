"""Everything that is asked of the live agents, and the step each takes at a tick.

How one begins, is taken over and ends have homes of their own (`spawning`,
`adoption`, `settlement`); here is which of them an agent's stage calls for.
Methods are called from the orchestrator's thread.
"""

import random
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from autocoder.core import lifecycle, telling
from autocoder.core.admission import Admission
from autocoder.core.adoption import Adoption
from autocoder.core.agent_leases import AgentLeases
from autocoder.core.backends.choice import refuse_untellable
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.git_threads import GitThreads
from autocoder.core.launcher import Launcher
from autocoder.core.lifecycle import Verdict
from autocoder.core.live_agents import LiveAgent, LiveAgents, Stage, Tally
from autocoder.core.models import AgentState, Feature, FeatureStatus, Severity
from autocoder.core.notices import Notices
from autocoder.core.ports import LiveWorker, PortAllocator
from autocoder.core.probe import Kernel, Liveness
from autocoder.core.settings import Settings
from autocoder.core.settlement import Settlement
from autocoder.core.spawning import Spawning
from autocoder.core.store import AgentRecord, ProjectStore
from autocoder.core.upkeep import Upkeep
from autocoder.core.verify import Verifier
from autocoder.core.worktrees import Repository

PATIENCE_S = 5.0
"""What a worker gets beyond its agent's grace before it is ended itself."""

MISSED_AGAIN_S = 0.2
"""Two looks that agree on a missing worker are at least this far apart: one may be starting."""


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
        self._project = str(project_dir)
        self._settings = settings
        self._store = store
        self._launcher = launcher
        self._notices = notices
        self._admission = admission
        self._upkeep = upkeep
        self._agents = LiveAgents(store)
        self._leases = AgentLeases(
            self._project,
            allocator=allocator,
            kernel=kernel,
            notices=notices,
            agents=self._agents,
        )
        self._spawning = Spawning(
            self._agents,
            self._leases,
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            store=store,
            allocator=allocator,
            launcher=launcher,
            kernel=kernel,
            git=git,
            now=now,
        )
        self._adoption = Adoption(
            self._agents,
            self._leases,
            project_dir=project_dir,
            store=store,
            launcher=launcher,
            kernel=kernel,
            notices=notices,
        )
        self._settlement = Settlement(
            self._agents,
            self._leases,
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            store=store,
            launcher=launcher,
            kernel=kernel,
            notices=notices,
            admission=admission,
            upkeep=upkeep,
            verifier=verifier,
            rng=rng,
            now=now,
        )
        self._to_recover: dict[str, bool] = {}
        """Ended agents whose work goes on as soon as there is a pair, and whether at once then."""

    def __iter__(self) -> Iterator[LiveAgent]:
        return iter(self._agents)

    def __len__(self) -> int:
        return len(self._agents)

    @property
    def preparing(self) -> int:
        """How many worktrees are still being made."""
        return sum(live.stage is Stage.PREPARING for live in self)

    @property
    def starting(self) -> bool:
        """Whether a worker's first report is awaited."""
        return any(_is_starting(live) for live in self)

    def has_first_report(self) -> bool:
        """Whether one is there to be seen by the next `watch`; touches no database."""
        return any(_is_starting(live) and self._launcher.heartbeat(live.agent_id) for live in self)

    @property
    def tally(self) -> Tally:
        return self._agents.tally

    @property
    def strays(self) -> frozenset[str]:
        """Agents of the project whose worker runs although they are not known to live."""
        return self._adoption.strays

    @property
    def held_back(self) -> set[int]:
        """Features whose agent a human has stopped: nobody starts on one by itself."""
        return self._agents.held_back

    @property
    def to_recover(self) -> Collection[str]:
        """Ended agents whose work is about to be gone on with."""
        return self._to_recover.keys()

    @property
    def busy(self) -> bool:
        """Whether something of an agent's is still to be done, a worktree's removal included."""
        return bool(self._agents or self._to_recover or self._leases.owed or self._upkeep.busy)

    def pidfds(self) -> list[int]:
        """What becomes readable when a worker ends."""
        workers = (agent.worker for agent in self)
        return [w.pidfd for w in workers if w is not None and w.pidfd is not None]

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

    def take_stopped_alike(self) -> str:
        """Why no agent should start by itself any more, said once; empty while they may."""
        reason, self._settlement.stopped_alike = self._settlement.stopped_alike, ""
        return reason

    def close(self) -> None:
        """Let go of every worker; agents go on."""
        for live in self:
            if live.worker is not None:
                self._launcher.close(live.worker)

    # ------------------------------------------------------------------ beginning

    def adopt(self) -> None:
        """Take over the live agents of an orchestrator that is gone, at the start.

        Raises:
            DatabaseError: nothing was taken over; agents go on as they are.
        """
        self._adoption.adopt_all()
        self._upkeep.tidy_ended({live.record.worktree_path for live in self})

    def adopt_stray(self, agent_id: str) -> None:
        """As `Adoption.adopt_stray`."""
        self._adoption.adopt_stray(agent_id)

    def can_name(self) -> bool:
        """As `Spawning.can_name`."""
        return self._spawning.can_name()

    def spawn(
        self, feature: Feature, *, requested: bool = False, source: AgentRecord | None = None
    ) -> bool:
        """As `Spawning.spawn`; a feature that is `requested` is held back no more."""
        if requested:
            self._agents.held_back.discard(feature.id)
        return self._spawning.spawn(feature, requested=requested, source=source)

    def recover(self, agent_id: str, *, at_once: bool = True) -> None:
        """Go on with its work in a new agent, in its worktree; a live one is killed first.

        Where no pair is free it waits for one. Not `at_once`: it also waits until
        fewer than `parallel` agents live.

        Raises:
            RefusedError: its feature is done, blocked, or worked on by another agent.
        """
        live = self._agents.get(agent_id)
        if live is not None:
            self.kill(agent_id, hold_back=False)
            self._agents.held_back.discard(live.feature.id)
            live.then_recover = True
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

    def go_on(self, until: float) -> bool:
        """Start the agents that go on with the work of ended ones.

        `until` is monotonic: later none is begun. True where more could be started at once.

        Raises:
            PoolExhausted: those left wait for a free pair.
        """
        for agent_id, at_once in tuple(self._to_recover.items()):
            waits = not at_once and len(self._agents) >= self._settings.parallel
            if waits or self._upkeep.is_tidying(agent_id):
                continue
            if time.monotonic() >= until:
                return True
            record = self._store.agent(agent_id)
            if self._upkeep.is_removing(record.worktree_path):
                continue
            try:
                feature = self._store.feature(record.feature_id or 0)
                if not self.spawn(feature, requested=True, source=record):
                    text = f"not recovered: feature {feature.id} is worked on already, or waits"
                    self._notices.say(Severity.WARNING, agent_id, text)
            except UsageError as error:
                self._notices.say(Severity.WARNING, agent_id, f"not recovered: {error.message}")
            del self._to_recover[agent_id]
        return False

    # ------------------------------------------------------------------ a tick

    def watch(self) -> None:
        """Look after the running agents; touches no database, so a locked one hides no end."""
        for live in self:
            if live.stage is Stage.RUNNING:
                self._watch(live)

    def read_beats(self) -> None:
        """Look when each worker last reported; its first report is looked for by `watch`."""
        for live in self:
            if live.last_beat is not None and live.stage is Stage.RUNNING:
                live.last_beat = self._launcher.heartbeat(live.agent_id)

    def advance(self, until: float) -> bool:
        """Let every agent take the step its state and its worker allow.

        `until` is monotonic: the step under way then is the last. True where some are left.

        Raises:
            DatabaseError: what could not be written is written at the next tick.
        """
        # First who gets a worker: each that is recorded then has the ledger read anew.
        waiting = sorted(self, key=lambda live: live.stage is not Stage.PREPARING)
        while waiting and time.monotonic() < until:
            self._advance(waiting.pop(0))
        self._agents.write_states()
        self._upkeep.collect(self._agents.ids())
        self._leases.give_back(until)
        return bool(waiting) or self._leases.owed

    def _advance(self, live: LiveAgent) -> None:
        if live.stage in (Stage.PREPARING, Stage.MOVING):
            verdict = (
                self._spawning.advance(live)
                if live.stage is Stage.PREPARING
                else self._spawning.move(live)
            )
            if verdict is not None:
                self._settlement.end(live, verdict)
        elif live.stage is Stage.RUNNING and live.worker is not None and not live.recorded:
            self._spawning.record(live, live.worker)
        elif live.stage is Stage.CLOSING and live.closing is not None and live.closing.done():
            self._settlement.close_finished(live, live.closing)
        if live.stage is Stage.ENDING:
            self._settlement.settle(live)
            if live.then_recover:
                self._to_recover[live.agent_id] = True

    def _watch(self, live: LiveAgent) -> None:
        worker = live.worker
        if worker is None:
            self._watch_lost(live)
        elif self._launcher.has_ended(worker):
            self._settlement.worker_ended(live)
        else:
            if live.last_beat is None:
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
            self._agents.set_state(live, state)
            if live.asked and time.monotonic() > live.patience_until:
                live.patience_until = float("inf")
                self._launcher.destroy(worker)

    def _watch_lost(self, live: LiveAgent) -> None:
        """An agent of an earlier orchestrator whose worker was not found."""
        now = time.monotonic()
        if now - live.missed_at < MISSED_AGAIN_S:
            return
        live.missed_at = now
        liveness = self._adoption.find_worker(live, self._launcher.running())
        live.misses = live.misses + 1 if liveness is Liveness.DEAD else 0
        live.problem = ""
        if live.misses >= lifecycle.MISSES_BEFORE_DEAD:
            self._settlement.worker_ended(live)
        elif liveness is Liveness.UNKNOWN:
            live.problem = f"whether its worker, pid {live.record.pid}, lives is not known"
            if live.asked:
                said = "given up on request; whether its worker lives is not known"
                self._settlement.end(live, Verdict(AgentState.KILLED, said, counted=False))

    # ------------------------------------------------------------------ ending

    def stop(self, agent_id: str, *, hold_back: bool = True) -> None:
        """Ask it to end within its grace; its feature is held back, unless told otherwise.

        Raises:
            RefusedError: it is not live.
        """
        live = self._ask(agent_id, self._settings.limits.stop_grace_s + PATIENCE_S)
        if hold_back:
            self._agents.held_back.add(live.feature.id)
        if live.worker is not None:
            self._launcher.stop(live.worker)

    def kill(self, agent_id: str, *, hold_back: bool = True) -> None:
        """End its tree at once; its feature is held back, unless told otherwise.

        Raises:
            RefusedError: it is not live.
        """
        live = self._ask(agent_id, PATIENCE_S)
        if hold_back:
            self._agents.held_back.add(live.feature.id)
        if live.worker is not None:
            self._launcher.kill(live.worker)

    def tell(self, agent_id: str, text: str) -> None:
        """Afterwards the message waits for the agent's next turn.

        Raises:
            RefusedError: it is not running, or its backend takes no messages.
            UsageError: the message is empty or endless.
        """
        live = self._agents.get(agent_id)
        if live is None or live.stage is not Stage.RUNNING or live.asked:
            raise RefusedError(f"agent {agent_id} is not running")
        refuse_untellable(live.record.backend, self._settings)
        try:
            telling.tell(live.log.parent, text)
        except OSError as error:
            raise RefusedError(f"{agent_id} cannot be told anything: {error.strerror}") from error

    def displace(self, worker: LiveWorker, reason: str) -> None:
        """End an agent that has to go through no fault of its own; its feature is requeued."""
        live = self._agents.get(worker.agent_id)
        if live is None:
            self._adoption.end_stray(worker, reason)
        elif not live.displaced:
            live.displaced = reason
            self.kill(worker.agent_id, hold_back=False)

    def _ask(self, agent_id: str, patience_s: float) -> LiveAgent:
        live = self._agents.get(agent_id)
        if live is None:
            raise RefusedError(f"agent {agent_id} is not running")
        until = time.monotonic() + patience_s
        live.patience_until = min(live.patience_until, until) if live.asked else until
        live.asked = AgentState.KILLED
        live.cancelled.set()
        self._agents.set_state(live, AgentState.STOPPING)
        return live


def _is_starting(live: LiveAgent) -> bool:
    runs = live.stage is Stage.RUNNING and live.worker is not None
    return runs and live.record.state is AgentState.STARTING
