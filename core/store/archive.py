"""How rows of agents move, for whoever has a transaction open."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, exists, insert, literal, select, update

from autocoder.core.models import FeatureStatus
from autocoder.core.store.rows import FEATURES, HISTORY, LIVE


def archive(
    connection: Connection,
    which: ColumnElement[bool],
    *,
    state: ColumnElement[str] | str,
    reason: str,
    ended_at: ColumnElement[Any] | str,
    exit_code: int | None = None,
    eaddrinuse: int = 0,
) -> None:
    """Move the rows of `agent_heartbeats` that `which` selects to `agent_history`."""
    kept = {column.name: column for column in LIVE.c if column.name in HISTORY.c}
    del kept["id"]
    values: dict[str, ColumnElement[Any]] = kept | {
        "had_api_port": LIVE.c.api_port,
        "had_web_port": LIVE.c.web_port,
        "status": literal(state) if isinstance(state, str) else state,
        "reason": literal(reason),
        "ended_at": literal(ended_at) if isinstance(ended_at, str) else ended_at,
        "exit_code": literal(exit_code),
        "eaddrinuse": literal(eaddrinuse),
    }
    rows = select(*values.values()).where(which).order_by(LIVE.c.id)
    connection.execute(insert(HISTORY).from_select(list(values), rows, include_defaults=False))
    connection.execute(delete(LIVE).where(which))


def release_orphans(connection: Connection) -> None:
    """Put features that are in progress with no live agent back to the backlog."""
    at_work = exists(select(1).where(LIVE.c.feature_id == FEATURES.c.id))
    connection.execute(
        update(FEATURES)
        .where(FEATURES.c.status == FeatureStatus.IN_PROGRESS.value, ~at_work)
        .values(status=FeatureStatus.PENDING.value, assigned_agent_id=None, assigned_at=None)
    )
