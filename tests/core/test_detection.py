"""How a project tests itself, told from real base branches."""

import shutil
from pathlib import Path

import pytest

from autocoder.core.detection import detected, find_exam
from autocoder.core.errors import UsageError
from autocoder.core.settings import load_settings
from autocoder.core.worktrees import open_repository
from support.repositories import commit, make_repository

PACKAGE = '{"scripts": {"test": "node --test"}}'
DEPENDS = '{"scripts": {"test": "vitest"}, "devDependencies": {"vitest": "1"}}'
PLACEHOLDER = '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1"}}'
UNITTEST = {"tests/test_it.py": "import unittest\n"}


@pytest.fixture
def every_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of every ecosystem on PATH, though they do nothing."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("npm", "pnpm", "yarn", "cargo", "go", "make", "uv", "python3"):
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    git = shutil.which("git")
    assert git
    (folder / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(folder))


@pytest.mark.usefixtures("every_program")
@pytest.mark.parametrize(
    ("files", "commands"),
    [
        ({"README": "text\n"}, []),
        ({"package.json": PACKAGE}, ["npm test"]),
        ({"package.json": PLACEHOLDER}, []),
        ({"package.json": "not json"}, []),
        (
            {"package.json": DEPENDS, "package-lock.json": "{}"},
            ["[ -d node_modules ] || npm ci --no-audit --no-fund", "npm test"],
        ),
        (
            {"package.json": DEPENDS, "pnpm-lock.yaml": ""},
            ["[ -d node_modules ] || pnpm install --frozen-lockfile", "pnpm test"],
        ),
        (UNITTEST, ["python3 -m unittest"]),
        (UNITTEST | {"pyproject.toml": "[tool.pytest.ini_options]\n"}, ["python3 -m pytest -q"]),
        (UNITTEST | {"requirements.txt": "pytest\n", "uv.lock": ""}, ["uv run pytest -q"]),
        ({"Cargo.toml": "", "src/lib.rs": ""}, ["cargo test"]),
        ({"go.mod": "module x\n"}, ["go test ./..."]),
        ({"Makefile": "all:\n\ntest: all\n\ttrue\n", "go.mod": ""}, ["make test"]),
        ({"Makefile": "tests := x\ntest := y\n"}, []),
        (UNITTEST | {"package.json": PACKAGE}, ["npm test", "python3 -m unittest"]),
    ],
)
def test_the_usual_files_tell_the_command(
    tmp_path: Path, files: dict[str, str], commands: list[str]
) -> None:
    project = make_repository(tmp_path / "project", files)
    assert list(detected(open_repository(project))) == commands


def test_a_program_that_is_not_installed_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_repository(tmp_path / "project", {"Cargo.toml": "", "go.mod": ""})
    repository = open_repository(project)
    names = repository.base_names()
    git = shutil.which("git")
    assert git
    (tmp_path / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert names == ("Cargo.toml", "go.mod")
    assert list(detected(repository)) == []


def exam(project: Path, **environ: str) -> tuple[tuple[str, ...], str]:
    settings = load_settings(project, environ=environ)
    found = find_exam(open_repository(project), settings)
    return found.commands, found.source


def test_base_outweighs_the_checkout_and_the_environment_outweighs_base(tmp_path: Path) -> None:
    project = make_repository(
        tmp_path / "project", {"autocoder.toml": "[verify]\ncommands = ['of base']\n"}
    )
    (project / "autocoder.toml").write_text("[verify]\ncommands = ['of the checkout']\n")
    assert exam(project) == (("of base",), "autocoder.toml of main")
    commands, source = exam(project, AUTOCODER_VERIFY_COMMANDS="true")
    assert (commands, source) == (("true",), "$AUTOCODER_VERIFY_COMMANDS")


def test_where_base_names_no_command_the_users_own_file_does(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project", UNITTEST)
    (project / "autocoder.toml").write_text("[verify]\ncommands = ['mine']\ntimeout_s = 5\n")
    assert exam(project)[0] == ("mine",)


def test_a_file_of_base_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    project = make_repository(tmp_path / "project")
    commit(project, {"autocoder.toml": "[verify\n"})
    (project / "autocoder.toml").unlink()
    with pytest.raises(UsageError, match=r"main:autocoder\.toml"):
        exam(project)
