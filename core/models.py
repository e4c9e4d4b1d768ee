"""The nouns: frozen values that cross threads and processes.

Nothing here reads a clock, a file or the kernel; a `Snapshot` is equal by value,
so an idle fleet is seen to be idle by comparing two of them.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class FeatureStatus(StrEnum):
    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    DONE = "DONE"
    BLOCKED = "BLOCKED"


class AgentState(StrEnum):
    STARTING = "STARTING"
    ACTIVE = "ACTIVE"
    STOPPING = "STOPPING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    KILLED = "KILLED"


LIVE_STATES = frozenset({AgentState.STARTING, AgentState.ACTIVE, AgentState.STOPPING})
"""States of `agent_heartbeats`; every other state is final and lives in `agent_history`."""


class Role(StrEnum):
    """Which of an agent's two servers a port is for."""

    API = "api"
    WEB = "web"


class LeaseState(StrEnum):
    LEASED = "leased"
    RELEASING = "releasing"
    """Given back, but something still listens or its holder still lives."""
    COOLING = "cooling"
    """Seen free; rests before it is leased again."""
    QUARANTINED = "quarantined"
    """Kept out because a program that holds no lease of ours listens on it."""


class Listener(StrEnum):
    """Who listens on an agent's port."""

    OWN = "own"
    NONE = "none"
    FOREIGN = "foreign"
    SWAPPED = "swapped"
    """Another agent of ours, on one of whose ports this agent listens in turn."""


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from `start` up to, not including, `end`."""

    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.start}-{self.end - 1}"

    def __contains__(self, port: int) -> bool:
        return self.start <= port < self.end

    def __len__(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class PortPair:
    api_port: int
    web_port: int
    epoch: int
    """Grows with every grant on this host; a write with an older one is refused."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks for a pair: one agent of one project, or a program outside (`project` empty)."""

    name: str
    """Agent id, or the name an external holder chose."""
    project: str = ""
    """Absolute path of the project; with `name` the identity of the holder on this host."""
    pid: int | None = None
    """Process whose life bounds the lease, as soon as it is known."""
    pid_start: int | None = None
    """Start time of `pid` in clock ticks since boot, field 22 of /proc/PID/stat."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One row of the ledger, as read."""

    port: int
    role: Role
    state: LeaseState
    holder: str
    """Agent id or external holder; empty for a cooling or quarantined port."""
    project: str
    pid: int | None
    epoch: int
    leased_at: float | None
    """Seconds since the Unix epoch, like every time in this module."""
    changed_at: float
    due_at: float | None = None
    """When the state ends by itself: cool-down over, next probe of a quarantined port, or TTL."""
    listener_pid: int | None = None
    """Who listens, when the kernel tells us."""
    listener: str = ""
    """Its command, or "another user"."""


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """The counts of one pool; leased + cooling + quarantined + available = usable."""

    role: Role
    ranges: tuple[PortRange, ...]
    total: int
    """Ports in the ranges, those never leased included."""
    usable: int
    """`total` less the deny list, the panel's own port and reserved ones."""
    leased: int
    """Leased or releasing."""
    cooling: int
    quarantined: int
    available: int
    address: str = ""
    """The one address its ports are for; empty: all of the host's."""

    @property
    def capacity_percent(self) -> int:
        """How much of the pool cannot be granted at once, 0 to 100."""
        return 100 if not self.usable else round(100 * (1 - self.available / self.usable))


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    host_id: str
    pools: tuple[PoolStatus, ...]
    port_allocation_failures: int
    """Refused leases since the ledger exists."""
    consecutive_failures: int
    """Refused leases since the last granted one."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One unit of work in the backlog."""

    id: int
    name: str
    description: str = ""
    steps: tuple[str, ...] = ()
    category: str = ""
    status: FeatureStatus = FeatureStatus.PENDING
    priority: int = 0
    """Higher is claimed first; equal ones by id."""
    attempts: int = 0
    """Failed attempts that were the agent's own fault."""
    enabled: bool = True
    depends_on: tuple[int, ...] = ()
    branch_name: str = ""
    last_error: str = ""
    next_attempt_at: float | None = None
    """Not claimed before this time."""
    backend: str = ""
    """What its agents run; empty: the project's. So too `model`."""
    model: str = ""
    base: str = ""
    """The branch it starts from and is merged into; empty: the project's."""
    variant_of: int | None = None
    """The first of the features that try the same task, which may be this one; such a branch is
    merged when asked for."""
    review_status: str = ""
    """`READY_FOR_VERIFICATION` while a finished branch waits to be merged, `VERIFIED` after;
    `NOT_CHOSEN` where another variant was merged: the branch is kept, and still merged if asked."""
    agent_id: str = ""
    """The agent that works on it now."""
    held: bool = False
    """Its agent was stopped by a human: nobody starts on it until a human asks for it."""

    @property
    def mergeable(self) -> bool:
        """Whether it has a finished branch that base has not."""
        return self.status is FeatureStatus.DONE and self.review_status != "VERIFIED"

    @property
    def awaits_merge(self) -> bool:
        """Whether it has one that is still to go into base."""
        return self.mergeable and self.review_status != "NOT_CHOSEN"


@dataclass(frozen=True, slots=True)
class Agent:
    """One attempt at one feature, with what the kernel says about it."""

    agent_id: str
    state: AgentState
    feature_id: int
    feature: str
    backend: str
    worktree_path: str = ""
    """Empty until made, and again once removed."""
    branch: str = ""
    pid: int | None = None
    """The worker; None before it runs and after it has ended."""
    pid_start: int | None = None
    api_port: int | None = None
    """None once the pair is released."""
    web_port: int | None = None
    api_listener: Listener = Listener.NONE
    web_listener: Listener = Listener.NONE
    cpu_percent: float = 0.0
    """Of one core, the whole tree."""
    memory_bytes: int = 0
    """Resident, the whole tree."""
    processes: int = 0
    """In the tree, the worker included."""
    dirty_files: int = 0
    """Uncommitted files in the worktree."""
    started_at: float = 0.0
    ended_at: float | None = None
    last_ping: float | None = None
    """The worker's last heartbeat."""
    exit_code: int | None = None
    """The backend's; negative for the signal that ended it."""
    reason: str = ""
    """Why it is in this state, for the human: "killed by signal 9 after 4m12s"."""
    last_line: str = ""
    """The last line it printed, sanitised and clipped; while starting, the step under way."""
    log_path: str = ""
    model: str = ""
    iteration: int = 0
    """How often its backend has been given something to do; 0 where the backend does not say."""
    last_tool: str = ""
    """What it uses now or used last, sanitised; empty where the backend does not say."""
    tokens: int = 0
    """Read and written so far."""
    cost_usd: float = 0.0
    retrying: str = ""
    """Why its model's service is being asked again; empty while that answers."""
    problem: str = ""
    """What is wrong with it now, for the human; empty when all is well."""
    held: bool = False
    """It has ended, is the latest of its feature, and that is held."""

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence for the human."""

    id: int
    """Grows by one; a front end remembers the last it has shown."""
    at: float
    severity: Severity
    subject: str
    """What it is about: an agent id, "port 5004", "pool api", "feature 7"; may be empty."""
    text: str
    """Cause, and remedy where there is one."""


@dataclass(frozen=True, slots=True)
class FeatureCounts:
    total: int = 0
    done: int = 0
    in_progress: int = 0
    pending: int = 0
    """Waiting, for whatever reason."""
    held: int = 0
    """Of those pending, the ones that a human holds back."""
    blocked: int = 0
    ready_to_merge: int = 0
    """Done on their branch, not yet in base; counted in `done` too."""


@dataclass(frozen=True, slots=True)
class WorktreeStatus:
    """A worktree of ours on disk, as a clean-up sees it."""

    agent_id: str
    path: str
    branch: str
    """Empty: none is checked out."""
    bytes: int
    dirty_files: int
    """Uncommitted ones, untracked included, ignored not."""
    merged: bool
    """Base has every commit of it."""
    in_use: bool
    """An agent lives in it, or its work is about to be gone on with."""
    unknown: str = ""
    """Why git could not say what it holds: then `dirty_files` and `merged` mean nothing."""

    @property
    def removable(self) -> bool:
        """Whether it is known that nothing would be lost."""
        return not self.unknown and self.merged and not self.dirty_files and not self.in_use


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What `RecoverAll` would do now."""

    adopt: tuple[str, ...] = ()
    """Agents whose worker runs although the database does not know them as live."""
    crashed: tuple[str, ...] = ()
    """Ended agents that would be gone on with in their worktrees, their features' latest."""
    release: tuple[int, ...] = ()
    """Ports leased to agents of this project that are no more."""
    requeue: tuple[int, ...] = ()
    """Features in progress that no agent of ours works on."""

    def __bool__(self) -> bool:
        return bool(self.adopt or self.crashed or self.release or self.requeue)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is true after one tick, for every front end alike."""

    taken_at: float = field(compare=False)
    project: str
    """The folder's name, for titles."""
    project_dir: str
    base: str
    base_commit: str
    """Abbreviated."""
    parallel: int
    """Agents that run without being asked for one by one."""
    paused: bool = False
    finished: bool = False
    """Nothing runs and nothing is left that could."""
    features: FeatureCounts = FeatureCounts()
    backlog: tuple[Feature, ...] = ()
    """By claim order: priority, then id."""
    agents: tuple[Agent, ...] = ()
    """Live ones by start, then the most recently ended first, at most 500 of these."""
    pools: tuple[PoolStatus, ...] = ()
    leases: tuple[Lease, ...] = ()
    """Every row of the host's ledger, by port."""
    notices: tuple[Notice, ...] = ()
    """The latest 200, oldest first."""
    recovery: RecoveryPlan = RecoveryPlan()


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did; spawned + adopted = completed + failed + crashed + killed + live."""

    features_total: int
    features_done: int
    features_blocked: int
    features_pending: int
    spawned: int
    adopted: int
    """Taken over from an earlier orchestrator, with their leases."""
    completed: int
    failed: int
    crashed: int
    killed: int
    live: int
    leases_granted: int
    leases_released: int
    eaddrinuse: int
    """Log lines of agents that kept to their pair and still met EADDRINUSE."""
    notices: tuple[Notice, ...]
    seconds: float
