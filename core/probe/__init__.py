"""What the kernel says: is a port free, who listens, which processes live.

A question the kernel does not answer is `UNKNOWN`, never "dead" or "free". The
answers are facts of one moment: only a lease makes a free port stay ours.
"""

import sys

from autocoder.core.probe.kernel import (
    ANOTHER_USER,
    TICKS_PER_SECOND,
    HeldPort,
    HostIdentity,
    HostView,
    Kernel,
    ListeningSocket,
    Liveness,
    Process,
    descendants,
    one_line,
)
from autocoder.core.probe.linux import LinuxKernel

__all__ = [
    "ANOTHER_USER",
    "TICKS_PER_SECOND",
    "HeldPort",
    "HostIdentity",
    "HostView",
    "Kernel",
    "LinuxKernel",
    "ListeningSocket",
    "Liveness",
    "Process",
    "descendants",
    "local_kernel",
    "one_line",
]


def local_kernel() -> Kernel:
    """The kernel of this host."""
    if sys.platform == "linux":
        return LinuxKernel()
    else:  # noqa: RET505  # a type checker reads one branch per platform
        # psutil takes 50 ms to import, which Linux need not pay.
        from autocoder.core.probe.portable import PortableKernel

        return PortableKernel()
