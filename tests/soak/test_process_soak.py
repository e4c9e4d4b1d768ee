"""Processes at full size, with their figures: `make soak`."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from support import oracle
from support.churn_kills import WORK, Figures, churn, finish
from support.fleets import WAITS, Project
from support.sockets import reserved_ports
from support.waiting import wait_until
from support.zygote import Zygote, zygote

pytestmark = pytest.mark.soak

KILLS = int(os.environ.get("SOAK_KILLS", "200"))
AGENTS = int(os.environ.get("SOAK_AGENTS", "50"))
WORKER_KILLS = int(os.environ.get("SOAK_WORKER_KILLS", "100"))
ADOPTED = int(os.environ.get("SOAK_ADOPTED", "100"))
STOPPED_S = float(os.environ.get("SOAK_STOPPED_S", "60"))
SEED = int(os.environ.get("SOAK_SEED", "1"))


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Zygote]:
    with zygote(tmp_path) as started:
        yield started


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """With room for all agents at once."""
    with reserved_ports(400) as ports:
        project = Project(tmp_path, ports)
        yield project
        project.end_everything()
        wait_until(lambda: not project.processes(), seconds=60, what="the test's agents end")


def say(text: str) -> None:
    sys.stdout.write(f"\n    {text}\n")


def test_orchestrators_killed_while_many_agents_churn(project: Project, forking: Zygote) -> None:
    project.settings = replace(project.settings, parallel=AGENTS, stop_when_done=True)
    project.add(*[WORK.format(seconds=20.0)] * (AGENTS * 4))

    figures: Figures = churn(project, forking, kills=KILLS, seed=SEED)
    finish(project, forking, figures, seconds=1800)

    say(f"orchestrator killed, {AGENTS} agents at once: {figures.line()}")
    assert figures.faults == []


def test_an_orchestrator_stopped_for_a_minute_ends_nobody(
    project: Project, forking: Zygote
) -> None:
    project.settings = replace(project.settings, parallel=20)
    project.add(*[WAITS] * 20)
    orchestrator = forking.start(project)
    wait_until(lambda: active(project) == 20, seconds=120, what="20 agents are active")
    pids = set(project.query("SELECT pid FROM agent_heartbeats"))
    os.kill(orchestrator.pid, signal.SIGSTOP)
    threading.Event().wait(STOPPED_S)
    continued = time.time()
    os.kill(orchestrator.pid, signal.SIGCONT)
    beats = f"SELECT min(strftime('%s', last_ping)) >= '{int(continued)}' FROM agent_heartbeats"
    wait_until(lambda: project.query(beats)[0][0], seconds=60, what="its heartbeats are read")

    assert set(project.query("SELECT pid FROM agent_heartbeats")) == pids
    assert not project.query("SELECT * FROM agent_history")
    assert project.faults() == []
    say(f"stopped for {STOPPED_S:.0f} s: heartbeats current {time.time() - continued:.1f} s later")
    orchestrator.kill()
    orchestrator.wait()


def test_killed_workers_have_their_slot_refilled(project: Project, forking: Zygote) -> None:
    project.settings = replace(project.settings, parallel=20)
    project.limit(retry_s=0.0, attempts=1000, alike_failures=1000)
    project.add(*[WAITS] * (20 + WORKER_KILLS))
    orchestrator = forking.start(project)
    rng, times = random.Random(SEED), []
    wait_until(lambda: active(project) == 20, seconds=120, what="20 agents are active")
    for _ in range(WORKER_KILLS):
        rows = project.query("SELECT agent_id, pid FROM agent_heartbeats WHERE status = 'ACTIVE'")
        _, pid = rng.choice(rows)
        before = {row[0] for row in rows}
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        wait_until(lambda before=before: runs_besides(project, before), seconds=60)  # type: ignore[misc]
        times.append(time.monotonic() - began)
        wait_until(lambda: active(project) == 20, seconds=60, what="20 agents are active again")
        assert project.faults() == []
    orchestrator.kill()
    orchestrator.wait()

    times.sort()
    p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
    told = f"slot refilled p50 {p50:.2f} s, p95 {p95:.2f} s, load {os.getloadavg()[0]:.1f}"
    say(f"{len(times)} workers killed: {told}")


def test_a_hundred_agents_are_adopted_after_a_restart(project: Project, forking: Zygote) -> None:
    project.settings = replace(project.settings, parallel=ADOPTED, tick_s=0.5)
    project.add(*[WAITS] * ADOPTED)
    first = forking.start(project)
    wait_until(lambda: active(project) == ADOPTED, seconds=300, what="all are active")
    first.kill()
    first.wait()

    times = []
    for _ in range(5):
        began = time.monotonic()
        again = forking.start(project)
        wait_until(lambda again=again: again.snapshot, seconds=60)  # type: ignore[misc]
        times.append(time.monotonic() - began)
        snapshot = again.snapshot
        assert snapshot is not None
        assert sum(agent.pid is not None for agent in snapshot.agents) == ADOPTED
        again.kill()
        again.wait()
        assert project.faults() == []
    last = forking.start(project)
    wait_until(lambda: last.snapshot)
    before = cpu_seconds(last.pid)
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > 10, seconds=30)
    share = (cpu_seconds(last.pid) - before) / (time.monotonic() - began)
    load = os.getloadavg()[0]
    say(
        f"{ADOPTED} agents adopted: first snapshot after {min(times):.2f} to {max(times):.2f} s, "
        f"then {share:.1%} of a core, load {load:.1f}"
    )


def runs_besides(project: Project, known: set[str]) -> bool:
    """Whether an agent that is none of these has a worker."""
    rows = project.query("SELECT agent_id FROM agent_heartbeats WHERE pid IS NOT NULL")
    return not known.issuperset(row[0] for row in rows)


def active(project: Project) -> int:
    rows = project.query("SELECT count(*) FROM agent_heartbeats WHERE status = 'ACTIVE'")
    return int(rows[0][0])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_nothing_of_the_menagerie_is_left(project: Project, forking: Zygote) -> None:
    """Everything that gets away from other ways of ending a tree, ended by stop, kill and -9."""
    zoo = """
    import os, signal, subprocess, sys
    signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)
    base = [sys.executable, "-I", "-S", "-c"]
    rest = "import os, signal\\n{}\\nsignal.pause()"
    for trick in ("signal.signal(15, 1)", "os.setsid()",
                  "os.setsid()\\nif os.fork(): os._exit(0)", "signal.signal(1, 1)"):
        subprocess.Popen([*base, rest.format(trick)])
        subprocess.Popen([*base, rest.format(trick)], env={}, start_new_session=True)
    hop = "import os, time\\nwhile True:\\n if os.fork(): os._exit(0)\\n os.setsid()"
    hop += "\\n time.sleep(0.03)"
    subprocess.Popen([*base, hop])
    print("ready", flush=True)
    signal.pause()
    """
    project.settings = replace(project.settings, parallel=3)
    project.limit(stop_grace_s=0.5)
    project.add(*[zoo] * 3)
    orchestrator = forking.start(project)
    wait_until(lambda: active(project) == 3, seconds=60, what="three agents are active")
    zoo_ids = [row[0] for row in project.query("SELECT agent_id FROM agent_heartbeats")]
    logs = [project.run_folder(agent_id) / "log" for agent_id in zoo_ids]
    wait_until(lambda: all("ready" in log.read_text() for log in logs), seconds=60)
    rows = project.query("SELECT pid FROM agent_heartbeats ORDER BY id")
    trees = {pid: tree_of(pid) for (pid,) in rows}
    for (pid,), number in zip(rows, (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL), strict=True):
        os.kill(pid, number)
    began = time.monotonic()
    seen = {key for tree in trees.values() for key in tree}
    wait_until(
        lambda: not [key for key in seen if oracle.is_alive(*key)], seconds=30, what="all end"
    )
    wait_until(lambda: not any(map(project.processes, zoo_ids)), seconds=30, what="hoppers end")
    seconds = time.monotonic() - began
    orchestrator.kill()
    orchestrator.wait()
    say(f"menagerie of {len(seen)} processes: 0 left after {seconds:.2f} s")


def tree_of(root: int) -> set[tuple[int, int]]:
    table = oracle.processes()
    found, waiting = set(), [root]
    while waiting:
        parent = waiting.pop()
        for pid, fact in table.items():
            if fact.ppid == parent and (pid, fact.start) not in found:
                found.add((pid, fact.start))
                waiting.append(pid)
    return found
