"""`autocoder agents`, with no orchestrator to ask."""

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocoder.core.commands import Pause
from autocoder.core.store import ProjectStore
from support.commands import CLI, autocoder
from support.projects import Project, running
from support.waiting import wait_until
from support.workers import is_alive


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Iterator[Project]:
    made = Project(tmp_path, ports)
    yield made
    with contextlib.closing(ProjectStore(made.database)) as store:
        for agent in store.live_agents():
            autocoder("agents", "kill", agent.agent_id, "-C", made.folder)


def leave_an_agent_running(project: Project) -> int:
    """Start an agent, end the orchestrator; the pid of the agent's worker."""
    with running(project.open()) as run:
        agent = run.wait_for(
            lambda snapshot: snapshot.agents and snapshot.agents[0].last_line == "at work"
        ).agents[0]
    assert agent.pid is not None
    return agent.pid


def listed(project: Project, *options: str) -> list[dict[str, object]]:
    ran = autocoder("agents", "list", "--json", "-C", project.folder, *options)
    assert ran.code == 0, ran
    answer: list[dict[str, object]] = json.loads(ran.out)
    return answer


def test_where_nothing_ever_ran_the_list_is_empty_and_nothing_is_made(tmp_path: Path) -> None:
    ran = autocoder("agents", "list", "--json", "-C", tmp_path)
    assert (ran.code, json.loads(ran.out)) == (0, [])
    assert not list(tmp_path.iterdir())


def test_an_agent_that_outlived_its_orchestrator_is_listed_as_it_is(project: Project) -> None:
    pid = leave_an_agent_running(project)
    (agent,) = listed(project)
    assert agent["pid"] == pid
    assert (agent["state"], agent["feature"], agent["backend"]) == (
        "ACTIVE",
        "Feature 1",
        "program",
    )
    assert agent["api_listener"] == "none"
    assert Path(str(agent["worktree_path"])).is_dir()
    assert {"agent_id", "branch", "started_at", "last_ping", "exit_code"} <= agent.keys()


def test_who_listens_on_an_agents_port_is_looked_up(project: Project) -> None:
    leave_an_agent_running(project)
    (agent,) = listed(project)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(str(agent["web_port"]))))
        listener.listen()
        (agent,) = listed(project)
    assert (agent["api_listener"], agent["web_listener"]) == ("none", "foreign")
    assert f"pid {os.getpid()}" in str(agent["problem"])


def test_kill_ends_the_tree_and_gives_feature_and_ports_back(project: Project) -> None:
    pid = leave_an_agent_running(project)
    (agent,) = listed(project)
    ran = autocoder("agents", "kill", str(agent["agent_id"]), "-C", project.folder)
    assert ran.code == 0, ran
    assert "2 ports free" in ran.out
    assert not is_alive(pid)
    assert listed(project) == []
    (ended,) = listed(project, "--all")
    assert (ended["state"], ended["pid"], ended["api_port"]) == ("KILLED", None, None)
    with contextlib.closing(ProjectStore(project.database)) as store:
        (feature,) = store.features()
    assert (feature.status, feature.attempts) == ("PENDING", 0)
    assert Path(str(agent["worktree_path"])).is_dir()


def test_a_dead_worker_is_not_listed_as_alive_and_kill_settles_it(project: Project) -> None:
    pid = leave_an_agent_running(project)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    (agent,) = listed(project)
    assert (agent["pid"], agent["problem"]) == (None, "its worker is gone")
    assert autocoder("agents", "kill", str(agent["agent_id"]), "-C", project.folder).code == 0
    assert listed(project) == []


def test_kill_never_signals_a_pid_that_another_process_has_by_now(project: Project) -> None:
    pid = leave_an_agent_running(project)
    os.kill(pid, signal.SIGKILL)
    with contextlib.closing(ProjectStore(project.database)) as store:
        (agent,) = store.live_agents()
        store.set_worker(
            agent.agent_id,
            pid=os.getpid(),
            pid_start=agent.pid_start or 0,
            boot_id=agent.boot_id,
            create_time=0.0,
        )
    assert autocoder("agents", "kill", agent.agent_id, "-C", project.folder).code == 0


def test_an_agent_that_has_ended_cannot_be_killed(project: Project) -> None:
    leave_an_agent_running(project)
    (agent,) = listed(project)
    agent_id = str(agent["agent_id"])
    assert autocoder("agents", "kill", agent_id, "-C", project.folder).code == 0
    ran = autocoder("agents", "kill", agent_id, "-C", project.folder)
    assert ran.code == 3
    assert f"agent {agent_id} is not running" in ran.err


def test_an_agent_there_never_was_is_said_to_be_none(project: Project) -> None:
    for command in ("logs", "kill"):
        ran = autocoder("agents", command, "a-nobody", "-C", project.folder)
        assert (ran.code, "a-nobody" in ran.err) == (2, True), ran


HOSTILE = "import sys; sys.stdout.buffer.write(b'one\\n\\x1b]0;owned\\x07two\\x1b[2J\\nthree\\n')\n"


def test_logs_shows_the_last_lines_and_no_control_sequence(tmp_path: Path, ports: range) -> None:
    project = Project(tmp_path, ports, HOSTILE)
    with running(project.open(parallel=1)) as run:
        agent_id = run.wait_for(lambda s: s.agents and not s.agents[-1].live).agents[-1].agent_id
    ran = autocoder("agents", "logs", agent_id, "-C", project.folder, "-n", "5")
    assert ran.code == 0
    assert [line for line in ran.out.splitlines() if "autocoder:" not in line] == [
        "one",
        "two",
        "three",
    ]
    assert (
        len(autocoder("agents", "logs", agent_id, "-C", project.folder, "-n", "2").out.splitlines())
        == 2
    )


def test_logs_follows_until_the_agent_has_ended(tmp_path: Path, ports: range) -> None:
    go = tmp_path / "go"
    project = Project(
        tmp_path,
        ports,
        "import os, time\nprint('first', flush=True)\n"
        f"while not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\nprint('last')\n",
    )
    with running(project.open(parallel=1)) as run:
        agent_id = (
            run.wait_for(lambda s: s.agents and s.agents[0].last_line == "first").agents[0].agent_id
        )
        run.engine.submit(Pause())
        follower = subprocess.Popen(
            [*CLI, "agents", "logs", agent_id, "-f", "-C", project.folder],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert follower.stdout
        seen = follower.stdout.readline()
        go.touch()
        rest = follower.communicate(timeout=30)[0]
    assert "starts program" in seen
    assert rest.splitlines()[0] == "first"
    assert "last" in rest.splitlines()
    assert follower.returncode == 0
