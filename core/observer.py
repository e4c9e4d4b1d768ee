"""What the kernel says about the live agents: one look at all of them together.

One view of processes and listening sockets serves every agent; nothing here costs
a subprocess or grows with the length of a log. What an agent wrote itself, its log and
its events, is sanitised and clipped here.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from autocoder.core.events import Progress, ProgressReader
from autocoder.core.logs import sanitise
from autocoder.core.models import Agent, Listener, Role
from autocoder.core.probe import TICKS_PER_SECOND, HostView, ListeningSocket, Process

MIB = 1 << 20
LAST_LINE_BYTES = 2048
LAST_LINE_CHARACTERS = 200
WORD_CHARACTERS = 80
"""Of a tool's or model's name, and of why a model's service is asked again."""

PROGRESS_KEPT = 500
"""Ended agents whose progress is remembered, the latest to begin."""


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
    progress: Progress = field(default_factory=Progress)
    problem: str = ""
    rogue: str = ""
    """The part of `problem` that is the agent's own doing: a port it took without a lease."""
    tree: frozenset[tuple[int, int]] = frozenset()
    """Pid and start of every process below the worker."""


class Observer:
    """Remembers the previous look, which processor times are measured against."""

    def __init__(self) -> None:
        self._looked_at = 0.0
        self._ticks: dict[tuple[int, int], int] = {}
        self._lines: dict[str, tuple[int, str]] = {}
        self._readers: dict[str, ProgressReader] = {}
        self._progress: dict[str, tuple[Progress, Progress]] = {}
        """As it was read, and as it is shown."""

    def look(
        self,
        watched: Iterable[Watched],
        view: HostView,
        pool_ports: frozenset[int],
        monotonic: float,
    ) -> Mapping[str, Observation]:
        """One observation per agent, by id; the view was taken at `monotonic`."""
        agents = tuple(watched)
        elapsed = monotonic - self._looked_at
        ticks: dict[tuple[int, int], int] = {}
        observations = {}
        children = _children(view.processes)
        trees = {
            agent.agent_id: _tree(view.processes, children, agent.worker_pid) for agent in agents
        }
        sockets = _Sockets(view.listeners, agents, trees, pool_ports)
        for agent in agents:
            tree = trees[agent.agent_id]
            for process in tree.values():
                ticks[process.pid, process.start] = process.cpu_ticks
            spent = sum(
                max(process.cpu_ticks - self._ticks.get((process.pid, process.start), 0), 0)
                for process in tree.values()
            )
            percent = 100 * spent / TICKS_PER_SECOND / elapsed if self._looked_at else 0.0
            api, api_problem = sockets.listener(agent, Role.API, agent.api_port)
            web, web_problem = sockets.listener(agent, Role.WEB, agent.web_port)
            rogue = sockets.rogue(agent)
            observations[agent.agent_id] = Observation(
                cpu_percent=float(round(percent)),
                memory_bytes=sum(p.rss_bytes for p in tree.values()) // MIB * MIB,
                processes=len(tree),
                api_listener=api,
                web_listener=web,
                last_line=self._last_line(agent),
                progress=self._read_progress(agent),
                problem="; ".join(filter(None, (api_problem, web_problem, rogue))),
                rogue=rogue,
                tree=frozenset((pid, tree[pid].start) for pid in tree if pid != agent.worker_pid),
            )
        self._ticks, self._looked_at = ticks, monotonic
        self._lines = {agent_id: self._lines[agent_id] for agent_id in observations}
        ended = [agent_id for agent_id in self._readers if agent_id not in observations]
        for agent_id in ended[:-PROGRESS_KEPT]:
            del self._readers[agent_id]
            self._progress.pop(agent_id, None)
        return observations

    def has_seen(self, agent_id: str) -> bool:
        """Whether the agent's progress is known from when it lived."""
        return agent_id in self._readers

    def progress(self, agent_id: str) -> Progress:
        """How far it got, as its backend says; that of an agent seen while it lived stays known."""
        if (reader := self._readers.get(agent_id)) is None:
            return Progress()
        said = reader.poll()
        known, fit = self._progress.get(agent_id, (None, said))
        if said is not known:
            fit = fit_for_a_screen(said)
            self._progress[agent_id] = said, fit
        return fit

    def _read_progress(self, agent: Watched) -> Progress:
        if agent.agent_id not in self._readers:
            self._readers[agent.agent_id] = ProgressReader(agent.log.parent)
        return self.progress(agent.agent_id)

    def _last_line(self, agent: Watched) -> str:
        size, line = self._lines.get(agent.agent_id, (-1, ""))
        try:
            # Asked for every agent at every look, most of them silent: opening costs more.
            now = agent.log.stat().st_size
            if now != size:
                with agent.log.open("rb") as log:
                    now = os.fstat(log.fileno()).st_size
                    log.seek(max(now - LAST_LINE_BYTES, 0))
                    line = last_line(log.read(LAST_LINE_BYTES))
        except OSError:
            now = -1
        self._lines[agent.agent_id] = now, line
        return line


def with_progress(agent: Agent, progress: Progress) -> Agent:
    """The agent as it is shown, with what its backend says of itself."""
    return replace(
        agent,
        model=progress.model or agent.model,
        iteration=progress.iteration,
        last_tool=progress.last_tool,
        tokens=progress.tokens,
        cost_usd=progress.cost_usd,
        retrying=progress.retrying,
    )


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


def fit_for_a_screen(progress: Progress) -> Progress:
    """The same with its words sanitised and clipped."""
    return replace(
        progress,
        model=_word(progress.model),
        last_tool=_word(progress.last_tool),
        retrying=_word(progress.retrying),
    )


def _word(text: str) -> str:
    return " ".join(sanitise(text).split())[:WORD_CHARACTERS] if text else ""


class _Sockets:
    """Who listens at this moment, by agent."""

    def __init__(
        self,
        listeners: Mapping[int, tuple[ListeningSocket, ...]],
        agents: Iterable[Watched],
        trees: Mapping[str, Mapping[int, Process]],
        pool_ports: frozenset[int],
    ) -> None:
        self._listeners = listeners
        self._agent_of = {pid: agent_id for agent_id, tree in trees.items() for pid in tree}
        self._owner = {
            port: agent.agent_id for agent in agents for port in (agent.api_port, agent.web_port)
        }
        self._ports: dict[str, set[int]] = {}
        """Ports of pools and agents that each agent listens on."""
        for port in listeners.keys() & (pool_ports | self._owner.keys()):
            for socket in listeners[port]:
                if (agent_id := self._agent_of.get(socket.pid or 0)) is not None:
                    self._ports.setdefault(agent_id, set()).add(port)

    def listener(self, agent: Watched, role: Role, port: int) -> tuple[Listener, str]:
        """Who listens on a port of the agent's, and what is wrong with that, if anything."""
        sockets = self._listeners.get(port, ())
        foreign = [s for s in sockets if self._agent_of.get(s.pid or 0) != agent.agent_id]
        if not foreign:
            return (Listener.OWN if sockets else Listener.NONE), ""
        who = foreign[0]
        other = self._agent_of.get(who.pid or 0)
        for taken in sorted(self._ports.get(agent.agent_id, ())):
            if other is not None and self._owner.get(taken) == other:
                said = f"{role} {port}: {other} listens on it, and this agent on its {taken}"
                return Listener.SWAPPED, said
        named = f'pid {who.pid} "{who.command}"' if who.pid else f"a process of user {who.uid}"
        of = f" of {other}" if other else ""
        return Listener.FOREIGN, f"{role} {port}: listener is {named}{of}, not this agent"

    def rogue(self, agent: Watched) -> str:
        """A port of the pools that this agent listens on without a lease."""
        own = {agent.api_port, agent.web_port}
        for port in sorted(self._ports.get(agent.agent_id, set()) - own):
            of = f" of {self._owner[port]}" if port in self._owner else ""
            return f"listens on {port}{of}, which is not its own"
        return ""
