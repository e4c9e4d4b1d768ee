"""What the command line says to input it cannot use: the thing, the remedy, the exit code."""

import json
import os
import re
from pathlib import Path

import pytest

from autocoder.core.project_lock import ProjectLock
from support.commands import Ran, autocoder, autocoder_process
from support.repositories import commit, git, make_repository


def refused(ran: Ran, code: int, *said: str) -> None:
    """It ended with `code`, said all of this on stderr and nothing on stdout, in no traceback.

    What runs in this process would fail the test by its exception.
    """
    assert ran.code == code, ran
    assert ran.out == ""
    for text in said:
        assert text in ran.err
    assert "Traceback" not in ran.err
    assert "should not have happened" not in ran.err


def untouched(folder: Path) -> bool:
    """Nothing of this program's is in the folder or beside it."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    beside = folder.with_name(f"{folder.name}-worktrees")
    return not names & {".autocoder", "agent_system.db"} and not beside.exists()


def parallel(project: Path, *options: str, **environ: str) -> Ran:
    return autocoder("parallel", "--project-dir", project, *options, environ=environ)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(parallel(tmp_path / "nowhere"), 2, "nowhere is not there")


def test_a_file_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    refused(parallel(tmp_path / "file"), 2, "is a file", "git repository")


def test_a_folder_without_a_repository_gets_the_command_that_makes_one(tmp_path: Path) -> None:
    refused(parallel(tmp_path), 2, "is not a git repository", f"git -C {tmp_path} init")
    assert untouched(tmp_path)


def test_a_bare_repository_is_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    git(tmp_path, "init", "--quiet", "--bare", str(bare))
    refused(parallel(bare), 2, "is a bare repository", "Clone it")
    assert untouched(bare)


def test_a_repository_without_a_commit_gets_the_command_that_makes_one(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    refused(parallel(tmp_path), 2, "has no commit yet", "commit -m 'Begin'")
    assert untouched(tmp_path)


def test_a_detached_head_is_refused_unless_a_base_is_named(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project")
    git(project, "checkout", "--quiet", "--detach")
    refused(parallel(project), 2, "detached HEAD", "--base")
    assert untouched(project)
    assert parallel(project, "--base", "main").code == 0


def test_a_base_that_is_no_branch_is_named_with_those_there_are(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project")
    git(project, "branch", "develop")
    refused(parallel(project, "--base", "mian"), 2, "no branch 'mian'", "develop, main")
    assert untouched(project)


def test_a_subfolder_of_a_project_is_sent_to_its_top_level(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project")
    (project / "sub").mkdir()
    refused(parallel(project / "sub"), 2, "is a subfolder", str(project))


@pytest.mark.parametrize("name", ["with spaces", "ünïcødé 木", "-dash", "quote'\"$(true)", "a;b"])
def test_any_name_of_a_project_works(tmp_path: Path, name: str) -> None:
    project = make_repository(tmp_path / name)
    ran = parallel(project)
    assert ran.code == 0, ran
    assert "0 of 0 features done" in ran.out


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project")
    project.chmod(0o555)
    try:
        ran = autocoder_process("parallel", "--project-dir", project, unprivileged=True)
    finally:
        project.chmod(0o755)
    refused(ran, 2, f"{project} is not writable", "Make it writable")
    assert untouched(project)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AUTOCODER_PARALLEL", "many", "must be a whole number"),
        ("AUTOCODER_PARALLEL", "-1", "between 0 and 1000"),
        ("AUTOCODER_API_PORT_RANGE_START", "http", "must be a whole number"),
        ("AUTOCODER_API_PORT_RANGE_END", "4000", "is no range of ports"),
        ("AUTOCODER_WEB_PORT_RANGE_START", "5000", "overlaps"),
        ("AUTOCODER_UI_PORT", "80", "between 1024 and 65535"),
        ("AUTOCODER_PRESET", "luxury", "must be one of quality"),
        ("AUTOCODER_BACKEND", "hal9000", "there is no backend 'hal9000'"),
        ("AUTOCODER_LEDGER_URL", "postgres://x", "must look like sqlite:///"),
    ],
)
def test_a_bad_variable_is_named_and_nothing_falls_back(
    tmp_path: Path, variable: str, value: str, said: str
) -> None:
    project = make_repository(tmp_path / "project")
    refused(parallel(project, **{variable: value}), 2, f"${variable}", said)
    assert untouched(project)


def test_a_bad_settings_file_is_named(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project", {"autocoder.toml": "paralel = 3\n"})
    refused(parallel(project), 2, "autocoder.toml", "no setting 'paralel'")
    (project / "autocoder.toml").write_text("parallel = = 3\n")
    refused(parallel(project), 2, "autocoder.toml", "line 1")


def test_a_bad_option_is_named() -> None:
    refused(autocoder("parallel", "--parallel", "three"), 2, "--parallel", "integer")
    refused(autocoder("parallel", "--speed", "9"), 2, "--speed")
    refused(autocoder("paralel"), 2, "paralel")


def test_a_second_orchestrator_is_told_who_has_the_project(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project")
    lock = ProjectLock(project)
    try:
        refused(parallel(project), 3, f"pid {os.getpid()}", "run by another orchestrator")
    finally:
        lock.release()
    assert parallel(project).code == 0


def test_with_json_a_refusal_is_one_object_on_stderr(tmp_path: Path) -> None:
    ran = parallel(tmp_path, "--json")
    refused(ran, 2)
    said = json.loads(ran.err)
    assert said["error"] == "ProjectError"
    assert "not a git repository" in said["message"]
    assert "init" in said["hint"]


def test_terminal_sequences_in_a_path_are_not_passed_on(tmp_path: Path) -> None:
    ran = parallel(tmp_path / "\x1b]0;owned\x07")
    assert ran.code == 2
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", ran.err)


def test_a_damaged_database_is_kept_and_named(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project")
    database = project / "agent_system.db"
    database.write_bytes(b"this is no database" * 100)
    ran = parallel(project)
    refused(ran, 3, str(database))
    assert database.read_bytes() == b"this is no database" * 100


def test_uncommitted_work_in_the_checkout_stays_as_it_is(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project")
    commit(project, {"kept": "as committed\n"})
    (project / "kept").write_text("as changed\n")
    (project / "new").write_text("not known to git\n")
    assert parallel(project).code == 0
    assert git(project, "status", "--porcelain") == " M kept\n?? new"
