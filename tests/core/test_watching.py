"""When the kernel is asked about the agents, by a kernel and a clock that tests set by hand."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from autocoder.core.fleet import Fleet
from autocoder.core.launcher import WorkerProcess
from autocoder.core.live_agents import LiveAgent, LiveAgents, Stage
from autocoder.core.models import AgentState, Feature, Listener, Role
from autocoder.core.notices import Notices
from autocoder.core.observer import Observation, Observer
from autocoder.core.probe import Process
from autocoder.core.store import AgentRecord, ProjectStore
from autocoder.core.upkeep import Upkeep
from autocoder.core.watching import LONGEST_LOOK_S, Watching
from support.kernel import Clock, SimulatedKernel
from support.snapshots import a_pool

WORKER, API, WEB = 200, 5000, 5173
TABLE_S = 0.004
"""What a process table takes: looks are then due every 0.8 s, or 0.27 s while sockets change."""
POOL = a_pool(Role.API)


@dataclass
class SlowKernel(SimulatedKernel):
    clock: Clock = field(default_factory=Clock)
    tables: int = 0
    """How often the process table was read."""

    def processes(self) -> Mapping[int, Process]:
        self.tables += 1
        self.clock.advance(TABLE_S)
        return super().processes()


@dataclass
class Ground:
    kernel: SlowKernel
    watching: Watching
    notices: Notices

    def look(self, after: float = 0.0) -> Observation:
        self.kernel.clock.advance(after)
        self.watching.look((POOL,))
        return self.watching.observations["a-1"]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    kernel = SlowKernel()
    kernel.run(WORKER)
    record = AgentRecord(
        agent_id="a-1",
        state=AgentState.ACTIVE,
        feature_id=1,
        feature="Search",
        backend="scripted",
        branch="",
        worktree_path="",
        log_path=str(tmp_path / "log"),
        api_port=API,
        web_port=WEB,
        epoch=1,
        pid=WORKER,
        pid_start=kernel.alive[WORKER],
        boot_id="boot",
        create_time=None,
        started_at=0.0,
        last_ping=None,
    )
    worker = WorkerProcess("a-1", WORKER, kernel.alive[WORKER], None, child=True)
    with contextlib.closing(ProjectStore(tmp_path / "project.db")) as store:
        agents, notices = LiveAgents(store), Notices(store)
        agents.add(LiveAgent(record, Feature(1, "Search"), Stage.RUNNING, worker=worker))
        watching = Watching(
            cast(Fleet, agents),
            kernel=kernel,
            observer=Observer(),
            store=store,
            notices=notices,
            upkeep=cast(Upkeep, None),
            monotonic=kernel.clock,
        )
        yield Ground(kernel, watching, notices)


def test_an_agent_that_begins_to_listen_is_seen_before_a_look_is_due(ground: Ground) -> None:
    assert ground.look().api_listener is Listener.NONE
    ground.kernel.listening[API] = WORKER
    assert ground.look(after=0.3).api_listener is Listener.OWN
    ground.kernel.listening.clear()
    assert ground.look(after=0.3).api_listener is Listener.NONE


def test_a_socket_that_follows_another_on_its_port_is_seen_too(ground: Ground) -> None:
    ground.kernel.listening[API] = WORKER
    assert ground.look().api_listener is Listener.OWN
    ground.kernel.run(666)
    ground.kernel.listening[API] = 666
    assert ground.look(after=0.3).api_listener is Listener.FOREIGN


def test_nothing_is_read_while_nothing_listens_anew_and_no_look_is_due(ground: Ground) -> None:
    ground.look()
    ground.kernel.listening[9999] = WORKER
    for _ in range(5):
        ground.look(after=0.1)
    assert ground.kernel.tables == 1
    ground.look(after=LONGEST_LOOK_S)
    assert ground.kernel.tables == 2


def test_a_process_that_appears_is_seen_when_a_look_is_due(ground: Ground) -> None:
    assert ground.look().processes == 1
    ground.kernel.run(201, parent=WORKER)
    seen = ground.look(after=LONGEST_LOOK_S)
    assert seen.processes == 2
    assert seen.tree == {(201, ground.kernel.alive[201])}


def test_whoever_asks_in_a_pass_gets_what_the_look_sees_and_the_next_pass_asks_anew(
    ground: Ground,
) -> None:
    view = ground.watching.view()
    assert ground.watching.view() is view
    ground.look()
    assert ground.watching.listeners is view.listeners
    assert ground.kernel.tables == 1
    assert ground.watching.view() is not view


def test_a_pass_that_has_seen_the_host_looks_even_if_none_is_due(ground: Ground) -> None:
    ground.look()
    ground.kernel.run(201, parent=WORKER)
    ground.watching.view()
    assert ground.look(after=0.01).processes == 2


def test_an_agent_on_a_port_of_the_pools_that_is_not_its_own_is_told_before_a_look_is_due(
    ground: Ground,
) -> None:
    ground.look()
    ground.kernel.listening[API + 1] = WORKER
    assert "not its own" in ground.look(after=0.3).rogue
    (notice,) = ground.notices.all()
    assert (notice.subject, f"listens on {API + 1}" in notice.text) == ("a-1", True)
