"""A backlog file that somebody goes on writing: what is new in it becomes features.

The file is looked at once a second by its signature, not by a watcher: the loop
wakes anyway, and a look is one system call. A watcher would know a second sooner,
for a thread of its own and all that a signature need not care for: a file that
another one replaces, a folder that is made later, a mount whose other hosts give
no events. What is taken out of the file stays in the backlog.
"""

import time
from collections.abc import Callable
from pathlib import Path

from autocoder.core.backlog import import_backlog
from autocoder.core.errors import UsageError
from autocoder.core.lifecycle import plural
from autocoder.core.models import Severity
from autocoder.core.notices import Notices
from autocoder.core.store import FeatureDraft, ProjectStore

LOOK_S = 1.0
NAMED = 3


class WatchedBacklog:
    """One file, from its content at the first look on; called from the orchestrator's thread."""

    def __init__(
        self,
        path: Path,
        store: ProjectStore,
        notices: Notices,
        check: Callable[[FeatureDraft], None],
    ) -> None:
        """`check` is that of `import_backlog`."""
        self._path = path
        self._store = store
        self._notices = notices
        self._check = check
        self._seen: tuple[int, ...] | None = None
        self._looked_at = float("-inf")

    def look(self) -> None:
        """Add what is new, if the file has changed; a notice says what, or what is wrong with it.

        Raises:
            DatabaseError: nothing was added; the next look tries again.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        try:
            found = self._path.stat()
        except OSError as error:
            self._complain(f"{self._path} cannot be read: {error.strerror}")
            self._seen = None
            return
        signature = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if signature == self._seen:
            return
        try:
            added = import_backlog(self._store, self._path, check=self._check).added
        except UsageError as error:
            # Most likely half written; what is wrong stays to be read until it is mended.
            self._complain(error.said)
        else:
            self._notices.settled("backlog")
            if added:
                names = ", ".join(feature.name for feature in added[:NAMED])
                more = f" and {len(added) - NAMED} more" if len(added) > NAMED else ""
                text = f"{plural(len(added), 'feature')} from {self._path.name}: {names}{more}"
                self._notices.say(Severity.INFO, "backlog", text)
        self._seen = signature

    def _complain(self, text: str) -> None:
        self._notices.stand(Severity.WARNING, "backlog", text)
