"""A second front end on a project: it attaches, gives commands, and takes over."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocoder.core.attached import Attached
from autocoder.core.commands import KillAgent, Pause, Resume, SpawnAgent, StopAll
from autocoder.core.errors import ProjectLocked
from autocoder.core.models import Snapshot
from autocoder.core.project_lock import run_elsewhere
from support.commands import CLI
from support.projects import WAITS, Project, Running
from support.waiting import wait_until
from support.workers import is_alive


@contextlib.contextmanager
def front_end(project: Project, **cli: object) -> Iterator[Running]:
    """What a panel does: join, run, stop."""
    run = Running(project.join(**{"parallel": 0} | cli))
    try:
        run.wait_for(lambda _: True)
        yield run
    finally:
        run.stop()


@contextlib.contextmanager
def served_elsewhere(project: Project, port: int) -> Iterator[subprocess.Popen[str]]:
    """Another process that is the project's orchestrator."""
    command = [*CLI, "serve", "-C", str(project.folder), "--port", str(port), "-n", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = ""
        while not said.endswith("}\n"):
            said += process.stdout.readline()
        assert json.loads(said)["pid"] == process.pid
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Iterator[Project]:
    made = Project(tmp_path, ports[:-1], WAITS, features=3)
    yield made
    with front_end(made) as run:
        run.engine.submit(StopAll())
        run.wait_for(lambda s: not any(agent.live for agent in s.agents))


def at_work(snapshot: Snapshot) -> bool:
    return bool(snapshot.agents) and snapshot.agents[0].last_line == "at work"


def test_the_second_sees_what_the_first_sees(project: Project) -> None:
    with front_end(project) as first, front_end(project) as second:
        assert isinstance(second.engine, Attached)
        first.engine.submit(SpawnAgent())
        agent = first.wait_for(at_work).agents[0]
        seen = second.wait_for(at_work)
        assert seen.agents[0].agent_id == agent.agent_id
        assert (seen.project, seen.backlog[0].name) == ("project", "Feature 1")


def test_the_second_commands_like_the_first(project: Project) -> None:
    with front_end(project) as first, front_end(project) as second:
        second.engine.submit(SpawnAgent(feature_id=2))
        agent = second.wait_for(at_work).agents[0]
        assert agent.feature_id == 2
        second.engine.submit(Pause())
        first.wait_for(lambda s: s.paused)
        second.engine.submit(KillAgent(agent.agent_id))
        first.wait_for(lambda s: not s.agents[0].live)


def test_a_refusal_reaches_the_one_who_asked(project: Project) -> None:
    with front_end(project), front_end(project) as second:
        second.engine.submit(KillAgent("a-none"))
        second.wait_for(lambda s: any("a-none is not running" in n.text for n in s.notices))


def test_when_the_first_quits_the_second_takes_over_and_agents_work_on(project: Project) -> None:
    with front_end(project) as second_holder:
        second_holder.engine.submit(SpawnAgent())
        agent = second_holder.wait_for(at_work).agents[0]
        with front_end(project) as second:
            second.wait_for(at_work)
            second_holder.stop()
            second.wait_for(lambda s: any("adopted" in n.text for n in s.notices))
            now = second.wait_for(at_work).agents[0]
            assert (now.agent_id, now.pid) == (agent.agent_id, agent.pid)
            second.engine.submit(KillAgent(agent.agent_id))
            second.wait_for(lambda s: not s.agents[0].live)


def test_when_the_first_is_killed_the_second_takes_over(project: Project, ports: range) -> None:
    with served_elsewhere(project, ports[-1]) as first, front_end(project) as second:
        second.engine.submit(SpawnAgent())
        agent = second.wait_for(at_work).agents[0]
        assert agent.pid is not None
        first.kill()
        second.wait_for(lambda s: any("adopted" in n.text for n in s.notices))
        assert is_alive(agent.pid)
        assert second.wait_for(at_work).agents[0].pid == agent.pid


def test_of_several_one_takes_over_and_the_others_attach_to_it(project: Project) -> None:
    with contextlib.ExitStack() as others:
        first = Running(project.join(parallel=0))
        first.wait_for(lambda _: True)
        attached = [others.enter_context(front_end(project)) for _ in range(3)]
        first.stop()
        attached[0].engine.submit(SpawnAgent())
        agents = {run.wait_for(at_work).agents[0].agent_id for run in attached}
        assert len(agents) == 1
        with pytest.raises(ProjectLocked):
            project.open()


def test_who_takes_over_does_not_begin_what_was_paused(project: Project) -> None:
    with front_end(project, parallel=0) as first, front_end(project, parallel=3) as second:
        first.engine.submit(Pause())
        second.wait_for(lambda s: s.paused)
        first.stop()
        taken = second.wait_for(lambda s: s.parallel == 3)
        assert second.wait_for(lambda s: s.paused).agents == taken.agents == ()
        second.engine.submit(Resume())
        second.wait_for(lambda s: len(s.agents) == 3)


def test_leaving_leaves_the_first_alone(project: Project) -> None:
    with front_end(project) as first:
        with front_end(project):
            pass
        first.engine.submit(SpawnAgent())
        first.wait_for(at_work)


def test_a_command_given_while_nobody_was_there_reaches_who_takes_over(project: Project) -> None:
    with front_end(project) as first, front_end(project) as second:
        first.stop()
        second.engine.submit(SpawnAgent())
        second.wait_for(at_work)


def test_a_front_end_that_hangs_costs_the_orchestrator_nothing(project: Project) -> None:
    with front_end(project) as first:
        command = [*CLI[:1], "-c", STUCK.format(folder=str(project.folder))]
        stuck = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert stuck.stdout
            assert stuck.stdout.readline() == "attached\n"
            os.kill(stuck.pid, signal.SIGSTOP)
            first.engine.submit(SpawnAgent())
            first.wait_for(at_work)
        finally:
            stuck.kill()
            stuck.communicate()


STUCK = """
import time
from pathlib import Path
from autocoder.core.client import connect
raw = connect(Path({folder!r}), 30)
raw.sendall(b"GET /api/snapshots HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
raw.recv(10)
print("attached", flush=True)
time.sleep(600)
"""


def test_an_attached_front_end_can_leave_at_any_time(project: Project) -> None:
    with front_end(project) as first:
        for _ in range(5):
            run = Running(project.join(parallel=0))
            run.stop()
        assert first.failure is None
    wait_until(lambda: first.snapshot is not None)


def test_the_second_knows_who_has_the_first(project: Project, ports: range) -> None:
    assert run_elsewhere(project.folder) == ""
    with served_elsewhere(project, ports[-1]) as first:
        assert run_elsewhere(project.folder).startswith(f"pid {first.pid}")
    with front_end(project):
        assert run_elsewhere(project.folder) == ""
