"""What a killed worker leaves, and the proof that it is this agent's and nobody else's.

A worker ends its own tree; this is for when it could not. Nothing is signalled
without one of the proofs below, and only by (pid, start), so that no signal ever
meets a recycled pid.
"""

import contextlib
import json
import os
import select
import signal
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from autocoder.core import agent_worker
from autocoder.core.probe import Process, descendants

ProcessKey = tuple[int, int]
"""Pid and start: one process for ever, as long as the host runs."""


class Evidence:
    """What proves that a process is one of an agent's whose worker is gone.

    Any of: it was seen below the worker; the environment the worker gave it; the
    POSIX session of the worker or the backend; having fallen to us, the subreaper,
    while no live worker of ours is its parent; or, orphaned and without a terminal
    (so no shell of the user's), working in the agent's worktree. And everything
    below such a process. Nothing older than the worker is ever its.
    """

    def __init__(
        self,
        run_folder: Path,
        worktree: Path,
        *,
        since: int,
        tree: frozenset[ProcessKey],
        reaper: bool,
    ) -> None:
        """`since` is the worker's start, 0 if unknown; `reaper`: orphans of it fall to us."""
        self._mark = b"\0AUTOCODER_RUN_FOLDER=" + os.fsencode(run_folder) + b"\0"
        self._worktree = worktree
        self._tree = tree
        self._since = since
        self._reaper = reaper
        self._sessions = dict(_sessions(run_folder / "status.json", since))

    def leftovers(
        self, processes: Mapping[int, Process], workers: Collection[int]
    ) -> list[Process]:
        """Those of `processes` that are the agent's and no zombies."""
        barred = {*workers, os.getpid()}
        fallen = self._fallen(processes)
        roots = {
            process.pid
            for process in processes.values()
            if process.pid not in barred
            and process.state not in "ZX"
            and process.start >= self._since
            and self._convicts(process, processes, fallen)
        }
        found = set(roots)
        for root in roots:
            found |= descendants(processes, root)
        return [processes[pid] for pid in found - barred if processes[pid].state not in "ZX"]

    def _convicts(
        self, process: Process, processes: Mapping[int, Process], fallen: frozenset[int]
    ) -> bool:
        if (process.pid, process.start) in self._tree or self._in_session(process, processes):
            return True
        if process.pid in fallen:
            environment = _environment_of(process.pid)
            return self._mark in environment or b"\0AUTOCODER_AGENT_ID=" not in environment
        if self._mark in _environment_of(process.pid):
            return True
        parent = processes.get(process.ppid)
        orphaned = process.ppid == 1 or parent is None or parent.name == "systemd"
        return orphaned and _works_in(process, self._worktree)

    def _in_session(self, process: Process, processes: Mapping[int, Process]) -> bool:
        if process.session not in self._sessions:
            return False
        # A session's id is not given to another process while one of its members lives.
        leader = processes.get(process.session)
        return leader is None or leader.start == self._sessions[process.session]

    def _fallen(self, processes: Mapping[int, Process]) -> frozenset[int]:
        """Orphans that have become our children, told from those we started.

        The kernel hands orphans to a process's first thread; git and its like are
        started by others, or share our POSIX session.
        """
        own = processes.get(os.getpid())
        if own is None or not self._reaper:
            return frozenset()
        return frozenset(
            pid
            for pid in _children_of_first_thread(own.pid)
            if pid in processes and processes[pid].session != own.session
        )


def end(process: Process, deadline: float) -> None:
    """Kill the process and wait until it is gone; reap it where it has become our child."""
    pidfd = open_pidfd(process.pid)
    agent_worker.send(process.pid, signal.SIGKILL, process.start)
    if pidfd is not None:
        is_over(pidfd, within_s=max(deadline - time.monotonic(), 0))
        os.close(pidfd)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process.pid, os.WNOHANG)


def _sessions(status_file: Path, since: int) -> Iterator[ProcessKey]:
    """POSIX sessions of worker and backend with their leaders' starts, as the worker wrote them."""
    try:
        status = json.loads(status_file.read_text("utf-8", "replace"))
        pairs = [
            (status["pid"], status["start"]),
            (status["backend_pid"], status["backend_start"]),
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for pid, start in pairs:
        if isinstance(pid, int) and isinstance(start, int) and pid > 1 and start >= since:
            yield pid, start


def _children_of_first_thread(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except OSError:
        return []


def open_pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):
        return None


def is_over(pidfd: int, within_s: float = 0.0) -> bool:
    """Whether the process has ended, reaped or not."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(within_s * 1000))


def _environment_of(pid: int) -> bytes:
    try:
        return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def _works_in(process: Process, worktree: Path) -> bool:
    try:
        cwd = Path(f"/proc/{process.pid}/cwd").readlink()
        terminal = Path(f"/proc/{process.pid}/stat").read_bytes().rpartition(b")")[2].split()[4]
    except (OSError, IndexError):
        return False
    return terminal == b"0" and cwd.is_relative_to(worktree)
