"""A backlog carried to base beside a dirty checkout, whatever the project and its tests."""

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from autocoder.core.models import FeatureStatus, Snapshot
from support.projects import Project, running
from support.repositories import git

FEATURES = 4
WORKS = """
import json, os, pathlib, subprocess
run = json.loads(pathlib.Path({agents!r}, os.environ["AUTOCODER_AGENT_ID"], "run.json").read_text())
feature = run["feature"]
# The second feature is done wrong at its first attempt, which only the tests can see.
broken = feature["id"] == 2 and "verification failed" not in feature["last_error"]
pathlib.Path(f"feature-{{feature['id']}}").write_text("half" if broken else "whole\\n")
for command in (["add", "--all"], ["commit", "-qm", feature["name"]]):
    subprocess.run(["git", *command], check=True)
"""
"""Adds a file `feature-N` each; a project's tests must refuse one that is not whole."""


def checkout(project: Path) -> dict[str, str]:
    """Every file the user has, git's own aside, by its content."""
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(project.rglob("*"))
        if path.is_file()
        and not {".git", ".autocoder"} & set(path.parts)
        and not path.name.startswith("agent_system.db")
    }


def assert_all_land(
    folder: Path,
    ports: range,
    files: Mapping[str, str],
    command: Sequence[str],
    *,
    more: str = "",
) -> None:
    """Three agents finish every feature of a project of those files.

    Base then has all of them and passes `command`; the second failed its tests once;
    the user's dirty checkout is as it was. `more` is added to the settings.
    """
    agents = folder / "project" / ".autocoder" / "agents"
    program = WORKS.format(agents=str(agents))
    project = Project(folder, ports, program, features=FEATURES, parallel=3, files=files, more=more)
    git(project.folder, "checkout", "--quiet", "-b", "mine")
    (project.folder / "README").write_text("being edited\n")
    (project.folder / "notes").write_text("not known to git\n")

    def all_done(snapshot: Snapshot) -> bool:
        features = snapshot.features
        # A blocked one ends it too: what it failed of is told below.
        settled = features.done + features.blocked == FEATURES and not features.ready_to_merge
        return settled and not any(agent.live for agent in snapshot.agents)

    engine = project.open(base="main")
    before, status = checkout(project.folder), git(project.folder, "status", "--porcelain")
    with running(engine) as run:
        done = run.wait_for(all_done, 200)

    assert checkout(project.folder) == before
    assert git(project.folder, "status", "--porcelain") == status
    unfinished = [f.last_error for f in done.backlog if f.status is not FeatureStatus.DONE]
    assert not unfinished
    said = [notice.text for notice in done.notices]
    assert sum("verified by" in text for text in said) == FEATURES
    assert any("verification failed" in text and "Feature 2" in text for text in said)
    (second,) = [feature for feature in done.backlog if feature.id == 2]
    assert second.attempts == 1
    base = folder / "base"
    git(project.folder, "worktree", "add", "--quiet", "--detach", str(base), "main")
    assert len(list(base.glob("feature-*"))) == FEATURES
    tested = subprocess.run(command, cwd=base, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
