"""The REST API: one application, served on the control socket and, when asked, on TCP.

It reads the latest snapshot, gives commands to the engine and asks the ledger; it
never touches what the orchestrator's thread owns. Whatever may block runs in one
thread of its own, so that a flood of requests waits there and nowhere else.
"""

from autocoder.core.api.application import build_application
from autocoder.core.api.feed import Feed
from autocoder.core.api.guard import Guard, Limits
from autocoder.core.api.server import QuietServer
from autocoder.core.api.service import Service

__all__ = ["Feed", "Guard", "Limits", "QuietServer", "Service", "build_application"]
