"""From the predecessor's project database, of any age, to ours.

Tables keep what they have and gain what they lack, so that columns and tables
nobody here knows survive. What the file says of agents is made to fit its own
table: one row per live agent and per port, everything else into the history.
"""

from sqlalchemy import (
    Connection,
    Integer,
    Table,
    case,
    cast,
    delete,
    func,
    inspect,
    or_,
    select,
    update,
)
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from autocoder.core.models import AgentState, FeatureStatus
from autocoder.core.store.archive import archive, release_orphans
from autocoder.core.store.rows import (
    DEPENDENCIES,
    EVENTS,
    FEATURES,
    HISTORY,
    LIVE,
    SETTINGS,
    seconds,
    time_text,
)


def migrate_predecessor(connection: Connection) -> None:
    """Bring a file of schema version 0 to version 1, within the caller's transaction."""
    for table in (FEATURES, DEPENDENCIES, LIVE, HISTORY, EVENTS, SETTINGS):
        table.create(connection, checkfirst=True)
        _add_columns(connection, table)
    _mend_features(connection)
    _mend_dependencies(connection)
    _mend_agents(connection)
    release_orphans(connection)


def add_what_to_run(connection: Connection) -> None:
    """Bring a file of version 1 to version 2: a feature may name its backend, model and base."""
    _add_columns(connection, FEATURES)


def _add_columns(connection: Connection, table: Table) -> None:
    present = {column["name"] for column in inspect(connection).get_columns(table.name)}
    for column in table.c:
        if column.name not in present:
            kind = column.type.compile(connection.dialect)
            connection.exec_driver_sql(
                f'ALTER TABLE {table.name} ADD COLUMN "{column.name}" {kind}'
            )
        if isinstance(column.default, ScalarElementColumnDefault):
            connection.execute(
                update(table).where(column.is_(None)).values({column: column.default.arg})
            )


def _mend_features(connection: Connection) -> None:
    status = func.upper(func.trim(FEATURES.c.status))
    staged = status == "STAGED"
    counts = ("priority", "attempts", "same_error_streak", "same_diff_streak")
    connection.execute(
        update(FEATURES).values(
            enabled=case((staged, False), else_=FEATURES.c.enabled),
            status=case(
                (staged, FeatureStatus.PENDING.value),
                (status.in_([known.value for known in FeatureStatus]), status),
                (FEATURES.c.passes == 1, FeatureStatus.DONE.value),
                else_=FeatureStatus.BLOCKED.value,
            ),
            **{name: cast(FEATURES.c[name], Integer) for name in counts},
        )
    )
    due = select(FEATURES.c.id, FEATURES.c.next_attempt_at).where(
        FEATURES.c.next_attempt_at.is_not(None)
    )
    for feature_id, text in connection.execute(due).all():
        moment = seconds(text)
        connection.execute(
            update(FEATURES)
            .where(FEATURES.c.id == feature_id)
            .values(next_attempt_at=None if moment is None else time_text(moment, exact=True))
        )


def _mend_dependencies(connection: Connection) -> None:
    known = select(FEATURES.c.id)
    connection.execute(
        delete(DEPENDENCIES).where(
            or_(
                DEPENDENCIES.c.feature_id == DEPENDENCIES.c.depends_on_id,
                DEPENDENCIES.c.feature_id.not_in(known),
                DEPENDENCIES.c.depends_on_id.not_in(known),
            )
        )
    )


def _mend_agents(connection: Connection) -> None:
    """Leave one row per agent that may live, each with ports of its own.

    Of rows that share a port the oldest stays: the newer one is the intruder. No
    port counts as one, because the seed's query for duplicates groups NULLs too.
    """
    connection.execute(update(LIVE).values(status=func.upper(func.trim(LIVE.c.status))))
    connection.execute(
        update(LIVE).where(LIVE.c.feature_id.not_in(select(FEATURES.c.id))).values(feature_id=None)
    )
    finished = case(
        (LIVE.c.status == AgentState.COMPLETED.value, AgentState.COMPLETED.value),
        else_=AgentState.CRASHED.value,
    )
    archive(
        connection,
        LIVE.c.status != AgentState.ACTIVE.value,
        state=finished,
        reason="ended under an earlier version",
        ended_at=func.coalesce(LIVE.c.last_ping, LIVE.c.started_at),
    )
    newest = select(func.max(LIVE.c.id)).group_by(LIVE.c.agent_id)
    rivals = {
        "superseded by a newer row of the same agent": newest,
        "its API port belonged to an older agent": select(func.min(LIVE.c.id)).group_by(
            LIVE.c.api_port
        ),
        "its web port belonged to an older agent": select(func.min(LIVE.c.id)).group_by(
            LIVE.c.web_port
        ),
    }
    for reason, kept in rivals.items():
        archive(
            connection,
            LIVE.c.id.not_in(kept.scalar_subquery()),
            state=AgentState.CRASHED.value,
            reason=reason,
            ended_at=func.coalesce(LIVE.c.last_ping, LIVE.c.started_at),
        )
    worker = (
        select(LIVE.c.agent_id)
        .where(LIVE.c.feature_id == FEATURES.c.id)
        .order_by(LIVE.c.id)
        .limit(1)
        .scalar_subquery()
    )
    connection.execute(
        update(FEATURES)
        .where(
            FEATURES.c.status.in_([FeatureStatus.PENDING.value, FeatureStatus.IN_PROGRESS.value]),
            worker.is_not(None),
        )
        .values(status=FeatureStatus.IN_PROGRESS.value, assigned_agent_id=worker)
    )
