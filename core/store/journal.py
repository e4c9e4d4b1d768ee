"""What happened in a project, and the few values that outlive its programs."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select
from sqlalchemy.dialects.sqlite import insert as insert_or

from autocoder.core.models import Severity
from autocoder.core.store.opened import OpenedDatabase
from autocoder.core.store.records import Event, NewEvent
from autocoder.core.store.rows import (
    ANSWERS,
    EVENTS,
    SETTINGS,
    as_event,
    clean,
    from_json,
    time_text,
)

ANSWERS_KEPT = 1000

EVENTS_KEPT = 50_000
"""The newest; a busy project writes so many in some weeks."""


_FORGET_EVENTS = delete(EVENTS).where(
    EVENTS.c.id <= select(func.max(EVENTS.c.id)).scalar_subquery() - EVENTS_KEPT
)


class Journal(OpenedDatabase):
    """Events and settings."""

    def add_event(
        self,
        level: Severity,
        event_type: str,
        message: str,
        *,
        agent_id: str = "",
        feature_id: int | None = None,
        data: object = None,
    ) -> int:
        """Write down what happened; the id grows. `data` is anything JSON can say."""
        event = NewEvent(level, event_type, message, agent_id, feature_id, data)
        with self._writing() as connection:
            result = connection.execute(insert(EVENTS).values(self._event_values(event)))
            connection.execute(_FORGET_EVENTS)
            key = result.inserted_primary_key
        return int(key[0]) if key else 0

    def add_events(self, events: Sequence[NewEvent]) -> None:
        """Write down what happened, in one transaction, in this order."""
        if events:
            with self._writing() as connection:
                values = [self._event_values(event) for event in events]
                connection.execute(insert(EVENTS), values)
                connection.execute(_FORGET_EVENTS)

    def events(self, limit: int, after_id: int = 0) -> tuple[Event, ...]:
        """The latest `limit` with an id above `after_id`, oldest first."""
        query = select(EVENTS).where(EVENTS.c.id > after_id).order_by(EVENTS.c.id.desc())
        with self._reading() as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
        return tuple(as_event(row) for row in reversed(rows))

    def setting(self, key: str) -> Any:
        """The JSON value kept under `key`, None where there is none."""
        with self._reading() as connection:
            return read_setting(connection, key)

    def set_setting(self, key: str, value: object) -> None:
        with self._writing() as connection:
            write_setting(connection, key, value, self._time())

    def kept_answer(self, key: str) -> tuple[str, Any] | None:
        """What was asked under an idempotency key, and the answer; None where nothing was."""
        named = ANSWERS.c.key == clean(key)
        query = select(ANSWERS.c.asked, ANSWERS.c.answer_json).where(named)
        with self._reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else (row.asked, from_json(row.answer_json))

    def keep_answer(self, key: str, asked: str, answer: object) -> None:
        """Remember it under the key; of all keys the latest `ANSWERS_KEPT` are."""
        row = {
            "asked": asked,
            "answer_json": json.dumps(answer),
            "answered_at": self._time(),
        }
        with self._writing() as connection:
            connection.execute(
                insert_or(ANSWERS).values(key=clean(key), **row).on_conflict_do_nothing()
            )
            newest = select(func.max(ANSWERS.c.id)).scalar_subquery()
            connection.execute(delete(ANSWERS).where(ANSWERS.c.id <= newest - ANSWERS_KEPT))

    def _event_values(self, event: NewEvent) -> dict[str, object]:
        return {
            "created_at": time_text(self._now() if event.at is None else event.at),
            "level": event.level.value.upper(),
            "event_type": event.event_type,
            "message": clean(event.message),
            "agent_id": event.agent_id or None,
            "feature_id": event.feature_id,
            "data_json": None if event.data is None else json.dumps(event.data),
        }


def read_setting(connection: Connection, key: str) -> Any:
    query = select(SETTINGS.c.value_json).where(SETTINGS.c.key == key)
    return from_json(connection.scalar(query))


def write_setting(connection: Connection, key: str, value: object, at: str) -> None:
    row = {"value_json": json.dumps(value), "updated_at": at}
    connection.execute(
        insert_or(SETTINGS)
        .values(key=key, **row)
        .on_conflict_do_update(index_elements=["key"], set_=row)
    )
