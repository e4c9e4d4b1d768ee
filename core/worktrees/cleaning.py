"""Worktrees that nobody needs any more are removed, each only where nothing would be lost."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autocoder.core.errors import AutocoderError
from autocoder.core.models import WorktreeStatus
from autocoder.core.worktrees.repository import Repository
from autocoder.core.worktrees.surveying import survey


@dataclass(frozen=True, slots=True)
class Cleaned:
    agent_id: str
    path: str
    """Empty: there is none of that name."""
    bytes: int
    kept: str
    """Why it stays; empty: it is gone."""


def clean_up(
    repository: Repository,
    agent_ids: Collection[str],
    in_use: Collection[str],
    bases: Mapping[str, str] | None = None,
) -> tuple[Cleaned, ...]:
    """Remove these worktrees, and their branches where base has them; what became of each.

    The other arguments are those of `survey`. One that cannot be removed keeps no other.

    Raises:
        GitError: the worktrees cannot be listed; none is removed.
    """
    found = {status.agent_id: status for status in survey(repository, in_use, bases)}
    cleaned = []
    for agent_id in dict.fromkeys(agent_ids):
        status = found.get(agent_id)
        if status is None:
            cleaned.append(Cleaned(agent_id, "", 0, "there is no worktree of that name"))
            continue
        base = repository.on((bases or {}).get(status.branch, ""))
        kept = why_kept(status, base.base) or _remove(base, status)
        cleaned.append(Cleaned(agent_id, status.path, status.bytes, kept))
    return tuple(cleaned)


def why_kept(status: WorktreeStatus, base: str) -> str:
    """What would be lost with it, for the human; empty where nothing would."""
    if status.in_use:
        return "an agent works in it"
    if status.unknown:
        return f"what it holds is not known: {status.unknown}"
    if status.dirty_files:
        noun = "file" if status.dirty_files == 1 else "files"
        return f"it has {status.dirty_files} uncommitted {noun}"
    return "" if status.merged else f"{base} has not got all its commits"


def _remove(repository: Repository, status: WorktreeStatus) -> str:
    path = repository.worktrees_dir / status.agent_id
    try:
        repository.remove(path)
        if status.branch:
            repository.delete_branch(status.branch)
    except AutocoderError as error:
        return error.message if path.exists() else ""
    return ""
