"""What a front end may ask of the orchestrator.

A command is a wish: it is answered by the next snapshot, and by a notice where
it could not be fulfilled.
"""

from dataclasses import dataclass

from autocoder.core.models import PortRange, Role

MOST_VARIANTS = 9
"""Of one typed task; 1 is the task alone."""


@dataclass(frozen=True, slots=True)
class SpawnAgent:
    """Start an agent now, even beyond `parallel`."""

    feature_id: int | None = None
    """None: the next claimable one."""
    task: str = ""
    """When given, becomes a new feature first: its first line the name, the rest its text."""
    backend: str = ""
    """The feature's from now on, its later attempts included; empty: the project's."""
    model: str = ""
    """Likewise."""
    base: str = ""
    """The branch to start from and to merge into; empty: the project's base."""
    variants: int = 1
    """That many features of the same task, each merged only when asked for (`m`)."""


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Ask the agent to end, then force it; its feature goes back to the backlog uncounted.

    Nobody starts on it by itself any more as long as this orchestrator runs.
    """

    agent_id: str


@dataclass(frozen=True, slots=True)
class KillAgent:
    """Force the whole tree down at once; what becomes of its feature is as with `StopAgent`."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class TellAgent:
    """Hand a message to a running agent, which reads it at its next turn."""

    agent_id: str
    text: str


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
class ReleasePort:
    """Give back a port of an agent that is no more, or end a quarantine once it is seen free.

    Refused while its holder lives.
    """

    port: int


@dataclass(frozen=True, slots=True)
class ProbePort:
    """Look now whether a quarantined or releasing port is free, instead of when it is due."""

    port: int


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
class EnableFeature:
    """Let a feature be claimed, or keep it from being claimed."""

    feature_id: int
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class PrioritiseFeature:
    """Give a feature another priority; a higher one is claimed first."""

    feature_id: int
    priority: int


@dataclass(frozen=True, slots=True)
class RemoveWorktrees:
    """Remove these agents' worktrees.

    One that is in use, dirty or unmerged stays, and a notice says so.
    """

    agent_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MergeFeature:
    """Try again to merge a finished branch into base."""

    feature_id: int


Command = (
    SpawnAgent
    | StopAgent
    | KillAgent
    | TellAgent
    | RecoverAgent
    | RecoverAll
    | ExpandPool
    | ReleasePort
    | ProbePort
    | Pause
    | Resume
    | StopAll
    | RetryFeature
    | EnableFeature
    | PrioritiseFeature
    | RemoveWorktrees
    | MergeFeature
)
