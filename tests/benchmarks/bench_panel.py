"""The panel as a process in a pseudo terminal: what it costs, and how soon a key shows.

Each state is watched for AUTOCODER_BENCH_SECONDS, 8 unless it says otherwise; 600 show
whether memory stays flat.
"""

import contextlib
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from autocoder.core.models import AgentState
from support.figures import Figure, figure
from support.marked import Marked
from support.projects import Project
from support.pty import Terminal
from support.sockets import reserved_ports

SUPPORT = Path(__file__).parent.parent / "support"
SIZE = (140, 40)
SECONDS = float(os.environ.get("AUTOCODER_BENCH_SECONDS", "8"))
LOOKS = 8
"""How often memory is looked at in that time."""
KEYS = 60
LOGS = ".autocoder/agents/*/log"
LONGEST_S = 300.0
YOUNG_S, IDLE_S = 65.0, 60.0
"""An agent's age counts seconds in its first minute."""
NUMBERED = re.compile(rb"line ([0-9]{8}) of a log")


def figures() -> Iterator[Figure]:
    yield from _first_paint()
    with _panel(100, 0) as (terminal, _):
        terminal.wait_for_bytes(b"number 0000 end", 0)
        _settle(terminal, 3)
        cpu, written = _cost(terminal, SECONDS)
        note = "100 silent agents"
        yield figure("idle panel, CPU", cpu, "%", at_most=3, note=note)
        yield figure(
            "idle panel, bytes written", written, "B/s", note=f"{note}; the clock's minutes"
        )
    yield from _idle_with_its_orchestrator()
    yield from _busy("one pane", 100, 1000, ())
    yield from _busy("wall of 9 panes", 100, 1000, ("v",), size=(200, 32))
    yield from _busy("wall of 24 panes", 100, 1000, ("v",), size=(230, 48))
    yield from _many_rows()
    yield from _files()


def _idle_with_its_orchestrator() -> Iterator[Figure]:
    """Panel and orchestrator in one process, as users run them, with agents that say nothing."""
    agents = 100
    with (
        Marked() as marked,
        tempfile.TemporaryDirectory() as name,
        reserved_ports(100 + 2 * agents) as ports,
    ):
        project = Project(Path(name), ports, features=agents, parallel=agents)
        argv = [sys.executable, "-m", "autocoder.tui", str(project.folder)]
        # As users have it; the projects of tests look more often.
        env = {**os.environ, "AUTOCODER_TICK_S": "0.5", **marked.env}
        with Terminal(argv, env=env, size=SIZE, interpret=False) as terminal:
            began = time.monotonic()
            while sum(b"at work" in log.read_bytes() for log in project.folder.glob(LOGS)) < agents:
                if time.monotonic() - began > LONGEST_S:
                    raise TimeoutError("not all agents are at work")
                _settle(terminal, 0.5)
            _settle(terminal, YOUNG_S)
            cpu, written = _cost(terminal, IDLE_S)
            marked.end()
    note = f"{agents} silent agents, real ones, in one process; {IDLE_S:.0f} s"
    yield figure("idle, with its orchestrator, CPU", cpu, "%", at_most=3, note=note)
    yield figure("idle, with its orchestrator, bytes written", written, "B/s", note=note)


def _first_paint() -> Iterator[Figure]:
    """From exec to the first words, and to the first agent, with a long history behind it."""
    ended = 10_000
    painted, known = [], []
    with tempfile.TemporaryDirectory() as name, reserved_ports(100) as ports:
        project = Project(Path(name), ports, parallel=0, features=ended)
        _end_agents(project.database, ended)
        argv = [sys.executable, "-m", "autocoder.tui", str(project.folder)]
        for _ in range(3):
            began = time.monotonic()
            with Terminal(argv, size=SIZE, interpret=False) as terminal:
                terminal.wait_for_bytes(b"autocoder", 0)
                painted.append(time.monotonic() - began)
                terminal.wait_for_bytes(b"a-%04x" % ended, 0)
                known.append(time.monotonic() - began)
                terminal.press("q")
                terminal.wait_for_exit()
    note = f"{ended} features done, as many agents ended; best of 3"
    yield figure("start to first paint", min(painted), "s", at_most=1, note=note)
    yield figure("start to the first agent shown", min(known), "s", note=note)


def _end_agents(database: Path, count: int) -> None:
    """As if `count` agents had each finished their feature."""
    agents = [
        {
            "agent_id": f"a-{number:04x}",
            "status": AgentState.COMPLETED.value,
            "feature_id": number,
            "started_at": "2026-01-01 10:00:00",
            "ended_at": "2026-01-01 10:10:00",
            "reason": "merged 3 commits into main",
            "epoch": number,
            "eaddrinuse": 0,
        }
        for number in range(1, count + 1)
    ]
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE features SET status = 'DONE', passes = 1")
        names = ", ".join(agents[0])
        values = ", ".join(f":{name}" for name in agents[0])
        connection.executemany(f"INSERT INTO agent_history ({names}) VALUES ({values})", agents)


def _busy(
    name: str, agents: int, rate: int, keys: tuple[str, ...], size: tuple[int, int] = SIZE
) -> Iterator[Figure]:
    note = f"{agents} agents x {rate} lines/s"
    with _panel(agents, 0, size=size) as (terminal, folder):
        terminal.wait_for_bytes(b"number 0000 end", 0)
        with _writing(folder, agents, rate):
            terminal.press(*keys)
            _settle(terminal, 3)
            process = psutil.Process(terminal.process.pid)
            before = process.memory_info().rss
            cpu, written, most = _cost_and_memory(terminal, process)
            yield figure(f"busy panel, {name}, CPU", cpu, "%", at_most=60, note=note)
            yield figure(f"busy panel, {name}, output", written / 1000, "kB/s", note=note)
            keyed = _keys if not keys else _wall_keys
            yield from keyed(terminal, f"busy panel, {name}", note)
            after = process.memory_info().rss
            grown = (after - before) / 1e6
            yield figure(
                f"busy panel, {name}, RSS",
                after / 1e6,
                "MB",
                at_most=200,
                note=f"{note}; {grown:+.1f} MB in {SECONDS:.0f} s, at most {most / 1e6:.0f}",
            )


def _files() -> Iterator[Figure]:
    """Real agents below a real panel: every line that they print is in their logs, in order."""
    agents, rate, lines = 100, 1000, 10_000
    command = [sys.executable, "-I", "-S", str(SUPPORT / "printing_program.py")]
    command += [str(rate), str(lines)]
    backend = f"\n[backends.printing]\ncommand = {json.dumps(command)}\n"
    with (
        Marked() as marked,
        tempfile.TemporaryDirectory() as name,
        reserved_ports(100 + 2 * agents) as ports,
    ):
        project = Project(Path(name), ports, features=agents, parallel=agents, more=backend)
        argv = [sys.executable, "-m", "autocoder.tui", str(project.folder)]
        env = {**os.environ, "AUTOCODER_BACKEND": "printing", **marked.env}
        last = b"line %08d" % (lines - 1)
        with Terminal(argv, env=env, size=SIZE, interpret=False) as terminal:
            logs: list[Path] = []
            began = time.monotonic()
            while len(logs) < agents or not all(last in log.read_bytes()[-200:] for log in logs):
                if time.monotonic() - began > LONGEST_S:
                    raise TimeoutError(f"{len(logs)} logs, not all of them to their last line")
                _settle(terminal, 0.5)
                del terminal.raw[:]
                logs = sorted(project.folder.glob(LOGS))
            marked.end()
        numbers = [[int(found) for found in NUMBERED.findall(log.read_bytes())] for log in logs]
    lost = sum(len(set(range(lines)) - set(found)) for found in numbers)
    disordered = sum(found != sorted(set(found)) for found in numbers)
    note = f"{agents} real agents x {lines} lines, {disordered} logs out of order or doubled"
    yield figure("busy panel, lines lost in the files", lost, "", at_most=0, note=note)


def _many_rows() -> Iterator[Figure]:
    note = "1,000 agents, 50 changes/s"
    with _panel(1000, 50) as (terminal, _):
        terminal.wait_for_bytes(b"number 0000 end", 0)
        _settle(terminal, 2)
        cpu, written = _cost(terminal, SECONDS)
        yield figure("1,000 rows, CPU", cpu, "%", note=note)
        yield figure("1,000 rows, output", written / 1000, "kB/s", note=note)
        yield from _keys(terminal, "1,000 rows", note)


def _keys(terminal: Terminal, name: str, note: str) -> Iterator[Figure]:
    """From a key to the log title of the next row, which only that key brings."""
    times = []
    for number in range(1, KEYS + 1):
        start = len(terminal.raw)
        terminal.press("j")
        times.append(terminal.wait_for_bytes(b"number %04d end" % number, start) * 1000)
        _settle(terminal, 0.05)
    yield from _latency(times, name, note)


def _wall_keys(terminal: Terminal, name: str, note: str) -> Iterator[Figure]:
    """From a key to the cursor on the next pane's title."""
    times = []
    for number in range(1, KEYS + 1):
        start = len(terminal.raw)
        began = time.monotonic()
        terminal.press("tab")
        moved = re.compile(b"\xe2\x96\xb6[^\xe2]{0,60}a-%04x" % (number % _panes(name)))
        while not moved.search(terminal.raw, start):
            terminal.drain(0.01)
            if time.monotonic() - began > 20:
                raise TimeoutError(f"the cursor never came to pane {number}")
        times.append((time.monotonic() - began) * 1000)
        _settle(terminal, 0.05)
    yield from _latency(times, name, note)


def _panes(name: str) -> int:
    return int(name.rpartition("wall of ")[2].partition(" ")[0])


def _latency(times: list[float], name: str, note: str) -> Iterator[Figure]:
    times.sort()
    p50, p99 = statistics.median(times), times[round(0.99 * (len(times) - 1))]
    yield figure(f"{name}, key to screen p50", p50, "ms", note=note)
    yield figure(f"{name}, key to screen p99", p99, "ms", at_most=100, note=note)


@contextlib.contextmanager
def _panel(
    agents: int, changes: int, size: tuple[int, int] = SIZE
) -> Iterator[tuple[Terminal, Path]]:
    with tempfile.TemporaryDirectory() as name:
        program = str(SUPPORT / "fleet_process.py")
        argv = [sys.executable, program, name, str(agents), str(changes)]
        env = {"PYTHONPATH": str(SUPPORT.parent)}
        with Terminal(argv, env=env, size=size, interpret=False) as terminal:
            yield terminal, Path(name)


@contextlib.contextmanager
def _writing(folder: Path, files: int, rate: int) -> Iterator[None]:
    program = str(SUPPORT / "log_writer.py")
    argv = [sys.executable, program, str(folder), str(files), str(rate)]
    writer = subprocess.Popen(argv)
    try:
        yield
    finally:
        writer.kill()
        writer.wait()


def _settle(terminal: Terminal, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        terminal.drain(0.02)


def _cost_and_memory(terminal: Terminal, process: psutil.Process) -> tuple[float, float, int]:
    """As `_cost`, and the most memory seen, in bytes."""
    looks = []
    most = 0
    for _ in range(LOOKS):
        looks.append(_cost(terminal, SECONDS / LOOKS))
        most = max(most, process.memory_info().rss)
        # What was written is not looked at again, and would be the terminal's own growth.
        del terminal.raw[:]
    return statistics.mean(cpu for cpu, _ in looks), statistics.mean(out for _, out in looks), most


def _cost(terminal: Terminal, seconds: float) -> tuple[float, float]:
    """Per cent of a core, and bytes a second to the terminal."""
    process = psutil.Process(terminal.process.pid)
    before, start, began = process.cpu_times(), len(terminal.raw), time.monotonic()
    _settle(terminal, seconds)
    after, took = process.cpu_times(), time.monotonic() - began
    used = after.user + after.system - before.user - before.system
    return 100 * used / took, (len(terminal.raw) - start) / took
