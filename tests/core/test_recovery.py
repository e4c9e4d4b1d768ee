"""What survives an orchestrator's end, and what the next one makes of it."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core.commands import KillAgent, RecoverAll
from autocoder.core.composition import open_engine
from autocoder.core.errors import ProjectLocked
from autocoder.core.models import AgentState
from support.churn_kills import WORK, churn, finish
from support.fleets import TOLD, WAITS, Project, running
from support.waiting import wait_until
from support.workers import is_alive
from support.zygote import ForkedOrchestrator, Zygote, zygote


@pytest.fixture
def forking(tmp_path: Path) -> Iterator[Zygote]:
    with zygote(tmp_path) as started:
        yield started


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Iterator[Project]:
    project = Project(tmp_path, ports[:40], parallel=2)
    project.limit(retry_s=600.0)
    yield project
    project.end_everything()
    wait_until(lambda: not project.processes(), what="the test's agents end")


def test_twenty_orchestrators_killed_at_random_leave_nothing_wrong(
    project: Project, forking: Zygote
) -> None:
    project.settings = replace(project.settings, parallel=5, stop_when_done=True)
    project.add(*[WORK.format(seconds=2.0)] * 25)

    figures = churn(project, forking, kills=20, seed=1)
    finish(project, forking, figures, seconds=90)

    assert figures.faults == []


def test_agents_work_on_without_an_orchestrator_and_are_adopted(project: Project) -> None:
    ids = project.add(*[TOLD + "commit()"] * 2)
    with running(project) as run:
        pids = [run.agent_of(feature_id).pid for feature_id in ids]
        run.leave()
        project.tell_all()
        wait_until(lambda: not any(pid and is_alive(pid) for pid in pids), what="they end")
        with running(project) as again:
            snapshot = again.wait(lambda s: s.features.done == 2)

    assert {agent.reason.split(" after")[0] for agent in snapshot.agents} == {"1 commit"}


def test_an_adopted_agent_goes_on_undisturbed(project: Project, forking: Zygote) -> None:
    (feature_id,) = project.add(WAITS)
    first = forking.start(project)
    agent = active(first)
    first.kill()
    first.wait()
    with running(project) as run:
        adopted = run.agent_of(feature_id)
        assert (adopted.agent_id, adopted.pid) == agent
        run.submit(KillAgent(adopted.agent_id))
        ended = run.ended(adopted.agent_id)

    assert ended.state is AgentState.KILLED
    assert run.report().adopted == 1


def test_what_died_meanwhile_is_closed_with_its_exit_code(
    project: Project, forking: Zygote
) -> None:
    (feature_id,) = project.add(TOLD + "raise SystemExit(7)")
    first = forking.start(project)
    active(first)
    first.kill()
    first.wait()
    project.tell_all()
    wait_until(lambda: not project.processes(), what="the agent ends")
    with running(project) as run:
        ended = run.agent_of(feature_id, "FAILED")

    assert ended.exit_code == 7
    assert "exit code 7" in ended.reason


def test_an_agent_lost_with_its_host_costs_no_attempt(project: Project, forking: Zygote) -> None:
    (feature_id,) = project.add(WAITS)
    first = forking.start(project)
    _, pid = active(first)
    first.kill()
    first.wait()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    project.end_everything()
    project.execute("UPDATE agent_heartbeats SET boot_id = 'another:boot'")
    with running(project) as run:
        ended = run.wait(lambda s: [a for a in s.agents if not a.live]).agents[-1]

    assert ended.reason == "the host was restarted"
    assert run.feature(feature_id).attempts == 0


def test_agents_are_adopted_although_the_ranges_have_changed(
    project: Project, forking: Zygote, ports: range
) -> None:
    (feature_id,) = project.add(WAITS)
    first = forking.start(project)
    agent = active(first)
    first.kill()
    first.wait()
    moved = replace(
        project.settings.ports,
        api=(replace(project.settings.ports.api[0], start=ports[60], end=ports[70]),),
    )
    project.settings = replace(project.settings, ports=moved)
    with running(project) as run:
        adopted = run.agent_of(feature_id)

        assert (adopted.agent_id, adopted.pid) == agent
        assert adopted.api_port == ports[0]


def test_a_worker_the_database_does_not_know_is_named_and_adopted_on_request(
    project: Project, forking: Zygote
) -> None:
    (feature_id,) = project.add(WAITS)
    first = forking.start(project)
    agent_id, pid = active(first)
    first.kill()
    first.wait()
    project.execute("DELETE FROM agent_heartbeats")
    project.execute("UPDATE features SET enabled = 0")
    with running(project) as run:
        assert run.wait(lambda s: s.recovery.adopt == (agent_id,))
        assert is_alive(pid)
        run.submit(RecoverAll())
        adopted = run.agent_of(feature_id)

        assert (adopted.agent_id, adopted.pid) == (agent_id, pid)
        run.wait(lambda s: not s.recovery)


def test_one_of_two_orchestrators_wins_and_the_other_is_told_who(
    project: Project, forking: Zygote
) -> None:
    both = [forking.start(project), forking.start(project)]
    wait_until(lambda: any(one.has_ended for one in both), what="one gives up")
    loser = next(one for one in both if one.has_ended)
    (winner,) = (one for one in both if one is not loser)

    assert loser.wait() == 3
    assert f"pid {winner.pid} since" in forking.errors()
    wait_until(lambda: winner.snapshot)
    assert not winner.has_ended


def test_a_stale_lock_is_no_obstacle(project: Project) -> None:
    lock = project.dir / ".autocoder" / "orchestrator.lock"
    lock.parent.mkdir()
    lock.write_text(json.dumps({"pid": 1, "since": 0, "terminal": "/dev/pts/9"}))

    engine = open_engine(project.dir, project.settings)
    try:
        with pytest.raises(ProjectLocked, match=f"pid {os.getpid()} since"):
            open_engine(project.dir, project.settings)
    finally:
        engine.close()


def test_that_many_are_adopted_is_said_once(project: Project) -> None:
    project.settings = replace(project.settings, parallel=6)
    project.add(*[WAITS] * 6)
    with running(project) as run:
        run.wait(lambda s: sum(a.state == "ACTIVE" for a in s.agents) == 6)
        run.leave()
        with running(project) as again:
            snapshot = again.wait(lambda s: sum(a.state == "ACTIVE" for a in s.agents) == 6)

    assert len([n for n in snapshot.notices if "adopted 6 live agents" in n.text]) == 1


def active(orchestrator: ForkedOrchestrator) -> tuple[str, int]:
    """Id and worker of its first active agent."""

    def first() -> tuple[str, int] | None:
        snapshot = orchestrator.snapshot
        for agent in snapshot.agents if snapshot else ():
            if agent.state is AgentState.ACTIVE and agent.pid is not None:
                return agent.agent_id, agent.pid
        return None

    found = wait_until(first, what="an active agent")
    assert found is not None
    return found
