"""git worktrees and branches of a project, by the git command.

Nothing here switches, dirties or removes what is the user's: agents work in
worktrees beside the project, and a branch reaches base without touching a
checkout unless that checkout is clean and on base.
"""

from autocoder.core.worktrees.cleaning import Cleaned, clean_up, why_kept
from autocoder.core.worktrees.merging import (
    Candidate,
    Conflict,
    Merged,
    MergeResult,
    ReadyToMerge,
)
from autocoder.core.worktrees.opening import open_repository
from autocoder.core.worktrees.repository import Repository, Worktree, free_branch_name
from autocoder.core.worktrees.surveying import survey

__all__ = [
    "Candidate",
    "Cleaned",
    "Conflict",
    "MergeResult",
    "Merged",
    "ReadyToMerge",
    "Repository",
    "Worktree",
    "clean_up",
    "free_branch_name",
    "open_repository",
    "survey",
    "why_kept",
]
