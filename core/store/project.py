"""`ProjectStore`: every question and every change this program has for a project's database."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert as insert_or

from autocoder.core.database import BUSY_TIMEOUT_S, open_database, readable, writable
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.models import LIVE_STATES, AgentState, Feature, FeatureStatus, Severity
from autocoder.core.store import dependencies
from autocoder.core.store.agents import archive, release_orphans
from autocoder.core.store.migration import migrate_predecessor
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
from autocoder.core.store.rows import (
    DEPENDENCIES,
    EVENTS,
    FEATURES,
    HISTORY,
    LIVE,
    SETTINGS,
    as_agent,
    as_event,
    as_feature,
    clean,
    from_json,
    seconds,
    time_text,
)
from autocoder.core.tables import PROJECT_TABLES

VERSION = 1
DESCRIPTION_LIMIT = 1_000_000
AGENT_COUNTER = "agent_counter"

_CLAIM_ORDER = (FEATURES.c.priority.desc(), FEATURES.c.id)
_BEAT = text(
    "UPDATE agent_heartbeats SET last_ping = beat.value "
    "FROM json_each(:pings) AS beat WHERE beat.key = agent_heartbeats.agent_id"
)


class ProjectStore:
    """One project's database, open; used from the thread that made it.

    Other processes may read and write the file meanwhile. Every change is durable
    when its method returns.

    Raises:
        DatabaseError: from any method: the file cannot be used; nothing changed.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.time,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Open or make the file; a predecessor's is migrated, with a copy kept beside it.

        A method waits `busy_timeout_s` for a program that has locked the file.
        """
        self.path = path
        self._now = now
        self._engine = open_database(
            path,
            PROJECT_TABLES,
            version=VERSION,
            migrations={0: migrate_predecessor},
            busy_timeout_s=busy_timeout_s,
        )
        self._features: tuple[Feature, ...] | None = None
        self._features_version = -1

    def close(self) -> None:
        self._engine.dispose()

    # --- features -------------------------------------------------------------------

    def features(self) -> tuple[Feature, ...]:
        """All of them in claim order: highest priority first, then lowest id.

        The same tuple as before while nobody has changed a feature: cheap to ask for.
        """
        with readable(self._engine, self.path) as connection:
            # Counts commits of other connections only; our own clear the cache.
            version = int(connection.exec_driver_sql("PRAGMA data_version").scalar_one())
            if self._features is None or version != self._features_version:
                rows = connection.execute(_features().order_by(*_CLAIM_ORDER)).mappings()
                self._features = tuple(as_feature(row) for row in rows)
                self._features_version = version
        return self._features

    def feature(self, feature_id: int) -> Feature:
        with readable(self._engine, self.path) as connection:
            return _feature(connection, feature_id)

    def add_features(self, drafts: Sequence[FeatureDraft]) -> tuple[Feature, ...]:
        """Add all of them or none, in their order.

        Raises:
            UsageError: a name is blank, or dependencies fit nothing, several
                features, or form a circle.
        """
        if not drafts:
            return ()
        now = time_text(self._now())
        with self._changing_features() as connection:
            resolved = dependencies.resolve(drafts, _names(connection))
            added = insert(FEATURES).returning(FEATURES.c.id, sort_by_parameter_order=True)
            values = [_draft_values(draft) | {"created_at": now} for draft in drafts]
            ids = list(connection.scalars(added, values))
            edges = [
                {"feature_id": ids[position], "depends_on_id": needed, "created_at": now}
                for position, (existing, batch) in enumerate(resolved)
                for needed in sorted(existing | {ids[other] for other in batch})
            ]
            if edges:
                connection.execute(insert(DEPENDENCIES), edges)
            rows = connection.execute(_features().where(FEATURES.c.id.in_(ids))).mappings()
            by_id = {row["id"]: as_feature(row) for row in rows}
        return tuple(by_id[feature_id] for feature_id in ids)

    def check_features(self, drafts: Sequence[FeatureDraft]) -> None:
        """Raise what `add_features` would raise for them; nothing is added."""
        with readable(self._engine, self.path) as connection:
            dependencies.resolve(drafts, _names(connection))

    def next_claimable(self) -> Feature | None:
        """The first feature in claim order that an agent may start on now."""
        with readable(self._engine, self.path) as connection:
            query = _features().where(
                _pending(), FEATURES.c.enabled, self._due(), ~dependencies.has_unmet()
            )
            row = connection.execute(query.order_by(*_CLAIM_ORDER).limit(1)).mappings().first()
        return as_feature(row) if row else None

    def next_due_at(self) -> float | None:
        """When the first feature that only waits for its back-off becomes claimable."""
        with readable(self._engine, self.path) as connection:
            due = connection.scalar(
                select(func.min(FEATURES.c.next_attempt_at)).where(
                    _pending(), FEATURES.c.enabled, ~self._due(), ~dependencies.has_unmet()
                )
            )
        return seconds(due)

    def stuck_features(self) -> tuple[StuckFeature, ...]:
        """Pending, enabled features that can never run unless somebody steps in, with why."""
        return dependencies.stuck(self.features())

    def retry_feature(self, feature_id: int) -> Feature:
        """Make a blocked or waiting feature claimable now, its attempts set back to none.

        Raises:
            RefusedError: it is in progress or done.
        """
        with self._changing_features() as connection:
            feature = _feature(connection, feature_id)
            if feature.status not in (FeatureStatus.BLOCKED, FeatureStatus.PENDING):
                state = feature.status.value.lower().replace("_", " ")
                raise RefusedError(f"feature {feature_id} is {state}; nothing to retry")
            self._update(
                connection,
                feature_id,
                status=FeatureStatus.PENDING.value,
                enabled=True,
                attempts=0,
                next_attempt_at=None,
                last_error_key=None,
                same_error_streak=0,
                last_diff_fingerprint=None,
                same_diff_streak=0,
            )
            return _feature(connection, feature_id)

    def set_enabled(self, feature_id: int, enabled: bool) -> None:
        """A feature that is not enabled is never claimed by itself."""
        with self._changing_features() as connection:
            self._update(connection, feature_id, enabled=enabled)

    def set_priority(self, feature_id: int, priority: int) -> None:
        with self._changing_features() as connection:
            self._update(connection, feature_id, priority=priority)

    def edit_feature(
        self,
        feature_id: int,
        *,
        name: str | None = None,
        description: str | None = None,
        steps: Sequence[str] | None = None,
        category: str | None = None,
        priority: int | None = None,
    ) -> Feature:
        """Change what is given; None leaves it. Raises `UsageError` for a blank name."""
        if name is not None and not name.strip():
            raise UsageError("a feature needs a name")
        given: dict[str, object] = {
            "name": None if name is None else clean(name.strip()),
            "description": None if description is None else clean(description, DESCRIPTION_LIMIT),
            "steps": None if steps is None else json.dumps([clean(step) for step in steps]),
            "category": None if category is None else clean(category),
            "priority": priority,
        }
        with self._changing_features() as connection:
            changes = {column: value for column, value in given.items() if value is not None}
            self._update(connection, feature_id, **changes)
            return _feature(connection, feature_id)

    def delete_feature(self, feature_id: int) -> Feature:
        """Remove it, and with it what its history says about which feature it was.

        Raises:
            RefusedError: an agent works on it, or other features depend on it.
        """
        with self._changing_features() as connection:
            feature = _feature(connection, feature_id)
            at_work = connection.scalar(
                select(LIVE.c.agent_id).where(LIVE.c.feature_id == feature_id).limit(1)
            )
            if at_work:
                raise RefusedError(
                    f"agent {at_work} works on feature {feature_id}", "Stop it first."
                )
            needs_it = select(DEPENDENCIES.c.feature_id).where(
                DEPENDENCIES.c.depends_on_id == feature_id
            )
            dependents = sorted(connection.scalars(needs_it))
            if dependents:
                raise RefusedError(
                    f"features that depend on feature {feature_id}: "
                    + ", ".join(map(str, dependents)),
                    "Delete those first.",
                )
            connection.execute(delete(DEPENDENCIES).where(DEPENDENCIES.c.feature_id == feature_id))
            connection.execute(
                update(HISTORY).where(HISTORY.c.feature_id == feature_id).values(feature_id=None)
            )
            connection.execute(delete(FEATURES).where(FEATURES.c.id == feature_id))
        return feature

    def assign(self, feature_id: int, name: str) -> bool:
        """Let somebody who is no agent of ours work on a pending feature; False if it is taken.

        Nobody watches over it: it stays in progress until `unassign` or a new orchestrator.
        """
        with self._changing_features() as connection:
            taken = connection.execute(
                update(FEATURES)
                .where(FEATURES.c.id == feature_id, _pending(), ~dependencies.has_unmet())
                .values(
                    status=FeatureStatus.IN_PROGRESS.value,
                    assigned_agent_id=clean(name, 64) or None,
                    assigned_at=time_text(self._now()),
                )
            )
            if not taken.rowcount:
                _feature(connection, feature_id)
        return bool(taken.rowcount)

    def unassign(self, feature_id: int) -> Feature:
        """Put a feature in progress back to the backlog.

        Raises:
            RefusedError: an agent works on it, or it is not in progress.
        """
        with self._changing_features() as connection:
            feature = _feature(connection, feature_id)
            at_work = connection.scalar(
                select(LIVE.c.agent_id).where(LIVE.c.feature_id == feature_id).limit(1)
            )
            if at_work:
                raise RefusedError(
                    f"agent {at_work} works on feature {feature_id}", "Stop it first."
                )
            if feature.status is not FeatureStatus.IN_PROGRESS:
                raise RefusedError(f"feature {feature_id} is not in progress")
            self._settle(connection, feature_id, Requeued("given back"))
            return _feature(connection, feature_id)

    def add_regression(
        self, original_id: int, draft: FeatureDraft, *, error_key: str, artifact_path: str = ""
    ) -> tuple[Feature, bool]:
        """Add a feature that mends what `original_id` once did, and whether it is a new one.

        One that is open for the same error already is returned instead.
        """
        with self._changing_features() as connection:
            _feature(connection, original_id)
            known = connection.scalar(
                select(FEATURES.c.id)
                .where(
                    FEATURES.c.regression_of_id == original_id,
                    FEATURES.c.last_error_key == error_key,
                    FEATURES.c.status != FeatureStatus.DONE.value,
                )
                .limit(1)
            )
            if known is not None:
                return _feature(connection, known), False
            values = _draft_values(draft) | {
                "created_at": time_text(self._now()),
                "regression_of_id": original_id,
                "last_error_key": clean(error_key),
                "last_artifact_path": clean(artifact_path) or None,
            }
            added = connection.execute(insert(FEATURES).values(**values))
            connection.execute(
                update(FEATURES)
                .where(FEATURES.c.id == original_id)
                .values(regression_count=func.coalesce(FEATURES.c.regression_count, 0) + 1)
            )
            key = added.inserted_primary_key
            return _feature(connection, int(key[0]) if key else 0), True

    def set_merged(self, feature_id: int, merged: bool) -> None:
        """Note whether the branch of a done feature is in base, or ready to merge.

        Raises:
            RefusedError: the feature is not done.
        """
        with self._changing_features() as connection:
            if _feature(connection, feature_id).status is not FeatureStatus.DONE:
                raise RefusedError(f"feature {feature_id} is not done")
            review = dependencies.MERGED if merged else dependencies.UNMERGED
            self._update(connection, feature_id, review_status=review)

    def settle_feature(self, feature_id: int, outcome: FeatureOutcome) -> Feature:
        """Give a feature that no agent works on an outcome: a merge that met a conflict.

        Raises:
            RefusedError: an agent works on it.
        """
        with self._changing_features() as connection:
            feature = _feature(connection, feature_id)
            if feature.agent_id:
                raise RefusedError(f"agent {feature.agent_id} works on feature {feature_id}")
            self._settle(connection, feature_id, outcome)
            return _feature(connection, feature_id)

    # --- agents ---------------------------------------------------------------------

    def next_agent_id(self, is_taken: Callable[[str], bool] = lambda _: False) -> str:
        """An id this project has never used; those for which `is_taken` holds are skipped.

        What a lost database left behind (run folders, branches) is asked for that way.
        """
        with writable(self._engine, self.path) as connection:
            number = _setting(connection, AGENT_COUNTER)
            number = number if isinstance(number, int) else 0
            while True:
                number += 1
                agent_id = f"a-{number:04x}"
                if not is_taken(agent_id):
                    break
            self._set(connection, AGENT_COUNTER, number)
        return agent_id

    def free_agent_id(self, is_taken: Callable[[str], bool] = lambda _: False) -> str:
        """As `next_agent_id`, but the id counts as used only once a `claim` has named it."""
        with readable(self._engine, self.path) as connection:
            number = _setting(connection, AGENT_COUNTER)
        number = number if isinstance(number, int) else 0
        while True:
            number += 1
            agent_id = f"a-{number:04x}"
            if not is_taken(agent_id):
                return agent_id

    def claim(self, feature_id: int, agent: NewAgent, *, requested: bool = False) -> bool:
        """Give a pending feature to a new agent, which is STARTING from now on.

        False, and nothing changed, when the feature is not claimable any more. One
        that a human `requested` need be neither enabled nor due, but its
        dependencies must be met.
        """
        now = time_text(self._now())
        conditions = [FEATURES.c.id == feature_id, _pending(), ~dependencies.has_unmet()]
        if not requested:
            conditions += [FEATURES.c.enabled, self._due()]
        with self._changing_features() as connection:
            claimed = connection.execute(
                update(FEATURES)
                .where(*conditions)
                .values(
                    status=FeatureStatus.IN_PROGRESS.value,
                    assigned_agent_id=agent.agent_id,
                    assigned_at=now,
                    branch_name=agent.branch,
                    updated_at=now,
                )
            )
            if not claimed.rowcount:
                return False
            connection.execute(
                insert(LIVE).values(
                    agent_id=agent.agent_id,
                    status=AgentState.STARTING.value,
                    feature_id=feature_id,
                    api_port=agent.api_port,
                    web_port=agent.web_port,
                    epoch=agent.epoch,
                    branch_name=agent.branch,
                    backend=agent.backend,
                    worktree_path=agent.worktree_path,
                    log_file_path=agent.log_path,
                    started_at=now,
                )
            )
            self._count_agent(connection, agent.agent_id)
        return True

    def set_worker(
        self, agent_id: str, *, pid: int, pid_start: int, boot_id: str, create_time: float
    ) -> None:
        """Note which process is the agent's worker.

        Raises:
            RefusedError: the agent is not live.
        """
        self._update_live(
            agent_id, pid=pid, pid_start=pid_start, boot_id=boot_id, proc_create_time=create_time
        )

    def set_state(self, agent_id: str, state: AgentState) -> None:
        """Move a live agent among `LIVE_STATES`; `end_agent` ends one.

        Raises:
            RefusedError: the agent is not live.
        """
        if state not in LIVE_STATES:
            raise ValueError(f"{state} ends an agent")
        self._update_live(agent_id, status=state.value)

    def set_states(self, states: Mapping[str, AgentState]) -> None:
        """Move live agents among `LIVE_STATES`, all at once; ended ones stay as they are."""
        if not LIVE_STATES.issuperset(states.values()):
            raise ValueError(f"{states} ends an agent")
        with writable(self._engine, self.path) as connection:
            for agent_id, state in states.items():
                connection.execute(
                    update(LIVE).where(LIVE.c.agent_id == agent_id).values(status=state.value)
                )

    def set_worktree(self, agent_id: str, path: str) -> None:
        """Note where the worktree of a live or ended agent is; empty once removed or handed on."""
        with writable(self._engine, self.path) as connection:
            for table in (LIVE, HISTORY):
                connection.execute(
                    update(table).where(table.c.agent_id == agent_id).values(worktree_path=path)
                )

    def beat(self, pings: Mapping[str, float]) -> None:
        """Note when live agents were last heard of; never changes a state, nor an ended agent."""
        if not pings:
            return
        texts = {agent_id: time_text(at) for agent_id, at in pings.items()}
        with writable(self._engine, self.path) as connection:
            connection.execute(_BEAT, {"pings": json.dumps(texts)})

    def end_agent(
        self,
        agent_id: str,
        *,
        state: AgentState,
        exit_code: int | None,
        reason: str,
        outcome: FeatureOutcome,
        eaddrinuse: int = 0,
    ) -> Feature | None:
        """Move the agent to the history and settle its feature, in one transaction.

        The feature as it is afterwards; None where it is gone. One that was given
        to another agent meanwhile stays as it is.

        Raises:
            RefusedError: the agent is not live.
        """
        if state in LIVE_STATES:
            raise ValueError(f"{state} does not end an agent")
        with self._changing_features() as connection:
            feature_id = connection.execute(
                select(LIVE.c.feature_id).where(LIVE.c.agent_id == agent_id)
            ).first()
            if feature_id is None:
                raise RefusedError(f"agent {agent_id} is not live")
            archive(
                connection,
                LIVE.c.agent_id == agent_id,
                state=state.value,
                reason=clean(reason),
                ended_at=time_text(self._now()),
                exit_code=exit_code,
                eaddrinuse=eaddrinuse,
            )
            if feature_id[0] is None:
                return None
            feature = _feature(connection, feature_id[0])
            if feature.agent_id == agent_id:
                self._settle(connection, feature.id, outcome)
                feature = _feature(connection, feature.id)
        return feature

    def live_agents(self) -> tuple[AgentRecord, ...]:
        """Those that have not ended, oldest first."""
        return self._agents(_agents(LIVE).order_by(LIVE.c.id))

    def history(self, limit: int) -> tuple[AgentRecord, ...]:
        """The `limit` that ended last, latest first."""
        return self._agents(_agents(HISTORY).order_by(HISTORY.c.id.desc()).limit(limit))

    def agent(self, agent_id: str) -> AgentRecord:
        """The agent of that id, live or ended.

        Raises:
            UsageError: there never was one.
        """
        for table in (LIVE, HISTORY):
            query = _agents(table).where(table.c.agent_id == agent_id)
            found = self._agents(query.order_by(table.c.id.desc()).limit(1))
            if found:
                return found[0]
        raise UsageError(
            f"there is no agent {agent_id!r}", "`autocoder agents list` shows those there are."
        )

    def reconcile(self, is_alive: Callable[[AgentRecord], bool | None]) -> tuple[AgentRecord, ...]:
        """Move live agents whose worker is dead to the history, as CRASHED; return them.

        Their features, and all that are in progress with no agent, go back to the
        backlog uncounted. Where `is_alive` says None the agent stays.
        """
        dead = tuple(agent for agent in self.live_agents() if is_alive(agent) is False)
        with self._changing_features() as connection:
            archive(
                connection,
                LIVE.c.agent_id.in_([agent.agent_id for agent in dead]),
                state=AgentState.CRASHED.value,
                reason="its worker was no longer running",
                ended_at=time_text(self._now()),
            )
            release_orphans(connection)
        return dead

    # --- activity and settings ------------------------------------------------------

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
        with writable(self._engine, self.path) as connection:
            result = connection.execute(insert(EVENTS).values(self._event_values(event)))
            key = result.inserted_primary_key
        return int(key[0]) if key else 0

    def add_events(self, events: Sequence[NewEvent]) -> None:
        """Write down what happened, in one transaction, in this order."""
        if events:
            with writable(self._engine, self.path) as connection:
                values = [self._event_values(event) for event in events]
                connection.execute(insert(EVENTS), values)

    def events(self, limit: int, after_id: int = 0) -> tuple[Event, ...]:
        """The latest `limit` with an id above `after_id`, oldest first."""
        query = select(EVENTS).where(EVENTS.c.id > after_id).order_by(EVENTS.c.id.desc())
        with readable(self._engine, self.path) as connection:
            rows = connection.execute(query.limit(limit)).mappings().all()
        return tuple(as_event(row) for row in reversed(rows))

    def setting(self, key: str) -> Any:
        """The JSON value kept under `key`, None where there is none."""
        with readable(self._engine, self.path) as connection:
            return _setting(connection, key)

    def set_setting(self, key: str, value: object) -> None:
        with writable(self._engine, self.path) as connection:
            self._set(connection, key, value)

    # --- within a transaction -------------------------------------------------------

    @contextlib.contextmanager
    def _changing_features(self) -> Iterator[Connection]:
        self._features = None
        with writable(self._engine, self.path) as connection:
            yield connection

    def _update(self, connection: Connection, feature_id: int, **values: object) -> None:
        changed = connection.execute(
            update(FEATURES)
            .where(FEATURES.c.id == feature_id)
            .values(updated_at=time_text(self._now()), **values)
        )
        if not changed.rowcount:
            raise _unknown_feature(feature_id)

    def _update_live(self, agent_id: str, **values: object) -> None:
        with writable(self._engine, self.path) as connection:
            changed = connection.execute(
                update(LIVE).where(LIVE.c.agent_id == agent_id).values(**values)
            )
        if not changed.rowcount:
            raise RefusedError(f"agent {agent_id} is not live")

    def _settle(self, connection: Connection, feature_id: int, outcome: FeatureOutcome) -> None:
        match outcome:
            case Finished(branch, merged):
                values: dict[str, object] = {
                    "status": FeatureStatus.DONE.value,
                    "passes": True,
                    "completed_at": time_text(self._now()),
                    "branch_name": branch,
                    "review_status": dependencies.MERGED if merged else dependencies.UNMERGED,
                    "last_error": None,
                    "last_error_key": None,
                    "same_error_streak": 0,
                    "same_diff_streak": 0,
                    "next_attempt_at": None,
                }
            case Failed():
                values = _failure_values(connection, feature_id, outcome)
            case Requeued(_, retry_at):
                values = {
                    "status": FeatureStatus.PENDING.value,
                    "next_attempt_at": _exact(retry_at),
                }
        self._update(connection, feature_id, assigned_agent_id=None, assigned_at=None, **values)

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

    def _count_agent(self, connection: Connection, agent_id: str) -> None:
        """Never give this id, nor a lower one, to another agent."""
        number = _setting(connection, AGENT_COUNTER)
        used = int(agent_id[2:], 16) if re.fullmatch("a-[0-9a-f]{4,8}", agent_id) else 0
        if used > (number if isinstance(number, int) else 0):
            self._set(connection, AGENT_COUNTER, used)

    def _set(self, connection: Connection, key: str, value: object) -> None:
        row = {"value_json": json.dumps(value), "updated_at": time_text(self._now())}
        connection.execute(
            insert_or(SETTINGS)
            .values(key=key, **row)
            .on_conflict_do_update(index_elements=["key"], set_=row)
        )

    def _agents(self, query: Select[Any]) -> tuple[AgentRecord, ...]:
        with readable(self._engine, self.path) as connection:
            return tuple(as_agent(row) for row in connection.execute(query).mappings())

    def _due(self) -> ColumnElement[bool]:
        now = time_text(self._now(), exact=True)
        return or_(FEATURES.c.next_attempt_at.is_(None), FEATURES.c.next_attempt_at <= now)


def _pending() -> ColumnElement[bool]:
    return FEATURES.c.status == FeatureStatus.PENDING.value


def _features() -> Select[Any]:
    needs = (
        select(func.group_concat(DEPENDENCIES.c.depends_on_id))
        .where(DEPENDENCIES.c.feature_id == FEATURES.c.id)
        .scalar_subquery()
    )
    return select(FEATURES, needs.label("needs"))


def _names(connection: Connection) -> list[tuple[int, str]]:
    return [
        (row.id, row.name) for row in connection.execute(select(FEATURES.c.id, FEATURES.c.name))
    ]


def _agents(table: Any) -> Select[Any]:
    named = table.outerjoin(FEATURES, FEATURES.c.id == table.c.feature_id)
    return select(table, FEATURES.c.name.label("feature")).select_from(named)


def _feature(connection: Connection, feature_id: int) -> Feature:
    row = connection.execute(_features().where(FEATURES.c.id == feature_id)).mappings().first()
    if row is None:
        raise _unknown_feature(feature_id)
    return as_feature(row)


def _unknown_feature(feature_id: int) -> UsageError:
    return UsageError(
        f"there is no feature {feature_id}", "`autocoder features list` shows those there are."
    )


def _setting(connection: Connection, key: str) -> Any:
    query = select(SETTINGS.c.value_json).where(SETTINGS.c.key == key)
    return from_json(connection.scalar(query))


def _draft_values(draft: FeatureDraft) -> dict[str, object]:
    return {
        "name": clean(draft.name.strip()),
        "description": clean(draft.description, DESCRIPTION_LIMIT),
        "steps": json.dumps([clean(step) for step in draft.steps]),
        "category": clean(draft.category),
        "priority": draft.priority,
        "enabled": draft.enabled,
    }


def _failure_values(connection: Connection, feature_id: int, failed: Failed) -> dict[str, object]:
    before = connection.execute(
        select(
            FEATURES.c.attempts,
            FEATURES.c.last_error_key,
            FEATURES.c.same_error_streak,
            FEATURES.c.last_diff_fingerprint,
            FEATURES.c.same_diff_streak,
        ).where(FEATURES.c.id == feature_id)
    ).one()
    attempts = before.attempts + 1
    same_error = _streak(failed.error_key, before.last_error_key, before.same_error_streak)
    same_diff = _streak(
        failed.diff_fingerprint, before.last_diff_fingerprint, before.same_diff_streak
    )
    hopeless = attempts >= failed.attempts_limit or max(same_error, same_diff) >= SAME_FAILURE_LIMIT
    return {
        "status": (FeatureStatus.BLOCKED if hopeless else FeatureStatus.PENDING).value,
        "passes": False,
        "completed_at": None,
        "review_status": None,
        "attempts": attempts,
        "last_error": clean(failed.error),
        "last_error_key": failed.error_key,
        "same_error_streak": same_error,
        "last_diff_fingerprint": failed.diff_fingerprint or None,
        "same_diff_streak": same_diff,
        "next_attempt_at": None if hopeless else _exact(failed.retry_at),
    }


def _streak(key: str, before: str | None, length: int) -> int:
    """How often in a row `key` has come up; an empty one never does."""
    if not key:
        return 0
    return length + 1 if key == before else 1


def _exact(at: float | None) -> str | None:
    return None if at is None else time_text(at, exact=True)
