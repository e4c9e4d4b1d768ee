"""What may start and what waits for what among features.

A dependency is met by a feature that is done and not waiting to be merged: what
starts from base before then would start without the work it depends on. One that
was not chosen has that work in base by another variant.
"""

from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from sqlalchemy import ColumnElement, exists, or_, select

from autocoder.core.errors import UsageError
from autocoder.core.models import Feature, FeatureStatus
from autocoder.core.store.records import FeatureDraft, StuckFeature
from autocoder.core.store.rows import DEPENDENCIES, FEATURES, time_text

PRIORITY_LIMIT = 1_000_000_000
UNMERGED = "READY_FOR_VERIFICATION"
MERGED = "VERIFIED"
NOT_CHOSEN = "NOT_CHOSEN"

_needed = FEATURES.alias("needed")


def is_pending() -> ColumnElement[bool]:
    """SQL condition on a row of `features`."""
    return FEATURES.c.status == FeatureStatus.PENDING.value


def is_due(now: float) -> ColumnElement[bool]:
    """SQL condition on a row of `features`: its back-off is over."""
    due = FEATURES.c.next_attempt_at
    return or_(due.is_(None), due <= time_text(now, exact=True))


def has_unmet() -> ColumnElement[bool]:
    """SQL condition on a row of `features`: it waits for another one."""
    return exists(
        select(1)
        .select_from(DEPENDENCIES.outerjoin(_needed, _needed.c.id == DEPENDENCIES.c.depends_on_id))
        .where(
            DEPENDENCIES.c.feature_id == FEATURES.c.id,
            or_(
                _needed.c.id.is_(None),
                _needed.c.status != FeatureStatus.DONE.value,
                _needed.c.review_status == UNMERGED,
            ),
        )
        .correlate(FEATURES)
    )


def resolve(
    drafts: Sequence[FeatureDraft], known: Iterable[tuple[int, str]]
) -> list[tuple[set[int], set[int]]]:
    """For each draft the ids of features and the positions of drafts it depends on.

    `known` are the features there are, as (id, name).

    Raises:
        UsageError: a draft has no name or an absurd priority, one it depends on fits
            nothing or several features, or drafts wait in a circle.
    """
    for draft in drafts:
        if not draft.name.strip():
            raise UsageError("a feature needs a name")
        if abs(draft.priority) > PRIORITY_LIMIT:
            raise UsageError(f"{draft.name!r}: no priority is beyond {PRIORITY_LIMIT}")
    features = list(known)
    ids = {feature_id for feature_id, _ in features}
    in_batch = _by_name(enumerate(draft.name for draft in drafts))
    in_store = _by_name(features)
    resolved = []
    for position, draft in enumerate(drafts):
        existing: set[int] = set()
        batch = set(draft.after)
        for wanted in draft.depends_on:
            if isinstance(wanted, int):
                matches, target = ([wanted] if wanted in ids else []), existing
            elif wanted in in_batch:
                matches, target = in_batch[wanted], batch
            else:
                matches, target = in_store.get(wanted, []), existing
            if len(matches) != 1:
                raise UsageError(
                    f"{draft.name!r} depends on {wanted!r}, which "
                    + ("is the name of several features" if matches else "is no feature"),
                    "Name one feature, or give its number.",
                )
            target.update(matches)
        if batch and not 0 <= min(batch) <= max(batch) < len(drafts):
            raise UsageError(f"{draft.name!r} depends on a feature that is not in the list")
        if position in batch:
            raise UsageError(f"{draft.name!r} depends on itself")
        resolved.append((existing, batch))
    try:
        TopologicalSorter({i: batch for i, (_, batch) in enumerate(resolved)}).prepare()
    except CycleError as error:
        circle = " → ".join(drafts[position].name for position in reversed(error.args[1]))
        raise UsageError(
            f"features wait for each other in a circle: {circle}", "Drop one of the dependencies."
        ) from error
    return resolved


def stuck(features: Sequence[Feature]) -> tuple[StuckFeature, ...]:
    """Pending, enabled features that can never run, in the order given."""
    by_id = {feature.id: feature for feature in features}
    waiting = {
        feature.id: set(feature.depends_on)
        for feature in features
        if feature.status is FeatureStatus.PENDING and feature.enabled
    }
    dependents: dict[int, list[int]] = {}
    for feature_id, needs in waiting.items():
        for needed in needs:
            dependents.setdefault(needed, []).append(feature_id)
    met = [feature.id for feature in features if _will_be_met(feature)]
    met += [feature_id for feature_id, needs in waiting.items() if not needs]
    while met:
        done = met.pop()
        waiting.pop(done, None)
        for dependent in dependents.get(done, ()):
            if dependent in waiting:
                waiting[dependent].discard(done)
                if not waiting[dependent]:
                    met.append(dependent)
    return tuple(
        StuckFeature(feature, _why(feature, by_id, waiting))
        for feature in features
        if feature.id in waiting
    )


def _will_be_met(feature: Feature) -> bool:
    match feature.status:
        case FeatureStatus.DONE:
            return feature.review_status != UNMERGED
        case status:
            return status is FeatureStatus.IN_PROGRESS


def _why(feature: Feature, by_id: Mapping[int, Feature], waiting: Mapping[int, set[int]]) -> str:
    """Follow the chain of what is missing to its end."""
    chain = [feature.id]
    while True:
        needed = min(waiting[chain[-1]])
        if needed in chain:
            circle = " → ".join(str(link) for link in (*chain[chain.index(needed) :], needed))
            return f"waits in a circle: {circle}"
        if needed not in waiting:
            return f"waits for feature {needed}, which {_obstacle(by_id.get(needed))}"
        chain.append(needed)


def _obstacle(feature: Feature | None) -> str:
    match feature:
        case None:
            return "does not exist"
        case Feature(status=FeatureStatus.BLOCKED):
            return "is blocked"
        case Feature(status=FeatureStatus.DONE):
            return "is not merged into base yet"
        case _:
            return "is switched off"


def _by_name(pairs: Iterable[tuple[int, str]]) -> dict[str, list[int]]:
    named: dict[str, list[int]] = {}
    for number, name in pairs:
        named.setdefault(name, []).append(number)
    return named
