"""What the finish line is given and what it says; plain values that cross threads."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from autocoder.core.lifecycle import spoken_duration
from autocoder.core.models import PortPair
from autocoder.core.worktrees import MergeResult


@dataclass(frozen=True, slots=True)
class Finish:
    """An agent whose backend has finished, or the branch of one that could not land then."""

    agent_id: str
    feature_id: int
    branch: str
    start_commit: str
    """The commits after it are the agent's."""
    worktree: Path
    pair: PortPair | None
    """None: it has ended and holds none; one is leased for the exam."""
    base: str = ""
    """The branch it is tested with and merged into; empty: the project's."""
    on_request: bool = False
    """It lands only when asked for, whatever `merge` says."""
    served: bool = False
    """Its app was seen to listen."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set it, and the verification ends soon, without a verdict."""


@dataclass(frozen=True, slots=True)
class Passed:
    commands: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"verified by {', '.join(self.commands)} in {spoken_duration(self.seconds)}"


@dataclass(frozen=True, slots=True)
class Unverified:
    """Nothing was tested."""

    why: str

    def __str__(self) -> str:
        return f"unverified: {self.why}"


@dataclass(frozen=True, slots=True)
class Broken:
    """The branch does not stand the exam; it has not landed."""

    reason: str
    last_lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"verification failed: {self.reason}"


Verification = Passed | Unverified | Broken


class Cancelled(Exception):
    """The verification was ended before it had a verdict."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What became of a finished agent's branch."""

    commits: int
    merge: MergeResult | None
    """None: nothing to merge, or not fit to be."""
    verification: Verification | None = None
    warnings: tuple[str, ...] = ()
    """What a human should look at, though it keeps nothing from landing."""
    app: str = ""
    """Where its app was and how to start it again, for the human."""
