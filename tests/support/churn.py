"""A process that leases and releases pairs as fast as it can; `churn` runs many of them.

Each really binds what it was granted, so that two holders of one port are caught by
the kernel, not by the ledger's word.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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
    began = time.monotonic()
    bounds = [str(bound) for bound in (api.start, api.stop, web.start, web.stop)]
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, __file__, str(ledger), *bounds, str(leases), f"holder-{n}"],
                    env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for n in range(processes)
        ]
        try:
            answers = [json.loads(child.communicate(timeout=seconds)[0]) for child in children]
        finally:
            for child in children:
                child.kill()
    return ChurnResult(
        leases=sum(len(answer["lease_ms"]) for answer in answers),
        collisions=[text for answer in answers for text in answer["collisions"]],
        errors=[text for answer in answers for text in answer["errors"]],
        lease_ms=sorted(ms for answer in answers for ms in answer["lease_ms"]),
        release_ms=sorted(ms for answer in answers for ms in answer["release_ms"]),
        seconds=time.monotonic() - began,
    )


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _work(ledger: Path, api: range, web: range, leases: int, name: str) -> dict[str, object]:
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
    }


if __name__ == "__main__":
    path, *numbers, count, holder = sys.argv[1:]
    first, last, web_first, web_last = map(int, numbers)
    report = _work(Path(path), range(first, last), range(web_first, web_last), int(count), holder)
    json.dump(report, sys.stdout)
