"""The host ledger as a file: opening, transactions, statements, and what damage does to it.

A ledger that is damaged, or vanishes while it is open, is begun anew, the damaged file
being kept beside it; its first rows are then told by the live workers themselves.
Nothing here decides about a port.
"""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    bindparam,
    delete,
    exc,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlmodel import SQLModel

from autocoder.core.database import (
    BUSY_TIMEOUT_S,
    check_integrity,
    open_database,
    readable,
    set_aside,
    writable,
)
from autocoder.core.errors import DatabaseError
from autocoder.core.models import Lease, LeaseState, PortRange, Role
from autocoder.core.tables import LEDGER_TABLES

T = TypeVar("T")
VERSION = 1
LEASES = SQLModel.metadata.tables["port_leases"]
_GAPS = SQLModel.metadata.tables["port_gaps"]
_RANGES = SQLModel.metadata.tables["port_ranges"]
_COUNTERS = SQLModel.metadata.tables["ledger_counters"]

EPOCH = "epoch"
FAILURES = "port_allocation_failures"
CONSECUTIVE = "consecutive_failures"

_host = LEASES.c.host_id == bindparam("host")
# Spelled out, not bound: SQLite uses the partial index only for the very same words.
_UNSETTLED: ColumnElement[bool] = literal_column("state <> 'leased'")
_SELECT_HELD = select(LEASES).where(
    _host,
    LEASES.c.project == bindparam("of"),
    LEASES.c.holder == bindparam("name"),
)
_SELECT_GAP = (
    select(_GAPS.c.start, _GAPS.c.until)
    .where(_GAPS.c.host_id == bindparam("host"), _GAPS.c.until > bindparam("above"))
    .order_by(_GAPS.c.until)
    .limit(1)
)
_SELECT_UNSETTLED = select(LEASES).where(_host, _UNSETTLED).order_by(LEASES.c.port)
_SELECT_RESTING = (
    select(LEASES)
    .where(
        _host,
        _UNSETTLED,
        LEASES.c.state == bindparam("wanted"),
        LEASES.c.port >= bindparam("low"),
        LEASES.c.port < bindparam("high"),
    )
    .order_by(LEASES.c.due_at, LEASES.c.port)
)
_SELECT_EXTERNAL = select(LEASES).where(
    _host, LEASES.c.project == "", LEASES.c.state == LeaseState.LEASED.value
)
_SELECT_RANGES = (
    select(_RANGES).where(_RANGES.c.host_id == bindparam("host")).order_by(_RANGES.c.added_at)
)
_COUNT_ROWS = select(func.count()).select_from(LEASES).where(_host)
_SUM_GAPS = select(func.sum(_GAPS.c.until - _GAPS.c.start)).where(
    _GAPS.c.host_id == bindparam("host")
)
_COUNT_UP = (
    upsert(_COUNTERS)
    .values(host_id=bindparam("host"), name=bindparam("name"), value=bindparam("first"))
    .on_conflict_do_update(
        index_elements=["host_id", "name"], set_={"value": _COUNTERS.c.value + 1}
    )
    .returning(_COUNTERS.c.value)
)
_RESET = (
    update(_COUNTERS)
    .where(
        _COUNTERS.c.host_id == bindparam("host"),
        _COUNTERS.c.name == bindparam("of"),
        _COUNTERS.c.value != 0,
    )
    .values(value=0)
)


class Ledger:
    """One host's rows in the file at `path`; safe from several threads and processes.

    `on_loss` writes the first rows of a ledger that takes the place of a lost one.

    Raises:
        DatabaseError: busy, unwritable, of a newer version; the file is unchanged.
    """

    def __init__(
        self,
        path: Path,
        host_id: str,
        *,
        on_loss: Callable[["Ledger", Connection], None],
        on_damage: Callable[[DatabaseError, Path], None],
    ) -> None:
        self.path = path
        self.host_id = host_id
        self._on_loss = on_loss
        self._on_damage = on_damage
        self._lock = threading.RLock()
        self._open_or_replace()

    def close(self) -> None:
        with self._lock:
            self._watch.close()
            self._engine.dispose()

    def write(self, action: Callable[[Connection], T]) -> T:
        """What `action` answers in one durable transaction; it may be called more than once.

        Raises:
            DatabaseError: the ledger is unchanged.
        """
        for last in (False, False, True):
            engine, inode = self._engine, self._inode
            try:
                with _turn(self.path), writable(engine, self.path) as connection:
                    answer = action(connection)
            except DatabaseError as error:
                # A row where a gap should be: the gaps are wrong, and opening mends them.
                gaps_lie = isinstance(error.__cause__, exc.IntegrityError)
                gone = error.cause == "damaged" or _inode(self.path) != inode
                if last or not (gone or gaps_lie):
                    raise
                self._reopen(inode)
                continue
            # A ledger that was moved away meanwhile no longer counts, nor what was written to it.
            if _inode(self.path) == inode:
                return answer
            self._reopen(inode)
        raise DatabaseError(
            f"{self.path} is moved away again and again",
            "Find the program that does it.",
            cause="other",
        )

    def read(self, query: Callable[[Connection], T]) -> T:
        """What `query` answers outside a transaction.

        Raises:
            DatabaseError: the file cannot be read.
        """
        inode = self._inode
        try:
            with readable(self._engine, self.path) as connection:
                return query(connection)
        except DatabaseError as error:
            if error.cause != "damaged" and _inode(self.path) == inode:
                raise
            self._reopen(inode)
        with readable(self._engine, self.path) as connection:
            return query(connection)

    def version(self) -> tuple[int, ...]:
        """Differs from the last answer when any process has written since; microseconds."""
        with self._lock:
            if (now := _inode(self.path)) != self._inode:
                self._reopen(self._inode)
                now = self._inode
            return (*now, int(self._watch.exec_driver_sql("PRAGMA data_version").scalar_one()))

    # ------------------------------------------------------------------ statements

    def held(self, connection: Connection, name: str, project: str) -> list[Row[Any]]:
        """The rows of a holder that are leased or releasing, api before web."""
        rows = connection.execute(_SELECT_HELD, {"host": self.host_id, "of": project, "name": name})
        return sorted(rows, key=lambda row: (row.role, row.epoch))

    def unleased(self, connection: Connection, span: PortRange) -> Iterator[int]:
        """Ports of the range without a row, lowest first; rows may be added while it runs."""
        above = span.start
        while above < span.end:
            gap = connection.execute(_SELECT_GAP, {"host": self.host_id, "above": above}).first()
            start, until = (gap.start, gap.until) if gap else (0, 65536)
            yield from range(max(above, start), min(until, span.end))
            above = until

    def resting(
        self, connection: Connection, state: LeaseState, span: PortRange
    ) -> Sequence[Row[Any]]:
        """Rows of that state in the range, the one due first first."""
        return connection.execute(
            _SELECT_RESTING,
            {"host": self.host_id, "wanted": state.value, "low": span.start, "high": span.end},
        ).all()

    def unsettled(self, connection: Connection) -> list[Row[Any]]:
        """Rows whose state may end by itself, and every lease of an external holder."""
        given = {"host": self.host_id}
        return [
            *connection.execute(_SELECT_UNSETTLED, given),
            *connection.execute(_SELECT_EXTERNAL, given),
        ]

    def all_rows(self, connection: Connection) -> Sequence[Row[Any]]:
        query = select(LEASES).where(_host).order_by(LEASES.c.port)
        return connection.execute(query, {"host": self.host_id}).all()

    def insert(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        connection.execute(insert(LEASES), [{"host_id": self.host_id, **row} for row in rows])

    def change(self, connection: Connection, row: Row[Any], values: Mapping[str, Any]) -> bool:
        """Write values to a row; False when somebody changed it since it was read."""
        return bool(
            connection.execute(update(LEASES).where(*self._same(row)).values(**values)).rowcount
        )

    def remove(self, connection: Connection, row: Row[Any]) -> bool:
        """Delete a row; False when somebody changed it since it was read."""
        return bool(connection.execute(delete(LEASES).where(*self._same(row))).rowcount)

    def _same(self, row: Row[Any]) -> tuple[Any, ...]:
        return (
            LEASES.c.host_id == self.host_id,
            LEASES.c.port == row.port,
            LEASES.c.state == row.state,
            LEASES.c.epoch == row.epoch,
            LEASES.c.changed_at == row.changed_at,
        )

    def ranges(self, connection: Connection) -> Sequence[Row[Any]]:
        """What the pools were grown by, oldest first."""
        return connection.execute(_SELECT_RANGES, {"host": self.host_id}).all()

    def add_range(
        self,
        connection: Connection,
        span: PortRange,
        role: Role,
        address: str,
        now: float,
        reason: str,
    ) -> None:
        connection.execute(
            insert(_RANGES).values(
                host_id=self.host_id,
                start=span.start,
                end=span.end,
                role=role.value,
                address=address,
                added_at=now,
                reason=reason,
            )
        )

    def remove_range(self, connection: Connection, start: int) -> None:
        connection.execute(
            delete(_RANGES).where(_RANGES.c.host_id == self.host_id, _RANGES.c.start == start)
        )

    def count_rows(self, connection: Connection, spans: Iterable[PortRange]) -> int:
        """How many ports of these ranges have a row."""
        return sum(
            connection.execute(
                select(func.count())
                .select_from(LEASES)
                .where(_host, LEASES.c.port >= span.start, LEASES.c.port < span.end),
                {"host": self.host_id},
            ).scalar_one()
            for span in spans
        )

    def count_up(self, connection: Connection, name: str, first: int = 1) -> int:
        """The counter's new value; `first` when it was never counted."""
        given = {"host": self.host_id, "name": name, "first": first}
        return int(connection.execute(_COUNT_UP, given).scalar_one())

    def reset(self, connection: Connection, name: str) -> None:
        connection.execute(_RESET, {"host": self.host_id, "of": name})

    def counters(self, connection: Connection) -> dict[str, int]:
        rows = connection.execute(
            select(_COUNTERS.c.name, _COUNTERS.c.value).where(_COUNTERS.c.host_id == self.host_id)
        )
        return {row.name: row.value for row in rows}

    # ------------------------------------------------------------------ opening

    def _open_or_replace(self, *, lost: bool = False) -> None:
        try:
            self._open(lost=lost)
        except DatabaseError as error:
            if error.cause != "damaged":
                raise
            with _turn(self.path):
                try:
                    self._open()
                except DatabaseError as again:
                    if again.cause != "damaged":
                        raise
                    stamp = f"{self.path.stat().st_mtime_ns}-{os.getpid()}"
                    kept = set_aside(self.path, stamp)
                    self._open(lost=True)
                    self._on_damage(again, kept)

    def _open(self, *, lost: bool = False) -> None:
        engine = open_database(self.path, LEDGER_TABLES, version=VERSION)
        try:
            check_integrity(engine, self.path)
            with readable(engine, self.path) as connection:
                gaps_lie = not self._gaps_fit(connection)
            if gaps_lie or lost:
                with writable(engine, self.path) as connection:
                    if not self._gaps_fit(connection):
                        self._mend_gaps(connection)
                    if lost and not self.counters(connection):
                        self._on_loss(self, connection)
            watch = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except DatabaseError:
            engine.dispose()
            raise
        self._engine = engine
        self._inode = _inode(self.path)
        self._watch = watch

    def _gaps_fit(self, connection: Connection) -> bool:
        """Whether rows and gaps add up; neither is what a host without any lease has."""
        given = {"host": self.host_id}
        rows = connection.execute(_COUNT_ROWS, given).scalar_one()
        gaps = connection.execute(_SUM_GAPS, given).scalar_one()
        return (rows, gaps) == (0, None) or rows + (gaps or 0) == 65536

    def _mend_gaps(self, connection: Connection) -> None:
        """Write the gaps anew; the triggers see every row once more."""
        rows = [dict(row._mapping) for row in self.all_rows(connection)]
        here = {"host": self.host_id}
        connection.execute(delete(_GAPS).where(_GAPS.c.host_id == bindparam("host")), here)
        connection.execute(delete(LEASES).where(_host), here)
        connection.execute(delete(_GAPS).where(_GAPS.c.host_id == bindparam("host")), here)
        if rows:
            connection.execute(insert(LEASES), rows)

    def _reopen(self, seen: tuple[int, int]) -> None:
        """Open what is at the path now, unless another thread has done so since `seen`."""
        with self._lock:
            if self._inode == seen:
                self.close()
                self._open_or_replace(lost=True)


def as_lease(row: Row[Any]) -> Lease:
    return Lease(
        port=row.port,
        role=Role(row.role),
        state=LeaseState(row.state),
        holder=row.holder,
        project=row.project,
        pid=row.pid,
        epoch=row.epoch,
        leased_at=row.leased_at,
        changed_at=row.changed_at,
        due_at=row.due_at,
        listener_pid=row.listener_pid,
        listener=row.listener,
    )


def _inode(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Wait for this process's turn to write; turns come in the order they were asked for.

    SQLite alone lets whoever waited longest sleep longest: of 32 writers some waited
    10 s and were then refused.

    Raises:
        DatabaseError: no turn came within `BUSY_TIMEOUT_S`, or the folder is not writable.
    """
    try:
        lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DatabaseError(
            f"{path} cannot be written: {error.strerror}",
            "Make the file and its folder writable.",
            cause="unwritable",
        ) from error
    try:
        if not _lock_within(lock, BUSY_TIMEOUT_S):
            raise DatabaseError(
                f"{path} is being written by another program for {BUSY_TIMEOUT_S:g} s",
                f"Find it with `fuser {path.name}.lock` in that folder.",
                cause="busy",
            )
        yield
    finally:
        os.close(lock)


def _lock_within(descriptor: int, seconds: float) -> bool:
    """Lock an open file; False when others kept it locked for so long."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    # The kernel's queue is fair but has no time limit, hence a thread that may be left in it.
    own = os.dup(descriptor)
    locked = threading.Event()

    def wait() -> None:
        try:
            fcntl.flock(own, fcntl.LOCK_EX)
            locked.set()
        finally:
            os.close(own)

    threading.Thread(target=wait, name="ledger-turn", daemon=True).start()
    return locked.wait(seconds)
