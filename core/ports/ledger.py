"""The host ledger as a file: opening, transactions, statements, and what damage does to it.

A ledger that is damaged, or vanishes while it is open, is begun anew, the damaged file
being kept beside it; its first rows are then told by the live workers themselves.
Statements are written in SQLAlchemy Core, compiled once, and run by the driver: through
the engine a lease costs three times its transaction. Nothing here decides about a port.
"""

import contextlib
import functools
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    PoolProxiedConnection,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlmodel import SQLModel

from autocoder.core.database import (
    BUSY_TIMEOUT_S,
    check_integrity,
    open_database,
    set_aside,
    translated,
)
from autocoder.core.errors import DatabaseError
from autocoder.core.models import Lease, LeaseState, PortRange, Role
from autocoder.core.ports.turns import Turns
from autocoder.core.tables import LEDGER_TABLES

T = TypeVar("T")
Connection = sqlite3.Connection
VERSION = 1
READ_PATIENCE_S = 0.25
"""How long SQLite itself retries a read before the reader asks for a turn."""
HURRY_S = 0.02
"""How long a call waits for a ledger in which nobody wrote while another waited in vain, ..."""
HURRY_FOR = 4.0
"""... for that many times its usual patience."""

EPOCH = "epoch"
FAILURES = "port_allocation_failures"
CONSECUTIVE = "consecutive_failures"


class LeaseRow(NamedTuple):
    """A row of `port_leases`, as read or as to be written; columns are the table's.

    Spelled out beside it, and held to it by a test: an object of the mapped class takes a
    hundred times as long to make, and a tuple made from the table would have no types.
    """

    host_id: str
    port: int
    role: str
    state: str
    address: str = ""
    holder: str = ""
    project: str = ""
    pid: int | None = None
    pid_start: int | None = None
    boot_id: str = ""
    epoch: int = 0
    leased_at: float | None = None
    changed_at: float = 0.0
    due_at: float | None = None
    listener_pid: int | None = None
    listener: str = ""


class RangeRow(NamedTuple):
    """What a pool was grown by, a row of `port_ranges`."""

    host_id: str
    start: int
    end: int
    role: str
    address: str
    added_at: float
    reason: str

    @property
    def span(self) -> PortRange:
        return PortRange(self.start, self.end)


_LEASES = SQLModel.metadata.tables["port_leases"]
_GAPS = SQLModel.metadata.tables["port_gaps"]
_RANGES = SQLModel.metadata.tables["port_ranges"]
_COUNTERS = SQLModel.metadata.tables["ledger_counters"]
_DIALECT = dialect(paramstyle="named")


def _sql(statement: ClauseElement) -> str:
    return str(statement.compile(dialect=_DIALECT))


_host = _LEASES.c.host_id == bindparam("host")
_of_host = _GAPS.c.host_id == bindparam("host")
_columns = [_LEASES.c[name] for name in LeaseRow._fields]
# Signed, or SQLite prefers the primary key to the index and reads every row of the host.
_signed_host: ColumnElement[bool] = literal_column("+port_leases.host_id") == bindparam("host")
# Spelled out, not bound: SQLite uses the partial index only for the very same words.
_unsettled: ColumnElement[bool] = literal_column("state <> 'leased'")

_ROW = _sql(select(*_columns).where(_host, _LEASES.c.port == bindparam("port")))
_ALL = _sql(select(*_columns).where(_host).order_by(_LEASES.c.port))
_HELD = _sql(
    select(*_columns)
    .where(
        _host, _LEASES.c.project == bindparam("project"), _LEASES.c.holder == bindparam("holder")
    )
    .order_by(_LEASES.c.role)
)
_UNSETTLED = _sql(select(*_columns).where(_signed_host, _unsettled).order_by(_LEASES.c.port))
_OUTSIDE = _sql(
    select(*_columns).where(
        _signed_host,
        _LEASES.c.project == literal_column("''"),
        _LEASES.c.state == bindparam("state"),
    )
)
_RESTING = _sql(
    select(*_columns)
    .where(
        _signed_host,
        _unsettled,
        _LEASES.c.state == bindparam("state"),
        _LEASES.c.role == bindparam("role"),
        _LEASES.c.port >= bindparam("low"),
        _LEASES.c.port < bindparam("high"),
    )
    .order_by(_LEASES.c.due_at)
)
_INSERT = _sql(insert(_LEASES).values({name: bindparam(name) for name in LeaseRow._fields}))
_COUNT = _sql(
    select(func.count())
    .select_from(_LEASES)
    .where(_host, _LEASES.c.port >= bindparam("low"), _LEASES.c.port < bindparam("high"))
)
_GAP = _sql(
    select(_GAPS.c.start, _GAPS.c.until)
    .where(_of_host, _GAPS.c.until > bindparam("above"))
    .order_by(_GAPS.c.until)
)
_SUM_GAPS = _sql(select(func.sum(_GAPS.c.until - _GAPS.c.start)).where(_of_host))
_DROP_GAPS = _sql(delete(_GAPS).where(_of_host))
_DROP_ROWS = _sql(delete(_LEASES).where(_host))
_GROWTH = _sql(
    select(*(_RANGES.c[name] for name in RangeRow._fields))
    .where(_RANGES.c.host_id == bindparam("host"))
    .order_by(_RANGES.c.added_at)
)
_GROW = _sql(insert(_RANGES).values({name: bindparam(name) for name in RangeRow._fields}))
_SHRINK = _sql(
    delete(_RANGES).where(
        _RANGES.c.host_id == bindparam("host"), _RANGES.c.start == bindparam("first")
    )
)
_COUNT_UP = _sql(
    upsert(_COUNTERS)
    .values(host_id=bindparam("host"), name=bindparam("name"), value=bindparam("first"))
    .on_conflict_do_update(
        index_elements=["host_id", "name"],
        set_={"value": literal_column("ledger_counters.value + 1")},
    )
    .returning(_COUNTERS.c.value)
)
_RESET = _sql(
    update(_COUNTERS)
    .where(
        _COUNTERS.c.host_id == bindparam("host"),
        _COUNTERS.c.name == bindparam("of"),
        _COUNTERS.c.value > bindparam("nothing"),
    )
    .values(value=bindparam("nothing"))
)
_TALLIES = _sql(
    select(_COUNTERS.c.name, _COUNTERS.c.value).where(_COUNTERS.c.host_id == bindparam("host"))
)

_unchanged = [
    _host,
    *(
        _LEASES.c[name] == bindparam(f"was_{name}")
        for name in ("port", "state", "epoch", "changed_at")
    ),
]
_REMOVE = _sql(delete(_LEASES).where(*_unchanged))


@functools.cache
def _change(columns: tuple[str, ...]) -> str:
    return _sql(
        update(_LEASES).where(*_unchanged).values({name: bindparam(name) for name in columns})
    )


class Ledger:
    """One host's rows in the file at `path`; safe from several threads and processes.

    `on_loss` writes the first rows of a ledger that takes the place of a lost one;
    `on_damage` is told of a damaged file and where it is kept. A call waits `patience_s`
    for a file that others lock; once one has waited in vain, the next hardly do for a while.

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
        patience_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        self.path = path
        self.host_id = host_id
        self._on_loss = on_loss
        self._on_damage = on_damage
        self._writing = threading.RLock()
        self._reading = threading.RLock()
        self._turns = Turns(path)
        self._borrowed: list[PoolProxiedConnection] = []
        self._patience_s = patience_s
        self._hurry_until = 0.0
        self._busy_timeouts: dict[Connection, float] = {}
        self._openings = 0
        self._inode: tuple[int, ...] = ()
        self._written_at = self._written_version = 0
        self._read_at: tuple[int, ...] | None = None
        self._read_version = 0
        self._open_or_replace()

    def close(self) -> None:
        with self._writing, self._reading:
            self._release_connections()
            self._engine.dispose()
            self._turns.close()

    def write(self, action: Callable[[Connection], T]) -> T:
        """What `action` answers in one durable transaction; it may be called more than once.

        Raises:
            DatabaseError: the ledger is unchanged.
        """
        with self._writing:
            for last in (False, False, True):
                inode = self._inode
                try:
                    with self._turn() as left_s, self._transaction(left_s) as connection:
                        self._refuse_touched(connection)
                        answer = action(connection)
                except DatabaseError as error:
                    # A row where a gap should be: the gaps are wrong, and opening mends them.
                    gaps_lie = isinstance(error.__cause__, sqlite3.IntegrityError)
                    gone = error.cause == "damaged" or _inode(self.path) != inode
                    if last or not (gone or gaps_lie):
                        raise
                else:
                    *found, self._written_at = _stamp(self.path)
                    if tuple(found) == inode:
                        return answer
                # What was written to a file that was moved away meanwhile does not count.
                self._reopen()
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
            return self._ask(query, within_s=min(READ_PATIENCE_S, self._patience()))
        except DatabaseError as error:
            gone = error.cause == "damaged" or _inode(self.path) != inode
            if not gone and error.cause != "busy":
                raise
        with self._writing:
            if gone and self._inode == inode:
                self._reopen()
            # Between two writers: a queue of them would let a reader wait for ever.
            with self._turn() as left_s:
                return self._ask(query, within_s=left_s)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[float]:
        """This process's turn at the file, and for how long SQLite may wait in it."""
        began, patience_s, before = time.monotonic(), self._patience(), _stamp(self.path)
        try:
            with self._turns.turn(patience_s):
                yield max(HURRY_S, patience_s - (time.monotonic() - began))
        except DatabaseError as error:
            # Where others wrote meanwhile there is a queue, in which the next call may be lucky.
            stuck = error.cause == "busy" and _stamp(self.path) == before
            if stuck and patience_s > HURRY_S:
                self._hurry_until = time.monotonic() + HURRY_FOR * self._patience_s
            raise
        self._hurry_until = 0.0

    def _patience(self) -> float:
        return HURRY_S if time.monotonic() < self._hurry_until else self._patience_s

    def _ask(self, query: Callable[[Connection], T], *, within_s: float) -> T:
        with self._reading, translated(self.path):
            self._wait_at_most(self._reader, within_s)
            return query(self._reader)

    def _wait_at_most(self, connection: Connection, seconds: float) -> None:
        seconds = round(seconds, 2)
        if self._busy_timeouts.get(connection) != seconds:
            connection.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
            self._busy_timeouts[connection] = seconds

    def version(self) -> tuple[int, ...]:
        """Differs from the last answer when any process has written since; microseconds."""
        stamp = _stamp(self.path)
        if stamp[:2] != self._inode:
            with self._writing:
                if _inode(self.path) != self._inode:
                    self._reopen()
        version = self.read(_data_version)
        if self._read_at not in (None, stamp) and version == self._read_version:
            with self._writing:
                self._reopen()
            version = self.read(_data_version)
        # A commit in between leaves a time that proves nothing.
        self._read_at = stamp if _stamp(self.path) == stamp else None
        self._read_version = version
        return (self._openings, *self._inode, version)

    def _refuse_touched(self, connection: Connection) -> None:
        """Doubt a file that was written to by other means than SQLite's.

        Pages that SQLite remembers hide such damage until somebody else meets it.

        Raises:
            DatabaseError: it was; opening it anew finds out what is left.
        """
        *_, written_at = _stamp(self.path)
        if written_at == self._written_at:
            return
        version = _data_version(connection)
        if version == self._written_version:
            raise DatabaseError(f"{self.path} was written to from outside", cause="damaged")
        self._written_at, self._written_version = written_at, version

    # ------------------------------------------------------------------ statements

    def row(self, connection: Connection, port: int) -> LeaseRow | None:
        """What is written about a port; None for one that nobody has or had lately."""
        return next(iter(self._rows(connection, _ROW, port=port)), None)

    def held(self, connection: Connection, holder: str, project: str) -> list[LeaseRow]:
        """The rows of a holder that are leased or releasing, api before web."""
        return self._rows(connection, _HELD, holder=holder, project=project)

    def unleased(self, connection: Connection, span: PortRange) -> Iterator[int]:
        """Ports of the range without a row, lowest first; rows may be added while it runs."""
        above = span.start
        while above < span.end:
            given = {"host": self.host_id, "above": above}
            start, until = connection.execute(_GAP, given).fetchone() or (0, 65536)
            yield from range(max(above, start), min(until, span.end))
            above = until

    def resting(
        self, connection: Connection, state: LeaseState, role: Role, span: PortRange
    ) -> Iterator[LeaseRow]:
        """Rows of that state in the range, the one due first first; read one by one."""
        given = {"state": state.value, "role": role.value, "low": span.start, "high": span.end}
        found = connection.execute(_RESTING, {"host": self.host_id, **given})
        yield from map(LeaseRow._make, found)

    def unsettled(self, connection: Connection) -> list[LeaseRow]:
        """Rows whose state may end by itself, and every lease of an outside holder."""
        outside = self._rows(connection, _OUTSIDE, state=LeaseState.LEASED.value)
        return self._rows(connection, _UNSETTLED) + outside

    def all_rows(self, connection: Connection) -> list[LeaseRow]:
        return self._rows(connection, _ALL)

    def insert(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        full = [LeaseRow(host_id=self.host_id, **row)._asdict() for row in rows]
        connection.executemany(_INSERT, full)

    def change(self, connection: Connection, row: LeaseRow, values: Mapping[str, Any]) -> bool:
        """Write values to a row; False when somebody changed it since it was read."""
        statement = _change(tuple(sorted(values)))
        return bool(connection.execute(statement, {**values, **self._as_read(row)}).rowcount)

    def remove(self, connection: Connection, row: LeaseRow) -> bool:
        """Delete a row; False when somebody changed it since it was read."""
        return bool(connection.execute(_REMOVE, self._as_read(row)).rowcount)

    def growth(self, connection: Connection) -> list[RangeRow]:
        """What the pools were grown by, oldest first."""
        return [RangeRow(*row) for row in connection.execute(_GROWTH, {"host": self.host_id})]

    def add_range(
        self,
        connection: Connection,
        span: PortRange,
        role: Role,
        address: str,
        now: float,
        reason: str,
    ) -> None:
        row = RangeRow(self.host_id, span.start, span.end, role.value, address, now, reason)
        connection.execute(_GROW, row._asdict())

    def remove_range(self, connection: Connection, first: int) -> None:
        connection.execute(_SHRINK, {"host": self.host_id, "first": first})

    def count_rows(self, connection: Connection, spans: Iterable[PortRange]) -> int:
        """How many ports of these ranges have a row."""
        counts = [
            connection.execute(
                _COUNT, {"host": self.host_id, "low": span.start, "high": span.end}
            ).fetchone()[0]
            for span in spans
        ]
        return sum(counts)

    def count_up(self, connection: Connection, name: str, first: int = 1) -> int:
        """The counter's new value; `first` when it was never counted."""
        given = {"host": self.host_id, "name": name, "first": first}
        (value,) = connection.execute(_COUNT_UP, given).fetchone()
        return int(value)

    def reset(self, connection: Connection, name: str) -> None:
        connection.execute(_RESET, {"host": self.host_id, "of": name, "nothing": 0})

    def counters(self, connection: Connection) -> dict[str, int]:
        return dict(connection.execute(_TALLIES, {"host": self.host_id}).fetchall())

    def _rows(self, connection: Connection, statement: str, **given: object) -> list[LeaseRow]:
        found = connection.execute(statement, {"host": self.host_id, **given})
        return [LeaseRow._make(row) for row in found]

    def _as_read(self, row: LeaseRow) -> dict[str, Any]:
        return {
            "host": self.host_id,
            "was_port": row.port,
            "was_state": row.state,
            "was_epoch": row.epoch,
            "was_changed_at": row.changed_at,
        }

    # ------------------------------------------------------------------ opening

    @contextlib.contextmanager
    def _transaction(self, within_s: float) -> Iterator[Connection]:
        with translated(self.path):
            writer = self._writer
            self._wait_at_most(writer, within_s)
            writer.execute("BEGIN IMMEDIATE")
            try:
                yield writer
                writer.execute("COMMIT")
            except BaseException:
                writer.rollback()
                raise

    def _open_or_replace(self, *, lost: bool = False) -> None:
        try:
            self._open(lost=lost)
        except DatabaseError as error:
            if error.cause != "damaged":
                raise
            with self._turn():
                self._replace(lost=lost)

    def _replace(self, *, lost: bool) -> None:
        """Open it, or where it is still damaged begin anew; for one process at a time."""
        try:
            self._open(lost=lost)
        except DatabaseError as error:
            if error.cause != "damaged":
                raise
            kept = set_aside(self.path, f"{self.path.stat().st_mtime_ns}-{os.getpid()}")
            self._open(lost=True)
            self._on_damage(error, kept)

    def _open(self, *, lost: bool) -> None:
        engine = open_database(
            self.path, LEDGER_TABLES, version=VERSION, busy_timeout_s=self._patience_s
        )
        self._engine = engine
        try:
            check_integrity(engine, self.path)
            # Kept from the pool for good: a checked-out connection is worth a tenth of a lease.
            self._borrowed = [engine.raw_connection(), engine.raw_connection()]
            self._writer, self._reader = (
                _driver_connection(borrowed.driver_connection) for borrowed in self._borrowed
            )
            with translated(self.path):
                fits = self._gaps_fit(self._reader)
            if lost or not fits:
                with self._transaction(self._patience_s) as connection:
                    self._begin_anew(connection, lost=lost)
            *inode, self._written_at = _stamp(self.path)
            with translated(self.path):
                self._written_version = _data_version(self._writer)
        except DatabaseError:
            engine.dispose()
            raise
        self._openings += 1
        self._inode = tuple(inode)
        self._read_at = None

    def _begin_anew(self, connection: Connection, *, lost: bool) -> None:
        if not self._gaps_fit(connection):
            rows = self.all_rows(connection)
            for statement in (_DROP_ROWS, _DROP_GAPS):
                connection.execute(statement, {"host": self.host_id})
            connection.executemany(_INSERT, [row._asdict() for row in rows])
        if lost and not self.counters(connection):
            self._on_loss(self, connection)

    def _gaps_fit(self, connection: Connection) -> bool:
        """Whether rows and gaps add up; neither is what a host without any lease has."""
        given = {"host": self.host_id, "low": 0, "high": 65536}
        rows = connection.execute(_COUNT, given).fetchone()[0]
        gaps = connection.execute(_SUM_GAPS, given).fetchone()[0]
        return (rows, gaps) == (0, None) or rows + (gaps or 0) == 65536

    def _reopen(self) -> None:
        """Open what is at the path now; the caller is the only writer of this process."""
        with self._reading:
            self._inode = ()  # where it cannot be opened now, the next call tries again
            self._release_connections()
            self._engine.dispose()
            self._open_or_replace(lost=True)

    def _release_connections(self) -> None:
        self._busy_timeouts.clear()
        while self._borrowed:
            self._borrowed.pop().invalidate()


def as_lease(row: LeaseRow) -> Lease:
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


def _driver_connection(connection: object) -> Connection:
    if not isinstance(connection, sqlite3.Connection):
        raise TypeError(f"{connection!r} is no connection of sqlite3")
    return connection


def _data_version(connection: Connection) -> int:
    """Differs from the last answer when another connection has written since."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _inode(path: Path) -> tuple[int, ...]:
    return _stamp(path)[:2]


def _stamp(path: Path) -> tuple[int, ...]:
    """Device, inode and time of the last write; zeros where there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116  # asked at every write
    except OSError:
        return (0, 0, 0)
    return (found.st_dev, found.st_ino, found.st_mtime_ns)
