"""What the kernel says about the live agents: one look at all of them together.

One pass over the process table and one over the listening sockets serve every
agent; nothing here costs a subprocess or grows with the length of a log.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autocoder.core.logs import sanitise
from autocoder.core.models import Listener
from autocoder.core.probe import TICKS_PER_SECOND, Kernel, ListeningSocket, Process

MIB = 1 << 20
LAST_LINE_BYTES = 2048
LAST_LINE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Watched:
    """A live agent to look at."""

    agent_id: str
    worker_pid: int | None
    api_port: int
    web_port: int
    log: Path


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one agent."""

    cpu_percent: float = 0.0
    memory_bytes: int = 0
    """In whole MiB, so that a breathing heap is no change."""
    processes: int = 0
    api_listener: Listener = Listener.NONE
    web_listener: Listener = Listener.NONE
    last_line: str = ""
    problem: str = ""
    rogue: str = ""
    """The part of `problem` that is the agent's own doing: a port it took without a lease."""
    tree: frozenset[tuple[int, int]] = frozenset()
    """Pid and start of every process below the worker."""


class Observer:
    """Remembers the previous look, which processor times are measured against."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._looked_at = 0.0
        self._ticks: dict[tuple[int, int], int] = {}
        self._lines: dict[str, tuple[int, str]] = {}

    def look(
        self, watched: Iterable[Watched], pool_ports: frozenset[int], monotonic: float
    ) -> Mapping[str, Observation]:
        """One observation per agent, by id."""
        agents = tuple(watched)
        processes = self._kernel.processes()
        listeners = self._kernel.listeners()
        elapsed = monotonic - self._looked_at
        owner = {
            port: agent.agent_id for agent in agents for port in (agent.api_port, agent.web_port)
        }
        ticks: dict[tuple[int, int], int] = {}
        observations = {}
        children = _children(processes)
        in_pools = listeners.keys() & pool_ports
        for agent in agents:
            tree = _tree(processes, children, agent.worker_pid)
            for process in tree.values():
                ticks[process.pid, process.start] = process.cpu_ticks
            spent = sum(
                max(process.cpu_ticks - self._ticks.get((process.pid, process.start), 0), 0)
                for process in tree.values()
            )
            percent = 100 * spent / TICKS_PER_SECOND / elapsed if self._looked_at else 0.0
            api, api_problem = _listener("api", agent.api_port, listeners, tree)
            web, web_problem = _listener("web", agent.web_port, listeners, tree)
            rogue = _rogue(agent, listeners, tree, in_pools, owner)
            observations[agent.agent_id] = Observation(
                cpu_percent=float(round(percent)),
                memory_bytes=sum(p.rss_bytes for p in tree.values()) // MIB * MIB,
                processes=len(tree),
                api_listener=api,
                web_listener=web,
                last_line=self._last_line(agent),
                problem="; ".join(filter(None, (api_problem, web_problem, rogue))),
                rogue=rogue,
                tree=frozenset((pid, tree[pid].start) for pid in tree if pid != agent.worker_pid),
            )
        self._ticks, self._looked_at = ticks, monotonic
        self._lines = {agent_id: self._lines[agent_id] for agent_id in observations}
        return observations

    def _last_line(self, agent: Watched) -> str:
        size, line = self._lines.get(agent.agent_id, (-1, ""))
        try:
            with agent.log.open("rb") as log:
                now = os.fstat(log.fileno()).st_size
                if now != size:
                    log.seek(max(now - LAST_LINE_BYTES, 0))
                    line = last_line(log.read(LAST_LINE_BYTES))
        except OSError:
            now = -1
        self._lines[agent.agent_id] = now, line
        return line


def last_logged(log: Path) -> str:
    """The last line of a log that says something; empty where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - LAST_LINE_BYTES, 0))
            return last_line(file.read(LAST_LINE_BYTES))
    except OSError:
        return ""


def last_line(tail: bytes) -> str:
    """The last line of a log's end that says something, fit for a screen."""
    for raw in reversed(tail.splitlines()):
        text = sanitise(raw.decode("utf-8", "replace")).strip()
        if text:
            return text[:LAST_LINE_CHARACTERS]
    return ""


def _children(processes: Mapping[int, Process]) -> Mapping[int, list[int]]:
    """Pids by parent, worked out once for all agents."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.ppid, []).append(process.pid)
    return children


def _tree(
    processes: Mapping[int, Process], children: Mapping[int, list[int]], root: int | None
) -> dict[int, Process]:
    """The root and all below it that are no zombies."""
    tree: dict[int, Process] = {}
    waiting = [root] if root is not None and root in processes else []
    while waiting:
        pid = waiting.pop()
        if pid not in tree:
            tree[pid] = processes[pid]
            waiting += children.get(pid, ())
    return {pid: process for pid, process in tree.items() if process.state != "Z"}


def _listener(
    role: str,
    port: int,
    listeners: Mapping[int, tuple[ListeningSocket, ...]],
    tree: Mapping[int, Process],
) -> tuple[Listener, str]:
    sockets = listeners.get(port, ())
    foreign = [listening for listening in sockets if listening.pid not in tree]
    if foreign:
        who = foreign[0]
        named = f'pid {who.pid} "{who.command}"' if who.pid else f"a process of user {who.uid}"
        return Listener.FOREIGN, f"{role} {port}: listener is {named}, not this agent"
    return (Listener.OWN if sockets else Listener.NONE), ""


def _rogue(
    agent: Watched,
    listeners: Mapping[int, tuple[ListeningSocket, ...]],
    tree: Mapping[int, Process],
    in_pools: Collection[int],
    owner: Mapping[int, str],
) -> str:
    """A port of the pools that this agent listens on without a lease."""
    own = (agent.api_port, agent.web_port)
    for port in in_pools:
        if port not in own and any(listening.pid in tree for listening in listeners[port]):
            of = f" of {owner[port]}" if port in owner else ""
            return f"listens on {port}{of}, which is not its own"
    return ""
