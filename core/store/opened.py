"""An open project database, and how its parts get at it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import Connection

from autocoder.core.database import BUSY_TIMEOUT_S, open_database, readable, writable
from autocoder.core.store.migration import add_what_to_run, migrate_predecessor
from autocoder.core.store.rows import time_text
from autocoder.core.tables import PROJECT_TABLES

VERSION = 2


class OpenedDatabase:
    """What the parts of `ProjectStore` share."""

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float] = time.time,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        """Open or make the file; a predecessor's is migrated, with a copy kept beside it.

        A method waits `busy_timeout_s` for a program that has locked the file.
        """
        self.path = path
        self._now = now
        self._engine = open_database(
            path,
            PROJECT_TABLES,
            version=VERSION,
            migrations={0: migrate_predecessor, 1: add_what_to_run},
            busy_timeout_s=busy_timeout_s,
        )
        self._feature_changes = 0

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with readable(self._engine, self.path) as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        with writable(self._engine, self.path) as connection:
            yield connection

    @contextlib.contextmanager
    def _changing_features(self) -> Iterator[Connection]:
        self._feature_changes += 1
        with self._writing() as connection:
            yield connection

    def _time(self) -> str:
        return time_text(self._now())
