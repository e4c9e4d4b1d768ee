"""From a finished branch to base: tested on top of what it will stand on, then landed.

Branches form a train: each is tested on top of the one before it, all at once, and
lands only when base is exactly what it was tested on. A verdict reached on anything
else counts for nothing, neither for nor against the branch.

The commands are those of base, never of the branch: an agent cannot loosen its own
exam. They run in the agent's worktree, on its ports, below a worker of their own.
"""

from autocoder.core.verify.examiner import PART
from autocoder.core.verify.verdicts import (
    Broken,
    Cancelled,
    Closed,
    Finish,
    Passed,
    Unverified,
    Verification,
)
from autocoder.core.verify.verifier import Verifier

__all__ = [
    "PART",
    "Broken",
    "Cancelled",
    "Closed",
    "Finish",
    "Passed",
    "Unverified",
    "Verification",
    "Verifier",
]
