"""Two agents with one port, whatever made it so: the newer goes, the older does not notice."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core import agent_worker, orchestrator
from autocoder.core.commands import SpawnAgent
from autocoder.core.models import Agent
from autocoder.core.ports import repair
from support.fleets import WAITS, Project, Running, running
from support.waiting import wait_until
from support.workers import is_alive


@pytest.fixture
def project(tmp_path: Path, ports: range, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setattr(orchestrator, "MEND_S", 0.1)
    monkeypatch.setattr(repair, "SIGHTING_S", 0.1)
    project = Project(tmp_path, ports[:20], parallel=2)
    # A pair that was given back rests, so that the newer one's is not the older one's again.
    resting = replace(project.settings.ports, cooldown_s=600)
    project.settings = replace(project.settings, ports=resting)
    return project


def ours(run: Running, feature_id: int, agent: Agent) -> bool:
    """Whether the agent still works on its feature, with the pair it had."""
    now = run.agent_of(feature_id)
    return (now.pid, now.api_port, now.web_port) == (agent.pid, agent.api_port, agent.web_port)


def test_of_two_rows_with_one_port_the_newer_agent_is_stopped_and_its_feature_starts_again(
    project: Project,
) -> None:
    project.settings = replace(project.settings, parallel=0)
    first, second = project.add(WAITS, WAITS)
    with running(project) as run:
        run.submit(SpawnAgent(first))
        older = run.agent_of(first)
        run.submit(SpawnAgent(second))
        newer = run.agent_of(second)
        run.leave()
        project.execute(
            f"UPDATE agent_heartbeats SET api_port = {older.api_port} "
            f"WHERE agent_id = '{newer.agent_id}'"
        )
        project.settings = replace(project.settings, parallel=2)
        with running(project) as again:
            ended = again.ended(newer.agent_id)
            assert not is_alive(newer.pid or 0)
            after = again.agent_of(second)

            assert ours(again, first, older)
            assert after.api_port not in (older.api_port, newer.api_port)
            assert again.feature(second).attempts == 0
            notices = again.snapshot.notices if again.snapshot else ()

    assert ended.state == "KILLED"
    (said,) = [notice.text for notice in notices if notice.subject == newer.agent_id]
    assert f"{older.agent_id} (pid {older.pid}) has port {older.api_port} already" in said


def test_a_worker_somebody_else_started_on_an_agents_pair_is_stopped(project: Project) -> None:
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        older = run.agent_of(feature_id)
        with another_worker(project, older) as newer:
            newer.wait(20)
        run.notice("a-by-hand", f"{older.agent_id} (pid {older.pid}) has port")

        assert ours(run, feature_id, older)
        assert project.faults() == []


@contextlib.contextmanager
def another_worker(project: Project, like: Agent) -> Iterator[subprocess.Popen[bytes]]:
    folder = project.run_folder("a-by-hand")
    folder.mkdir(parents=True)
    command = [sys.executable, "-I", "-S", "-c", WAITS]
    (folder / "run.json").write_text(json.dumps({"command": command}))
    worker = subprocess.Popen(
        [
            *(sys.executable, "-I", "-S", agent_worker.__file__),
            *("--project-dir", str(project.dir), "--agent-id", "a-by-hand"),
            *("--feature-id", "99", "--worktree-path", str(like.worktree_path)),
            *("--api-port", str(like.api_port), "--web-port", str(like.web_port)),
        ],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: (folder / "status.json").exists())
        yield worker
    finally:
        worker.kill()
        worker.wait()
