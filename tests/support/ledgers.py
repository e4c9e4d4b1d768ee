"""Ledgers of a simulated host, and the few words that tests say of them."""

import os
from collections.abc import Callable
from pathlib import Path

from autocoder.core.models import Holder, LeaseState, Notice, PortPair, PortRange
from autocoder.core.ports import BROWSER_BLOCKED, PortAllocator, PortRules
from autocoder.core.probe import Kernel
from autocoder.core.settings import PortSettings
from support.kernel import Clock, SimulatedKernel

RULES = PortRules(BROWSER_BLOCKED | {8888}, PortRange(32768, 61000))
"""Of a host as most are set up."""

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where a flush costs nothing: thousands of transactions would wait for the disk."""

Make = Callable[..., PortAllocator]
"""`open_ledger` without its path: the same file each time."""


def open_ledger(
    path: Path,
    kernel: Kernel | None = None,
    *,
    now: Callable[[], float] | None = None,
    rules: PortRules | None = RULES,
    patience_s: float = 10,
    **settings: object,
) -> PortAllocator:
    """On a kernel and a clock of its own unless told; `rules` None: this host's."""
    return PortAllocator(
        path,
        PortSettings(**settings),  # type: ignore[arg-type]
        ui_port=8888,
        kernel=kernel or SimulatedKernel(),
        now=now or Clock(),
        rules=rules,
        patience_s=patience_s,
    )


def agent(number: int, pid: int | None = 100) -> Holder:
    return Holder(f"a-{number}", "/project", pid, None if pid is None else 101)


def run_agent(allocator: PortAllocator, kernel: SimulatedKernel, pid: int = 200) -> PortPair:
    """Lease for a-1, run its worker and let that bound the lease, as an orchestrator does."""
    pair = allocator.lease(agent(1))
    kernel.run(pid)
    allocator.confirm(Holder("a-1", "/project", pid), pair.epoch)
    return pair


def state_of(allocator: PortAllocator, port: int) -> LeaseState | None:
    return next((lease.state for lease in allocator.leases() if lease.port == port), None)


def texts(notices: tuple[Notice, ...]) -> list[str]:
    return [notice.text for notice in notices]


def small(first: int, count: int) -> tuple[PortRange, ...]:
    return (PortRange(first, first + count),)
