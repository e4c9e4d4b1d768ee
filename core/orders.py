"""What each command of a front end does.

A command that cannot be fulfilled changes nothing and becomes a notice with the
reason: whoever gave it sees that, and nobody else waits for it.
"""

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
from autocoder.core.errors import AutocoderError, RefusedError
from autocoder.core.filling import Filling
from autocoder.core.fleet import Fleet
from autocoder.core.models import Feature, FeatureStatus, LeaseState, RecoveryPlan, Severity
from autocoder.core.notices import Notices
from autocoder.core.ports import PortAllocator
from autocoder.core.snapshots import Snapshots
from autocoder.core.store import FeatureDraft, ProjectStore
from autocoder.core.upkeep import Upkeep


class Orders:
    def __init__(
        self,
        fleet: Fleet,
        filling: Filling,
        snapshots: Snapshots,
        *,
        store: ProjectStore,
        allocator: PortAllocator,
        notices: Notices,
        admission: Admission,
        upkeep: Upkeep,
    ) -> None:
        self._fleet = fleet
        self._filling = filling
        self._snapshots = snapshots
        self._store = store
        self._allocator = allocator
        self._notices = notices
        self._admission = admission
        self._upkeep = upkeep

    def obey(self, command: Command) -> None:
        try:
            self._obey(command)
        except AutocoderError as error:
            subject = getattr(command, "agent_id", "")
            self._notices.say(Severity.WARNING, subject, error.said)

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
                self._recover_all(self._snapshots.recovery())
            case ExpandPool(role, amount):
                added = self._allocator.expand(role, amount)
                self._notices.say(
                    Severity.INFO, f"pool {role}", f"Port pool {role} extended by {added}"
                )
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
                    self._fleet.stop(live.agent_id)
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
