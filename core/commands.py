"""What a front end may ask of the orchestrator.

A command is a wish: it is answered by the next snapshot, and by a notice where
it could not be fulfilled.
"""

from dataclasses import dataclass

from autocoder.core.models import PortRange, Role


@dataclass(frozen=True, slots=True)
class SpawnAgent:
    """Start an agent now, even beyond `parallel`."""

    feature_id: int | None = None
    """None: the next claimable one."""
    task: str = ""
    """When given, becomes a new feature first: its first line the name, the rest its text."""


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Ask the agent to end, then force it; its feature goes back to the backlog uncounted."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class KillAgent:
    """Force the whole tree down at once; its feature goes back to the backlog uncounted."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class RecoverAgent:
    """Go on with an agent's work: a new agent in its worktree, a live one being killed first."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class RecoverAll:
    """Do what `Snapshot.recovery` lists."""


@dataclass(frozen=True, slots=True)
class ExpandPool:
    """Grow a pool by a range, or by that many ports in the next block free of conflicts."""

    role: Role
    amount: int | PortRange | None = None
    """None: as many as the pool's first range has."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Start no more agents by itself; running ones go on."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Start agents by itself again."""


@dataclass(frozen=True, slots=True)
class StopAll:
    """Stop every live agent and start no more."""


@dataclass(frozen=True, slots=True)
class RetryFeature:
    """Make a blocked or waiting feature claimable now, its attempts set back to none."""

    feature_id: int


@dataclass(frozen=True, slots=True)
class MergeFeature:
    """Try again to merge a finished branch into base."""

    feature_id: int


Command = (
    SpawnAgent
    | StopAgent
    | KillAgent
    | RecoverAgent
    | RecoverAll
    | ExpandPool
    | Pause
    | Resume
    | StopAll
    | RetryFeature
    | MergeFeature
)
