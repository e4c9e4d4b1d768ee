"""Tells of files that were written, made or removed, from a thread of its own."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path


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

        self._changed()
        folders = {path.parent for path in self._paths if path.parent.is_dir()}
        if not folders:
            return
        for changes in watch(*folders, stop_event=self._stop, recursive=False):
            if any(Path(name) in self._paths for _, name in changes):
                self._changed()
