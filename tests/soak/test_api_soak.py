"""The API at full size, with its figures: `make soak`."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.flood import flood
from support.projects import COMMITS, Project, running
from support.sockets import reserved_ports

pytestmark = pytest.mark.soak

PER_SECOND = float(os.environ.get("SOAK_FLOOD_RATE", "200"))
SECONDS = float(os.environ.get("SOAK_FLOOD_S", "60"))
FEATURES = int(os.environ.get("SOAK_FLOOD_FEATURES", "20"))


@pytest.fixture
def ports() -> Iterator[range]:
    with reserved_ports(100) as reserved:
        yield reserved


@pytest.mark.timeout(900)
def test_a_flood_of_requests_does_not_starve_the_orchestrator(tmp_path: Path, ports: range) -> None:
    """The backlog is done while requests come in, and every one of them is answered."""
    project = Project(tmp_path, ports, COMMITS, features=FEATURES, parallel=5)
    with running(project.open_served()) as run:
        began = time.monotonic()
        run.wait_for(lambda _: True, 60)
        told = flood(project.folder, PER_SECOND, SECONDS)
        done = run.wait_for(lambda s: s.features.done == FEATURES, 300)
        took = time.monotonic() - began
    sys.stdout.write(
        f"\n    flood of the API: {told.rate:.0f} requests/s for {SECONDS:g} s, answers p50 "
        f"{told.p50 * 1000:.0f} ms, p99 {told.p99 * 1000:.0f} ms; {FEATURES} features done "
        f"within {took:.0f} s; load {os.getloadavg()[0]:.1f}\n"
    )
    assert set(told.statuses) == {"200"}
    assert all(not agent.live for agent in done.agents)
