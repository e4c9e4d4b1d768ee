"""What happened in a project, and the few values that outlive its programs."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select
from sqlalchemy.dialects.sqlite import insert as insert_or

from autocoder.core.models import Severity
from autocoder.core.store.opened import OpenedDatabase
from autocoder.core.store.records import Event, NewEvent
from autocoder.core.store.rows import EVENTS, SETTINGS, as_event, clean, from_json, time_text


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
            key = result.inserted_primary_key
        return int(key[0]) if key else 0

    def add_events(self, events: Sequence[NewEvent]) -> None:
        """Write down what happened, in one transaction, in this order."""
        if events:
            with self._writing() as connection:
                values = [self._event_values(event) for event in events]
                connection.execute(insert(EVENTS), values)

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
