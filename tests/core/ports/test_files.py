"""What becomes of the ledger when its file is not what it should be."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from autocoder.core.database import network_file_system
from autocoder.core.errors import DatabaseError
from autocoder.core.models import Holder, LeaseState
from autocoder.core.ports import PortAllocator
from autocoder.core.ports.ledger import LeaseRow, RangeRow
from autocoder.core.tables import PortLeaseRow, PortRangeRow
from support import oracle
from support.kernel import SimulatedKernel
from support.ledgers import open_ledger


@pytest.fixture
def path(folder: Path) -> Path:
    """A ledger with one lease, closed again."""
    allocator = open_ledger(folder / "ledger.db")
    for number in range(40):
        allocator.lease(Holder(f"a-{number}", "/project"))
    allocator.close()
    return folder / "ledger.db"


@pytest.fixture
def kernel() -> SimulatedKernel:
    """A host on which one worker lives."""
    kernel = SimulatedKernel()
    kernel.run(
        200, "/usr/bin/python", "-I", "-S", "/x/core/agent_worker.py", "--project-dir", "/project",
        "--agent-id", "a-7", "--feature-id", "1", "--api-port", "5006", "--web-port", "5179",
    )  # fmt: skip
    return kernel


def truncate(path: Path) -> None:
    os.truncate(path, 5000)


def zero_a_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:8192] = bytes(4096)
    path.write_bytes(content)


def fill_with_noise(path: Path) -> None:
    path.write_bytes(b"\x5a\xa5noise" * 4000)


def break_an_index(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA writable_schema = ON")
        file.execute("DELETE FROM port_gaps")
        file.execute(
            "UPDATE sqlite_master SET rootpage ="
            " (SELECT rootpage FROM sqlite_master WHERE name = 'port_gaps')"
            " WHERE name = 'port_leases_by_holder'"
        )


DAMAGES = [truncate, zero_a_page, fill_with_noise, break_an_index]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_kept_aside_and_told_anew_by_live_workers(
    damage: Callable[[Path], None], path: Path, kernel: SimulatedKernel
) -> None:
    damage(path)
    broken = path.read_bytes()
    allocator = open_ledger(path, kernel)
    held = {(lease.holder, lease.port, lease.pid) for lease in allocator.leases()}
    assert held == {("a-7", 5006, 200), ("a-7", 5179, 200)}
    (kept,) = (kept for kept in path.parent.glob("*.damaged-*") if "-journal" not in kept.name)
    assert kept.read_bytes() == broken
    said = [notice.text for notice in allocator.settle()]
    assert any("damaged" in text and kept.name in text for text in said)
    assert any("begun anew from 1 live workers" in text for text in said)
    allocator.close()


@pytest.mark.parametrize("damage", [truncate, zero_a_page, fill_with_noise, break_an_index])
def test_damage_while_it_is_open_is_found_and_mended_by_the_next_lease(
    damage: Callable[[Path], None], path: Path, kernel: SimulatedKernel
) -> None:
    allocator = open_ledger(path, kernel)
    damage(path)
    pair = allocator.lease(Holder("late", "/project"))
    assert pair.api_port != 5006
    assert {lease.holder for lease in oracle.leases(path)} >= {"late"}
    allocator.close()


@pytest.mark.parametrize("page", range(1, 9))
@pytest.mark.parametrize("ask", [PortAllocator.leases, PortAllocator.settle])
def test_a_page_zeroed_while_it_is_open_is_found_by_the_next_question(
    ask: Callable[[PortAllocator], object], page: int, path: Path, kernel: SimulatedKernel
) -> None:
    allocator = open_ledger(path, kernel)
    ask(allocator)
    with path.open("r+b") as file:
        file.seek(4096 * page)
        assert any(file.read(4096))
        file.seek(4096 * page)
        file.write(bytes(4096))
    ask(allocator)
    held = {(lease.holder, lease.port) for lease in allocator.leases()}
    assert held == {("a-7", 5006), ("a-7", 5179)}
    assert any("damaged" in kept.name for kept in path.parent.iterdir())
    allocator.close()


def test_a_file_that_was_only_touched_keeps_its_leases(path: Path, kernel: SimulatedKernel) -> None:
    allocator = open_ledger(path, kernel)
    before = allocator.leases()
    os.utime(path)
    assert allocator.leases() == before
    os.utime(path)
    allocator.lease(Holder("late", "/project"))
    assert len(allocator.leases()) == len(before) + 2
    allocator.close()


def test_a_file_that_is_locked_while_it_has_to_be_opened_anew_is_opened_later(
    path: Path, kernel: SimulatedKernel
) -> None:
    allocator = open_ledger(path, kernel, patience_s=0.05)
    before = allocator.leases()
    restored = Path(shutil.copy(path, path.with_name("restored.db")))
    with contextlib.closing(sqlite3.connect(restored)) as other:
        other.execute("BEGIN EXCLUSIVE")
        restored.replace(path)
        with pytest.raises(DatabaseError, match="is locked by another program"):
            allocator.lease(Holder("late", "/project"))
        with pytest.raises(DatabaseError):
            allocator.leases()
    assert allocator.leases() == before
    allocator.lease(Holder("late", "/project"))
    allocator.close()


def test_a_ledger_that_vanishes_while_it_is_open_is_begun_anew(
    path: Path, kernel: SimulatedKernel
) -> None:
    allocator = open_ledger(path, kernel)
    path.unlink()
    allocator.lease(Holder("late", "/project"))
    assert {lease.holder for lease in oracle.leases(path)} == {"a-7", "late"}
    allocator.close()


def test_a_live_worker_gives_its_lease_back_although_no_ledger_knows_its_epoch(
    path: Path, kernel: SimulatedKernel
) -> None:
    fill_with_noise(path)
    allocator = open_ledger(path, kernel)
    kernel.end(200)
    allocator.release("a-7", "/project", epoch=7)
    assert {lease.state for lease in allocator.leases()} == {LeaseState.COOLING}
    allocator.close()


def test_epochs_of_a_lost_ledger_do_not_come_again(path: Path, kernel: SimulatedKernel) -> None:
    fill_with_noise(path)
    allocator = open_ledger(path, kernel)
    assert allocator.lease(Holder("late", "/project")).epoch > 40
    allocator.close()


def test_a_fresh_ledger_does_not_take_other_ledgers_workers_for_its_own(
    tmp_path: Path, kernel: SimulatedKernel
) -> None:
    allocator = open_ledger(tmp_path / "fresh.db", kernel)
    assert allocator.leases() == ()
    allocator.close()


def test_a_ledger_of_a_newer_program_is_refused_and_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(DatabaseError) as refusal:
        open_ledger(path)
    assert refusal.value.cause == "newer"
    assert "schema version 99" in refusal.value.message
    assert path.read_bytes() == before


def test_a_folder_in_its_place_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ledger.db" / "precious").mkdir(parents=True)
    with pytest.raises(DatabaseError, match="is a folder"):
        open_ledger(tmp_path / "ledger.db")
    assert (tmp_path / "ledger.db" / "precious").is_dir()


def test_a_write_ahead_log_of_an_older_file_is_taken_back(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = WAL")
    allocator = open_ledger(path)
    assert len(allocator.leases()) == 80
    allocator.close()
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_path_with_every_odd_character_works(tmp_path: Path) -> None:
    path = tmp_path / "a ?b#c%20'ü\n" / "led ger.db"
    allocator = open_ledger(path)
    allocator.lease(Holder("a-1", "/project"))
    allocator.close()
    assert path.is_file()


READ_ONLY = """
import os, sys
from pathlib import Path
from autocoder.core.errors import DatabaseError
from autocoder.core.models import Holder
from support.ledgers import open_ledger
path = Path(sys.argv[1])
open_ledger(path).close()  # everything is imported before rights are given up
for kept in path.parent.iterdir():
    kept.chmod(0o444)
path.parent.chmod(0o555)
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
allocator = open_ledger(path)
assert len(allocator.leases()) == 80
assert allocator.settle() == ()
try:
    allocator.lease(Holder("late", "/project"))
except DatabaseError as error:
    print(error.cause, "|", error.hint)
"""


def test_a_ledger_that_cannot_be_written_is_still_read(path: Path) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        Path(open_to_all).chmod(0o755)
        copy = Path(open_to_all, "state", "ledger.db")
        copy.parent.mkdir()
        shutil.copy(path, copy)
        answer = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(copy)],
            env=os.environ | {"PYTHONPATH": str(Path(oracle.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        copy.parent.chmod(0o755)
    assert answer.stdout == "unwritable | Make the file and its folder writable.\n", answer.stderr


def test_rows_as_read_have_the_columns_of_the_tables() -> None:
    assert LeaseRow._fields == tuple(PortLeaseRow.model_fields)
    assert set(RangeRow._fields) == set(PortRangeRow.model_fields)


def test_a_row_that_makes_no_sense_cannot_be_planted(path: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(path)) as file,
        pytest.raises(sqlite3.IntegrityError),
    ):
        file.execute("UPDATE port_leases SET state = 'gone'")


def test_this_folder_is_not_taken_for_a_network_file_system(tmp_path: Path) -> None:
    assert network_file_system(tmp_path / "ledger.db") is None


def test_a_network_file_system_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /home rw shared:1 - nfs4 server:/home rw\n"
        "31 30 0:41 / /home/me/local\\040disk rw - ext4 /dev/sdb1 rw\n"
    )
    monkeypatch.setattr(Path, "read_text", lambda *_: mounts)
    assert network_file_system(Path("/home/me/.local/state/ledger.db")) == "nfs4"
    assert network_file_system(Path("/home/me/local disk/ledger.db")) is None
    assert network_file_system(Path("/var/ledger.db")) is None
