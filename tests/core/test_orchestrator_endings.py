"""Every way an agent can end: seen within a second, named with its cause, nothing of it left."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core.commands import KillAgent, RecoverAgent, SpawnAgent
from support.fleets import WAITS, Project, running
from support.repositories import git
from support.waiting import wait_until
from support.workers import is_alive


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Project:
    """Starts two agents by itself and does not retry what failed."""
    project = Project(tmp_path, ports[:20], parallel=2, tick_s=5.0)
    project.limit(retry_s=600.0, stop_grace_s=0.3)
    return project


@pytest.mark.parametrize(
    ("program", "state", "reason"),
    [
        ("print('boom'); raise SystemExit(3)", "FAILED", 'exit code 3 after .*"boom"'),
        ("import os; os.abort()", "CRASHED", r"killed by signal 6 \(SIGABRT\) after"),
        ("print('nothing to do')", "FAILED", "without a commit"),
        ("import os; os.kill(os.getpid(), 9)", "CRASHED", r"killed by signal 9 \(SIGKILL\)"),
    ],
)
def test_an_end_is_named_with_its_cause(
    project: Project, program: str, state: str, reason: str
) -> None:
    (feature_id,) = project.add(program)
    with running(project) as run:
        ended = run.agent_of(feature_id, state)

        assert run.feature(feature_id).attempts == 1
    assert re.search(reason, ended.reason)


def test_what_an_agent_left_uncommitted_is_counted_until_another_goes_on_with_it(
    project: Project,
) -> None:
    project.settings = replace(project.settings, tick_s=0.1)
    (feature_id,) = project.add(
        "import pathlib; left = pathlib.Path('left'); again = left.exists(); left.touch()\n"
        f"if again: {WAITS}\n"
        "raise SystemExit(1)"
    )
    with running(project) as run:
        ended = run.agent_of(feature_id, "FAILED")
        run.wait(lambda now: [each.dirty_files for each in now.agents] == [1])

        run.submit(RecoverAgent(ended.agent_id))
        run.wait(lambda now: [each.dirty_files for each in now.agents] == [1, 0])


def test_an_agent_without_output_for_too_long_is_stopped(project: Project) -> None:
    project.limit(idle_minutes=0.01)
    (feature_id,) = project.add("print('last words', flush=True); " + WAITS)
    with running(project) as run:
        ended = run.agent_of(feature_id, "FAILED")

    said = 'no output for longer than limits.idle_minutes, last output: "last words"'
    assert said in ended.reason


def test_an_agent_that_runs_for_too_long_is_stopped(project: Project) -> None:
    project.limit(agent_minutes=0.01)
    (feature_id,) = project.add(
        "import signal\nwhile True: print('busy', flush=True); signal.sigtimedwait([], 0.05)"
    )
    with running(project) as run:
        ended = run.agent_of(feature_id, "FAILED")

    assert "limits.agent_minutes reached" in ended.reason


def test_a_program_that_is_missing_is_named(project: Project) -> None:
    command = replace(project.settings.backends["test"], command=("/no/such/agent",))
    project.settings = replace(project.settings, backends={"test": command})
    (feature_id,) = project.add("")
    with running(project) as run:
        ended = run.agent_of(feature_id, "FAILED")

    assert "/no/such/agent cannot be started: No such file" in ended.reason


STRAYS = """
import os, signal, subprocess, sys
stray = "import os,signal; open(%r,'w').write(f'{os.getpid()}\\\\n'); signal.pause()"
for name, env in {"marked": None, "bare": {}}.items():
    subprocess.Popen([sys.executable, "-I", "-S", "-c", stray % name], env=env,
                     start_new_session=True)
signal.pause()
"""


def pid_in(file: Path) -> int:
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"), what=str(file))
    return int(file.read_text())


def test_a_killed_worker_wakes_the_loop_and_all_of_it_is_ended(project: Project) -> None:
    """No tick comes meanwhile: how fast that is, the benchmarks tell."""
    project.settings = replace(project.settings, tick_s=600)
    (feature_id,) = project.add(STRAYS)
    with running(project) as run:
        agent = run.agent_of(feature_id)
        strays = [pid_in(Path(agent.worktree_path) / name) for name in ("marked", "bare")]
        assert agent.pid is not None
        os.kill(agent.pid, signal.SIGKILL)
        ended = run.agent_of(feature_id, "CRASHED")

    assert "worker killed" in ended.reason
    assert 'last output: "working on' in ended.reason
    assert not any(map(is_alive, strays))
    project.assert_nothing_is_left_of(agent)


def test_a_killed_worker_that_was_adopted_wakes_the_loop_too(project: Project) -> None:
    project.settings = replace(project.settings, tick_s=600)
    (feature_id,) = project.add(STRAYS)
    with running(project) as run:
        agent = run.agent_of(feature_id)
        strays = [pid_in(Path(agent.worktree_path) / name) for name in ("marked", "bare")]
        run.leave()
        with running(project) as again:
            again.wait(lambda s: s.agents[0].processes >= 4)
            assert agent.pid is not None
            os.kill(agent.pid, signal.SIGKILL)
            again.agent_of(feature_id, "CRASHED")

    assert not any(map(is_alive, strays))


def test_killing_a_worker_spares_the_git_that_another_agent_waits_for(project: Project) -> None:
    """git runs in a POSIX session of its own and below us, like what a dead worker leaves."""
    slow = project.dir.parent / "slow-git"
    slow.mkdir()
    real = git(project.dir, "--exec-path")
    (slow / "git").write_text(
        f"#!/bin/sh\ncase \"$*\" in *'worktree add'*) touch {slow}/begun; sleep 0.7;; esac\n"
        f'exec {real}/git "$@"\n'
    )
    (slow / "git").chmod(0o755)
    first, second = project.add(WAITS, WAITS)
    project.settings = replace(project.settings, parallel=1)
    with running(project) as run:
        agent = run.agent_of(first)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
            run.submit(SpawnAgent(second))
            wait_until((slow / "begun").exists)
            assert agent.pid is not None
            os.kill(agent.pid, signal.SIGKILL)
            run.agent_of(first, "CRASHED")
            run.agent_of(second)


def test_a_worker_that_ignores_everything_is_ended_all_the_same(project: Project) -> None:
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        agent = run.agent_of(feature_id)
        assert agent.pid is not None
        os.kill(agent.pid, signal.SIGSTOP)
        run.submit(KillAgent(agent.agent_id))
        ended = run.ended(agent.agent_id)

    assert "killed on request" in ended.reason
    project.assert_nothing_is_left_of(agent)


def test_the_rest_is_not_started_once_several_agents_have_failed_alike(project: Project) -> None:
    project.settings = replace(project.settings, parallel=3)
    project.limit(alike_failures=4)
    project.add(
        *[f"print('pid', {n}, 'cannot find libfoo.so'); raise SystemExit(1)" for n in range(20)]
    )
    with running(project) as run:
        run.wait(lambda s: s.paused and not any(a.live for a in s.agents))
        assert run.snapshot is not None
        told = [n for n in run.snapshot.notices if "failed alike" in n.text]
        ended = len(run.snapshot.agents)

    assert len(told) == 1
    assert "cannot find libfoo.so" in told[0].text
    assert 4 <= ended <= 4 + 3


def test_a_feature_that_waits_for_a_blocked_one_ends_the_run_and_is_named(project: Project) -> None:
    project.limit(attempts=1)
    project.settings = replace(project.settings, stop_when_done=True)
    (blocked,) = project.add("raise SystemExit(1)")
    project.add("", depends_on=(blocked,))
    with running(project) as run:
        report = run.report()

    assert (report.features_blocked, report.features_pending) == (1, 1)
    assert any(f"waits for feature {blocked}, which is blocked" in n.text for n in report.notices)


def test_the_numbers_of_a_run_add_up(project: Project) -> None:
    project.limit(retry_s=0.05, attempts=2)
    project.settings = replace(project.settings, parallel=4, stop_when_done=True)
    project.add("", "raise SystemExit(1)", "import os; os.abort()", "", "print('no commit')")
    with running(project) as run:
        report = run.report()

    ended = report.completed + report.failed + report.crashed + report.killed
    assert report.spawned + report.adopted == ended + report.live
    assert (report.completed, report.failed, report.crashed) == (2, 4, 2)
    assert report.leases_granted == report.leases_released == report.spawned
