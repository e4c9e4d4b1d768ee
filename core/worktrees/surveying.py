"""What the worktrees of a project hold, for whoever cleans up; nothing is changed.

An answer is as of a moment: `Repository.remove` looks again before it removes.
"""

import os
from collections.abc import Collection, Mapping

from autocoder.core.errors import GitError
from autocoder.core.models import WorktreeStatus
from autocoder.core.worktrees.repository import Repository, Worktree

ENTRIES_COUNTED = 200_000
"""Files and folders of all worktrees together whose sizes are added up: about a second."""


def survey(
    repository: Repository, in_use: Collection[str], bases: Mapping[str, str] | None = None
) -> tuple[WorktreeStatus, ...]:
    """The worktrees we made that are on disk, by name. Takes a while: never on the loop's thread.

    `in_use` are ids of agents or paths of worktrees; `bases` the branches that are
    merged elsewhere than into the project's base. A worktree git cannot
    be asked about is `unknown`. Beyond `ENTRIES_COUNTED` sizes are too small.

    Raises:
        GitError: the worktrees cannot be listed.
    """
    ours = (tree for tree in repository.list() if tree.ours and not tree.missing)
    counted = _Sizes()
    return tuple(
        _status(repository.on((bases or {}).get(tree.branch, "")), tree, in_use, counted)
        for tree in sorted(ours, key=lambda tree: tree.path.name)
    )


def _status(
    repository: Repository, tree: Worktree, in_use: Collection[str], sizes: "_Sizes"
) -> WorktreeStatus:
    agent_id, path = tree.path.name, str(tree.path)
    dirty, merged, unknown = 0, False, ""
    try:
        dirty, merged = repository.dirty_files(tree.path), repository.has_commit(tree.commit)
    except GitError as error:
        unknown = error.message
    return WorktreeStatus(
        agent_id=agent_id,
        path=path,
        branch=tree.branch,
        bytes=sizes.of(path),
        dirty_files=dirty,
        merged=merged,
        in_use=agent_id in in_use or path in in_use,
        unknown=unknown,
    )


class _Sizes:
    """What is left of the entries that may be looked at."""

    def __init__(self) -> None:
        self._left = ENTRIES_COUNTED

    def of(self, path: str) -> int:
        """Bytes on disk below `path`; links count themselves, not what they lead to."""
        total, folders = 0, [path]
        while folders and self._left > 0:
            try:
                entries = os.scandir(folders.pop())
            except OSError:
                continue  # removed, or closed to us; the rest still counts
            with entries:
                for entry in entries:
                    self._left -= 1
                    try:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                    except OSError:
                        continue
        return total
