import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autocoder.core.errors import DatabaseError
from autocoder.core.models import Holder
from autocoder.core.ports import ledger as ledger_module
from support import oracle
from support.churn import churn, open_ledger
from support.sockets import reserved_ports


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


@pytest.mark.parametrize("lock", ["of SQLite", "of turns"])
def test_a_ledger_locked_for_ever_is_refused_with_a_remedy(
    lock: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "ledger.db"
    monkeypatch.setattr(ledger_module, "BUSY_TIMEOUT_S", 0.3)
    with reserved_ports(4) as ports:
        allocator = open_ledger(path, ports[:2], ports[2:])
        with contextlib.ExitStack() as stack:
            if lock == "of SQLite":
                other = stack.enter_context(contextlib.closing(sqlite3.connect(path)))
                other.execute("BEGIN IMMEDIATE")
            else:
                stack.enter_context(ledger_module.Turns(path).turn())
            with pytest.raises(DatabaseError) as refusal:
                allocator.lease(Holder("a-1", "/project"))
        assert refusal.value.cause == "busy"
        assert "fuser" in refusal.value.hint
        assert allocator.lease(Holder("a-1", "/project")).api_port == ports[0]
        allocator.close()


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
