"""`autocoder features`, as typed."""

import json
from pathlib import Path

import pytest

from autocoder.core.models import AgentState
from autocoder.core.store import Failed, NewAgent, ProjectStore
from support.commands import Ran, autocoder
from support.repositories import git, make_repository


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "my project")


def features(project: Path, *arguments: str | Path) -> Ran:
    command, *rest = arguments
    return autocoder("features", command, "--project-dir", project, *rest)


def document(ran: Ran) -> list[dict[str, object]]:
    """What a script reads; the command went well and said nothing else."""
    assert (ran.code, ran.err) == (0, "")
    found: list[dict[str, object]] = json.loads(ran.out)
    return found


def block(project: Path, feature_id: int) -> None:
    store = ProjectStore(project / "agent_system.db")
    agent = NewAgent("a-1", 5000, 5173, 1, "feat/1", "scripted")
    assert store.claim(feature_id, agent)
    outcome = Failed("tests fail \x1b[31m", "tests", 0.0, attempts_limit=1)
    store.end_agent("a-1", state=AgentState.FAILED, exit_code=1, reason="", outcome=outcome)
    store.close()


def test_looking_at_an_empty_backlog_makes_no_file(project: Path) -> None:
    ran = features(project, "list")

    assert (ran.code, ran.err) == (0, "")
    assert "the backlog is empty" in ran.out
    assert document(features(project, "list", "--json")) == []
    assert features(project, "show", "1").code == 2
    assert features(project, "retry", "1").code == 2
    assert [path.name for path in project.iterdir() if path.name != ".git"] == ["README.md"]


def test_a_feature_is_added_and_git_overlooks_the_database(project: Path) -> None:
    ran = features(
        project, "add", "Log in", "-d", "By passkey.", "--step", "one", "--step", "two", "--json"
    )

    added = json.loads(ran.out)
    assert (added["id"], added["name"], added["status"]) == (1, "Log in", "PENDING")
    assert (added["description"], added["steps"]) == ("By passkey.", ["one", "two"])
    assert git(project, "status", "--porcelain") == ""


def test_the_list_has_the_documented_keys_in_claim_order(project: Path) -> None:
    features(project, "add", "second")
    features(project, "add", "first", "--priority", "5", "--depends-on", "second")

    first, second = document(features(project, "list", "--json"))

    assert [first["name"], second["name"]] == ["first", "second"]
    keys = "id name status priority attempts depends_on branch_name last_error"
    assert [first[key] for key in keys.split()] == [2, "first", "PENDING", 5, 0, [1], "", ""]


def test_a_name_that_is_there_already_needs_force(project: Path) -> None:
    features(project, "add", "Log in")

    again = features(project, "add", "Log in ")

    assert (again.code, again.out) == (3, "")
    assert "feature 1 has that name already" in again.err
    assert features(project, "add", "Log in", "--force").code == 0


def test_wrong_words_are_answered_with_the_thing_and_exit_2(project: Path) -> None:
    for arguments, complaint in {
        ("add", " "): "needs a name",
        ("add", "x", "--depends-on", "y"): "'y', which is no feature",
        ("add", "x", "--depends-on", "7"): "7, which is no feature",
        ("add", "x", "--priority", "9" * 30): "priority",
        ("show", "9" * 30): "ID",
        ("show", "0"): "ID",
        ("import", "nowhere.json"): "nowhere.json is not there",
    }.items():
        ran = features(project, *arguments)
        assert (ran.code, ran.out) == (2, ""), arguments
        assert complaint in ran.err


def test_a_file_is_imported_once(project: Path, tmp_path: Path) -> None:
    file = tmp_path / "backlog.yaml"
    file.write_text("- name: Tags\n- name: Search\n  depends_on: Tags\n  colour: blue\n")

    dry = features(project, "import", file, "--dry-run")
    first = features(project, "import", file)
    second = features(project, "import", file, "--json")

    assert dry.out == "would add: Tags\nwould add: Search\n"
    assert first.out == "added: Tags\nadded: Search\n"
    assert "colour" in first.err
    assert json.loads(second.out) == {
        "dry_run": False,
        "added": [],
        "duplicates": ["Tags", "Search"],
        "passing": [],
        "ignored_keys": ["colour"],
    }
    assert len(document(features(project, "list", "--json"))) == 2


def test_a_file_that_names_what_no_agent_could_run_adds_nothing(
    project: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backlog.yaml"
    for entry, said in (("backend: nonsense", "no such backend"), ("base: mian", "'mian'")):
        file.write_text(f"- name: Tags\n- name: Search\n  {entry}\n")
        ran = features(project, "import", file)
        assert (ran.code, ran.out) == (2, "")
        assert f"{file}:2: " in ran.err
        assert said in ran.err
    assert features(project, "list", "--json").out == "[]\n"


def test_a_blocked_feature_says_why_and_can_be_retried(project: Path) -> None:
    features(project, "add", "hard")
    features(project, "add", "after it", "--depends-on", "hard")
    block(project, 1)

    listed = features(project, "list").out
    assert "waits for feature 1, which is blocked" in listed
    assert "tests fail" in listed
    assert "\x1b" not in listed + features(project, "show", "1").out

    assert features(project, "retry", "1").out == "feature 1 is pending, with no attempts so far\n"
    again = features(project, "retry", "2", "--json")
    assert json.loads(again.out)["status"] == "PENDING"


def test_a_feature_is_changed_switched_off_and_on(project: Path) -> None:
    features(project, "add", "one", "--model", "large")
    changed = features(
        project, "update", "1", "--priority", "9", "--base", "main", "--step", "look", "--json"
    )
    feature = json.loads(changed.out)
    assert (feature["priority"], feature["model"], feature["base"]) == (9, "large", "main")
    assert (feature["name"], feature["steps"]) == ("one", ["look"])
    assert not json.loads(features(project, "disable", "1", "--json").out)["enabled"]
    assert "switched on" in features(project, "enable", "1").out


def test_what_no_agent_could_run_is_refused_at_once(project: Path) -> None:
    for wrong, said in (
        (("--backend", "nonsense"), "nonsense"),
        (("--base", "nowhere"), "no branch 'nowhere'"),
    ):
        ran = features(project, "add", "one", *wrong)
        assert (ran.code, said in ran.err) == (2, True), ran
    assert features(project, "list", "--json").out == "[]\n"
    features(project, "add", "one")
    ran = features(project, "update", "1")
    assert (ran.code, "nothing to change" in ran.err) == (2, True)
    assert features(project, "merge", "1").code == 3


def test_what_cannot_be_retried_exits_3(project: Path) -> None:
    features(project, "add", "busy")
    store = ProjectStore(project / "agent_system.db")
    store.claim(1, NewAgent("a-1", 5000, 5173, 1, "feat/1", "scripted"))
    store.close()

    ran = features(project, "retry", "1", "--json")

    assert (ran.code, ran.out) == (3, "")
    assert json.loads(ran.err)["error"] == "RefusedError"


def test_a_folder_without_a_repository_gets_no_backlog(tmp_path: Path) -> None:
    ran = features(tmp_path, "add", "x")

    assert ran.code == 2
    assert "is not a git repository" in ran.err
    assert list(tmp_path.iterdir()) == []
