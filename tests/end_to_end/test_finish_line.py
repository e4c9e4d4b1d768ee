"""From a backlog to a tested base: real projects, real test runners, three agents at once."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autocoder.core.models import FeatureStatus, Snapshot
from support.projects import Project, running
from support.repositories import git

FEATURES = 4
NODE = {
    "package.json": '{"name": "sums", "type": "module", "scripts": {"test": "node --test"}}\n',
    "index.js": "export const add = (a, b) => a + b;\n",
    "index.test.js": (
        "import { test } from 'node:test';\nimport assert from 'node:assert';\n"
        "import { readdirSync, readFileSync } from 'node:fs';\n"
        "import { add } from './index.js';\n"
        "test('adds', () => assert.equal(add(1, 2), 3));\n"
        "test('features are whole', () => {\n"
        "  for (const name of readdirSync('.').filter((n) => n.startsWith('feature-')))\n"
        "    assert.equal(readFileSync(name, 'utf8'), 'whole\\n');\n"
        "});\n"
    ),
}
PYTHON = {
    "pyproject.toml": "[project]\nname = 'sums'\nversion = '1'\n[tool.pytest.ini_options]\n",
    ".gitignore": "__pycache__/\n.pytest_cache/\n",
    "sums.py": "def add(a, b):\n    return a + b\n",
    "test_sums.py": (
        "from pathlib import Path\nfrom sums import add\n\n"
        "def test_adds():\n    assert add(1, 2) == 3\n\n"
        "def test_features_are_whole():\n"
        "    for path in Path().glob('feature-*'):\n"
        "        assert path.read_text() == 'whole\\n'\n"
    ),
}

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


def checkout(project: Path) -> dict[str, str]:
    """Every file the user has, git's own aside, by its content."""
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(project.rglob("*"))
        if path.is_file()
        and not {".git", ".autocoder"} & set(path.parts)
        and not path.name.startswith("agent_system.db")
    }


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("files", "command"),
    [
        pytest.param(
            NODE,
            ["node", "--test"],
            marks=pytest.mark.skipif(not shutil.which("npm"), reason="npm is not installed"),
            id="node",
        ),
        pytest.param(PYTHON, [sys.executable, "-m", "pytest", "-q"], id="python"),
    ],
)
def test_all_features_land_tested_beside_a_dirty_checkout(
    tmp_path: Path,
    ports: range,
    files: dict[str, str],
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Detection asks python3 for pytest; here that is the one the tests run on.
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (programs / "python3").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    # The many plugins of the tests' own environment take seconds to load.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    agents = tmp_path / "project" / ".autocoder" / "agents"
    program = WORKS.format(agents=str(agents))
    project = Project(tmp_path, ports, program, features=FEATURES, parallel=3, files=files)
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
    base = tmp_path / "base"
    git(project.folder, "worktree", "add", "--quiet", "--detach", str(base), "main")
    assert len(list(base.glob("feature-*"))) == FEATURES
    tested = subprocess.run(command, cwd=base, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout
