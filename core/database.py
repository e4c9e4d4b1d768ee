"""How this program opens an SQLite file; `store` and `ports` both come through here.

Every write transaction is `BEGIN IMMEDIATE`: SQLite's deferred default lets two
readers upgrade at once, and one of them then fails whatever the busy timeout.
The journal is a rollback journal, not WAL: many short-lived processes write, and
SQLite before 3.51.3 can corrupt a WAL that is reset while another one checkpoints.
It is kept and blanked at each commit instead of deleted: as durable, and a tenth
of the time where removing a file costs a flush of its folder.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc
from sqlmodel import SQLModel

from autocoder.core.errors import DatabaseError

BUSY_TIMEOUT_S = 10.0


class Migration(Protocol):
    def __call__(self, connection: Connection) -> None: ...


def open_database(
    path: Path,
    tables: Sequence[type[SQLModel]],
    *,
    version: int,
    migrations: Mapping[int, Migration] | None = None,
    busy_timeout_s: float = BUSY_TIMEOUT_S,
) -> Engine:
    """Open or make the file; afterwards it has `tables` and is of schema `version`.

    `migrations[n]` brings a file of version n to n + 1; before the first one runs
    what is in it is copied to `<name>.v<n>.bak`. Safe from several processes at once.

    Raises:
        DatabaseError: damaged, locked, unwritable, or of a newer version; the
            file is unchanged.
    """
    _make_folder(path)
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": busy_timeout_s, "check_same_thread": False},
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin_immediate)
    metadata_tables = [SQLModel.metadata.tables[str(table.__tablename__)] for table in tables]
    try:
        with readable(engine, path) as connection:
            found = _user_version(connection)
            known = {row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master")}
        if found > version:
            raise DatabaseError(
                f"{path} is of schema version {found}; this program knows up to {version}",
                "Start the newer autocoder-tui that made it, or move the file away.",
                cause="newer",
            )
        with readable(engine, path) as connection:
            if connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal":
                connection.exec_driver_sql("PRAGMA journal_mode = PERSIST")
        missing = any(table.name not in known for table in metadata_tables)
        if missing or found < version:
            with writable(engine, path) as connection:
                found = _user_version(connection)
                if found < version and known and migrations:
                    _copy(path, path.with_name(f"{path.name}.v{found}.bak"))
                for step in range(found, version):
                    if known and migrations and step in migrations:
                        migrations[step](connection)
                SQLModel.metadata.create_all(connection, tables=metadata_tables)
                connection.exec_driver_sql(f"PRAGMA user_version = {version}")
    except DatabaseError:
        engine.dispose()
        raise
    return engine


@contextlib.contextmanager
def writable(engine: Engine, path: Path) -> Iterator[Connection]:
    """One write transaction, begun at once; committed and durable when the block ends.

    Raises:
        DatabaseError: the transaction was rolled back.
    """
    with translated(path), engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def readable(engine: Engine, path: Path) -> Iterator[Connection]:
    """A connection for single statements that only read, without a transaction.

    Raises:
        DatabaseError: the file cannot be read.
    """
    with translated(path), engine.connect() as connection:
        yield connection.execution_options(isolation_level="AUTOCOMMIT")


def check_integrity(engine: Engine, path: Path) -> None:
    """Read every page once, some milliseconds for a small file.

    Raises:
        DatabaseError: the file is damaged; it is unchanged.
    """
    with readable(engine, path) as connection:
        verdict = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
    if verdict != "ok":
        raise _damaged(path, str(verdict))


def network_file_system(path: Path) -> str | None:
    """Type of the network file system that `path` is on, None for a local or unknown one.

    SQLite's locks do not reliably exclude other hosts there.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    best, kind = "", ""
    for line in mounts.splitlines():
        mount, _, source = line.partition(" - ")
        point = mount.split()[4].replace("\\040", " ")
        if len(point) >= len(best) and path.absolute().is_relative_to(point):
            best, kind = point, source.split()[0]
    return kind if kind.removeprefix("fuse.") in _NETWORK_FILE_SYSTEMS else None


_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "sshfs", "9p", "afs", "ceph", "glusterfs"}
    | {"lustre", "beegfs", "gpfs", "ocfs2", "gfs2"}
)


def set_aside(path: Path, stamp: str) -> Path:
    """Move a damaged file and its journal out of the way; nothing is deleted."""
    kept = path.with_name(f"{path.name}.damaged-{stamp}")
    for suffix in ("", "-journal", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            source.rename(kept.with_name(kept.name + suffix))
    return kept


def _copy(source: Path, target: Path) -> None:
    """Copy the committed content, which in WAL mode is not all in the file itself."""
    unfinished = target.with_name(f"{target.name}.part")
    unfinished.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(source)) as reader,
        contextlib.closing(sqlite3.connect(unfinished)) as writer,
    ):
        reader.backup(writer)
    unfinished.replace(target)


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise DatabaseError(
            f"{path.parent} cannot be made: {error.strerror}",
            "Free the path or make its parent writable.",
            cause="unwritable",
        ) from error
    if path.is_dir():
        raise DatabaseError(
            f"{path} is a folder, not a database file", "Move it away.", cause="unwritable"
        )


def _configure(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver must not begin transactions of its own; `_begin_immediate` does.
    connection.isolation_level = None
    for pragma in ("foreign_keys = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")
    # A WAL is left to `open_database`, which first sees whether it may change the file.
    if connection.execute("PRAGMA journal_mode").fetchone() == ("delete",):
        connection.execute("PRAGMA journal_mode = PERSIST")


def _begin_immediate(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _user_version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite raises inside into a `DatabaseError` about the file."""
    try:
        yield
    except exc.DBAPIError as error:
        raise _as_database_error(error.orig or error, path) from error
    except sqlite3.Error as error:
        raise _as_database_error(error, path) from error


def _as_database_error(error: BaseException, path: Path) -> DatabaseError:
    text = str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    match code:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return DatabaseError(
                f"{path} is locked by another program",
                f"Find it with `fuser {path.name}` in that folder and let it finish.",
                cause="busy",
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _damaged(path, text)
        case sqlite3.SQLITE_FULL:
            return DatabaseError(f"{path}: the disk is full", "Free some space.", cause="full")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            owner = "" if os.access(path.parent, os.W_OK) else f" ({path.parent} is not writable)"
            return DatabaseError(
                f"{path} cannot be written: {text}{owner}",
                "Make the file and its folder writable.",
                cause="unwritable",
            )
        case _:
            return DatabaseError(f"{path}: {text}", cause="other")


def _damaged(path: Path, text: str) -> DatabaseError:
    return DatabaseError(
        f"{path} is damaged: {text}", "Move it away, or restore a copy.", cause="damaged"
    )
