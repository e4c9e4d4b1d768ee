"""What a worker costs before its backend runs, against the bare interpreter."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from autocoder.core import agent_worker
from support.figures import Figure, figure
from support.sockets import reserved_ports

ROUNDS = 15


def figures() -> Iterator[Figure]:
    bare = _median_ms([sys.executable, "-I", "-S", "-c", "pass"])
    yield figure("bare python -I -S", bare, "ms")
    with tempfile.TemporaryDirectory() as folder, reserved_ports(2) as ports:
        for fence, limit in (("off", 30.0), ("neighbours", None)):
            started, peak = _worker(Path(folder), tuple(ports), fence)
            note = f"until its backend runs, median of {ROUNDS}, fence {fence}"
            yield figure(f"worker start, fence {fence}", started, "ms", at_most=limit, note=note)
            if fence == "off":
                yield figure("worker memory", peak, "MB", at_most=15, note="peak resident")


def _median_ms(command: Sequence[str]) -> float:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        subprocess.run(command, check=True)
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def _worker(folder: Path, ports: tuple[int, ...], fence: str) -> tuple[float, float]:
    """Milliseconds from spawn to the backend's first breath, and the worker's peak in MB."""
    agent = f"a-{fence}"
    run_folder = folder / ".autocoder" / "agents" / agent
    run_folder.mkdir(parents=True)
    tell = "date +%s.%N > began; grep VmHWM /proc/$PPID/status > peak"
    description = {
        "command": ["/bin/sh", "-c", tell],
        "fence": {"mode": fence, "pools": [[5000, 5100], [5173, 5273]]},
    }
    (run_folder / "run.json").write_text(json.dumps(description))
    command = [
        *(sys.executable, "-I", "-S", agent_worker.__file__, "--project-dir", str(folder)),
        *("--agent-id", agent, "--feature-id", "1", "--worktree-path", str(folder)),
        *("--api-port", str(ports[0]), "--web-port", str(ports[1])),
    ]
    times = []
    for _ in range(ROUNDS):
        begun = time.time()
        subprocess.run(command, check=True, env=os.environ)
        times.append(1000 * (float((folder / "began").read_text()) - begun))
    return statistics.median(times), int((folder / "peak").read_text().split()[1]) / 1000
