"""What a front end may ask beside the snapshot, when a person wants to look closer.

Answers are read only when asked for and never change anything. They may take a
second, so they are asked off the screen's thread.
"""

from dataclasses import dataclass
from typing import Protocol

from autocoder.core.models import Agent, Severity


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


class Questions(Protocol):
    """Raises `AutocoderError` where git, the kernel or the database will not answer."""

    def details(self, agent: Agent) -> Details: ...

    def diff(self, agent: Agent) -> str:
        """What the agent's work changes against base, uncommitted files included."""

    def events(self, limit: int) -> tuple[PastEvent, ...]:
        """The project's latest activity, oldest first."""

    def settings(self) -> tuple[SettingValue, ...]: ...
