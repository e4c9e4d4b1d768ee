"""A process that leases and releases pairs as fast as it can; `churn` runs many of them.

Each really binds what it was granted, so that two holders of one port are caught by
the kernel, not by the ledger's word.
"""

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from autocoder.core.errors import AutocoderError
from autocoder.core.models import Holder, PortRange
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import local_kernel
from autocoder.core.settings import PortSettings


@dataclass(frozen=True)
class ChurnResult:
    leases: int
    collisions: list[str]
    """Ports that could not be bound although they were leased."""
    errors: list[str]
    lease_ms: list[float]
    release_ms: list[float]
    seconds: float


def open_ledger(
    ledger: Path, api: range, web: range, *, cooldown_s: float = 0, patience_s: float = 10
) -> PortAllocator:
    settings = PortSettings(
        api=(PortRange(api.start, api.stop),),
        web=(PortRange(web.start, web.stop),),
        cooldown_s=cooldown_s,
        auto_expand=False,
    )
    return PortAllocator(
        ledger, settings, ui_port=8888, kernel=local_kernel(), patience_s=patience_s
    )


def churn(
    ledger: Path, api: range, web: range, *, processes: int, leases: int, seconds: float
) -> ChurnResult:
    """Let `processes` lease `leases` pairs each from one ledger, at the same time."""
    bounds = [str(bound) for bound in (api.start, api.stop, web.start, web.stop)]
    with subprocess.Popen(
        [sys.executable, __file__, str(ledger), *bounds, str(leases), str(processes)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as parent:
        try:
            told = parent.communicate(timeout=seconds)[0]
        finally:
            if parent.poll() is None:
                os.killpg(parent.pid, signal.SIGKILL)
    answers = [json.loads(line) for line in told.splitlines() if line]
    assert len(answers) == processes, "one of them broke off; its words are above"
    return ChurnResult(
        leases=sum(len(answer["lease_ms"]) for answer in answers),
        collisions=[text for answer in answers for text in answer["collisions"]],
        errors=[text for answer in answers for text in answer["errors"]],
        lease_ms=sorted(ms for answer in answers for ms in answer["lease_ms"]),
        release_ms=sorted(ms for answer in answers for ms in answer["release_ms"]),
        seconds=max(answer["seconds"] for answer in answers),
    )


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _work(ledger: Path, api: range, web: range, leases: int, name: str) -> dict[str, object]:
    started = time.monotonic()
    allocator = open_ledger(ledger, api, web)
    collisions, errors, lease_ms, release_ms = [], [], [], []
    for _ in range(leases):
        began = time.perf_counter()
        try:
            pair = allocator.lease(Holder(name, f"/{name}", os.getpid()))
            lease_ms.append((time.perf_counter() - began) * 1000)
            for port in (pair.api_port, pair.web_port):
                with socket.socket() as bound:
                    try:
                        bound.bind(("", port))
                    except OSError as error:
                        collisions.append(f"{name} {port}: {error}")
            began = time.perf_counter()
            allocator.release(name, f"/{name}", epoch=pair.epoch)
            release_ms.append((time.perf_counter() - began) * 1000)
            if not len(release_ms) % 10:
                allocator.settle()
        except AutocoderError as error:
            errors.append(f"{name}: {type(error).__name__}: {error.message}")
    allocator.close()
    return {
        "collisions": collisions,
        "errors": errors,
        "lease_ms": lease_ms,
        "release_ms": release_ms,
        "seconds": time.monotonic() - started,
    }


def _in_a_process(work: Callable[[], dict[str, object]]) -> TextIO:
    """What will be told by a process that is forked now: imports are most of a short life."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        code = 1
        try:
            os.close(reading)
            with os.fdopen(writing, "w") as told:
                json.dump(work(), told)
            code = 0
        finally:
            if code:
                traceback.print_exc()
            os._exit(code)
    os.close(writing)
    return os.fdopen(reading)


if __name__ == "__main__":
    path, *numbers = sys.argv[1:]
    first, last, web_first, web_last, count, processes = map(int, numbers)
    reports = [
        _in_a_process(
            functools.partial(
                _work, Path(path), range(first, last), range(web_first, web_last), count, f"h-{n}"
            )
        )
        for n in range(processes)
    ]
    for report in reports:
        print(report.read())  # noqa: T201
