"""A wave of agents, asked for at once, against the bare git and the bare interpreters.

The bare cost is what nobody can do without: `git worktree add` and a Python, one after
the other, in the same repository just before and just after. BENCH_FILES=20000 takes
a large repository instead of 500 files, and minutes.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autocoder.core.commands import SpawnAgent, StopAll
from autocoder.core.models import AgentState, Snapshot
from support.figures import Figure, figure
from support.projects import Project, running
from support.repositories import git
from support.sockets import reserved_ports

SIZES = tuple(int(size) for size in os.environ.get("BENCH_SPAWN", "10,50,100").split(","))
FILES = int(os.environ.get("BENCH_FILES", "500"))
LONGEST_S = 150 + FILES / 50
TEXT = "a line of a source file that is neither long nor short\n" * 40


@dataclass(frozen=True)
class Wave:
    bare: float
    """Seconds of `git worktree add` and `python -I -S`, n times."""
    off: float
    neighbours: float


def figures() -> Iterator[Figure]:
    waves = {}
    for size in SIZES:
        waves[size] = wave = _measured(size)
        note = f"{FILES} files; bare {wave.bare:.2f} s"
        each = 1000 * wave.off / size
        yield figure(f"wave of {size}", wave.off, "s", note=f"{note}; {each:.0f} ms an agent")
        yield figure(f"wave of {size} / bare", wave.off / wave.bare, "x", at_most=1.3, note=note)
        added = 1000 * (wave.neighbours - wave.off) / size
        note = f"{wave.neighbours:.2f} s in all; both cores are shared with what is started"
        yield figure(f"wave of {size}, the fence adds", added, "ms", note=f"an agent; {note}")
    first, last = min(waves), max(waves)
    growth = (waves[last].off / last) / (waves[first].off / first)
    note = f"an agent of {last} against one of {first}; 1 is linear"
    yield figure("wave, growth with size", growth, "x", at_most=1.2, note=note)


def _measured(size: int) -> Wave:
    files = {f"src/part{n % 20}/file{n}.py": f"# {n}\n{TEXT}" for n in range(FILES)}
    with tempfile.TemporaryDirectory() as name, reserved_ports(200 + 2 * size) as ports:
        project = Project(Path(name), ports, features=3 * size, parallel=0, files=files)
        bare = [_bare(project, size)]
        off = _wave(project, size, "off")
        bare.append(_bare(project, size))
        neighbours = _wave(project, size, "neighbours")
        bare.append(_bare(project, size))
        return Wave(statistics.median(bare), off, neighbours)


def _bare(project: Project, size: int) -> float:
    beside = project.folder.with_name("bare")
    began = time.monotonic()
    for number in range(size):
        path = str(beside / str(number))
        git(project.folder, "worktree", "add", "--quiet", "-b", f"bare-{number}", path, "main")
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    took = time.monotonic() - began
    shutil.rmtree(beside)
    git(project.folder, "worktree", "prune")
    git(project.folder, "branch", "--quiet", "-D", *(f"bare-{n}" for n in range(size)))
    return took


def _wave(project: Project, size: int, fence: str) -> float:
    """Seconds from the requests until every agent's worker has reported."""
    settings = {"backend": "scripted", "scripted.step_s": 600, "fence": fence, "tick_s": 0.5}

    def up(snapshot: Snapshot) -> bool:
        agents = [agent for agent in snapshot.agents if agent.live]
        return len(agents) == size and all(a.state is AgentState.ACTIVE for a in agents)

    with running(project.open(**settings)) as run:
        run.wait_for(bool)
        try:
            began = time.monotonic()
            for _ in range(size):
                run.engine.submit(SpawnAgent())
            run.wait_for(up, seconds=LONGEST_S)
            return time.monotonic() - began
        finally:
            run.engine.submit(StopAll())
            run.wait_for(lambda now: not any(a.live for a in now.agents), LONGEST_S)
