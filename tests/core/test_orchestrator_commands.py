"""What a front end may ask, each on a real worker, a real repository and real ports."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core import watching
from autocoder.core.commands import (
    ExpandPool,
    KillAgent,
    MergeFeature,
    Pause,
    PrioritiseFeature,
    ProbePort,
    RecoverAgent,
    RecoverAll,
    ReleasePort,
    Resume,
    RetryFeature,
    SpawnAgent,
    StopAgent,
    StopAll,
)
from autocoder.core.models import AgentState, FeatureStatus, Role, Snapshot
from support.fleets import WAITS, Project, running
from support.repositories import commit
from support.sockets import listen
from support.waiting import wait_until
from support.workers import is_alive

RECORDED_BEATS = "SELECT last_ping FROM agent_heartbeats"


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Project:
    """Nothing starts by itself."""
    return Project(tmp_path, ports[:20], parallel=0)


def test_a_spawned_agent_finishes_its_feature_and_leaves_nothing(project: Project) -> None:
    (feature_id,) = project.add("")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        ended = run.agent_of(feature_id, "COMPLETED")
        run.wait(lambda s: s.features.done == 1 and not any(a.worktree_path for a in s.agents))

    assert ended.exit_code == 0
    assert run.feature(feature_id).review_status == "VERIFIED"
    assert f"Do feature {feature_id}" in project.commits()
    assert not list((project.dir.parent / "project-worktrees").iterdir())
    assert project.query("SELECT * FROM agent_heartbeats") == []
    states = project.query("SELECT DISTINCT state FROM port_leases", project.ledger)
    assert set(states) <= {("cooling",)}


def test_heartbeats_go_on_being_shown_and_recorded(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BEAT_S", 0.0)
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        agent = run.agent_of(feature_id)
        shown, recorded = agent.last_ping or 0.0, project.query(RECORDED_BEATS)
        # As the worker does every other second.
        os.utime(project.run_folder(agent.agent_id) / "status.json", (shown + 60, shown + 60))
        run.wait(lambda s: (s.agents[0].last_ping or 0.0) > shown, what="a further heartbeat")
        wait_until(lambda: project.query(RECORDED_BEATS) != recorded)
        run.submit(StopAll())


def test_a_typed_task_becomes_a_feature_with_its_first_line_as_name(project: Project) -> None:
    project.add()
    with running(project) as run:
        run.submit(SpawnAgent(task="Add a search box\nwith a clear button\n"))
        run.wait(lambda s: s.features.done == 1)

    feature = run.feature(1)
    assert (feature.name, feature.description) == ("Add a search box", "with a clear button")


def test_a_spawn_without_a_backlog_says_what_to_do(project: Project) -> None:
    with running(project) as run:
        run.submit(SpawnAgent())
        notice = run.notice("no feature can be started")

    assert "features add" in notice.text


def test_a_stopped_agent_ends_politely_and_costs_no_attempt(project: Project) -> None:
    (feature_id,) = project.add(
        """
        import signal, sys
        signal.signal(signal.SIGINT, lambda *_: sys.exit("tidied up"))
        print("ready", flush=True)
        signal.pause()
        """
    )
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        agent = run.agent_of(feature_id)
        wait_until(lambda: "ready" in (project.run_folder(agent.agent_id) / "log").read_text())
        run.submit(StopAgent(agent.agent_id))
        ended = run.agent_of(feature_id, "KILLED")

    assert "stopped on request" in ended.reason
    assert "tidied up" in (project.run_folder(agent.agent_id) / "log").read_text()
    assert run.feature(feature_id).status is FeatureStatus.PENDING
    assert run.feature(feature_id).attempts == 0


def test_a_killed_agent_is_gone_with_its_tree_and_there_is_a_receipt(project: Project) -> None:
    (feature_id,) = project.add(
        """
        import os, signal, subprocess, sys
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        serve = "import os,socket,signal; s=socket.create_server(('',int(os.environ['PORT'])));"
        serve += "signal.pause()"
        subprocess.Popen([sys.executable, "-I", "-S", "-c", serve], start_new_session=True)
        signal.pause()
        """
    )
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        agent = run.agent_of(feature_id)
        run.wait(lambda s: s.agents[0].processes >= 3 and s.agents[0].api_listener == "own")
        run.submit(KillAgent(agent.agent_id))
        notice = run.notice(agent.agent_id, "killed on request", "processes ended")

    assert "2 ports free" in notice.text
    project.assert_nothing_is_left_of(agent)


def test_an_agent_that_is_stopped_while_it_starts_never_runs(project: Project) -> None:
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        for _ in range(3):
            run.submit(SpawnAgent(feature_id))
            agent_id = run.wait(lambda s: any(a.live for a in s.agents)).agents[0].agent_id
            run.submit(KillAgent(agent_id))
            run.wait(lambda s: not any(a.live for a in s.agents))

    assert {agent.state for agent in run.snapshot.agents} == {AgentState.KILLED}  # type: ignore[union-attr]
    assert run.feature(feature_id).attempts == 0


def test_a_live_agent_is_recovered_in_its_worktree_with_its_uncommitted_work(
    project: Project,
) -> None:
    (feature_id,) = project.add("open('draft','w').write('half'); " + WAITS)
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        first = run.agent_of(feature_id)
        draft = Path(first.worktree_path) / "draft"
        wait_until(lambda: draft.exists() and draft.read_text() == "half")
        run.submit(RecoverAgent(first.agent_id))
        second = run.wait(
            lambda s: s.agents[0].state == "ACTIVE" and s.agents[0].agent_id != first.agent_id
        ).agents[0]

        assert second.worktree_path == first.worktree_path
        assert second.branch == first.branch
        assert (Path(second.worktree_path) / "draft").read_text() == "half"
        assert first.pid is not None
        assert not is_alive(first.pid)
        assert run.feature(feature_id).attempts == 0


@pytest.mark.parametrize("command", [StopAgent, KillAgent])
def test_the_feature_of_a_stopped_agent_waits_until_somebody_asks_for_it(
    project: Project, command: type[StopAgent] | type[KillAgent]
) -> None:
    project.settings = replace(project.settings, parallel=1)
    stopped, other = project.add(WAITS, "")
    with running(project) as run:
        agent = run.agent_of(stopped)
        run.submit(command(agent.agent_id))
        said = run.notice(agent.agent_id, "its feature waits until it is retried or started")
        run.wait(lambda s: s.finished and s.features.done == 1, what="the other one is done")

        assert run.snapshot is not None
        assert [a.feature_id for a in run.snapshot.agents] == [other, stopped]
        assert [a.held for a in run.snapshot.agents] == [False, True]
        assert run.snapshot.features.held == 1
        run.submit(RetryFeature(stopped))
        run.agent_of(stopped)
        run.wait(lambda s: not s.features.held and not any(a.held for a in s.agents))
    assert said.text.count("waits") == 1


def test_the_next_agent_asked_for_is_that_of_a_stopped_one_where_nothing_else_is_left(
    project: Project,
) -> None:
    project.settings = replace(project.settings, parallel=1)
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        agent = run.agent_of(feature_id)
        run.submit(KillAgent(agent.agent_id))
        run.wait(lambda s: s.finished)
        run.submit(SpawnAgent())
        assert run.agent_of(feature_id).agent_id != agent.agent_id


def test_a_recovered_agent_has_the_pair_it_had(project: Project) -> None:
    """Not the lowest free one, which is another by then, and although its own still rests."""
    project.settings = replace(
        project.settings, ports=replace(project.settings.ports, cooldown_s=600)
    )
    other, feature_id = project.add(WAITS, WAITS)
    with running(project) as run:
        run.submit(SpawnAgent(other))
        run.agent_of(other)
        run.submit(SpawnAgent(feature_id))
        first = run.agent_of(feature_id)
        run.submit(KillAgent(run.agent_of(other).agent_id))
        run.agent_of(other, "KILLED")
        run.submit(RecoverAgent(first.agent_id))
        second = run.wait(
            lambda s: s.agents[0].state == "ACTIVE" and s.agents[0].agent_id != first.agent_id
        ).agents[0]

    assert (second.api_port, second.web_port) == (first.api_port, first.web_port)


def test_a_recovered_agent_has_another_pair_where_a_stranger_listens_on_its_own(
    project: Project,
) -> None:
    (feature_id,) = project.add("open('draft','w').close(); " + WAITS)
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        first = run.agent_of(feature_id)
        wait_until(lambda: (Path(first.worktree_path) / "draft").exists())
        run.submit(KillAgent(first.agent_id))
        run.agent_of(feature_id, "KILLED")
        with listen(first.web_port or 0):
            run.submit(RecoverAgent(first.agent_id))
            second = run.agent_of(feature_id)

    assert second.worktree_path == first.worktree_path
    assert second.web_port != first.web_port


def test_an_agent_whose_worktree_is_just_being_removed_is_recovered_in_a_new_one(
    project: Project,
) -> None:
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        first = run.agent_of(feature_id)
        run.submit(KillAgent(first.agent_id))
        run.agent_of(feature_id, "KILLED")
        run.submit(RecoverAgent(first.agent_id))
        run.agent_of(feature_id)

    assert run.report().failed == 0


def test_a_recovered_agent_that_had_done_nothing_keeps_its_worktree(project: Project) -> None:
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        agent = run.agent_of(feature_id)
        for _ in range(3):
            run.submit(RecoverAgent(agent.agent_id))
            before = agent
            agent = run.wait(
                lambda s, before=before: (
                    s.agents[0].state == "ACTIVE"  # type: ignore[misc]
                    and s.agents[0].agent_id != before.agent_id
                )
            ).agents[0]

        assert agent.worktree_path == before.worktree_path
        assert Path(agent.worktree_path).is_dir()


def test_an_ended_agent_is_recovered_in_its_worktree(project: Project) -> None:
    (feature_id,) = project.add("open('draft','w').write('half'); raise SystemExit(1)")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        failed = run.agent_of(feature_id, "FAILED")
        project.write_program(feature_id, "assert open('draft').read() == 'half'; commit()")
        run.submit(RecoverAgent(failed.agent_id))
        done = run.agent_of(feature_id, "COMPLETED")

    assert done.branch == failed.branch
    assert run.feature(feature_id).status is FeatureStatus.DONE


def test_a_finished_agent_cannot_be_recovered(project: Project) -> None:
    (feature_id,) = project.add("")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        done = run.agent_of(feature_id, "COMPLETED")
        run.submit(RecoverAgent(done.agent_id))

        assert "is done" in run.notice(done.agent_id, "cannot be recovered").text


def test_a_recovery_waits_for_a_free_pair(project: Project) -> None:
    first, other = project.add("open('draft','w').close(); raise SystemExit(1)", WAITS)
    api, web = project.settings.ports.api[0], project.settings.ports.web[0]
    one = replace(
        project.settings.ports,
        api=(replace(api, end=api.start + 1),),
        web=(replace(web, end=web.start + 1),),
    )
    project.settings = replace(project.settings, ports=one)
    with running(project) as run:
        run.submit(SpawnAgent(first))
        failed = run.agent_of(first, "FAILED")
        run.submit(SpawnAgent(other))
        blocker = run.agent_of(other)
        project.write_program(first, "")
        run.submit(RecoverAgent(failed.agent_id))
        run.notice("pool", "no port")
        run.submit(StopAgent(blocker.agent_id))
        run.agent_of(first, "COMPLETED")


def test_a_paused_orchestrator_starts_nobody_by_itself_until_resumed(project: Project) -> None:
    project.settings = replace(project.settings, parallel=2)
    with running(project) as run:
        run.submit(Pause())
        run.wait(lambda s: s.paused)
        (feature_id,) = project.add("")
        run.submit(RetryFeature(feature_id))
        run.wait(lambda s: s.features.total == 1)
        assert run.snapshot is not None
        assert not run.snapshot.agents
        run.submit(Resume())
        run.agent_of(feature_id, "COMPLETED")


def test_a_pool_grows_while_agents_run(project: Project, ports: range) -> None:
    api = project.settings.ports.api[0]
    narrow = replace(project.settings.ports, api=(replace(api, end=api.start + 1),))
    project.settings = replace(project.settings, parallel=2, ports=narrow)
    project.add(WAITS, WAITS)
    with running(project) as run:
        run.notice("pool api", "no port")
        run.submit(ExpandPool(Role.API, replace(api, start=ports[30], end=ports[32])))
        run.wait(lambda s: sum(a.state == "ACTIVE" for a in s.agents) == 2)


def test_a_port_is_given_back_on_request_only_where_nobody_uses_it(
    project: Project, ports: range
) -> None:
    with running(project) as run:
        with listen(ports[0]):
            (feature_id,) = project.add(WAITS)
            run.submit(SpawnAgent(feature_id))
            agent = run.agent_of(feature_id)
            run.submit(ReleasePort(ports[0]))
            run.notice(f"port {ports[0]} is still held by pid {os.getpid()}")
            run.submit(ReleasePort(agent.api_port or 0))
            run.notice(f"is held by {agent.agent_id} of {project.dir}, whose process")
        run.submit(ProbePort(ports[0]))
        run.notice(f"port {ports[0]} is free again")
        run.wait(lambda s: ports[0] not in {lease.port for lease in s.leases})


def test_all_agents_are_stopped_at_once_and_none_follows(project: Project) -> None:
    project.settings = replace(project.settings, parallel=3)
    project.add(WAITS, WAITS, WAITS, WAITS)
    with running(project) as run:
        run.wait(lambda s: sum(a.state == "ACTIVE" for a in s.agents) == 3)
        run.submit(StopAll())
        run.wait(lambda s: not any(a.live for a in s.agents))

    assert run.snapshot is not None
    assert run.snapshot.paused
    assert run.snapshot.features.pending == 4


def test_a_wave_of_agents_comes_up_although_no_tick_comes(project: Project) -> None:
    project.settings = replace(project.settings, tick_s=600)
    project.add(*[WAITS] * 6)
    with running(project) as run:
        run.wait(bool)
        for _ in range(6):
            run.submit(SpawnAgent())
        run.wait(lambda s: sum(a.state == "ACTIVE" for a in s.agents) == 6)
        run.submit(StopAll())
        run.wait(lambda s: not any(a.live for a in s.agents))


def test_a_blocked_feature_is_retried_with_its_attempts_set_back(project: Project) -> None:
    project.settings = replace(project.settings, parallel=1)
    project.limit(attempts=1)
    (feature_id,) = project.add("raise SystemExit(3)")
    with running(project) as run:
        run.wait(lambda s: s.features.blocked == 1)
        project.write_program(feature_id, "")
        run.submit(RetryFeature(feature_id))
        run.wait(lambda s: s.features.done == 1)


def test_a_branch_kept_back_is_merged_on_request(project: Project) -> None:
    project.settings = replace(project.settings, merge="manual")
    (feature_id,) = project.add("")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        run.agent_of(feature_id, "COMPLETED")
        run.wait(lambda s: s.features.ready_to_merge == 1)
        assert f"Do feature {feature_id}" not in project.commits()
        run.submit(MergeFeature(feature_id))
        run.wait(lambda s: s.features.ready_to_merge == 0 and not s.agents[0].worktree_path)

    assert f"Do feature {feature_id}" in project.commits()


def test_a_merge_conflict_costs_an_attempt_and_says_where(project: Project) -> None:
    project.settings = replace(project.settings, merge="manual")
    (feature_id,) = project.add("commit('README.md', 'mine')")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id))
        run.wait(lambda s: s.features.ready_to_merge == 1)
        commit(project.dir, {"README.md": "theirs"})
        run.submit(MergeFeature(feature_id))
        run.notice("merge conflict", "README.md")
        run.wait(lambda s: s.features.pending == 1)

    assert run.feature(feature_id).attempts == 1


def test_recover_all_goes_on_with_every_crashed_agent(project: Project) -> None:
    project.settings = replace(project.settings, parallel=2)
    project.limit(retry_s=600.0)
    ids = project.add(*["open('draft','w').close(); " + WAITS] * 2)
    with running(project) as run:
        agents = [run.agent_of(feature_id) for feature_id in ids]
        for agent in agents:
            wait_until((Path(agent.worktree_path) / "draft").exists)
            assert agent.pid is not None
            os.kill(agent.pid, signal.SIGKILL)
        crashed = {agent.agent_id for agent in agents}
        run.wait(lambda s: set(s.recovery.crashed) == crashed, what="the preview lists both")
        for feature_id in ids:
            project.write_program(feature_id, "assert open('draft'); commit()")
        run.submit(RecoverAll())
        run.wait(lambda s: s.features.done == 2 and not s.recovery)


def test_what_is_done_of_many_wishes_is_shown_before_the_last_is_fulfilled(
    project: Project,
) -> None:
    ids = project.add(*["" for _ in range(60)], enabled=False)

    def changed(snapshot: Snapshot) -> int:
        return sum(feature.priority == 7 for feature in snapshot.backlog)

    with running(project) as run:
        run.wait(bool)
        for feature_id in ids:
            run.submit(PrioritiseFeature(feature_id, 7))
        run.wait(lambda s: 0 < changed(s) < len(ids))
        run.wait(lambda s: changed(s) == len(ids))


def test_a_wish_for_an_agent_that_is_not_there_is_answered(project: Project) -> None:
    with running(project) as run:
        run.submit(StopAgent("a-9999"))
        run.submit(KillAgent("a-9999"))
        run.notice("a-9999", "is not running")
