"""What each command of a front end does.

A command that cannot be fulfilled changes nothing and becomes a notice with the
reason: whoever gave it sees that, and nobody else waits for it.
"""

import time

from autocoder.core.admission import Admission
from autocoder.core.commands import (
    MOST_VARIANTS,
    Command,
    EnableFeature,
    ExpandPool,
    KillAgent,
    MergeFeature,
    Pause,
    PrioritiseFeature,
    ProbePort,
    RecoverAgent,
    RecoverAll,
    ReleasePort,
    RemoveWorktrees,
    Resume,
    RetryFeature,
    SpawnAgent,
    StopAgent,
    StopAll,
    TellAgent,
)
from autocoder.core.errors import AutocoderError, DatabaseError, RefusedError, UsageError
from autocoder.core.feature_choice import check_choice
from autocoder.core.filling import Filling
from autocoder.core.fleet import Fleet
from autocoder.core.models import Feature, FeatureStatus, LeaseState, RecoveryPlan, Severity
from autocoder.core.notices import Notices
from autocoder.core.ports import PortAllocator
from autocoder.core.settings import Settings
from autocoder.core.snapshots import Snapshots
from autocoder.core.store import FeatureDraft, ProjectStore
from autocoder.core.upkeep import Upkeep
from autocoder.core.worktrees import Repository

TOLD_SHOWN = 80
"""Characters of a message that its notice repeats; the agent's log has all of it."""


WITHOUT_DATABASE = (StopAgent, KillAgent, StopAll, Pause, Resume)
"""What is obeyed while a database is locked."""


class Orders:
    def __init__(
        self,
        fleet: Fleet,
        filling: Filling,
        snapshots: Snapshots,
        *,
        settings: Settings,
        repository: Repository,
        store: ProjectStore,
        allocator: PortAllocator,
        notices: Notices,
        admission: Admission,
        upkeep: Upkeep,
    ) -> None:
        self._fleet = fleet
        self._filling = filling
        self._snapshots = snapshots
        self._settings = settings
        self._repository = repository
        self._store = store
        self._allocator = allocator
        self._notices = notices
        self._admission = admission
        self._upkeep = upkeep
        self._waiting: list[Command] = []
        self._held_up = False
        """A database could not be used the last time."""

    @property
    def waiting(self) -> bool:
        return bool(self._waiting)

    def take(self, command: Command) -> None:
        """It is obeyed at one of the next `obey`."""
        self._waiting.append(command)

    def obey(self, until: float) -> bool:
        """Obey what has been taken, in order.

        `until` is monotonic: the one under way then is the last. True where some are left.

        Raises:
            DatabaseError: what needs a database waits, in order; the rest does not.
        """
        trouble: DatabaseError | None = None
        commands = list(self._waiting)
        if self._held_up:
            commands.sort(key=lambda command: not isinstance(command, WITHOUT_DATABASE))
        for number, command in enumerate(commands):
            if number and trouble is None and time.monotonic() >= until:
                break
            if trouble and not isinstance(command, WITHOUT_DATABASE):
                continue
            try:
                self._obey(command)
            except DatabaseError as error:
                trouble = error
                continue
            except AutocoderError as error:
                subject = getattr(command, "agent_id", "")
                self._notices.say(Severity.WARNING, subject, error.said)
            self._waiting.remove(command)
        self._held_up = trouble is not None
        if trouble:
            raise trouble
        return self.waiting

    def _obey(self, command: Command) -> None:
        match command:
            case SpawnAgent():
                self._spawn(command)
            case StopAgent(agent_id):
                self._fleet.stop(agent_id)
            case KillAgent(agent_id):
                self._fleet.kill(agent_id)
            case TellAgent(agent_id, text):
                self._fleet.tell(agent_id, text)
                said = " ".join(text.split())
                clipped = said if len(said) <= TOLD_SHOWN else said[:TOLD_SHOWN] + "…"
                self._notices.say(Severity.INFO, agent_id, f"told: {clipped}")
            case RecoverAgent(agent_id):
                self._fleet.recover(agent_id)
            case RecoverAll():
                self._snapshots.read()
                self._recover_all(self._snapshots.recovery())
            case ExpandPool(role, amount):
                added = self._allocator.expand(role, amount)
                self._notices.say(
                    Severity.INFO, f"pool {role}", f"Port pool {role} extended by {added}"
                )
            case ReleasePort(port):
                self._allocator.release_port(port)
            case ProbePort(port):
                self._allocator.probe_port(port)
            case Pause():
                self._filling.paused = True
                self._notices.say(Severity.INFO, "", "paused: no agent starts by itself")
            case Resume():
                self._filling.paused = False
                self._admission.forgive()
                self._notices.say(Severity.INFO, "", "resumed")
            case StopAll():
                self._filling.paused = True
                for live in self._fleet:
                    self._fleet.stop(live.agent_id, hold_back=False)
            case RetryFeature(feature_id):
                self._store.retry_feature(feature_id)
                self._fleet.held_back.discard(feature_id)
            case EnableFeature(feature_id, enabled):
                self._store.set_enabled(feature_id, enabled)
                self._fleet.held_back.discard(feature_id)
            case PrioritiseFeature(feature_id, priority):
                self._store.set_priority(feature_id, priority)
            case MergeFeature(feature_id):
                self._upkeep.merge(self._store.feature(feature_id), asked=True)
            case RemoveWorktrees(agent_ids):
                self._remove_worktrees(agent_ids)

    def _spawn(self, wish: SpawnAgent) -> None:
        self._check(wish)
        features = self._wanted(wish)
        self._admission.check_room()
        for number, feature in enumerate(features):
            try:
                self._start(feature)
            except DatabaseError:
                if not wish.task.strip():
                    raise
                # They are made, and must not be made again when this is.
                self._waiting += [SpawnAgent(each.id) for each in features[number:]]
                return

    def _start(self, feature: Feature) -> None:
        if not self._fleet.spawn(feature, requested=True):
            raise RefusedError(
                f"feature {feature.id} cannot be started: it is {feature.status.lower()} "
                "or waits for another feature"
            )

    def _check(self, wish: SpawnAgent) -> None:
        """Raises `UsageError` where the wish cannot be fulfilled now nor later."""
        if not 1 <= wish.variants <= MOST_VARIANTS:
            raise UsageError(
                f"{wish.variants} variants are not possible", f"Ask for 1 to {MOST_VARIANTS}."
            )
        if wish.variants > 1 and not wish.task.strip():
            raise UsageError(
                "only a typed task can have variants", "Name the task, or leave variants out."
            )
        check_choice(
            self._settings,
            self._repository.branches,
            backend=wish.backend,
            model=wish.model,
            base=wish.base,
        )

    def _wanted(self, wish: SpawnAgent) -> tuple[Feature, ...]:
        """The features to start, those of a typed task made first, with what they are to run."""
        if wish.task.strip():
            name, _, description = wish.task.strip().partition("\n")
            draft = FeatureDraft(
                name=name.strip()[:200],
                description=description.strip(),
                backend=wish.backend,
                model=wish.model,
                base=wish.base,
            )
            if wish.variants > 1:
                return self._store.add_variants(draft, wish.variants)
            return self._store.add_features([draft])
        if wish.feature_id is not None:
            feature: Feature | None = self._store.feature(wish.feature_id)
        else:
            held_back = self._fleet.held_back
            feature = self._store.next_claimable(held_back) or self._store.next_claimable()
            feature = feature or self._next_waiting()
        if feature is None:
            raise RefusedError(
                "no feature can be started now",
                "Add one (`autocoder features add`), or retry a blocked one.",
            )
        changes = wish.backend or wish.model or wish.base
        if not changes or feature.status is not FeatureStatus.PENDING:
            return (feature,)
        chosen = self._store.edit_feature(
            feature.id,
            backend=wish.backend or None,
            model=wish.model or None,
            base=wish.base or None,
        )
        return (chosen,)

    def _remove_worktrees(self, agent_ids: tuple[str, ...]) -> None:
        awaited = {self._store.agent(each).worktree_path for each in self._fleet.to_recover}
        self._upkeep.clean_up(agent_ids, self._store.worktrees_in_use() | awaited)

    def _next_waiting(self) -> Feature | None:
        """The next feature that only its back-off keeps from being claimed."""
        done = {f.id for f in self._store.features() if f.status is FeatureStatus.DONE}
        for feature in self._store.features():
            waiting = feature.status is FeatureStatus.PENDING and feature.enabled
            if waiting and done.issuperset(feature.depends_on):
                return feature
        return None

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
