"""The backlog in the database."""

import json
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.models import Feature, FeatureStatus
from autocoder.core.store import dependencies
from autocoder.core.store.opened import OpenedDatabase
from autocoder.core.store.outcomes import merge, settle
from autocoder.core.store.records import FeatureDraft, FeatureOutcome, Requeued, StuckFeature
from autocoder.core.store.rows import (
    DEPENDENCIES,
    FEATURES,
    HISTORY,
    LIVE,
    as_feature,
    clean,
    find_feature,
    select_features,
)

DESCRIPTION_LIMIT = 1_000_000

_CLAIM_ORDER = (FEATURES.c.priority.desc(), FEATURES.c.id)


class BacklogTables(OpenedDatabase):
    """Features and what they wait for."""

    _features: tuple[Feature, ...] = ()
    _features_seen: object = None
    """What `_features` is as of: commits by others, and changes of our own."""
    _converted: Mapping[Row[Any], Feature] = MappingProxyType({})
    _awaits = False
    _awaits_of: tuple[Feature, ...] | None = None
    _awaits_without: frozenset[int] = frozenset()
    _stuck: tuple[StuckFeature, ...] = ()
    _stuck_of: tuple[Feature, ...] = ()

    def features(self) -> tuple[Feature, ...]:
        """All of them in claim order: highest priority first, then lowest id.

        The same tuple as before while nobody has changed a feature, and the same
        `Feature` for each that has not changed: cheap to ask for, cheap to compare.
        """
        with self._reading() as connection:
            # Counts the commits of other connections only.
            version = connection.exec_driver_sql("PRAGMA data_version").scalar_one()
            if self._features_seen != (version, self._feature_changes):
                rows = connection.execute(select_features().order_by(*_CLAIM_ORDER)).all()
                before = self._converted
                self._converted = {row: before.get(row) or as_feature(row._mapping) for row in rows}
                self._features = tuple(self._converted.values())
                self._features_seen = (version, self._feature_changes)
        return self._features

    def branch_bases(self) -> dict[str, str]:
        """Branches of features that have a base of their own, each with that base."""
        return {each.branch_name: each.base for each in self.features() if each.base}

    def feature(self, feature_id: int) -> Feature:
        with self._reading() as connection:
            return find_feature(connection, feature_id)

    def add_features(self, drafts: Sequence[FeatureDraft]) -> tuple[Feature, ...]:
        """Add all of them or none, in their order.

        Raises:
            UsageError: a name is blank, or dependencies fit nothing, several
                features, or form a circle.
        """
        if not drafts:
            return ()
        with self._changing_features() as connection:
            ids = self._insert(connection, drafts)
            rows = connection.execute(select_features().where(FEATURES.c.id.in_(ids))).mappings()
            by_id = {row["id"]: as_feature(row) for row in rows}
        return tuple(by_id[feature_id] for feature_id in ids)

    def add_variants(self, draft: FeatureDraft, count: int) -> tuple[Feature, ...]:
        """Add `count` features of the same task; each is a variant of the first, itself included.

        Raises as `add_features` does; then none is added.
        """
        with self._changing_features() as connection:
            ids = self._insert(connection, [draft] * count)
            connection.execute(
                update(FEATURES).where(FEATURES.c.id.in_(ids)).values(variant_of=ids[0])
            )
            return tuple(find_feature(connection, feature_id) for feature_id in ids)

    def check_features(self, drafts: Sequence[FeatureDraft]) -> None:
        """Raise what `add_features` would raise for them; nothing is added."""
        with self._reading() as connection:
            dependencies.resolve(drafts, _names(connection))

    def next_claimable(self, without: Collection[int] = ()) -> Feature | None:
        """The first feature in claim order that an agent may start on now, `without` those."""
        with self._reading() as connection:
            query = select_features().where(
                dependencies.is_pending(),
                FEATURES.c.enabled,
                dependencies.is_due(self._now()),
                ~dependencies.has_unmet(),
                FEATURES.c.id.not_in(without),
            )
            row = connection.execute(query.order_by(*_CLAIM_ORDER).limit(1)).mappings().first()
        return as_feature(row) if row else None

    def awaits_work(self, without: Collection[int] = ()) -> bool:
        """Whether a feature may be started on now or once its back-off is over, `without` those.

        One question: asked in two, a back-off that ends in between would hide its feature.
        """
        features, left_out = self.features(), frozenset(without)
        if features is self._awaits_of and left_out == self._awaits_without:
            return self._awaits
        with self._reading() as connection:
            query = select(FEATURES.c.id).where(
                dependencies.is_pending(),
                FEATURES.c.enabled,
                ~dependencies.has_unmet(),
                FEATURES.c.id.not_in(without),
            )
            self._awaits = connection.scalar(query.limit(1)) is not None
        self._awaits_of, self._awaits_without = features, left_out
        return self._awaits

    def stuck_features(self) -> tuple[StuckFeature, ...]:
        """Pending, enabled features that can never run unless somebody steps in, with why."""
        features = self.features()
        if features is not self._stuck_of:
            self._stuck_of, self._stuck = features, dependencies.stuck(features)
        return self._stuck

    def retry_feature(self, feature_id: int) -> Feature:
        """Make a blocked or waiting feature claimable now, its attempts set back to none.

        Raises:
            RefusedError: it is in progress or done.
        """
        with self._changing_features() as connection:
            feature = find_feature(connection, feature_id)
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
            return find_feature(connection, feature_id)

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
        backend: str | None = None,
        model: str | None = None,
        base: str | None = None,
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
            "backend": None if backend is None else clean(backend),
            "model": None if model is None else clean(model),
            "base": None if base is None else clean(base),
        }
        with self._changing_features() as connection:
            changes = {column: value for column, value in given.items() if value is not None}
            self._update(connection, feature_id, **changes)
            return find_feature(connection, feature_id)

    def delete_feature(self, feature_id: int) -> Feature:
        """Remove it, and with it what its history says about which feature it was.

        Raises:
            RefusedError: an agent works on it, or other features depend on it.
        """
        with self._changing_features() as connection:
            feature = find_feature(connection, feature_id)
            _require_no_agent(connection, feature_id)
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
                .where(
                    FEATURES.c.id == feature_id,
                    dependencies.is_pending(),
                    ~dependencies.has_unmet(),
                )
                .values(
                    status=FeatureStatus.IN_PROGRESS.value,
                    assigned_agent_id=clean(name, 64) or None,
                    assigned_at=self._time(),
                )
            )
            if not taken.rowcount:
                find_feature(connection, feature_id)
        return bool(taken.rowcount)

    def unassign(self, feature_id: int) -> Feature:
        """Put a feature in progress back to the backlog.

        Raises:
            RefusedError: an agent works on it, or it is not in progress.
        """
        with self._changing_features() as connection:
            feature = find_feature(connection, feature_id)
            _require_no_agent(connection, feature_id)
            if feature.status is not FeatureStatus.IN_PROGRESS:
                raise RefusedError(f"feature {feature_id} is not in progress")
            settle(connection, feature_id, Requeued("given back"), self._time())
            return find_feature(connection, feature_id)

    def add_regression(
        self, original_id: int, draft: FeatureDraft, *, error_key: str, artifact_path: str = ""
    ) -> tuple[Feature, bool]:
        """Add a feature that mends what `original_id` once did, and whether it is a new one.

        One that is open for the same error already is returned instead.
        """
        with self._changing_features() as connection:
            find_feature(connection, original_id)
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
                return find_feature(connection, known), False
            values = _draft_values(draft) | {
                "created_at": self._time(),
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
            return find_feature(connection, int(key[0]) if key else 0), True

    def set_merged(self, feature_id: int) -> tuple[str, ...]:
        """Note that the branch of a done feature is in base; branches of its variants that were
        ready to merge, and now are not chosen.

        Raises:
            RefusedError: the feature is not done.
        """
        with self._changing_features() as connection:
            if find_feature(connection, feature_id).status is not FeatureStatus.DONE:
                raise RefusedError(f"feature {feature_id} is not done")
            return merge(connection, feature_id, self._time())

    def settle_feature(self, feature_id: int, outcome: FeatureOutcome) -> Feature:
        """Give a feature that no agent works on an outcome: a merge that met a conflict.

        Raises:
            RefusedError: an agent works on it.
        """
        with self._changing_features() as connection:
            feature = find_feature(connection, feature_id)
            if feature.agent_id:
                raise RefusedError(f"agent {feature.agent_id} works on feature {feature_id}")
            settle(connection, feature_id, outcome, self._time())
            return find_feature(connection, feature_id)

    def _insert(self, connection: Connection, drafts: Sequence[FeatureDraft]) -> list[int]:
        now = self._time()
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
        return ids

    def _update(self, connection: Connection, feature_id: int, **values: object) -> None:
        changed = connection.execute(
            update(FEATURES)
            .where(FEATURES.c.id == feature_id)
            .values(updated_at=self._time(), **values)
        )
        if not changed.rowcount:
            find_feature(connection, feature_id)


def _require_no_agent(connection: Connection, feature_id: int) -> None:
    at_work = connection.scalar(
        select(LIVE.c.agent_id).where(LIVE.c.feature_id == feature_id).limit(1)
    )
    if at_work:
        raise RefusedError(f"agent {at_work} works on feature {feature_id}", "Stop it first.")


def _names(connection: Connection) -> list[tuple[int, str]]:
    return [
        (row.id, row.name) for row in connection.execute(select(FEATURES.c.id, FEATURES.c.name))
    ]


def _draft_values(draft: FeatureDraft) -> dict[str, object]:
    return {
        "name": clean(draft.name.strip()),
        "description": clean(draft.description, DESCRIPTION_LIMIT),
        "steps": json.dumps([clean(step) for step in draft.steps]),
        "category": clean(draft.category),
        "priority": draft.priority,
        "enabled": draft.enabled,
        "backend": clean(draft.backend) or None,
        "model": clean(draft.model) or None,
        "base": clean(draft.base) or None,
    }
