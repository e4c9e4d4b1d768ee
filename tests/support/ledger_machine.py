"""Random lives of a ledger, judged step by step against what must be so.

The same machine runs on a simulated kernel, with workers that die or hide, and on this
host's kernel with real sockets on a small range.
"""

import contextlib
import shutil
import socket
import sqlite3
import tempfile
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from autocoder.core.errors import PoolExhausted, StaleLease
from autocoder.core.models import Holder, LeaseState, PortPair
from autocoder.core.ports import BROWSER_BLOCKED, PortAllocator
from autocoder.core.probe import Kernel, local_kernel
from support.kernel import Clock, SimulatedKernel
from support.ledgers import MEMORY, open_ledger, small
from support.sockets import listen, reserved_ports

LIVES = settings(deadline=None, suppress_health_check=list(HealthCheck))
"""How many and how long is up to the test."""

NAMES = [f"a-{number}" for number in range(8)]
COOLDOWN_S = 30.0
SIZE = 6


class LedgerMachine(RuleBasedStateMachine):
    """Leases, releases, occupations, deaths, restarts and time, in any order."""

    first: ClassVar[int] = 5057
    """The API pool holds 5060 and 5061, which may never be leased."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.clock = Clock()
        self.api = range(self.first, self.first + SIZE)
        self.web = range(self.first + 100, self.first + 100 + SIZE)
        self.kernel = self.make_kernel()
        self.allocator = self.opened()
        self.held: dict[str, PortPair] = {}
        self.workers: dict[str, int] = {}
        """Pids by the lease they were confirmed for."""
        self.outlived: list[int] = []
        """Workers that live although their lease was given back."""
        self.released_at: dict[int, float] = {}
        self.given_back: set[int] = set()
        """Ports of holders that let go and may not have been seen free yet."""

    def make_kernel(self) -> Kernel:
        self.simulated = SimulatedKernel()
        return self.simulated

    def opened(self) -> PortAllocator:
        return open_ledger(
            self.folder / "ledger.db",
            kernel=self.kernel,
            now=self.clock,
            api=small(self.api.start, SIZE),
            web=small(self.web.start, SIZE),
            cooldown_s=COOLDOWN_S,
            auto_expand=False,
        )

    def teardown(self) -> None:
        self.allocator.close()
        shutil.rmtree(self.folder)

    # What the host does.

    def occupy(self, port: int) -> None:
        self.simulated.bound.add(port)

    def vacate(self, port: int) -> None:
        self.simulated.bound.discard(port)

    def occupied(self) -> set[int]:
        return set(self.simulated.bound)

    # Rules.

    @rule(name=st.sampled_from(NAMES))
    def lease(self, name: str) -> None:
        before = {lease.port: lease.state for lease in self.allocator.leases()}
        try:
            pair = self.allocator.lease(Holder(name, "/project"))
        except PoolExhausted as refusal:
            assert name not in self.held
            pool = self.api if refusal.role == "api" else self.web
            for port in set(pool) - BROWSER_BLOCKED - self.occupied():
                assert before.get(port) in (LeaseState.LEASED, LeaseState.RELEASING), port
            return
        if name in self.held:
            assert pair == self.held[name]
            return
        for port, pool in ((pair.api_port, self.api), (pair.web_port, self.web)):
            assert port in pool
            assert port not in BROWSER_BLOCKED
            assert port not in self.occupied()
            assert before.get(port) not in (LeaseState.LEASED, LeaseState.RELEASING)
            never_used = set(pool) - BROWSER_BLOCKED - self.occupied() - set(before)
            if never_used:
                assert port == min(never_used), "the lowest free port comes first"
        assert all(pair.epoch > other.epoch for other in self.held.values())
        self.held[name] = pair

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def confirm(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        if name in self.workers:
            return
        pid = 1000 + self.held[name].epoch
        self.start(pid)
        self.allocator.confirm(
            Holder(name, "/project", pid, self.kernel.start_ticks(pid)), self.held[name].epoch
        )
        self.workers[name] = pid

    def start(self, pid: int) -> None:
        self.simulated.run(pid)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def end_worker(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.workers)))
        self.simulated.alive.pop(self.workers.pop(name), None)

    @precondition(lambda self: self.outlived)
    @rule()
    def end_worker_whose_lease_was_given_back(self) -> None:
        self.simulated.alive.pop(self.outlived.pop(), None)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), stale=st.booleans())
    def release(self, data: st.DataObject, stale: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        pair = self.held[name]
        if stale:
            with pytest.raises(StaleLease):
                self.allocator.release(name, "/project", epoch=pair.epoch - 1)
            return
        self.allocator.release(name, "/project", epoch=pair.epoch)
        del self.held[name]
        worker = self.workers.pop(name, None)
        lives = worker in self.simulated.alive
        if worker is not None and lives:
            self.outlived.append(worker)
        for port in (pair.api_port, pair.web_port):
            state = self.states()[port]
            if lives or {pair.api_port, pair.web_port} & self.occupied():
                assert state is LeaseState.RELEASING
            else:
                assert state is LeaseState.COOLING

    @rule(offset=st.integers(0, SIZE - 1), web=st.booleans())
    def another_program_comes(self, offset: int, web: bool) -> None:
        self.occupy((self.web if web else self.api)[offset])

    @rule(offset=st.integers(0, SIZE - 1), web=st.booleans())
    def another_program_goes(self, offset: int, web: bool) -> None:
        self.vacate((self.web if web else self.api)[offset])

    @rule(seconds=st.sampled_from([0.5, 3.0, 12.0, 40.0, -100.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.allocator.settle()
        states = self.states()
        for port, state in states.items():
            if state is LeaseState.COOLING:
                assert port not in {p for pair in self.held.values() for p in _ports(pair)}

    @rule()
    def long_enough_for_everything(self) -> None:
        """Nothing transitional outlives its time once nothing holds it up."""
        for _ in range(8):
            self.clock.advance(11)
            self.allocator.settle()
        for port, state in self.states().items():
            if state is LeaseState.COOLING:
                raise AssertionError(f"{port} rests for ever")
            if state is LeaseState.QUARANTINED:
                assert port in self.occupied()

    @rule()
    def restart(self) -> None:
        self.allocator.close()
        self.allocator = self.opened()

    def states(self) -> dict[int, LeaseState]:
        return {lease.port: lease.state for lease in self.allocator.leases()}

    @invariant()
    def every_holder_has_exactly_its_pair(self) -> None:
        leased: dict[str, set[int]] = {}
        for lease in self.allocator.leases():
            if lease.state is LeaseState.LEASED:
                leased.setdefault(lease.holder, set()).add(lease.port)
        assert leased == {name: set(_ports(pair)) for name, pair in self.held.items()}

    @invariant()
    def the_counts_add_up(self) -> None:
        for pool in self.allocator.status().pools:
            parts = pool.leased + pool.cooling + pool.quarantined + pool.available
            assert parts == pool.usable
            assert pool.available >= 0

    @invariant()
    def the_gaps_are_what_the_rows_leave(self) -> None:
        with contextlib.closing(sqlite3.connect(self.folder / "ledger.db")) as file:
            rows = {port for (port,) in file.execute("SELECT port FROM port_leases")}
            gaps = file.execute("SELECT start, until FROM port_gaps ORDER BY until").fetchall()
        if not gaps and not rows:
            return
        inside = [port for start, until in gaps for port in range(start, until)]
        assert len(inside) + len(rows) == 65536
        assert rows.isdisjoint(inside)


class RealKernelMachine(LedgerMachine):
    """The same with this host's sockets; workers are simulated by nobody."""

    def make_kernel(self) -> Kernel:
        self.simulated = SimulatedKernel()
        self.sockets: dict[int, socket.socket] = {}
        self.stack = contextlib.ExitStack()
        ports = self.stack.enter_context(reserved_ports(2 * SIZE))
        self.api, self.web = ports[:SIZE], ports[SIZE:]
        return local_kernel()

    def occupy(self, port: int) -> None:
        if port not in self.sockets:
            self.sockets[port] = listen(port)

    def vacate(self, port: int) -> None:
        if port in self.sockets:
            self.sockets.pop(port).close()

    def occupied(self) -> set[int]:
        return set(self.sockets)

    @precondition(lambda self: False)
    @rule()
    def confirm(self) -> None:
        """No worker runs here."""

    def teardown(self) -> None:
        for port in list(self.sockets):
            self.vacate(port)
        self.stack.close()
        super().teardown()


def _ports(pair: PortPair) -> tuple[int, int]:
    return pair.api_port, pair.web_port
