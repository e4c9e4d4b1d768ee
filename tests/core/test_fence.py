"""Which ports an agent's programs may bind under each mode of the fence, for real servers."""

import shutil
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from support.fleets import WAITS, Project, running
from support.workers import RunningWorker, running_worker

PYTHON = "import http.server, sys; http.server.test(port=int(sys.argv[1]), bind='127.0.0.1')"
NODE = (
    "require('http').createServer((q, r) => r.end('ok'))"
    ".listen(+process.argv[1], '127.0.0.1', () => console.log('Serving'))"
)
SERVERS = {
    "python": [sys.executable, "-I", "-u", "-c", PYTHON],
    "node": [shutil.which("node") or "node", "-e", NODE],
}


def serve(
    folder: Path, pair: tuple[int, int], port: int, server: str, mode: str, pools: list[list[int]]
) -> RunningWorker:
    """An ended worker whose backend has tried to serve on `port`."""
    if shutil.which(SERVERS[server][0]) is None:
        pytest.skip(f"{server} is not installed")
    ledger = folder / "ledger.db"
    with sqlite3.connect(ledger) as connection:
        connection.execute("CREATE TABLE port_leases (port, holder, state)")
        connection.execute("INSERT INTO port_leases VALUES (?, 'a-0099', 'leased')", (pools[0][0],))
    connection.close()
    program = f"""
import subprocess, sys
server = subprocess.Popen({[*SERVERS[server], str(port)]!r}, stdout=subprocess.PIPE, text=True)
for line in server.stdout:
    print(line, end="", flush=True)
    if "Serving" in line: break
server.terminate()
"""
    fence = {"mode": mode, "pools": pools, "ledger": str(ledger)}
    with running_worker(folder, program, pair, fence=fence) as worker:
        worker.wait()
    return worker


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("mode", "which", "served"),
    [
        ("neighbours", "own", True),
        ("neighbours", "outside the pools", True),
        ("neighbours", "a neighbour's", False),
        ("strict", "own", True),
        ("strict", "outside the pools", False),
        ("off", "a neighbour's", True),
    ],
)
def test_a_server_is_served_or_refused_and_told_why(
    tmp_path: Path, ports: range, server: str, mode: str, which: str, served: bool
) -> None:
    api, web, neighbour, outside = ports[:4]
    port = {"own": api, "outside the pools": outside, "a neighbour's": neighbour}[which]
    pools = [[neighbour, neighbour + 1], [api, web + 1]]

    worker = serve(tmp_path, (api, web), port, server, mode, pools)

    if mode != "off" and not worker.says("(fenced)"):
        pytest.skip("this kernel has no Landlock network rules")
    assert worker.says("Serving") == served
    if not served:
        assert worker.says(f"use $AUTOCODER_API_PORT ({api})")
    if which == "a neighbour's" and server == "node" and not served:
        assert worker.says(f"port {neighbour} belongs to a-0099")


def test_a_fence_leaves_the_kernels_choice_of_a_port_alone(
    tmp_path: Path, ports: range, pair: tuple[int, int]
) -> None:
    worker = serve(tmp_path, pair, 0, "python", "strict", [[ports[5], ports[9]]])

    assert worker.says("Serving")


def test_without_a_fence_who_binds_a_neighbours_port_is_named_within_two_ticks(
    tmp_path: Path, ports: range
) -> None:
    project = Project(tmp_path, ports[:20], parallel=2)
    victim, guilty = project.add(
        WAITS,
        f"import socket; s = socket.create_server(('127.0.0.1', {ports[0]}), reuse_port=False)\n"
        "import signal; signal.pause()",
    )
    project.settings = replace(project.settings, tick_s=0.5)
    with running(project) as run:
        first, second = run.agent_of(victim), run.agent_of(guilty)
        assert first.api_port == ports[0]
        notice = run.notice(second.agent_id, "which is not its own")
        snapshot = run.wait(lambda s: all(agent.problem for agent in s.agents))

    assert f"listens on {ports[0]} of {first.agent_id}" in notice.text
    problems = {agent.agent_id: agent.problem for agent in snapshot.agents}
    assert "not this agent" in problems[first.agent_id]
    assert Path(sys.executable).name in problems[first.agent_id]
