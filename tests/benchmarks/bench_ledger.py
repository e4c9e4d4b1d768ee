"""A durable lease and release of a pair, against the bare cost of the same system calls.

The bare cost is two transactions of two rows in plain sqlite3, with the journal mode and
synchronisation of the ledger, and the same four exclusive binds. Peers are run where they
are installed; they remember nothing, so they are the price of a promise less.
"""

import contextlib
import importlib.util
import socket
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from autocoder.core.models import Holder, PortRange
from autocoder.core.ports import PortAllocator, PortRules
from autocoder.core.probe import local_kernel
from autocoder.core.settings import PortSettings
from support.figures import Figure, figure

NO_RULES = PortRules(frozenset(), PortRange(65535, 65536))
"""The largest pools need ports that a real host keeps for itself."""


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        steps = {"bare": bare(Path(folder, "bare.db"))}
        for size, full in ((100, 0.0), (100, 0.9), (5_000, 0.5), (50_000, 0.0), (50_000, 0.99)):
            name = f"pool of {size}, {full:.0%} full"
            steps[name] = leasing(Path(folder, f"{size}-{full}.db"), size // 2, full)
        times = interleaved(steps | peers())
    base = statistics.median(times["bare"])
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        note = f"{middle * 1000:.2f} ms; p99 {sorted(seconds)[-2] * 1000:.1f} ms"
        at_most = 1.5 if name.startswith("pool") else None
        yield figure(f"lease + release, {name}", middle / base, "x", at_most=at_most, note=note)


def interleaved(steps: dict[str, Callable[[], None]], rounds: int = 200) -> dict[str, list[float]]:
    """Each step's times; taken in turns, so that a noisy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
    return times


def bare(path: Path) -> Callable[[], None]:
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("PRAGMA journal_mode = PERSIST")
    file.execute("PRAGMA synchronous = FULL")
    file.execute("CREATE TABLE lease (host TEXT, port INT, holder TEXT, PRIMARY KEY (host, port))")

    def step() -> None:
        for port in (20_000, 20_001):
            probe(port)
        file.execute("BEGIN IMMEDIATE")
        for port in (20_000, 20_001):
            file.execute("INSERT INTO lease VALUES ('host', ?, 'holder')", (port,))
        file.execute("COMMIT")
        for port in (20_000, 20_001):
            probe(port)
        file.execute("BEGIN IMMEDIATE")
        for port in (20_000, 20_001):
            file.execute("DELETE FROM lease WHERE host = 'host' AND port = ?", (port,))
        file.execute("COMMIT")

    return step


def probe(port: int) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(family) as bound:
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(("", port))


def leasing(path: Path, pairs: int, full: float) -> Callable[[], None]:
    first = 2_000
    settings = PortSettings(
        api=(PortRange(first, first + pairs),),
        web=(PortRange(first + pairs, first + 2 * pairs),),
        cooldown_s=0,
        auto_expand=False,
        max_ports=64_000,
    )
    allocator = PortAllocator(path, settings, ui_port=8888, kernel=local_kernel(), rules=NO_RULES)
    fill(path, allocator, first, pairs, round(pairs * full))
    holder = Holder("bench", "/bench")

    def step() -> None:
        pair = allocator.lease(holder)
        allocator.release("bench", "/bench", epoch=pair.epoch)

    return step


def fill(path: Path, allocator: PortAllocator, first: int, pairs: int, count: int) -> None:
    """Lease all but some of the ports, the free ones spread evenly."""
    host = allocator.status().host_id
    keep = {round(n * pairs / max(1, pairs - count)) for n in range(pairs - count)}
    taken = [n for n in range(pairs) if n not in keep][:count]
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.executemany(
            "INSERT INTO port_leases (host_id, port, role, state, address, holder, project,"
            " boot_id, epoch, changed_at, listener)"
            " VALUES (?, ?, ?, 'leased', '', ?, '/x', '', 1, 0, '')",
            [
                (host, first + offset + n, role, f"h-{n}")
                for n in taken
                for role, offset in (("api", 0), ("web", pairs))
            ],
        )


def peers() -> dict[str, Callable[[], None]]:
    """Allocators of others that are installed here: in memory, for one process."""
    found: dict[str, Callable[[], None]] = {}
    if importlib.util.find_spec("portpicker"):
        import portpicker

        def picked() -> None:
            for _ in range(2):
                portpicker.return_port(portpicker.pick_unused_port())

        found["portpicker, pair"] = picked
    if importlib.util.find_spec("ephemeral_port_reserve"):
        import ephemeral_port_reserve

        def reserved() -> None:
            for _ in range(2):
                ephemeral_port_reserve.reserve()

        found["ephemeral-port-reserve, pair"] = reserved
    return found
