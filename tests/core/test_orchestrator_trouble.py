"""Trouble of the host's: the feature waits, the notice says on what, no attempt is lost."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core.commands import (
    ExpandPool,
    KillAgent,
    Pause,
    RecoverAgent,
    Resume,
    SpawnAgent,
)
from autocoder.core.composition import BUSY_TIMEOUT_S
from autocoder.core.launcher import LocalLauncher, WorkerProcess, WorkerSpec
from autocoder.core.models import FeatureStatus, Role
from support.fleets import TOLD, WAITS, Project, Running, running
from support.repositories import git
from support.sockets import bind, listen
from support.waiting import wait_until
from support.workers import is_alive


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Project:
    return Project(tmp_path, ports[:20], parallel=1)


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Another program that writes, and writes, to the file."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
        connection.rollback()


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_without_a_free_port_a_feature_waits_and_starts_as_soon_as_there_is_one(
    project: Project, ports: range
) -> None:
    api = project.settings.ports.api[0]
    narrow = replace(project.settings.ports, api=(replace(api, end=api.start + 1),))
    project.settings = replace(project.settings, ports=narrow)
    (feature_id,) = project.add("")
    with running(project) as run:
        with bind(ports[0]):
            run.notice("pool api", "no port of pool api is free")
        run.wait(lambda s: s.features.done == 1)

    assert run.feature(feature_id).attempts == 0


@contextlib.contextmanager
def listening_first(patch: pytest.MonkeyPatch, count: int) -> Iterator[list[int]]:
    """A stranger listens on the API port of each of the next `count` workers, leased as it is."""
    started = LocalLauncher.start
    ports: list[int] = []
    with contextlib.ExitStack() as strangers:

        def start(launcher: LocalLauncher, spec: WorkerSpec) -> WorkerProcess:
            if len(ports) < count:
                ports.append(spec.pair.api_port)
                strangers.enter_context(listen(spec.pair.api_port))
            return started(launcher, spec)

        patch.setattr(LocalLauncher, "start", start)
        yield ports


def test_an_agent_whose_port_is_taken_before_its_worker_binds_it_starts_on_another_pair(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening_first(monkeypatch, 2) as taken, running(project) as run:
        (feature_id,) = project.add(WAITS)
        agent = run.agent_of(feature_id)
        told = [run.notice(f"port {port}", f"held by pid {os.getpid()}") for port in taken]

        assert project.faults() == []
        assert agent.api_port not in taken
        assert len({notice.id for notice in told}) == 2
        run.submit(KillAgent(agent.agent_id))
        run.ended(agent.agent_id)
        run.leave()

    assert run.feature(feature_id).attempts == 0
    report = run.report()
    assert report.leases_granted == report.spawned + 2
    assert report.leases_released == report.leases_granted - report.live


def test_an_agent_that_meets_a_listener_on_three_pairs_gives_up_and_its_feature_waits(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening_first(monkeypatch, 3) as taken, running(project) as run:
        (feature_id,) = project.add("")
        run.notice("infrastructure", f"has port {taken[-1]}" if taken else "has port")
        run.wait(lambda s: s.features.done == 1)
        run.leave()

    assert run.feature(feature_id).attempts == 0
    assert run.report().spawned == 2


def test_a_worktree_that_cannot_be_made_costs_no_attempt(project: Project) -> None:
    obstacle = project.dir.parent / "project-worktrees"
    with running(project) as run:
        obstacle.write_text("in the way")
        (feature_id,) = project.add("")
        run.notice("infrastructure", "not started", "its attempts are unchanged")
        obstacle.unlink()
        run.wait(lambda s: s.features.done == 1)

    assert run.feature(feature_id).attempts == 0
    assert run.report().crashed == 0


def test_what_is_asked_for_waits_for_no_git_that_is_slow_to_name_a_branch(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = project.dir.parent / "slow-git"
    slow.mkdir()
    real = git(project.dir, "--exec-path")
    (slow / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *refs/heads/feat) touch {slow}/begun;'
        f" while ! test -e {slow}/go; do sleep 0.02; done;; esac\n"
        f'exec {real}/git "$@"\n'
    )
    (slow / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow}:{os.environ['PATH']}")
    project.add("")
    with running(project) as run:
        wait_until((slow / "begun").exists)
        run.submit(Pause())
        paused = run.wait(lambda s: s.paused, seconds=5)
        (slow / "go").touch()
        run.submit(Resume())
        run.wait(lambda s: s.features.done == 1)

    assert paused.agents == ()
    assert "Do feature 1" in project.commits()


def test_trouble_that_lasts_is_said_once_and_tried_ever_more_rarely(project: Project) -> None:
    project.settings = replace(project.settings, parallel=3)
    with running(project) as run:
        (project.dir.parent / "project-worktrees").write_text("in the way")
        project.add(*[""] * 6)
        run.notice("infrastructure", "not started")
        run.wait(lambda s: len(s.agents) >= 6)
        assert run.snapshot is not None
        told = [n for n in run.snapshot.notices if n.subject == "infrastructure"]

    assert len({notice.text for notice in told}) == len(told)
    assert {feature.attempts for feature in run.snapshot.backlog} == {0}


def test_a_git_lock_left_behind_delays_a_merge_and_nothing_else(project: Project) -> None:
    (feature_id,) = project.add("")
    lock = project.dir / ".git" / "index.lock"
    lock.touch()
    with running(project) as run:
        run.agent_of(feature_id, "COMPLETED")
        run.notice("index.lock")
        assert run.feature(feature_id).status is FeatureStatus.DONE
        lock.unlink()
        run.wait(lambda s: s.features.ready_to_merge == 0)

    assert run.feature(feature_id).attempts == 0


@pytest.mark.parametrize("which", ["database", "ledger"])
def test_a_locked_database_stops_nobody_and_loses_nothing(project: Project, which: str) -> None:
    """Locked while an agent ends; what could not be written is written afterwards."""
    first, second = project.add(TOLD + "commit()", "")
    with running(project) as run:
        agent = run.agent_of(first)
        with locked(getattr(project, which)):
            project.tell_all()
            wait_until(lambda: not is_alive(agent.pid or 0), what="the agent ends")
            run.notice("is locked by another program")
        run.wait(lambda s: s.features.done == 2)

    assert {run.feature(feature_id).attempts for feature_id in (first, second)} == {0}
    assert run.report().leases_granted == run.report().leases_released == 2


@pytest.mark.parametrize("which", ["database", "ledger"])
def test_whatever_is_asked_for_while_a_database_is_locked_for_ever_no_tick_waits_twice(
    project: Project, which: str
) -> None:
    """Meanwhile it is said what is waited for, and what ends is shown; afterwards all is done."""
    first, *others = project.add(WAITS, *[""] * 4)
    with running(project) as run:
        agent = run.agent_of(first)
        ticks = timed_ticks(run)
        with locked(getattr(project, which)):
            run.submit(RecoverAgent(agent.agent_id))
            for feature_id in others:
                run.submit(SpawnAgent(feature_id))
                run.submit(ExpandPool(Role.WEB, 1))
            run.notice("is locked by another program", Path(getattr(project, which)).name)
            run.submit(KillAgent(agent.agent_id))
            run.wait(lambda s: s.agents[0].state == "STOPPING", what="the kill is seen")
            locked_ticks = len(ticks)
        project.write_program(first, "")
        run.wait(lambda s: s.features.done == 5)

    assert locked_ticks >= 1
    assert max(ticks) < 2 * BUSY_TIMEOUT_S
    assert sum("extended by" in notice.text for notice in run.report().notices) == 4
    assert {feature.attempts for feature in run.snapshot.backlog} == {0}  # type: ignore[union-attr]


def test_a_task_typed_while_the_ledger_is_locked_becomes_one_feature(project: Project) -> None:
    project.add()
    with running(project) as run:
        run.wait(lambda s: True)
        with locked(project.ledger):
            run.submit(SpawnAgent(task="Add a search box"))
            run.notice("is locked by another program")
            ticks = timed_ticks(run)
            wait_until(lambda: len(ticks) >= 2, what="it is tried again")
        snapshot = run.wait(lambda s: s.features.done == 1)

    assert [feature.name for feature in snapshot.backlog] == ["Add a search box"]


def timed_ticks(run: Running) -> list[float]:
    """How long each tick takes from now on, in seconds."""
    seconds: list[float] = []
    tick = run.engine.tick

    def timed() -> None:
        began = time.monotonic()
        try:
            tick()
        finally:
            seconds.append(time.monotonic() - began)

    run.engine.tick = timed  # type: ignore[method-assign]
    return seconds


def test_an_agent_is_killed_on_request_while_the_database_is_locked(project: Project) -> None:
    (feature_id,) = project.add(WAITS)
    with running(project) as run:
        agent = run.agent_of(feature_id)
        with locked(project.database):
            run.submit(KillAgent(agent.agent_id))
            assert agent.pid is not None
            wait_until(lambda: not is_alive(agent.pid or 0), what="its worker ends")
        assert run.ended(agent.agent_id).state == "KILLED"


@pytest.mark.parametrize("full", ["run folder", "database"])
def test_a_full_disk_costs_no_attempt_and_work_goes_on_when_there_is_room(
    tmp_path: Path, ports: range, full: str
) -> None:
    with tmpfs(tmp_path / "small", "6m") as small:
        project = Project(tmp_path, ports[:20], parallel=1)
        if full == "database":
            project.database = small / "agents.db"
            url = f"sqlite:///{project.database}"
            project.settings = replace(project.settings, database_url=url)
        else:
            (small / "in").mkdir()
            (project.dir / ".autocoder").symlink_to(small / "in")
        (feature_id,) = project.add("")
        filler = small / "filler"
        fill(filler)
        with running(project) as run:
            run.wait(lambda s: s.notices, what="a notice")
            assert run.snapshot is not None
            assert run.snapshot.features.blocked == 0
            filler.unlink()
            run.wait(lambda s: s.features.done == 1)

        assert run.feature(feature_id).attempts == 0


def fill(path: Path) -> None:
    free = shutil.disk_usage(path.parent).free
    with contextlib.suppress(OSError), path.open("wb") as file:
        file.write(os.urandom(1 << 20) * (free // (1 << 20) + 1))
