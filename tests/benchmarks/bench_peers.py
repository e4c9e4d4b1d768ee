"""Other programs that run many processes at once, beside ours: the same processes and lines.

What is counted is what is spent on running them: everything a program starts except
the printing processes themselves, which are the same for all. Ours is the panel in a
real terminal with one log shown, its orchestrator, and a worker for each process.
"""

import contextlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.figures import Figure, figure
from support.marked import Cost, Marked, arguments
from support.projects import Project
from support.pty import Terminal
from support.sockets import reserved_ports

SHAPES = ((100, 500), (10, 1000))
"""Processes, and lines a second of each."""
SECONDS = float(os.environ.get("BENCH_SECONDS", "6"))
SETTLE_S = 2.0
LINE_BYTES = len("tool  run   line 00000000 of a log that is written steadily, with some text\n")
LONGEST_START_S = 120.0
SCREEN = (140, 40)
PROGRAM = Path(__file__).resolve().parents[1] / "support" / "printing_program.py"
NODE_FOLDER = Path(__file__).resolve().parents[2] / ".bench" / "node"
NODE_PEERS = ("mprocs", "pm2")
SHARES: Mapping[str, tuple[float, float | None]] = {"mprocs": (1 / 3, 1 / 4)}
"""At most so much of a peer's CPU, and of its memory; else ahead in CPU is enough."""
SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True)
class Start:
    """How a peer is started on a folder made for it."""

    argv: Sequence[str | Path]
    env: Mapping[str, str]
    stop: Sequence[str | Path] = ()
    """For a peer that leaves a daemon behind: what asks it to end."""


@dataclass(frozen=True)
class Taken:
    started: float
    """Seconds from exec until every process runs."""
    costs: Cost
    load: Cost
    """The printing processes themselves."""
    delivered: float
    """Share of the lines that it let the processes print: one that reads too slowly holds
    them back, and is charged as if it had read all."""

    @property
    def cpu(self) -> float:
        return self.costs.cpu_percent / max(self.delivered, 0.01)


def figures() -> Iterator[Figure]:
    wanted = os.environ.get("BENCH_PEERS", ",".join(PEERS)).split(",")
    for processes, rate in SHAPES:
        found: dict[str, Taken] = {}
        for name, prepare in PEERS.items():
            if name not in wanted:
                continue
            missing = _missing(name)
            if missing:
                yield figure(f"{name} {processes} x {rate}", 0, "", note=f"skipped: {missing}")
                continue
            found[name] = _taken(prepare, processes, rate)
            yield from _told(name, processes, rate, found)


def _told(name: str, processes: int, rate: int, found: Mapping[str, Taken]) -> Iterator[Figure]:
    taken, ours = found[name], found.get("ours")
    what = f"{name}, {processes} x {rate} lines/s"
    costs = taken.costs
    note = (
        f"{costs.processes} processes, {costs.cpu_percent:.0f} % with {taken.delivered:.0%} of the "
        f"lines; the printing itself {taken.load.cpu_percent:.0f} %"
    )
    yield figure(f"{what}: start", taken.started, "s", note=f"until all {processes} run")
    yield figure(f"{what}: CPU", taken.cpu, "%", note=note)
    note = f"PSS; its largest process {costs.largest_mb:.0f} MB"
    yield figure(f"{what}: memory", costs.megabytes, "MB", note=note)
    if ours is None or name == "ours":
        return
    cpu, memory = SHARES.get(name, (1.0, None))
    ratio = ours.cpu / taken.cpu
    yield figure(f"ours / {name}: CPU", ratio, "x", at_most=cpu)
    ratio = ours.costs.largest_mb / costs.megabytes
    note = f"with workers {ours.costs.megabytes / costs.megabytes:.2f}"
    yield figure(f"our panel / {name}: memory", ratio, "x", at_most=memory, note=note)
    yield figure(f"ours / {name}: start", ours.started / taken.started, "x")


def _taken(
    prepare: Callable[[Path, int, int], contextlib.AbstractContextManager[Start]],
    processes: int,
    rate: int,
) -> Taken:
    with (
        Marked() as marked,
        tempfile.TemporaryDirectory() as name,
        prepare(Path(name), processes, rate) as start,
    ):
        env = {**os.environ, **start.env, **marked.env}
        began = time.monotonic()
        with Terminal(start.argv, env=env, cwd=Path(name), size=SCREEN, interpret=False) as screen:
            while sum(map(_prints, marked.pids())) < processes:
                if time.monotonic() - began > LONGEST_START_S:
                    shown = screen.written[-2000:]
                    raise AssertionError(f"{start.argv[0]} did not start all: {shown}")
                screen.drain(0.02)
            started = time.monotonic() - began
            _follow(screen, SETTLE_S)
            load, costs = marked.costs(SECONDS, lambda s: _follow(screen, s), _prints)
            if load.processes != processes:
                raise AssertionError(f"{start.argv[0]}: {load.processes} of {processes} print")
            if start.stop:
                subprocess.run(start.stop, env=env, check=False, capture_output=True, timeout=60)
            marked.end()
    delivered = load.written_per_s / (processes * rate * LINE_BYTES)
    return Taken(started, costs, load, min(delivered, 1.0))


def _follow(screen: Terminal, seconds: float) -> None:
    """Read the screen as a terminal does, and let go of it: minutes of frames are much."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        screen.drain(min(left, 0.1))
        screen.raw.clear()


def _prints(pid: int) -> bool:
    return arguments(pid)[1:4] == ["-I", "-S", str(PROGRAM)]


def _command(rate: int) -> list[str]:
    return [sys.executable, "-I", "-S", str(PROGRAM), str(rate)]


# ---------------------------------------------------------------------- the peers


@contextlib.contextmanager
def _ours(folder: Path, processes: int, rate: int) -> Iterator[Start]:
    with reserved_ports(100 + 2 * processes) as ports:
        backend = f"\n[backends.printing]\ncommand = {json.dumps(_command(rate))}\n"
        project = Project(folder, ports, features=processes, parallel=processes, more=backend)
        env = {"AUTOCODER_BACKEND": "printing", "AUTOCODER_FENCE": "neighbours"}
        env["AUTOCODER_TICK_S"] = "0.5"
        yield Start([sys.executable, "-m", "autocoder.tui", project.folder], env)


@contextlib.contextmanager
def _mprocs(folder: Path, processes: int, rate: int) -> Iterator[Start]:
    procs = {f"p{number}": {"cmd": _command(rate)} for number in range(processes)}
    config = folder / "mprocs.json"
    config.write_text(json.dumps({"procs": procs}))
    # The program itself: its package starts it from a node that stays.
    built = NODE_FOLDER.glob(f"node_modules/mprocs/*-{sys.platform}-{platform.machine()}*/mprocs")
    yield Start([next(built, _node("mprocs")), "--config", config], {})


@contextlib.contextmanager
def _supervisor(folder: Path, processes: int, rate: int) -> Iterator[Start]:
    config = folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={folder}/main.log\npidfile={folder}/pid\n"
        f"childlogdir={folder}\nuser={os.geteuid()}\n"
        f"[program:p]\ncommand={' '.join(_command(rate))}\nnumprocs={processes}\n"
        "process_name=%(program_name)s_%(process_num)03d\nstartsecs=0\n"
        f"stdout_logfile={folder}/%(program_name)s_%(process_num)03d.log\n"
        "redirect_stderr=true\n"
    )
    yield Start([SCRIPTS / "supervisord", "-c", config], {})


@contextlib.contextmanager
def _honcho(folder: Path, processes: int, rate: int) -> Iterator[Start]:
    (folder / "Procfile").write_text(f"p: exec {' '.join(_command(rate))}\n")
    yield Start([SCRIPTS / "honcho", "start", "-c", f"p={processes}"], {})


@contextlib.contextmanager
def _circus(folder: Path, processes: int, rate: int) -> Iterator[Start]:
    config = folder / "circus.ini"
    sockets = "\n".join(
        f"{name} = ipc://{folder}/{name}"
        for name in ("endpoint", "pubsub_endpoint", "stats_endpoint")
    )
    config.write_text(
        f"[circus]\n{sockets}\nwarmup_delay = 0\n"
        f"[watcher:p]\ncmd = {' '.join(_command(rate))}\nnumprocesses = {processes}\n"
        "copy_env = True\nwarmup_delay = 0\n"
        f"stdout_stream.class = FileStream\nstdout_stream.filename = {folder}/p.log\n"
    )
    yield Start([SCRIPTS / "circusd", config], {})


@contextlib.contextmanager
def _pm2(folder: Path, processes: int, rate: int) -> Iterator[Start]:
    program, *arguments_ = _command(rate)
    app = {"script": program, "args": arguments_, "interpreter": "none", "autorestart": False}
    config = folder / "ecosystem.config.json"
    apps = [app | {"name": f"p{number}"} for number in range(processes)]
    config.write_text(json.dumps({"apps": apps}))
    env = {"PM2_HOME": str(folder / "pm2"), "PM2_DISABLE_VERSION_CHECK": "true"}
    pm2 = _node("pm2")
    yield Start([pm2, "start", config], env, stop=[pm2, "kill"])


PEERS: Mapping[str, Callable[[Path, int, int], contextlib.AbstractContextManager[Start]]] = {
    "ours": _ours,
    "mprocs": _mprocs,
    "supervisor": _supervisor,
    "honcho": _honcho,
    "circus": _circus,
    "pm2": _pm2,
}


def _missing(name: str) -> str:
    """Why a peer cannot be run here; empty where it can."""
    if name == "ours":
        return ""
    if name not in NODE_PEERS:
        found = importlib.util.find_spec(name)
        return "" if found else f"{name} is not installed; `make bench` installs it"
    if _node(name).exists():
        return ""
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm"
    NODE_FOLDER.mkdir(parents=True, exist_ok=True)
    quiet = ("--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(NODE_FOLDER))
    done = subprocess.run(
        [npm, "install", *quiet, name],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return "" if _node(name).exists() else f"npm: {done.stderr.strip()[-200:]}"


def _node(name: str) -> Path:
    return NODE_FOLDER / "node_modules" / ".bin" / name
