"""What there is to recover, for the preview before anything is done. Pure.

The loop mends by itself whatever it may: this is what waits for a human's word,
because it starts agents again or takes something from somebody.
"""

from collections.abc import Collection, Sequence

from autocoder.core.models import (
    AgentState,
    Feature,
    FeatureStatus,
    Lease,
    LeaseState,
    RecoveryPlan,
)
from autocoder.core.store import AgentRecord


def recovery_plan(
    *,
    project: str,
    live: Collection[str],
    strays: Collection[str],
    under_way: Collection[str],
    history: Sequence[AgentRecord],
    features: Sequence[Feature],
    leases: Sequence[Lease],
    own_pid: int,
) -> RecoveryPlan:
    """What `RecoverAll` would do now.

    `live`: agents watched over; `strays`: those whose worker runs unwatched;
    `under_way`: ended ones that are gone on with anyway; `history` latest first.
    """
    waiting = {f.id for f in features if f.status is FeatureStatus.PENDING}
    latest: dict[int, AgentRecord] = {}
    for record in history:
        if record.feature_id is not None:
            latest.setdefault(record.feature_id, record)
    return RecoveryPlan(
        adopt=tuple(sorted(strays)),
        crashed=tuple(
            record.agent_id
            for feature_id, record in latest.items()
            if feature_id in waiting
            and record.state is AgentState.CRASHED
            and record.worktree_path
            and record.agent_id not in under_way
        ),
        release=tuple(
            lease.port
            for lease in leases
            if lease.project == project
            and lease.state is LeaseState.LEASED
            and lease.holder not in live
            and lease.holder not in strays
            and lease.pid != own_pid
        ),
        requeue=tuple(
            feature.id
            for feature in features
            if feature.status is FeatureStatus.IN_PROGRESS and feature.agent_id not in live
        ),
    )
