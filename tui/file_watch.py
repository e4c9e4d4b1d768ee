"""Tells of files that were written, made or removed, from a thread of its own."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

STEP_MS = 500
"""How often the kernel's word on changes is looked for; each time wakes the process."""


class FileWatch:
    def __init__(self, paths: Sequence[Path], changed: Callable[[], object]) -> None:
        """`changed` is called from the thread: once at its start, then after each change."""
        self._paths = frozenset(paths)
        self._changed = changed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        # Imported here, after the first paint: it is needed only from then on.
        from watchfiles import watch

        here: frozenset[Path] | None = None
        while not self._stop.is_set():
            folders = self._folders()
            # A folder that came or went took files with it.
            if self._there() != here:
                here = self._there()
                self._changed()
            watching = watch(*folders, stop_event=self._stop, recursive=False, step=STEP_MS)
            for changes in watching:
                if any(Path(name) in self._paths for _, name in changes):
                    here = self._there()
                    self._changed()
                if self._folders() != folders:
                    break

    def _there(self) -> frozenset[Path]:
        return frozenset(path for path in self._paths if path.exists())

    def _folders(self) -> frozenset[Path]:
        """Where the files are, or as near to it as there is a folder."""
        return frozenset(
            next(folder for folder in path.parents if folder.is_dir()) for path in self._paths
        )
