"""A wave of agents, asked for at once, against the bare git and the bare interpreters.

The bare cost is what nobody can do without: `git worktree add` and a Python, one after
the other, in a repository of the same files just before and just after. An agent's own
program only sleeps. Nothing is deleted before the end: for minutes afterwards ext4 looks
through the inodes that were freed for every file it makes, several times the cost of a
small one. Where others delete, and for a second run, take TMPDIR=/dev/shm.
BENCH_FILES=20000 takes a large repository instead of 500 files: minutes, and gigabytes.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autocoder.core.commands import SpawnAgent
from autocoder.core.models import AgentState, Snapshot
from support.figures import Figure, figure
from support.projects import Project, running
from support.repositories import git, make_repository
from support.sockets import reserved_ports

SIZES = tuple(int(size) for size in os.environ.get("BENCH_SPAWN", "10,50,100").split(","))
FILES = int(os.environ.get("BENCH_FILES", "500"))
LONGEST_S = 150 + FILES / 50
TEXT = "a line of a source file that is neither long nor short\n" * 40
SLEEPS = '[backends.sleep]\ncommand = ["sleep", "3600"]\n'


@dataclass(frozen=True)
class Wave:
    """Seconds."""

    took: float
    bare: float
    """`git worktree add` and `python -I -S`, as often: the mean of before and after."""


def figures() -> Iterator[Figure]:
    waves = {}
    with tempfile.TemporaryDirectory() as name:
        for size in SIZES:
            off, fenced = [], []
            for turn in range(max(1, 30 // size)):
                off.append(_measured(Path(name, f"{size}-{turn}-off"), size, "off"))
                fenced.append(_measured(Path(name, f"{size}-{turn}-on"), size, "neighbours"))
            waves[size] = off
            yield from _compared(size, off, fenced)
    first, last = min(waves), max(waves)
    took = {size: statistics.median(wave.took for wave in waves[size]) / size for size in waves}
    bare = {size: statistics.median(wave.bare for wave in waves[size]) / size for size in waves}
    note = f"an agent of {last} against one of {first}; bare {bare[last] / bare[first]:.2f}"
    yield figure("wave, growth with size", took[last] / took[first], "x", at_most=1.2, note=note)


def _compared(size: int, off: list[Wave], fenced: list[Wave]) -> Iterator[Figure]:
    took, bare = (
        statistics.median(times) for times in ([w.took for w in off], [w.bare for w in off])
    )
    note = f"{FILES} files, median of {len(off)}; bare {1000 * bare / size:.0f} ms an agent"
    yield figure(f"wave of {size}", 1000 * took / size, "ms", note=f"an agent; {note}")
    ratio = statistics.median(wave.took / wave.bare for wave in off)
    yield figure(f"wave of {size} / bare", ratio, "x", at_most=1.3, note=note)
    # What is left when the bare cost of the same minute is taken off both.
    added = statistics.median(w.took - w.bare for w in fenced) - statistics.median(
        w.took - w.bare for w in off
    )
    note = "an agent; both cores are shared with what is started"
    yield figure(f"wave of {size}, the fence adds", 1000 * added / size, "ms", note=note)


def _measured(folder: Path, size: int, fence: str) -> Wave:
    files = {f"src/part{n % 20}/file{n}.py": f"# {n}\n{TEXT}" for n in range(FILES)}
    with reserved_ports(200 + 2 * size) as ports:
        folder.mkdir()
        before = _bare(make_repository(folder / "before", files), size)
        project = Project(folder, ports, features=size, parallel=0, more=SLEEPS, files=files)
        took = _wave(project, size, fence)
        after = _bare(make_repository(folder / "after", files), size)
    return Wave(took, (before + after) / 2)


def _bare(repository: Path, size: int) -> float:
    beside = repository.with_name(f"{repository.name}-worktrees")
    began = time.monotonic()
    for number in range(size):
        path = str(beside / str(number))
        git(repository, "worktree", "add", "--quiet", "-b", f"bare-{number}", path, "main")
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
    return time.monotonic() - began


def _wave(project: Project, size: int, fence: str) -> float:
    """Seconds from the requests until every agent's worker has reported."""

    def up(snapshot: Snapshot) -> bool:
        agents = [agent for agent in snapshot.agents if agent.live]
        return len(agents) == size and all(a.state is AgentState.ACTIVE for a in agents)

    with running(project.open(backend="sleep", fence=fence, tick_s=0.5)) as run:
        run.wait_for(bool)
        try:
            began = time.monotonic()
            for _ in range(size):
                run.engine.submit(SpawnAgent())
            run.wait_for(up, seconds=LONGEST_S)
            return time.monotonic() - began
        finally:
            workers = [agent.pid for agent in run.snapshot.agents] if run.snapshot else []
            run.stop()
            # Stopped by the engine they would leave no worktree.
            for pid in filter(None, workers):
                os.kill(pid, signal.SIGUSR1)
                os.waitpid(pid, 0)
