"""Names for the branches of new agents, free by what git's threads said of the repository.

One listing serves every agent that starts within `GOOD_S`: names given meanwhile are
added to it. What somebody else makes in that time is not seen; nobody else makes
branches of such names.
"""

import time
from concurrent.futures import Future

from autocoder.core.git_threads import GitThreads
from autocoder.core.models import Feature
from autocoder.core.worktrees import Repository, free_branch_name

GOOD_S = 1.0


class BranchNames:
    """Called from the orchestrator's thread."""

    def __init__(self, repository: Repository, git: GitThreads) -> None:
        self._repository = repository
        self._git = git
        self._taken: set[str] = set()
        self._good_until = float("-inf")
        self._listing: Future[frozenset[str]] | None = None

    def known(self) -> bool:
        """Whether git has said lately which names are taken; it is asked where it has not.

        Raises:
            GitError: it could not say; the next call asks again.
        """
        if self._listing is not None and self._listing.done():
            listing, self._listing = self._listing, None
            self._take(listing.result())
        if time.monotonic() < self._good_until:
            return True
        if self._listing is None:
            self._listing = self._git.submit(self._repository.feature_branches)
        return False

    def give(self, feature: Feature) -> str:
        """A free name; where none is `known`, as for a human who waits, git is asked at once.

        Raises:
            GitError: it could not say.
        """
        if time.monotonic() >= self._good_until:
            self._take(self._repository.feature_branches())
        name = free_branch_name(feature.id, feature.name, self._taken)
        self._taken.add(name)
        return name

    def _take(self, names: frozenset[str]) -> None:
        self._taken = set(names)
        self._good_until = time.monotonic() + GOOD_S
