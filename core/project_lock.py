"""One orchestrator per project: an flock whose file names its holder.

The kernel drops the lock when its holder ends in whatever way, so a stale file is
no obstacle and there is nothing to clean up.
"""

import contextlib
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from autocoder.core.errors import ProjectError, ProjectLocked


class ProjectLock:
    """Held from construction until `release` or the end of the process."""

    def __init__(self, project_dir: Path) -> None:
        """Raises `ProjectLocked`, naming who holds the project."""
        self.path = project_dir / ".autocoder" / "orchestrator.lock"
        try:
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ProjectError(
                f"{self.path} cannot be written: {error.strerror}",
                "Make the project folder writable.",
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = read_holder(project_dir)
            os.close(self._fd)
            raise ProjectLocked(
                f"{project_dir} is run by another orchestrator: {_described(holder)}",
                "Use that panel, or end it first; agents go on when it quits.",
            ) from None
        self._write_holder()

    def release(self) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def _write_holder(self) -> None:
        terminal = ""
        with contextlib.suppress(OSError):
            terminal = os.ttyname(0)
        holder = {"pid": os.getpid(), "since": time.time(), "terminal": terminal}
        os.ftruncate(self._fd, 0)
        # The lock holds without its note, and a full disk is when a panel is needed most.
        with contextlib.suppress(OSError):
            os.pwrite(self._fd, json.dumps(holder).encode(), 0)


def read_holder(project_dir: Path) -> dict[str, Any]:
    """pid, since (Unix time) and terminal of who held the project last; empty if unknown."""
    try:
        holder = json.loads((project_dir / ".autocoder" / "orchestrator.lock").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def run_elsewhere(project_dir: Path) -> str:
    """Which other process said last that it is the orchestrator; empty when that was this one."""
    holder = read_holder(project_dir)
    pid = holder.get("pid")
    return f"pid {pid}{_terminal(holder)}" if pid and pid != os.getpid() else ""


def _described(holder: dict[str, Any]) -> str:
    if not holder:
        return "it has not said who it is"
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder.get("since", 0)))
    return f"pid {holder.get('pid')} since {since}{_terminal(holder)}"


def _terminal(holder: dict[str, Any]) -> str:
    return f" on {holder['terminal']}" if holder.get("terminal") else ""
