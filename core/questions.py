"""What a front end may ask beside the snapshot, when a person wants to look closer.

Answers are read only when asked for and never change anything. They may take a
second, so they are asked off the screen's thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from autocoder.core.commands import SpawnAgent
from autocoder.core.models import (
    Agent,
    PoolStatus,
    PortRange,
    Role,
    Severity,
    Snapshot,
    WorktreeStatus,
)


@dataclass(frozen=True, slots=True)
class ProcessLine:
    """One process of an agent's tree."""

    pid: int
    depth: int
    """0 is the worker."""
    command: str
    state: str
    """One letter of proc(5): R running, S sleeping, T stopped, Z ended but not reaped."""
    memory_bytes: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Details:
    """What there is to know of one agent."""

    processes: tuple[ProcessLine, ...] = ()
    """Parents before children; empty once it has ended."""
    environment: tuple[tuple[str, str], ...] = ()
    """Variables of its backend by name; the value is empty unless it is one we gave."""
    facts: tuple[tuple[str, str], ...] = ()
    """What the worker left behind when it ended, by name."""
    changed_paths: tuple[str, ...] = ()
    """Files its branch has changed since it left base."""
    prompt: str = ""
    """What it was told, as far as it is kept."""


@dataclass(frozen=True, slots=True)
class PastEvent:
    at: float
    severity: Severity
    kind: str
    text: str
    agent_id: str
    feature_id: int | None


@dataclass(frozen=True, slots=True)
class SettingValue:
    name: str
    value: str
    origin: str
    """Option, variable or file that set it, or "default"."""
    meaning: str


@dataclass(frozen=True, slots=True)
class Growth:
    """A block by which a pool could be extended now."""

    role: Role
    span: PortRange | None
    """None: no such block is free of conflicts."""
    free: int = 0
    """Ports of it that could be bound at this moment."""
    taken: tuple[tuple[int, str], ...] = ()
    """The other ports, each with who listens on it as far as the kernel tells."""


@dataclass(frozen=True, slots=True)
class BackendChoice:
    """A backend by name, and whether it can be run on this host."""

    name: str
    usable: bool
    detail: str
    """Where it is, or what is missing."""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class SpawnForecast:
    """What a wish to spawn would get at this moment, or why it would get nothing."""

    backends: tuple[BackendChoice, ...]
    """Every known one, the project's first."""
    backend: str
    model: str
    """Empty: the backend's own default."""
    base: str
    branch: str = ""
    pairs: tuple[tuple[int, int], ...] = ()
    """API and web port, a pair for each variant that could start; none where the kernel picks."""
    refusal: str = ""
    remedy: str = ""


class Questions(Protocol):
    """Raises `AutocoderError` where git, the kernel or the database will not answer."""

    def details(self, agent: Agent) -> Details: ...

    def diff(self, agent: Agent) -> str:
        """What the agent's work changes against base, uncommitted files included."""

    def events(self, limit: int) -> tuple[PastEvent, ...]:
        """The project's latest activity, oldest first."""

    def growth(
        self, pools: Sequence[PoolStatus], roles: Sequence[Role], amount: int
    ) -> tuple[Growth, ...]:
        """The next blocks of `amount` ports, one for each role, that overlap nothing."""

    def settings(self) -> tuple[SettingValue, ...]: ...

    def worktrees(self) -> tuple[WorktreeStatus, ...]:
        """The worktrees we made that are on disk, by agent."""

    def forecast(self, wish: SpawnAgent, snapshot: Snapshot) -> SpawnForecast:
        """What `wish` would get if it were asked for now; nothing is granted or made."""
