"""Orchestrators killed at random while their agents work, and what every one of them found."""

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support import oracle
from support.fleets import Project
from support.repositories import git
from support.waiting import wait_until
from support.zygote import ForkedOrchestrator, Zygote

WORK = """
import os, random, signal, socket, time
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
commit()
signal.sigtimedwait([], random.random() * {seconds})
server.close()
"""
"""An agent that holds its API port, commits, and works on for a while."""


@dataclass
class Figures:
    kills: int = 0
    live: int = 0
    """Agents at the first snapshot of each, summed up."""
    recovery_s: list[float] = field(default_factory=list)
    """From the start of an orchestrator to its first snapshot, everybody adopted."""
    faults: list[str] = field(default_factory=list)

    def line(self) -> str:
        times = sorted(self.recovery_s) or [0.0]
        p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
        live = self.live / max(self.kills, 1)
        return (
            f"{self.kills} kills, {live:.0f} agents live at each, {len(self.faults)} faults, "
            f"recovery p50 {p50:.2f} s, p95 {p95:.2f} s, load {os.getloadavg()[0]:.1f}"
        )


def churn(project: Project, forking: Zygote, *, kills: int, seed: int) -> Figures:
    """Kill the orchestrator so often, at random moments; afterwards let one finish the backlog."""
    rng, figures = random.Random(seed), Figures()
    for _ in range(kills):
        began = time.monotonic()
        orchestrator = forking.start(project)
        _wait_for_snapshot(orchestrator)
        figures.recovery_s.append(time.monotonic() - began)
        snapshot = orchestrator.snapshot
        figures.live += sum(agent.live for agent in snapshot.agents) if snapshot else 0
        _wait(rng.uniform(0, 0.5), orchestrator)
        orchestrator.kill()
        orchestrator.wait()
        figures.kills += 1
        figures.faults += project.faults()
    return figures


def finish(project: Project, forking: Zygote, figures: Figures, *, seconds: float) -> None:
    """Let the backlog be finished; whatever is wrong then is a fault too."""
    orchestrator = forking.start(project)
    code = orchestrator.wait(seconds)
    if code:
        figures.faults.append(f"the last orchestrator ended with {code}: {forking.errors()}")
    features = project.query("SELECT id, status, attempts FROM features")
    figures.faults += [f"feature {row}" for row in features if row[1:] != ("DONE", 0)]
    done = Counter(git(project.dir, "log", "--no-merges", "--format=%s", "main").splitlines())
    figures.faults += [
        f"feature {row[0]} has {done[f'Do feature {row[0]}']} commits"
        for row in features
        if not done[f"Do feature {row[0]}"]
    ]
    figures.faults += project.leftovers()
    if forking.errors():
        figures.faults.append(forking.errors())


def _wait_for_snapshot(orchestrator: ForkedOrchestrator) -> None:
    wait_until(
        lambda: orchestrator.snapshot or orchestrator.has_ended,
        seconds=60,
        what=f"a snapshot; {orchestrator.zygote.errors()}",
    )


def _wait(seconds: float, orchestrator: ForkedOrchestrator) -> None:
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until or orchestrator.has_ended, seconds=60)


def kill_a_worker(project: Project, rng: random.Random) -> str:
    """The agent whose worker was killed; empty where none runs."""
    rows = project.query("SELECT agent_id, pid FROM agent_heartbeats WHERE status = 'ACTIVE'")
    for agent_id, pid in rng.sample(rows, len(rows)):
        if oracle.is_alive(pid, None) and str(project.dir) in _arguments(pid):
            os.kill(pid, signal.SIGKILL)
            return str(agent_id)
    return ""


def _arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
