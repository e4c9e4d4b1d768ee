"""`autocoder agents` through a running orchestrator, and `autocoder serve`."""

import http.client
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import CLI, Ran, autocoder
from support.projects import WAITS, Project, Running
from support.waiting import wait_until


class Desk:
    """The command line beside a running orchestrator."""

    def __init__(self, project: Project, run: Running) -> None:
        self.project = project
        self.run = run

    def agents(self, *arguments: str) -> Ran:
        return autocoder("agents", *arguments, "-C", self.project.folder)

    def agents_json(self, *arguments: str) -> dict[str, object]:
        ran = self.agents(*arguments, "--json")
        assert ran.code == 0, ran
        answer: dict[str, object] = json.loads(ran.out)
        return answer


@pytest.fixture
def desk(tmp_path: Path, ports: range) -> Iterator[Desk]:
    project = Project(tmp_path, ports, WAITS, features=2)
    run = Running(project.open_served(parallel=0))
    run.wait_for(lambda _: True)
    made = Desk(project, run)
    yield made
    for agent in run.snapshot.agents if run.snapshot else ():
        if agent.live:
            made.agents("kill", agent.agent_id)
    run.stop()


def test_an_agent_is_spawned_stopped_and_recovered_by_its_id(desk: Desk) -> None:
    spawned = desk.agents_json("spawn", "2")
    assert (spawned["feature_id"], spawned["ended_at"]) == (2, None)
    agent_id = str(spawned["agent_id"])
    desk.run.wait_for(lambda s: s.agents[0].last_line == "at work")
    stopped = desk.agents_json("stop", agent_id)
    assert (stopped["agent_id"], stopped["state"]) == (agent_id, "KILLED")
    recovered = desk.agents_json("recover", agent_id)
    assert recovered["feature_id"] == 2
    assert recovered["worktree_path"] == spawned["worktree_path"] or recovered["branch"]
    killed = desk.agents("kill", str(recovered["agent_id"]))
    assert (killed.code, "killed" in killed.out) == (0, True)


def test_a_typed_task_becomes_a_feature_and_an_agent(desk: Desk) -> None:
    spawned = desk.agents_json("spawn", "--task", "Sort the list\nby due date")
    assert spawned["feature"] == "Sort the list"


def test_worktrees_left_behind_are_listed_and_cleaned(desk: Desk) -> None:
    second = str(desk.agents_json("spawn", "2")["agent_id"])
    desk.run.wait_for(lambda s: s.agents[0].last_line == "at work")
    (left,) = json.loads(desk.agents("clean", "--dry-run", "--json").out)
    assert (left["agent_id"], left["in_use"], left["chosen"]) == (second, True, False)
    ran = desk.agents("clean", second)
    assert ran.code == 3, ran
    assert f"{second}: its worktree was kept: an agent works in it" in ran.err
    ran = desk.agents("clean", "--json")
    assert ran.code == 0, ran
    assert json.loads(ran.out) == {"removed": [], "kept": []}
    assert desk.agents("clean", "a-none").code == 2


def test_what_cannot_be_done_says_why(desk: Desk) -> None:
    for arguments, code, said in (
        (("spawn", "99"), 2, "99"),
        (("stop", "a-none"), 2, "no agent 'a-none'"),
        (("kill", "a-none"), 2, "no agent 'a-none'"),
        (("recover", "a-none"), 2, "a-none"),
        (("spawn", "1", "--task", "both"), 2, "not both"),
        (("spawn", "--variants", "3"), 2, "only a --task"),
        (("spawn", "--task", "t", "--base", "nowhere"), 3, "no branch 'nowhere'"),
        (("spawn", "--task", "t", "--backend", "none"), 3, "'none'"),
    ):
        ran = desk.agents(*arguments)
        assert said in ran.err, (arguments, ran)
        assert ran.code in (code, 3), (arguments, ran)
        assert ran.out == ""


def test_an_agent_that_has_ended_is_refused_with_code_3(desk: Desk) -> None:
    agent_id = str(desk.agents_json("spawn")["agent_id"])
    assert desk.agents("kill", agent_id).code == 0
    for command in ("stop", "kill"):
        ran = desk.agents(command, agent_id)
        assert (ran.code, f"{agent_id} is not running" in ran.err) == (3, True), ran


def test_without_an_orchestrator_spawn_and_stop_say_how_to_start_one(
    tmp_path: Path, ports: range
) -> None:
    project = Project(tmp_path, ports)
    for arguments in (("spawn",), ("stop", "a-1"), ("recover", "a-1")):
        ran = autocoder("agents", *arguments, "-C", project.folder)
        assert ran.code == 3
        assert "no orchestrator runs" in ran.err
        assert "autocoder serve" in ran.err


def test_serve_answers_with_the_token_it_names_until_it_is_stopped(
    tmp_path: Path, ports: range
) -> None:
    project = Project(tmp_path, ports[:-1])
    port = ports[-1]
    serve = subprocess.Popen(
        [*CLI, "serve", "-C", str(project.folder), "--port", str(port), "-n", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert serve.stdout
        said = ""
        while not said.endswith("}\n"):
            said += serve.stdout.readline()
        told = json.loads(said)
        assert told["url"] == f"http://127.0.0.1:{port}"
        token = Path(told["token_file"]).read_text()

        def status(headers: dict[str, str]) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/api/status", headers=headers)
            code = connection.getresponse().status
            connection.close()
            return code

        assert wait_until(lambda: status({"Authorization": f"Bearer {token}"})) == 200
        assert status({}) == 401
        second = autocoder("serve", "-C", project.folder, "--port", str(port))
        assert (second.code, f"pid {serve.pid}" in second.err) == (3, True)
    finally:
        serve.send_signal(signal.SIGINT)
        _, complaints = serve.communicate(timeout=30)
    assert serve.returncode == 0
    assert complaints == ""
