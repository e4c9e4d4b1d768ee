"""Claims about what a person is told who looks closer: real git, processes and database."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocoder.core.commands import SpawnAgent
from autocoder.core.composition import open_questions
from autocoder.core.launcher import run_folder
from autocoder.core.models import (
    Agent,
    AgentState,
    PoolStatus,
    PortRange,
    Role,
    Severity,
)
from autocoder.core.probe import local_kernel
from autocoder.core.questions import Questions
from autocoder.core.settings import load_settings
from autocoder.core.store import FeatureDraft, NewAgent, ProjectStore, Requeued
from autocoder.core.worktrees import open_repository
from support.repositories import commit, make_repository, write
from support.snapshots import a_snapshot
from support.sockets import listen
from support.waiting import wait_until


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "todo-app", {"app.py": "one\n"})


@pytest.fixture
def questions(project: Path) -> Questions:
    return open_questions(project, load_settings(project, environ={}, cli={"parallel": 7}))


def an_agent(project: Path, **changes: object) -> Agent:
    values: dict[str, object] = {
        "agent_id": "a-0001",
        "state": AgentState.ACTIVE,
        "feature_id": 1,
        "feature": "Search",
        "backend": "scripted",
    }
    return Agent(**values | changes)  # type: ignore[arg-type]


def a_worktree(project: Path) -> Path:
    repository = open_repository(project)
    return repository.add("a-0001", "feat/1-search", repository.base_commit())


def test_a_diff_shows_commits_changes_and_files_git_does_not_know(
    project: Path, questions: Questions
) -> None:
    worktree = a_worktree(project)
    commit(worktree, {"app.py": "one\ntwo\n"})
    write(worktree, {"app.py": "one\ntwo\nthree\n", "new/file.py": "fresh\n"})
    agent = an_agent(project, worktree_path=str(worktree), branch="feat/1-search")
    diff = questions.diff(agent)
    assert "+two" in diff
    assert "+three" in diff
    assert "b/new/file.py" in diff
    assert "+fresh" in diff


def test_a_link_in_a_worktree_is_not_followed(project: Path, questions: Questions) -> None:
    worktree = a_worktree(project)
    secret = project.parent / "secret"
    secret.write_text("do not show\n")
    (worktree / "link").symlink_to(secret)
    os.mkfifo(worktree / "fifo")
    agent = an_agent(project, worktree_path=str(worktree), branch="feat/1-search")
    assert "do not show" not in questions.diff(agent)


def test_without_a_worktree_the_branch_speaks(project: Path, questions: Questions) -> None:
    worktree = a_worktree(project)
    commit(worktree, {"app.py": "two\n"})
    agent = an_agent(project, branch="feat/1-search")
    assert "+two" in questions.diff(agent)
    assert questions.details(agent).changed_paths == ("app.py",)


def test_an_agent_without_branch_or_worktree_has_no_diff(
    project: Path, questions: Questions
) -> None:
    assert questions.diff(an_agent(project)) == ""
    assert questions.diff(an_agent(project, branch="feat/never-made")) == ""


@pytest.fixture
def tree() -> Iterator[subprocess.Popen[bytes]]:
    """A process with one child, which has secrets in its environment."""
    child = "import sys; print('up', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    env = os.environ | {
        "AUTOCODER_API_PORT": "5004",
        "AUTOCODER_API_TOKEN": "hush",
        "ANTHROPIC_API_KEY": "hush",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.communicate()


def test_details_show_the_tree_and_no_secret(
    project: Path, questions: Questions, tree: subprocess.Popen[bytes]
) -> None:
    start = local_kernel().start_ticks(tree.pid)
    details = questions.details(an_agent(project, pid=tree.pid, pid_start=start))
    assert [process.depth for process in details.processes] == [0, 1]
    environment = dict(details.environment)
    assert environment["AUTOCODER_API_PORT"] == "5004"
    assert environment["ANTHROPIC_API_KEY"] == ""
    assert environment["AUTOCODER_API_TOKEN"] == ""


def test_a_pid_that_was_given_to_another_process_is_not_the_agents(
    project: Path, questions: Questions, tree: subprocess.Popen[bytes]
) -> None:
    assert questions.details(an_agent(project, pid=tree.pid, pid_start=1)).processes == ()


def test_details_of_an_ended_agent_say_how_it_ended(project: Path, questions: Questions) -> None:
    folder = run_folder(project, "a-0001")
    folder.mkdir(parents=True)
    (folder / "exit.json").write_text(json.dumps({"exit_code": 3, "left_behind": [], "error": ""}))
    (folder / "prompt.md").write_text("Build a search.")
    details = questions.details(an_agent(project, state=AgentState.FAILED))
    assert details.facts == (("exit code", "3"),)
    assert details.prompt == "Build a search."


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_a_damaged_exit_file_is_no_fact_and_no_error(
    project: Path, questions: Questions, content: str
) -> None:
    folder = run_folder(project, "a-0001")
    folder.mkdir(parents=True)
    (folder / "exit.json").write_text(content)
    assert questions.details(an_agent(project)).facts == ()


def test_settings_come_with_their_origin(project: Path, questions: Questions) -> None:
    known = {setting.name: setting for setting in questions.settings()}
    assert (known["parallel"].value, known["parallel"].origin) == ("7", "--parallel")
    assert known["ports.api"].value == "[5000, 5100]"
    assert known["env.pass"].origin == "default"


def test_events_are_what_the_project_wrote_down(project: Path, questions: Questions) -> None:
    settings = load_settings(project, environ={})
    assert settings.database_url == ""
    store = ProjectStore(project / "agent_system.db")
    store.add_event(Severity.WARNING, "notice", "it happened", agent_id="a-0001")
    store.close()
    (event,) = wait_until(lambda: questions.events(10))
    assert (event.severity, event.text, event.agent_id) == (
        Severity.WARNING,
        "it happened",
        "a-0001",
    )


def test_the_next_blocks_overlap_nothing_and_say_who_is_in_the_way(
    questions: Questions, ports: range
) -> None:
    start = ports[0]
    pools = (
        PoolStatus(Role.API, (PortRange(start, start + 2),), 2, 2, 0, 0, 0, 2),
        PoolStatus(Role.WEB, (PortRange(start + 5, start + 8),), 3, 3, 0, 0, 0, 3),
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", start + 3))
        listener.listen()
        api, web = questions.growth(pools, (Role.API, Role.WEB), 3)
    assert api.span == PortRange(start + 2, start + 5)
    assert web.span == PortRange(start + 8, start + 11)
    assert api.free == 2
    assert [port for port, _ in api.taken] == [start + 3]
    assert "python" in api.taken[0][1] or "pytest" in api.taken[0][1]


def test_worktrees_are_told_with_what_would_be_lost(project: Path, questions: Questions) -> None:
    worktree = a_worktree(project)
    write(worktree, {"new.py": "new\n"})
    (tree,) = questions.worktrees()
    assert (tree.agent_id, tree.branch) == ("a-0001", "feat/1-search")
    assert (tree.dirty_files, tree.merged, tree.in_use) == (1, True, False)
    assert tree.bytes > 0
    assert not tree.removable


def test_the_worktree_of_a_crashed_agent_is_in_use_while_its_feature_waits(
    project: Path, questions: Questions
) -> None:
    path = str(a_worktree(project))
    store = ProjectStore(project / "agent_system.db")
    (feature,) = store.add_features([FeatureDraft("Search")])
    agent = NewAgent("a-0001", 5000, 5173, 1, "feat/1-search", "scripted", worktree_path=path)
    assert store.claim(feature.id, agent)
    assert [tree.in_use for tree in questions.worktrees()] == [True]
    store.end_agent(
        "a-0001",
        state=AgentState.CRASHED,
        exit_code=None,
        reason="killed",
        outcome=Requeued("killed"),
    )
    assert [tree.in_use for tree in questions.worktrees()] == [True]
    store.delete_feature(feature.id)
    assert [tree.in_use for tree in questions.worktrees()] == [False]
    store.close()


def test_a_wish_to_spawn_is_told_its_branch_and_the_lowest_free_pair(
    questions: Questions, ports: range
) -> None:
    pools = tuple(
        PoolStatus(role, (PortRange(start, start + 3),), 3, 3, 0, 0, 0, 3)
        for role, start in ((Role.API, ports[0]), (Role.WEB, ports[10]))
    )
    with listen(ports[0]):
        wish = SpawnAgent(task="Fix login\nit fails")
        forecast = questions.forecast(wish, a_snapshot(pools=pools))
    assert forecast.branch == "feat/1-fix-login"
    assert forecast.pairs == ((ports[1], ports[10]),)
    assert (forecast.backend, forecast.base, forecast.refusal) == ("scripted", "main", "")


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (SpawnAgent(task="x", backend="nothing"), "no such backend"),
        (SpawnAgent(task="x", base="--nowhere"), "there is no branch"),
        (SpawnAgent(task="x"), "no free pair"),
    ],
)
def test_a_wish_that_cannot_be_fulfilled_is_refused_with_the_reason(
    questions: Questions, wish: SpawnAgent, why: str
) -> None:
    forecast = questions.forecast(wish, a_snapshot(pools=()))
    assert why in forecast.refusal
    assert forecast.remedy
