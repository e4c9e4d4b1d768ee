"""A ledger on a disk that is full: what it acknowledged is on the disk, the rest never was."""

import json

from support.namespaces import in_namespaces

EVERY_WRITE = '''
import contextlib, json, sqlite3, sys
from pathlib import Path
from autocoder.core.errors import DatabaseError
from autocoder.core.models import Holder, PortRange, Role
from support.kernel import Clock, SimulatedKernel
from support.ledgers import open_ledger

path, filler = Path(sys.argv[1], "ledger.db"), Path(sys.argv[1], "filler")
clock, kernel = Clock(), SimulatedKernel()
for pid in (100, 101, 200, 300):
    kernel.run(pid)

def fill():
    """Not a byte is left, not even where the last journal was."""
    path.with_name("ledger.db-journal").unlink(missing_ok=True)
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(512)):
                pass
        except OSError:
            return

allocator = open_ledger(path, kernel, now=clock)
pair = allocator.lease(Holder("a-1", "/p", 100))
dead = allocator.lease(Holder("a-2", "/p", 200))
kernel.end(200)
gone = allocator.lease(Holder("script", pid=300))
kernel.end(300)
allocator.expand(Role.API, PortRange(7000, 7003))

WRITES = {
    "lease": lambda: allocator.lease(Holder("a-3", "/p", 100)),
    "renew": lambda: allocator.lease(Holder("a-1", "/p", 100), ttl_s=60),
    "confirm": lambda: allocator.confirm(Holder("a-1", "/p", 101), pair.epoch),
    "settle": allocator.settle,
    "release a port": lambda: allocator.release_port(dead.api_port),
    "expand": lambda: allocator.expand(Role.WEB, 5),
    "shrink": lambda: allocator.shrink(Role.API),
    "replace": lambda: allocator.replace(Holder("a-1", "/p", 100), pair.epoch),
    "release": lambda: allocator.release("a-1", "/p"),
}

def rows():
    with contextlib.closing(sqlite3.connect(path)) as file:
        return list(file.iterdump())

told = {}
for name, write in WRITES.items():
    clock.advance(1)
    before = rows()
    fill()
    try:
        write()
        refused = "not at all"
    except DatabaseError as error:
        refused = error.cause
    unchanged = rows() == before
    filler.unlink()
    write()
    told[name] = [refused, unchanged, rows() != before]
allocator.close()
fill()
for name in ("ledger.db", "new.db"):
    try:
        open_ledger(path.with_name(name), kernel).close()
        told[name] = "opened"
    except DatabaseError as error:
        told[name] = error.cause
print(json.dumps(told))
'''


def test_no_write_is_half_done_on_a_full_disk_and_each_succeeds_once_there_is_room() -> None:
    answer = in_namespaces("-rm", "mount -t tmpfs -o size=1m tmpfs /mnt", EVERY_WRITE, "/mnt")
    told = json.loads(answer)
    assert (told.pop("ledger.db"), told.pop("new.db")) == ("opened", "full")
    assert told == {name: ["full", True, True] for name in told}
    assert len(told) == 9
