"""`autocoder features plan`, by a program that stands in for a model."""

import json
import sys
from pathlib import Path

import pytest

from support.commands import Ran, autocoder
from support.repositories import make_repository

PLANNER = """\
import json, sys
assert "A list of todos." in open(sys.argv[1]).read()
features = [{"name": "List", "priority": 9}, {"name": "\\x1b[2JTags", "depends_on": ["List"]}]
with open("backlog.json", "w") as file:
    json.dump({"features": features}, file)
print("planned")
"""


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Path:
    script = tmp_path / "planner.py"
    script.write_text(PLANNER)
    made = make_repository(tmp_path / "project")
    (made / "app_spec.txt").write_text("A list of todos.")
    (made / "autocoder.toml").write_text(
        f'backend = "mine"\nfence = "off"\nledger_url = "sqlite:///{tmp_path}/ledger.db"\n'
        f"[ports]\napi = [[{ports[0]}, {ports[9]}]]\nweb = [[{ports[10]}, {ports[19]}]]\n"
        f'[backends.mine]\ncommand = ["{sys.executable}", "-IS", "{script}", "{{prompt_file}}"]\n'
    )
    return made


def features(project: Path, *arguments: str) -> Ran:
    return autocoder("features", *arguments, "-C", project)


def test_a_plan_is_shown_and_added_only_once_agreed_to(project: Path) -> None:
    shown = features(project, "plan")
    assert shown.code == 0, shown
    assert "    9  List\n" in shown.out
    assert "2 features; it took 0 tokens" in shown.out
    assert "\x1b" not in shown.out
    assert features(project, "list", "--json").out == "[]\n"
    kept = shown.out.rpartition("autocoder features import ")[2].strip()
    assert json.loads(features(project, "import", kept, "--dry-run", "--json").out)["added"]

    planned = json.loads(features(project, "plan", "--yes", "--json").out)
    assert planned["added"][0]["name"] == "List"
    assert len(json.loads(features(project, "list", "--json").out)) == 2


def test_a_plan_needs_a_specification_and_a_backend_that_reads(project: Path) -> None:
    missing = features(project, "plan", "nothing.md")
    assert (missing.code, "nothing.md: No such file" in missing.err) == (2, True)
    cannot = features(project, "plan", "--backend", "scripted")
    assert (cannot.code, "scripted backend cannot plan" in cannot.err) == (2, True)
