"""A simulated host with one process, and its ledger."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocoder.core.ports import PortAllocator
from support.kernel import Clock, SimulatedKernel
from support.ledgers import MEMORY, Make, open_ledger


@pytest.fixture
def kernel() -> SimulatedKernel:
    kernel = SimulatedKernel()
    kernel.run(100, "orchestrator")
    return kernel


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


@pytest.fixture
def make(folder: Path, kernel: SimulatedKernel, clock: Clock) -> Iterator[Make]:
    """Opens the same ledger file each time; on the simulated kernel and clock unless told."""
    with contextlib.ExitStack() as opened:

        def build(**given: object) -> PortAllocator:
            defaults = {"path": folder / "ledger.db", "kernel": kernel, "now": clock}
            allocator = open_ledger(**defaults | given)  # type: ignore[arg-type]
            opened.callback(allocator.close)
            return allocator

        yield build


@pytest.fixture
def allocator(make: Make) -> PortAllocator:
    return make()
