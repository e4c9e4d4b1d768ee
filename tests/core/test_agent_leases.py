"""What an agent is granted beside what the rows of others still say."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autocoder.core.agent_leases import AgentLeases
from autocoder.core.errors import RefusedError
from autocoder.core.live_agents import LiveAgent, LiveAgents, Stage
from autocoder.core.models import Feature, Lease, LeaseState, PortPair
from autocoder.core.notices import Notices
from autocoder.core.ports import PortAllocator
from autocoder.core.store import FeatureDraft, NewAgent, ProjectStore
from support.kernel import Clock, SimulatedKernel
from support.ledgers import open_ledger, small


@dataclass
class Ground:
    clock: Clock
    store: ProjectStore
    agents: LiveAgents
    allocator: PortAllocator
    leases: AgentLeases

    def add(self, name: str, pair: PortPair) -> None:
        """A live agent whose row names that pair."""
        (feature,) = self.store.add_features([FeatureDraft(name)])
        agent = NewAgent(
            agent_id=name,
            api_port=pair.api_port,
            web_port=pair.web_port,
            epoch=pair.epoch,
            branch=name,
            backend="scripted",
            worktree_path="",
            log_path="",
        )
        assert self.store.claim(feature.id, agent)
        self.agents.add(LiveAgent(self.store.agent(name), Feature(feature.id, name), Stage.RUNNING))

    def lose(self, name: str, pair: PortPair) -> None:
        """Another project's orchestrator has seen its worker dead; its ports have rested."""
        self.allocator.release(name, "/project", epoch=pair.epoch)
        self.clock.advance(60)
        self.allocator.settle()
        assert not self.allocator.leases()


@pytest.fixture
def ground(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ground]:
    kernel, clock = SimulatedKernel(), Clock()
    kernel.run(os.getpid())
    size = getattr(request, "param", 4)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(ProjectStore(tmp_path / "project.db")))
        allocator = stack.enter_context(
            contextlib.closing(
                open_ledger(
                    tmp_path / "ledger.db",
                    kernel,
                    now=clock,
                    api=small(7000, size),
                    web=small(7100, size),
                    cooldown_s=30.0,
                )
            )
        )
        agents = LiveAgents(store)
        leases = AgentLeases(
            "/project", allocator=allocator, kernel=kernel, notices=Notices(store), agents=agents
        )
        yield Ground(clock, store, agents, allocator, leases)


def leased(ground: Ground) -> list[Lease]:
    return [each for each in ground.allocator.leases() if each.state is LeaseState.LEASED]


def test_no_agent_is_given_a_port_that_the_row_of_another_still_names(ground: Ground) -> None:
    dead = ground.leases.grant("a-0001")
    ground.add("a-0001", dead)
    ground.lose("a-0001", dead)

    granted = ground.leases.grant("a-0002")

    assert {granted.api_port, granted.web_port}.isdisjoint((dead.api_port, dead.web_port))
    held = {lease.port for lease in ground.allocator.leases() if lease.holder == "a-0002"}
    assert held == {granted.api_port, granted.web_port}


@pytest.mark.parametrize("ground", [1], indirect=True, ids=["one pair"])
def test_an_agent_waits_where_every_free_port_is_named_by_another(ground: Ground) -> None:
    dead = ground.leases.grant("a-0001")
    ground.add("a-0001", dead)
    ground.lose("a-0001", dead)

    with pytest.raises(RefusedError, match="about to end"):
        ground.leases.grant("a-0002")

    ground.leases.give_back()
    assert not [lease for lease in ground.allocator.leases() if lease.holder == "a-0002"]


def test_its_port_is_granted_again_once_the_row_is_gone(ground: Ground) -> None:
    first = ground.leases.grant("a-0001")
    ground.add("a-0001", first)
    ground.agents.remove("a-0001")
    ground.leases.release("a-0001", first.epoch)
    ground.leases.give_back()

    again = ground.leases.grant("a-0002", first)

    assert (again.api_port, again.web_port) == (first.api_port, first.web_port)


def test_a_hurried_look_gives_one_pair_back_and_owes_the_rest(ground: Ground) -> None:
    for agent_id in ("a-0001", "a-0002"):
        ground.leases.release(agent_id, ground.leases.grant(agent_id).epoch)

    ground.leases.give_back(until=0.0)

    assert {lease.holder for lease in leased(ground)} == {"a-0002"}
    ground.leases.give_back(until=0.0)
    assert not ground.leases.owed
    assert leased(ground) == []
