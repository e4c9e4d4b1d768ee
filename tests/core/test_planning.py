"""A backlog from a specification, by a program that stands in for codex."""

import os
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from autocoder.core.backlog import import_backlog
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.planning import propose_backlog
from autocoder.core.store import ProjectStore
from support.fleets import Project
from support.repositories import git

CODEX = """
    import json, os, subprocess, sys

    prompt = sys.stdin.read()
    assert "A list of todos." in prompt and os.environ["AUTOCODER_WEB_PORT"] in prompt
    if "FAILS" in prompt:
        sys.exit("no credit is left")
    print(json.dumps({"type": "thread.started", "thread_id": "1"}), flush=True)
    features = [{"name": "List", "steps": ["see it"]}, {"name": "Tags", "depends_on": ["List"]}]
    if "IDLE" not in prompt:
        with open("backlog.json", "w") as file:
            json.dump({"features": features}, file)
    usage = {"input_tokens": 900, "output_tokens": 100}
    print(json.dumps({"type": "turn.completed", "usage": usage}))
"""


@pytest.fixture
def project(tmp_path: Path, ports: range, monkeypatch: pytest.MonkeyPatch) -> Project:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "codex").write_text(f"#!{sys.executable} -IS{textwrap.dedent(CODEX)}")
    (programs / "codex").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return Project(tmp_path, ports[:20], backend="codex")


def specified(project: Project, text: str) -> Path:
    path = project.dir / "app_spec.txt"
    path.write_text(text)
    return path


def assert_nothing_is_left(project: Project) -> None:
    assert git(project.dir, "branch", "--format=%(refname:short)").split() == ["main"]
    assert git(project.dir, "worktree", "list").count("\n") == 0
    assert not project.processes()
    leases = project.query("SELECT holder FROM port_leases WHERE state = 'leased'", project.ledger)
    assert leases == []


def test_a_specification_becomes_a_backlog_that_nobody_has_agreed_to_yet(
    project: Project,
) -> None:
    said: list[str] = []
    proposal = propose_backlog(
        project.dir, project.settings, specified(project, "A list of todos."), say=said.append
    )
    assert [draft.name for draft in proposal.report.drafts] == ["List", "Tags"]
    assert proposal.progress.tokens == 1000
    assert said
    assert_nothing_is_left(project)
    with closing(ProjectStore(project.database)) as store:
        assert store.features() == ()
        import_backlog(store, proposal.file)
        assert [feature.name for feature in store.features()] == ["List", "Tags"]


@pytest.mark.parametrize(
    ("text", "why"),
    [("A list of todos. FAILS", "no credit is left"), ("A list of todos. IDLE", "backlog.json")],
)
def test_a_plan_that_fails_says_why_and_leaves_nothing(
    project: Project, text: str, why: str
) -> None:
    with pytest.raises(RefusedError, match=why):
        propose_backlog(project.dir, project.settings, specified(project, text))
    assert_nothing_is_left(project)


def test_a_specification_that_says_nothing_is_refused_before_anything_runs(
    project: Project,
) -> None:
    with pytest.raises(UsageError, match="is empty"):
        propose_backlog(project.dir, project.settings, specified(project, " \n"))
    assert not (project.dir / ".autocoder").exists()
