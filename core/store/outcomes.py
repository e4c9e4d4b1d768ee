"""How an attempt ends for its feature: done, to be tried again, or blocked."""

from sqlalchemy import Connection, select, update

from autocoder.core.models import FeatureStatus
from autocoder.core.store.dependencies import MERGED, UNMERGED
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
                "review_status": MERGED if merged else UNMERGED,
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
