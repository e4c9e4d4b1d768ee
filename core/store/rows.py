"""Between rows and models; every conversion accepts whatever stands in the file.

Other programs write this file too, so an odd value must not take the panel down:
a status nobody knows reads as one that starts nothing.
"""

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, Table, func, select
from sqlmodel import SQLModel

from autocoder.core.errors import UsageError
from autocoder.core.models import LIVE_STATES, AgentState, Feature, FeatureStatus, Severity
from autocoder.core.store.records import AgentRecord, Event
from autocoder.core.tables import (
    ActivityEventRow,
    AgentHeartbeatRow,
    AgentHistoryRow,
    FeatureDependencyRow,
    FeatureRow,
    KeptAnswerRow,
    ProjectSettingRow,
)


def _table(row: type[SQLModel]) -> Table:
    return SQLModel.metadata.tables[str(row.__tablename__)]


FEATURES = _table(FeatureRow)
DEPENDENCIES = _table(FeatureDependencyRow)
LIVE = _table(AgentHeartbeatRow)
HISTORY = _table(AgentHistoryRow)
EVENTS = _table(ActivityEventRow)
SETTINGS = _table(ProjectSettingRow)
ANSWERS = _table(KeptAnswerRow)

LAST_SECOND = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
TEXT_LIMIT = 16_384
"""Characters kept of a reason, an error or a message."""


def time_text(seconds: float, *, exact: bool = False) -> str:
    """UTC as the predecessor writes it; `exact` with microseconds, for `next_attempt_at`.

    A time that the text cannot say, as agents can give their files, is the nearest it can.
    """
    moment = datetime.fromtimestamp(min(max(seconds, 0.0), LAST_SECOND), UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f" if exact else "%Y-%m-%d %H:%M:%S")


def seconds(text: object) -> float | None:
    """The time that `text` names, taken as UTC where it names no zone; None where none."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def clean(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text` as the database can hold it: no lone surrogates, not endless."""
    return text[:limit].encode("utf-8", "replace").decode()


def as_feature(row: RowMapping) -> Feature:
    """A row of `features` with the column `needs`: ids it depends on, comma separated."""
    return Feature(
        id=row["id"],
        name=str(row["name"]),
        description=_text(row["description"]),
        steps=_steps(row["steps"]),
        category=_text(row["category"]),
        status=_status(row["status"]),
        priority=_number(row["priority"]),
        attempts=_number(row["attempts"]),
        enabled=bool(row["enabled"]),
        depends_on=tuple(sorted(int(part) for part in (row["needs"] or "").split(",") if part)),
        branch_name=_text(row["branch_name"]),
        last_error=_text(row["last_error"]),
        next_attempt_at=seconds(row["next_attempt_at"]),
        review_status=_text(row["review_status"]).removeprefix("PENDING"),
        agent_id=_text(row["assigned_agent_id"]),
        backend=_text(row["backend"]),
        model=_text(row["model"]),
        base=_text(row["base"]),
        variant_of=_number(row["variant_of"]) or None,
    )


def select_features() -> Select[Any]:
    """Rows that `as_feature` understands."""
    needs = (
        select(func.group_concat(DEPENDENCIES.c.depends_on_id))
        .where(DEPENDENCIES.c.feature_id == FEATURES.c.id)
        .scalar_subquery()
    )
    return select(FEATURES, needs.label("needs"))


def find_feature(connection: Connection, feature_id: int) -> Feature:
    """Raises `UsageError` where there is none."""
    query = select_features().where(FEATURES.c.id == feature_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise UsageError(
            f"there is no feature {feature_id}", "`autocoder features list` shows those there are."
        )
    return as_feature(row)


def as_agent(row: RowMapping) -> AgentRecord:
    """A row of `agent_heartbeats` or `agent_history` with the feature's name as `feature`."""
    ended = "ended_at" in row
    prefix = "had_" if ended else ""
    return AgentRecord(
        agent_id=row["agent_id"],
        state=_state(row["status"], ended=ended),
        feature_id=row["feature_id"],
        feature=_text(row["feature"]),
        backend=_text(row["backend"]),
        branch=_text(row["branch_name"]),
        worktree_path=_text(row["worktree_path"]),
        log_path=_text(row["log_file_path"]),
        api_port=row[prefix + "api_port"],
        web_port=row[prefix + "web_port"],
        epoch=_number(row["epoch"]),
        pid=row["pid"],
        pid_start=row["pid_start"],
        boot_id=_text(row["boot_id"]),
        create_time=row["proc_create_time"],
        started_at=seconds(row["started_at"]) or 0.0,
        last_ping=seconds(row["last_ping"]),
        ended_at=seconds(row["ended_at"]) if ended else None,
        exit_code=row["exit_code"] if ended else None,
        reason=_text(row["reason"]) if ended else "",
        eaddrinuse=_number(row["eaddrinuse"]) if ended else 0,
    )


def as_event(row: RowMapping) -> Event:
    level = str(row["level"]).lower()
    return Event(
        id=row["id"],
        at=seconds(row["created_at"]) or 0.0,
        level=Severity(level) if level in set(Severity) else Severity.INFO,
        event_type=_text(row["event_type"]),
        message=_text(row["message"]),
        agent_id=_text(row["agent_id"]),
        feature_id=row["feature_id"],
        data=from_json(row["data_json"]),
    )


def from_json(text: object) -> Any:
    """The JSON value in `text`; `text` itself where it is none, None for NULL."""
    if isinstance(text, str):
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _steps(text: object) -> tuple[str, ...]:
    value = from_json(text)
    if value is None or value == "":
        return ()
    return tuple(str(step) for step in value) if isinstance(value, list) else (str(value),)


def _status(text: object) -> FeatureStatus:
    known = str(text).upper()
    return FeatureStatus(known) if known in set(FeatureStatus) else FeatureStatus.BLOCKED


def _state(text: object, *, ended: bool) -> AgentState:
    known = str(text).upper()
    state = AgentState(known) if known in set(AgentState) else AgentState.CRASHED
    # The table an agent is in says whether it has ended, not what is written there.
    if ended == (state in LIVE_STATES):
        return AgentState.CRASHED if ended else AgentState.ACTIVE
    return state


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
