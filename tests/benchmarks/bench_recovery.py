"""How soon a killed worker is replaced, and a killed orchestrator's agents are taken over."""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from autocoder.core.commands import StopAll
from autocoder.core.models import Agent, LeaseState, Snapshot
from support.figures import Figure, figure
from support.marked import Marked
from support.projects import Project, Running, running
from support.pty import Terminal
from support.sockets import reserved_ports
from support.waiting import wait_until

KILLS = int(os.environ.get("BENCH_KILLS", "30"))
AGENTS = int(os.environ.get("BENCH_AGENTS", "100"))
PARALLEL = 5
LONGEST_S = 150.0
SETTLE_S, IDLE_S = 2.0, 6.0
WORKS = """
[scripted]
step_s = 600
"""
SCREEN = (140, 40)
STYLE = re.compile(rb"\x1b\[[0-9;:?]*[a-zA-Z]")


def figures() -> Iterator[Figure]:
    yield from _refilled()
    yield from _restarted()


def _refilled() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name, reserved_ports(200) as ports:
        project = Project(Path(name), ports, features=KILLS + PARALLEL, parallel=PARALLEL)
        limits = {"limits.alike_failures": 1000, "limits.retry_s": 600}
        settings = {"backend": "scripted", "scripted.step_s": 600, "tick_s": 0.5, **limits}
        with running(project.open(**settings)) as run:
            try:
                times = sorted(_kill_one(run) for _ in range(KILLS))
            finally:
                run.engine.submit(StopAll())
                run.wait_for(lambda now: not live(now), seconds=60)
    p50, p95 = statistics.median(times), times[round(0.95 * (len(times) - 1))]
    note = f"kill -9 of {KILLS} workers, one after the other, {PARALLEL} agents"
    yield figure("crash to slot refilled, p50", 1000 * p50, "ms", note=note)
    yield figure("crash to slot refilled, p95", 1000 * p95, "ms", at_most=1000, note=note)


def _kill_one(run: Running) -> float:
    """Seconds until its lease is given back and another agent's worker runs in its place."""

    def full(snapshot: Snapshot) -> bool:
        return sum(agent.pid is not None for agent in live(snapshot)) == PARALLEL

    before = run.wait_for(full)
    victim = live(before)[0]
    assert victim.pid is not None
    known = {agent.agent_id for agent in live(before)}
    began = time.monotonic()
    os.kill(victim.pid, signal.SIGKILL)

    def refilled(now: Snapshot) -> bool:
        leased = {x.holder for x in now.leases if x.state is LeaseState.LEASED}
        new = {agent.agent_id for agent in live(now)} - known
        return victim.agent_id not in leased and bool(new) and full(now)

    run.wait_for(refilled)
    return time.monotonic() - began


def live(snapshot: Snapshot) -> list[Agent]:
    return [agent for agent in snapshot.agents if agent.live]


def _restarted() -> Iterator[Figure]:
    with (
        Marked() as marked,
        tempfile.TemporaryDirectory() as name,
        reserved_ports(100 + 2 * AGENTS) as ports,
    ):
        project = Project(Path(name), ports, features=AGENTS, parallel=AGENTS, more=WORKS)
        env = {**os.environ, **marked.env, "AUTOCODER_BACKEND": "scripted"}
        # As users have it; the projects of tests look more often.
        env["AUTOCODER_TICK_S"] = "0.5"
        _headless(project, env)
        headless, idle = _headless(project, env)
        note = f"kill -9 with {AGENTS} live agents; from exec, imports included"
        yield figure("restart, headless", headless, "s", at_most=2, note=note)
        yield figure("restart, panel painted", _panel(project, env), "s", at_most=2, note=note)
        note = f"{AGENTS} silent agents, no panel; {IDLE_S:g} s"
        yield figure("idle orchestrator, CPU", idle, "%", at_most=3, note=note)


def _headless(project: Project, env: dict[str, str]) -> tuple[float, float]:
    """Seconds until an orchestrator has all agents, and its CPU then; then it is killed."""
    command = [sys.executable, "-m", "autocoder.core.cli", "parallel", "--json"]
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, "--project-dir", str(project.folder)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            told = json.loads(line)
            if told["event"] == "progress" and told["active"] == AGENTS and _workers(project):
                return time.monotonic() - began, _cpu_percent(process.pid)
        raise AssertionError("the orchestrator ended")
    finally:
        process.kill()
        process.communicate()


def _cpu_percent(pid: int) -> float:
    """Of one core, once it has nothing to do but to look."""
    process, pause = psutil.Process(pid), threading.Event()
    pause.wait(SETTLE_S)
    before, began = process.cpu_times(), time.monotonic()
    pause.wait(IDLE_S)
    after, took = process.cpu_times(), time.monotonic() - began
    return 100 * (after.user + after.system - before.user - before.system) / took


def _workers(project: Project) -> bool:
    """Whether every agent has a worker, by what it has written."""
    beats = (project.folder / ".autocoder" / "agents").glob("*/status.json")
    return sum(1 for _ in beats) == AGENTS


def _panel(project: Project, env: dict[str, str]) -> float:
    """Seconds until a new panel's screen says that all live."""
    wanted = f"{AGENTS} active".encode()
    argv = [sys.executable, "-m", "autocoder.tui", str(project.folder)]
    began = time.monotonic()
    with Terminal(argv, env=env, size=SCREEN, interpret=False) as terminal:

        def painted() -> bool:
            terminal.drain(0.02)
            return wanted in STYLE.sub(b"", bytes(terminal.raw))

        wait_until(painted, seconds=LONGEST_S, what="all agents on the screen")
        return time.monotonic() - began
