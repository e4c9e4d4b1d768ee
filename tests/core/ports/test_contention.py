import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autocoder.core.errors import DatabaseError
from autocoder.core.models import Holder
from autocoder.core.ports.turns import Turns
from support import oracle
from support.churn import churn, open_ledger
from support.sockets import reserved_ports
from support.waiting import wait_until


@pytest.mark.timeout(300)
def test_eight_processes_never_get_the_same_port_and_none_is_locked_out(folder: Path) -> None:
    with reserved_ports(40) as ports:
        api, web = ports[:20], ports[20:]
        result = churn(folder / "ledger.db", api, web, processes=8, leases=200, seconds=240)
        assert result.errors == []
        assert result.collisions == []
        assert result.leases == 1600
        oracle.assert_no_port_has_two_holders(folder / "ledger.db")
        oracle.assert_only_permitted_ports(folder / "ledger.db", [api, web], 8888)


def test_a_ledger_locked_by_another_program_for_a_while_is_waited_for(folder: Path) -> None:
    path = folder / "ledger.db"
    with reserved_ports(4) as ports:
        allocator = open_ledger(path, ports[:2], ports[2:])
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(0.5, other.rollback).start()
            assert allocator.lease(Holder("a-1", "/project")).api_port == ports[0]
        allocator.close()


@contextlib.contextmanager
def locked_by_sqlite(path: Path) -> Iterator[None]:
    """Another program that writes."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextlib.contextmanager
def locked_by_a_turn(path: Path) -> Iterator[None]:
    """A process of ours that hangs in its turn."""
    turns = Turns(path)
    with turns.turn(30):
        yield
    turns.close()


LOCKS = pytest.mark.parametrize("locked", [locked_by_sqlite, locked_by_a_turn])
Locked = Callable[[Path], contextlib.AbstractContextManager[None]]


@LOCKS
def test_a_ledger_locked_for_ever_is_refused_with_a_remedy(locked: Locked, folder: Path) -> None:
    path = folder / "ledger.db"
    with reserved_ports(4) as ports:
        allocator = open_ledger(path, ports[:2], ports[2:], patience_s=0.3)
        with locked(path), pytest.raises(DatabaseError, match="is locked by another") as refusal:
            allocator.lease(Holder("a-1", "/project"))
        assert refusal.value.cause == "busy"
        assert "fuser" in refusal.value.hint
        assert allocator.lease(Holder("a-1", "/project")).api_port == ports[0]
        allocator.close()


@LOCKS
def test_only_one_of_many_calls_waits_for_a_ledger_that_stays_locked(
    locked: Locked, folder: Path
) -> None:
    path, threads = folder / "ledger.db", threading.active_count()
    with reserved_ports(4) as ports:
        allocator = open_ledger(path, ports[:2], ports[2:], patience_s=1.5)
        pair = allocator.lease(Holder("a-1", "/project"))
        with locked(path):
            took = [_refused_after(lambda: allocator.release("a-1", "/project")) for _ in range(9)]
            assert threading.active_count() <= threads + 1
        assert max(took[1:]) < took[0] / 3
        assert allocator.lease(Holder("a-1", "/project")) == pair
        allocator.close()
    wait_until(lambda: threading.active_count() == threads)


def _refused_after(call: Callable[[], object]) -> float:
    began = time.monotonic()
    with pytest.raises(DatabaseError):
        call()
    return time.monotonic() - began


def test_a_reader_gets_its_turn_among_writers(folder: Path) -> None:
    path = folder / "ledger.db"
    with reserved_ports(4) as ports:
        allocator = open_ledger(path, ports[:2], ports[2:])
        allocator.lease(Holder("a-1", "/project"))
        reader = open_ledger(path, ports[:2], ports[2:])
        with contextlib.closing(sqlite3.connect(path, check_same_thread=False)) as other:
            other.execute("BEGIN EXCLUSIVE")
            threading.Timer(1.0, other.rollback).start()
            assert len(reader.leases()) == 2
        allocator.close()
        reader.close()


def test_a_process_killed_inside_a_transaction_leaves_the_ledger_as_it_was(
    folder: Path,
) -> None:
    path = folder / "ledger.db"
    code = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from support.churn import open_ledger\n"
        "from autocoder.core.models import Holder\n"
        "first = int(sys.argv[2])\n"
        "allocator = open_ledger(Path(sys.argv[1]), range(first, first + 2), "
        "range(first + 2, first + 4))\n"
        "insert = allocator._ledger.insert\n"
        "def die(*given):\n"
        "    insert(*given)\n"
        "    os.kill(os.getpid(), 9)\n"
        "allocator._ledger.insert = die\n"
        "allocator.lease(Holder('doomed', '/project'))\n"
    )
    with reserved_ports(4) as ports:
        allocator = open_ledger(path, ports[:2], ports[2:])
        allocator.lease(Holder("a-1", "/project"))
        before = oracle.leases(path)
        child = subprocess.run(
            [sys.executable, "-c", code, str(path), str(ports[0])],
            env=os.environ | {"PYTHONPATH": str(Path(oracle.__file__).parents[1])},
            check=False,
        )
        assert child.returncode == -9
        assert oracle.leases(path) == before
        assert allocator.lease(Holder("a-2", "/project")).api_port == ports[1]
        oracle.assert_pairs_are_whole(path)
        allocator.close()
