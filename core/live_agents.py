"""The live agents of one project: what is known of each between its claim and its end.

An agent is here exactly as long as its row is among the live ones; who is not here
has ended. Read and changed from the orchestrator's thread only.
"""

import enum
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

from autocoder.core.launcher import WorkerProcess
from autocoder.core.leftovers import ProcessKey
from autocoder.core.lifecycle import ExitFacts, Verdict
from autocoder.core.models import AgentState, Feature, PortPair
from autocoder.core.store import AgentRecord, FeatureOutcome, ProjectStore
from autocoder.core.verify import Closed


class Stage(enum.Enum):
    PREPARING = enum.auto()
    """Its worktree is being added."""
    RUNNING = enum.auto()
    """It has a worker, or is about to be found without one."""
    MOVING = enum.auto()
    """Its worker found its pair taken; it is to be given another."""
    CLOSING = enum.auto()
    """Its worker has ended; its commits are counted, tested and merged."""
    ENDING = enum.auto()
    """How it ended is known; its row is still to be moved to the history."""


@dataclass(frozen=True, slots=True)
class Prepared:
    worktree: Path
    start_commit: str
    """What the branch is measured against: commits after it are the agent's."""


@dataclass(slots=True)
class LiveAgent:
    """One agent between its claim and its row in the history."""

    record: AgentRecord
    feature: Feature
    stage: Stage
    goes_on_with: AgentRecord | None = None
    """An ended agent whose worktree it has taken over."""
    worker: WorkerProcess | None = None
    recorded: bool = True
    """Row and lease name its worker."""
    preparing: Future[Prepared] | None = None
    closing: Future[Closed] | None = None
    pairs_tried: int = 1
    moved: PortPair | None = None
    """The pair it was given instead of its own, until its row says so."""
    asked: AgentState | None = None
    """KILLED once a human has asked for its end."""
    patience_until: float = 0.0
    """Monotonic; a worker that was asked to end and lives then is ended."""
    displaced: str = ""
    """Why it had to go although it did nothing wrong."""
    facts: ExitFacts | None = None
    misses: int = 0
    missed_at: float = 0.0
    seen_tree: frozenset[ProcessKey] = frozenset()
    """What was last seen below its worker."""
    verdict: Verdict | None = None
    outcome: FeatureOutcome | None = None
    closed: Closed | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set to end its verification."""
    then_recover: bool = False
    """Goes on in a new agent as soon as this one has ended."""
    served: bool = False
    """It was seen to listen on a port of its own."""
    last_beat: float | None = None
    problem: str = ""
    """What is wrong with it as the fleet sees it."""
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = Path(self.record.log_path)

    @property
    def agent_id(self) -> str:
        return self.record.agent_id

    @property
    def pair(self) -> PortPair:
        record = self.record
        return PortPair(record.api_port or 0, record.web_port or 0, record.epoch)


@dataclass(slots=True)
class Tally:
    """What this orchestrator did since it started; every number only grows."""

    spawned: int = 0
    adopted: int = 0
    completed: int = 0
    failed: int = 0
    crashed: int = 0
    killed: int = 0
    leases_granted: int = 0
    leases_released: int = 0
    eaddrinuse: int = 0


class LiveAgents:
    """The live agents by id, in the order they began."""

    def __init__(self, store: ProjectStore) -> None:
        self._store = store
        self._agents: dict[str, LiveAgent] = {}
        self._unwritten: dict[str, AgentState] = {}
        self.tally = Tally()
        self.held_back: set[int] = set()
        """Features whose agent a human has stopped: nobody starts on one by itself.

        Kept in memory only: whoever starts an orchestrator wants its project to go on.
        """

    def __iter__(self) -> Iterator[LiveAgent]:
        return iter(tuple(self._agents.values()))

    def __len__(self) -> int:
        return len(self._agents)

    def __contains__(self, agent_id: str) -> bool:
        return agent_id in self._agents

    def ids(self) -> frozenset[str]:
        return frozenset(self._agents)

    def get(self, agent_id: str) -> LiveAgent | None:
        return self._agents.get(agent_id)

    def add(self, live: LiveAgent) -> None:
        self._agents[live.agent_id] = live

    def remove(self, agent_id: str) -> None:
        del self._agents[agent_id]
        self._unwritten.pop(agent_id, None)

    def set_state(self, live: LiveAgent, state: AgentState) -> None:
        """The agent is in that state; its row says so after the next `write_states`."""
        if state is not live.record.state:
            live.record = replace(live.record, state=state)
            self._unwritten[live.agent_id] = state

    def write_states(self) -> None:
        """Raises `DatabaseError`: the next call writes them."""
        if self._unwritten:
            self._store.set_states(self._unwritten)
            self._unwritten.clear()
