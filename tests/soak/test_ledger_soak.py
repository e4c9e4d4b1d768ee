"""The ledger at full size, with its figures; `make soak`.

`SOAK_SCALE=0.01` runs the same at a hundredth, to see that all of it runs.
"""

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from autocoder.core.models import Holder, PortRange
from autocoder.core.ports import PortAllocator, PortRules
from autocoder.core.settings import PortSettings
from autocoder.core.store import FeatureDraft, ProjectStore
from support import oracle
from support.churn import churn, percentile
from support.kernel import Clock, SimulatedKernel
from support.ledger_machine import LIVES, LedgerMachine, RealKernelMachine
from support.sockets import reserved_ports
from support.waiting import wait_until

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
SCALE = float(os.environ.get("SOAK_SCALE", "1"))
NO_RULES = PortRules(frozenset(), PortRange(65535, 65536))


def scaled(count: int) -> int:
    return max(1, round(count * SCALE))


def say(text: str) -> None:
    sys.stdout.write(f"\n  {text} (load {os.getloadavg()[0]:.1f})\n")
    sys.stdout.flush()


def test_32_processes_lease_2000_times_each(tmp_path: Path) -> None:
    processes, leases = 32, scaled(2000)
    ledger = tmp_path / "ledger.db"
    with reserved_ports(200) as ports:
        result = churn(
            ledger, ports[:100], ports[100:], processes=processes, leases=leases, seconds=3000
        )
    say(
        f"{processes} x {leases} leases in {result.seconds:.0f} s: {len(result.collisions)} "
        f"duplicates, {len(result.errors)} refused or locked out; lease {_spread(result.lease_ms)}"
        f"; release {_spread(result.release_ms)}"
    )
    assert (result.leases, result.collisions, result.errors) == (processes * leases, [], [])
    oracle.assert_no_port_has_two_holders(ledger)


def _spread(times_ms: list[float]) -> str:
    p50, p99 = percentile(times_ms, 0.5), percentile(times_ms, 0.99)
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {times_ms[-1]:.0f} ms"


def test_a_lease_against_a_bare_transaction(tmp_path: Path) -> None:
    run = Path(__file__).parents[1] / "benchmarks" / "run.py"
    figures = tmp_path / "figures.json"
    subprocess.run(
        [sys.executable, str(run), "ledger", "--json", str(figures)],
        stdout=subprocess.DEVNULL,
        check=True,
    )
    taken = json.loads(figures.read_text())["figures"]
    say(
        "; ".join(f"{f['what']} {f['value']:.2f}x" for f in taken if f["target"])
        + " a bare two-row transaction with its probes (target <= 1.5)"
    )


def test_a_pool_of_50000_ports_is_drained_and_refilled_at_a_flat_cost(tmp_path: Path) -> None:
    pairs = scaled(25_000)
    allocator = PortAllocator(
        tmp_path / "ledger.db",
        PortSettings(
            api=(PortRange(2_000, 2_000 + pairs),),
            web=(PortRange(2_000 + pairs, 2_000 + 2 * pairs),),
            auto_expand=False,
            cooldown_s=0.0,
            max_ports=64_000,
        ),
        ui_port=8888,
        kernel=SimulatedKernel(),
        rules=NO_RULES,
    )
    for turn in ("drain", "refill"):
        costs = [_timed_lease(allocator, f"h-{n}") for n in range(pairs)]
        tenths = [
            statistics.median(costs[n : n + pairs // 10]) * 1000
            for n in range(0, pairs, pairs // 10)
        ]
        ratio = tenths[-1] / tenths[0]
        say(
            f"{turn} of {2 * pairs:,} ports: {tenths[0]:.2f} ms a lease in the first tenth, "
            f"{tenths[-1]:.2f} ms in the last, ratio {ratio:.2f} (target <= 1.5)"
        )
        assert ratio <= 1.5 or SCALE < 1, "a small pool's tenths are too short to compare"
        for n in range(pairs):
            allocator.release(f"h-{n}", "/project")
    allocator.close()


def _timed_lease(allocator: PortAllocator, name: str) -> float:
    began = time.perf_counter()
    allocator.lease(Holder(name, "/project"))
    return time.perf_counter() - began


def test_10000_leases_without_reuse_inside_the_cool_down(tmp_path: Path) -> None:
    clock = Clock()
    allocator = PortAllocator(
        tmp_path / "ledger.db",
        PortSettings(auto_expand=False),
        ui_port=8888,
        kernel=SimulatedKernel(),
        now=clock,
    )
    released: dict[int, float] = {}
    shortest = float("inf")
    count = scaled(10_000)
    for number in range(count):
        clock.advance(0.5)
        allocator.settle()
        pair = allocator.lease(Holder(f"a-{number}", "/project"))
        for port in (pair.api_port, pair.web_port):
            shortest = min(shortest, clock() - released.get(port, float("-inf")))
            released[port] = clock()
        allocator.release(f"a-{number}", "/project")
    allocator.close()
    say(f"{count:,} leases, shortest rest {shortest:.1f} s of 30 s")
    assert shortest >= 30.0


@pytest.mark.parametrize("kind", [LedgerMachine, RealKernelMachine])
def test_500_random_lives_of_a_ledger(kind: type[LedgerMachine]) -> None:
    lives = scaled(250)
    run_state_machine_as_test(
        kind, settings=settings(LIVES, max_examples=lives, stateful_step_count=50)
    )
    say(f"{lives} random lives of 50 steps on {kind.__name__}: every invariant held")


# ---------------------------------------------------------------------- two orchestrators


class Project:
    """A repository with a backlog, whose orchestrator is a process of its own."""

    def __init__(self, folder: Path, environ: dict[str, str], features: int) -> None:
        self.folder = folder
        self.environ = environ
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        (folder / "README").write_text("a repository\n")
        for command in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-qm", "Begin")):
            subprocess.run(["git", *command], cwd=folder, check=True)
        with contextlib.closing(ProjectStore(self.database)) as store:
            store.add_features([FeatureDraft(f"Feature {n}") for n in range(features)])

    @property
    def database(self) -> Path:
        return self.folder / "agent_system.db"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autocoder.core.cli", "parallel", "--project-dir",
             str(self.folder), "--parallel", "5", "--backend", "scripted"],
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def finish(self) -> int:
        if self.process is None:
            self.start()
        assert self.process is not None
        return self.process.wait(timeout=900)


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Path, range, dict[str, str]]]:
    """A ledger, the ports of its pools, and an environment that names both."""
    with reserved_ports(60) as ports:
        api, web = ports[:30], ports[30:]
        ledger = tmp_path / "ledger.db"
        yield (
            ledger,
            ports,
            os.environ
            | {
                "AUTOCODER_LEDGER_URL": f"sqlite:///{ledger}",
                "AUTOCODER_PORTS_API": f"{api[0]}-{api[-1]}",
                "AUTOCODER_PORTS_WEB": f"{web[0]}-{web[-1]}",
                "AUTOCODER_PORTS_AUTO_EXPAND": "false",
                "AUTOCODER_PORT_COOLDOWN_S": "1",
                "AUTOCODER_SCRIPTED_STEP_S": "0.2",
            },
        )


def test_two_projects_whose_orchestrators_are_killed_at_random(
    tmp_path: Path, shared: tuple[Path, range, dict[str, str]]
) -> None:
    ledger, ports, environ = shared
    seed = int(os.environ.get("SOAK_SEED", "1"))
    chance = random.Random(seed)
    projects = [Project(tmp_path / name, environ, scaled(60)) for name in ("one", "two")]
    databases = [project.database for project in projects]
    rounds = scaled(20)
    for _ in range(rounds):
        for project in projects:
            if project.process is None:
                project.start()
        deadline = time.monotonic() + chance.uniform(0.5, 4)
        while time.monotonic() < deadline:
            if oracle.has_table(ledger, "port_ranges"):
                judge(ledger, ports, databases)
        for project in chance.choice([projects, projects[:1], projects[1:]]):
            project.kill()
    codes = [project.finish() for project in projects]
    assert ledger.exists(), f"no orchestrator got as far as the ledger: exit codes {codes}"
    wait_until(
        lambda: all(lease.state == "cooling" for lease in oracle.leases(ledger)),
        seconds=20,
        what="every lease is given back",
    )
    left = set(ports) & set(oracle.listeners())
    alive = [
        pid
        for pid in oracle.processes()
        if oracle.environment(pid).get("AUTOCODER_LEDGER_URL") == environ["AUTOCODER_LEDGER_URL"]
    ]
    say(
        f"2 projects, {rounds} rounds of kill -9 (seed {seed}): exit codes {codes}, 0 duplicates, "
        f"{len(left)} listeners and {len(alive)} processes left"
    )
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert (left, alive) == (set(), [])


def judge(ledger: Path, ports: range, databases: list[Path]) -> None:
    oracle.assert_no_port_has_two_holders(ledger, databases)
    oracle.assert_pairs_are_whole(ledger)
    oracle.assert_listeners_have_their_lease(ledger, ports)
    oracle.assert_only_permitted_ports(ledger, [ports], 8888)
    for database in databases:
        oracle.assert_the_seeds_checks_hold(database)
