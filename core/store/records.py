"""What goes into the project database and comes out of it, beside `models.Feature`.

Times are seconds since the Unix epoch here, whatever text the file keeps.
"""

from dataclasses import dataclass

from autocoder.core.models import LIVE_STATES, Agent, AgentState, Feature, Severity

SAME_FAILURE_LIMIT = 3
"""A feature that fails this often in a row by the same error or diff is blocked."""


@dataclass(frozen=True, slots=True)
class FeatureDraft:
    """A feature that has no id yet."""

    name: str
    description: str = ""
    steps: tuple[str, ...] = ()
    category: str = ""
    priority: int = 0
    """Higher is claimed first."""
    enabled: bool = True
    backend: str = ""
    """Empty: the project's. So too `model` and `base`."""
    model: str = ""
    base: str = ""
    depends_on: tuple[int | str, ...] = ()
    """Ids of features in the database; names of drafts added with this one, or of features."""
    after: tuple[int, ...] = ()
    """Positions, from 0, of the drafts added with this one that it depends on."""


@dataclass(frozen=True, slots=True)
class NewAgent:
    """Everything known of an agent before its worker runs."""

    agent_id: str
    api_port: int
    web_port: int
    epoch: int
    branch: str
    backend: str
    worktree_path: str = ""
    log_path: str = ""


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent as the database knows it, live or ended."""

    agent_id: str
    state: AgentState
    feature_id: int | None
    """None once the feature is gone."""
    feature: str
    """Its name."""
    backend: str
    branch: str
    worktree_path: str
    """Empty once the worktree is removed."""
    log_path: str
    api_port: int | None
    """Of a live agent the port it holds, of an ended one the port it had."""
    web_port: int | None
    epoch: int
    pid: int | None
    pid_start: int | None
    """Clock ticks since boot; None in rows of the predecessor."""
    boot_id: str
    create_time: float | None
    started_at: float
    last_ping: float | None
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str = ""
    eaddrinuse: int = 0

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES

    def as_agent(self) -> Agent:
        """What the database alone says: no ports, since only what is live holds them."""
        return Agent(
            agent_id=self.agent_id,
            state=self.state,
            feature_id=self.feature_id or 0,
            feature=self.feature,
            backend=self.backend,
            worktree_path=self.worktree_path,
            branch=self.branch,
            started_at=self.started_at,
            ended_at=self.ended_at,
            last_ping=self.last_ping,
            exit_code=self.exit_code,
            reason=self.reason,
            last_line=self.reason,
            log_path=self.log_path,
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """The feature is done on its branch."""

    branch: str
    merged: bool
    """False: ready to merge, and features that depend on it wait."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that was the agent's own fault; counted."""

    error: str
    error_key: str
    """Equal for failures of the same kind."""
    retry_at: float
    attempts_limit: int = 10
    diff_fingerprint: str = ""
    """Of what the attempt left on its branch; empty: nothing, or not looked at."""


@dataclass(frozen=True, slots=True)
class Requeued:
    """The attempt ended through no fault of the agent's; not counted."""

    reason: str
    retry_at: float | None = None
    """None: at once."""


FeatureOutcome = Finished | Failed | Requeued


@dataclass(frozen=True, slots=True)
class StuckFeature:
    """A pending feature that no passing of time will make claimable."""

    feature: Feature
    why: str


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that happened and is not written down yet."""

    level: Severity
    event_type: str
    message: str
    agent_id: str = ""
    feature_id: int | None = None
    data: object = None
    """Anything JSON can say."""
    at: float | None = None
    """None: when it is written down."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the project's activity."""

    id: int
    at: float
    level: Severity
    event_type: str
    message: str
    agent_id: str
    feature_id: int | None
    data: object
    """Whatever JSON was given; None for nothing."""
