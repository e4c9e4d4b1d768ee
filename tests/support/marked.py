"""Everything a program has started, wherever it has gone, and what that costs.

Daemons leave the process tree but keep their environment, so processes are found
by a mark in it.
"""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from support.waiting import wait_until

_NAME = "MEASURED_RUN"
_TICKS = os.sysconf("SC_CLK_TCK")
_turn = itertools.count()


@dataclass(frozen=True, slots=True)
class Cost:
    """What some processes took within one stretch of time."""

    cpu_percent: float
    """Of one core."""
    megabytes: float
    """Proportional set size at the end: shared pages are counted once."""
    largest_mb: float
    """Of its one process that has most."""
    written_per_s: float
    """Bytes: a load whose output nobody takes in time is held back, and costs nobody anything."""
    processes: int


class Marked:
    """The processes that were started with `env`; as a context manager, none lives afterwards."""

    def __init__(self) -> None:
        self._mark = f"{_NAME}={os.getpid()}-{next(_turn)}"
        name, _, value = self._mark.partition("=")
        self.env = {name: value}

    def __enter__(self) -> "Marked":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def pids(self) -> list[int]:
        mark = f"\0{self._mark}\0".encode()
        return [
            int(folder.name)
            for folder in Path("/proc").iterdir()
            if folder.name.isdecimal() and mark in b"\0" + _read(int(folder.name), "environ")
        ]

    def costs(
        self, seconds: float, wait: Callable[[float], object], is_load: Callable[[int], bool]
    ) -> tuple[Cost, Cost]:
        """What these take while `wait(seconds)` runs: those for which `is_load`, and all others."""
        pids = self.pids()
        load = {pid for pid in pids if is_load(pid)}
        before = {pid: _cpu_ticks(pid) for pid in pids}
        written = {pid: _written(pid) for pid in pids}
        began = time.monotonic()
        wait(seconds)
        took = time.monotonic() - began
        written = {pid: _written(pid) - bytes_ for pid, bytes_ in written.items()}
        spent = {pid: _cpu_ticks(pid) - ticks for pid, ticks in before.items()}

        def cost(chosen: Iterable[int]) -> Cost:
            chosen = list(chosen)
            percent = 100 * sum(max(spent[pid], 0) for pid in chosen) / _TICKS / took
            sizes = [_pss_mb(pid) for pid in chosen]
            rate = sum(max(written[pid], 0) for pid in chosen) / took
            return Cost(percent, sum(sizes), max(sizes, default=0), rate, len(chosen))

        return cost(load), cost(spent.keys() - load)

    def end(self) -> None:
        """Kill until none is left: one that forks meanwhile is met again."""

        def none_left() -> bool:
            pids = self.pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        wait_until(none_left, seconds=30, what="all processes of a measurement end")


def arguments(pid: int) -> list[str]:
    """Of its command line; none once it is gone."""
    return _read(pid, "cmdline").decode("utf-8", "replace").split("\0")[:-1]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _cpu_ticks(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[11]) + int(fields[12]) if fields else 0


def _written(pid: int) -> int:
    for line in _read(pid, "io").splitlines():
        if line.startswith(b"wchar:"):
            return int(line.split()[1])
    return 0


def _pss_mb(pid: int) -> float:
    for line in _read(pid, "smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
