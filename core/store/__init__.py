"""The project database: features, agents, history, events. Rows go in, models come out.

An agent is a row of `agent_heartbeats` while it lives and one of `agent_history`
afterwards, moved in the transaction that settles its feature: so no finished
agent ever names a port, and a crash between two writes leaves nothing half done.
"""

from autocoder.core.store.project import ProjectStore
from autocoder.core.store.records import (
    SAME_FAILURE_LIMIT,
    AgentRecord,
    Event,
    Failed,
    FeatureDraft,
    FeatureOutcome,
    Finished,
    NewAgent,
    NewEvent,
    Requeued,
    StuckFeature,
)

__all__ = [
    "SAME_FAILURE_LIMIT",
    "AgentRecord",
    "Event",
    "Failed",
    "FeatureDraft",
    "FeatureOutcome",
    "Finished",
    "NewAgent",
    "NewEvent",
    "ProjectStore",
    "Requeued",
    "StuckFeature",
]
