"""The live workers of this host, as the process table shows them.

A worker carries its agent, project and pair in its arguments, so that they can be
known again when every file is lost.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from autocoder.core.probe import Kernel, Process

WORKER_SCRIPT = "agent_worker.py"


@dataclass(frozen=True, slots=True)
class LiveWorker:
    """A process that says it is the worker of an agent; its ports are what it was started with."""

    agent_id: str
    project: str
    pid: int
    pid_start: int
    api_port: int
    web_port: int
    epoch: int = 0
    """Of its lease; 0 where only its arguments are known, which do not tell."""


def live_workers(
    kernel: Kernel, processes: Mapping[int, Process] | None = None
) -> tuple[LiveWorker, ...]:
    """Every worker of the host that leads a POSIX session, oldest first.

    Only session leaders count: an agent that starts a program with a worker's
    arguments does not speak for one that way.
    """
    return WorkerSearch(kernel).among(kernel.processes() if processes is None else processes)


class WorkerSearch:
    """Finds the workers of the host again and again; arguments that cannot have changed since
    are not read again."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._read: dict[int, tuple[Process, LiveWorker | None]] = {}
        """What the arguments of each leader of a POSIX session say, by pid."""

    def among(self, processes: Mapping[int, Process]) -> tuple[LiveWorker, ...]:
        """As `live_workers`, of a process table just read."""
        read = {}
        for pid, process in processes.items():
            if process.session not in (pid, 0) or process.state in "ZX":
                continue
            before = self._read.get(pid)
            if before is not None and before[0] is process:
                read[pid] = before
            else:
                read[pid] = process, _parse(self._kernel.command_line(pid), process)
        self._read = read
        found = (worker for _, worker in read.values() if worker)
        return tuple(sorted(found, key=lambda worker: (worker.pid_start, worker.pid)))


def _parse(arguments: tuple[str, ...], process: Process) -> LiveWorker | None:
    script = next((i for i, text in enumerate(arguments) if text.endswith(WORKER_SCRIPT)), None)
    if script is None:
        return None
    rest = arguments[script + 1 :]
    given = dict(itertools.pairwise(rest))
    ports = [given.get(name, "") for name in ("--api-port", "--web-port")]
    if not given.get("--agent-id") or not all(port.isascii() and port.isdigit() for port in ports):
        return None
    return LiveWorker(
        agent_id=given["--agent-id"],
        project=given.get("--project-dir", ""),
        pid=process.pid,
        pid_start=process.start,
        api_port=int(ports[0]),
        web_port=int(ports[1]),
    )
