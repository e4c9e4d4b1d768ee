"""How an attempt ends for its feature: done, to be tried again, or blocked."""

from sqlalchemy import ColumnElement, Connection, and_, exists, select, update

from autocoder.core.models import FeatureStatus
from autocoder.core.store.dependencies import MERGED, NOT_CHOSEN, UNMERGED
from autocoder.core.store.records import (
    SAME_FAILURE_LIMIT,
    Failed,
    FeatureOutcome,
    Finished,
    Requeued,
)
from autocoder.core.store.rows import FEATURES, clean, time_text


def settle(connection: Connection, feature_id: int, outcome: FeatureOutcome, at: str) -> None:
    """Give the feature its outcome; nobody works on it any more."""
    match outcome:
        case Finished(branch, merged):
            values: dict[str, object] = {
                "status": FeatureStatus.DONE.value,
                "passes": True,
                "completed_at": at,
                "branch_name": branch,
                "review_status": _review(connection, feature_id, merged),
                "last_error": None,
                "last_error_key": None,
                "same_error_streak": 0,
                "same_diff_streak": 0,
                "next_attempt_at": None,
            }
        case Failed():
            values = _failure(connection, feature_id, outcome)
        case Requeued(_, retry_at):
            values = {"status": FeatureStatus.PENDING.value, "next_attempt_at": _exact(retry_at)}
    connection.execute(
        update(FEATURES)
        .where(FEATURES.c.id == feature_id)
        .values(assigned_agent_id=None, assigned_at=None, updated_at=at, **values)
    )


def merge(connection: Connection, feature_id: int, at: str) -> tuple[str, ...]:
    """The branch of a done feature is in base; the branches of variants that now are not chosen."""
    unmerged = and_(_is_variant_of(connection, feature_id), FEATURES.c.review_status == UNMERGED)
    branches = tuple(connection.scalars(select(FEATURES.c.branch_name).where(unmerged)))
    for condition, review in ((FEATURES.c.id == feature_id, MERGED), (unmerged, NOT_CHOSEN)):
        connection.execute(
            update(FEATURES).where(condition).values(review_status=review, updated_at=at)
        )
    return branches


def _review(connection: Connection, feature_id: int, merged: bool) -> str:
    if merged:
        return MERGED
    chosen = and_(_is_variant_of(connection, feature_id), FEATURES.c.review_status == MERGED)
    return NOT_CHOSEN if connection.scalar(select(exists().where(chosen))) else UNMERGED


def _is_variant_of(connection: Connection, feature_id: int) -> ColumnElement[bool]:
    """SQL condition on a row of `features`: it is another variant of the same task."""
    first = connection.scalar(select(FEATURES.c.variant_of).where(FEATURES.c.id == feature_id))
    return and_(FEATURES.c.variant_of == (first or 0), FEATURES.c.id != feature_id)


def _failure(connection: Connection, feature_id: int, failed: Failed) -> dict[str, object]:
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
    error_key = clean(failed.error_key)
    same_error = _streak(error_key, before.last_error_key, before.same_error_streak)
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
        "last_error_key": error_key,
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
