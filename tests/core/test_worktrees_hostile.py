"""A repository that wants to run programs of its own: this program's git never lets it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from autocoder.core.errors import ProjectError
from autocoder.core.port_lint import lint_diff
from autocoder.core.worktrees import Candidate, Conflict, Repository, open_repository
from support.repositories import commit, git, make_repository, write

HOOKS = (
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "commit-msg",
    "prepare-commit-msg",
    "reference-transaction",
)
Trap = Callable[[Path, str], None]


def hooks(project: Path, canary: str) -> None:
    for folder in (project / ".git" / "hooks", project / "tracked-hooks"):
        folder.mkdir(exist_ok=True)
        for name in HOOKS:
            (folder / name).write_text(f"#!/bin/sh\n{canary}\n")
            (folder / name).chmod(0o755)
    git(project, "config", "core.hooksPath", "tracked-hooks")


def fsmonitor(project: Path, canary: str) -> None:
    git(project, "config", "core.fsmonitor", canary)


def pager(project: Path, canary: str) -> None:
    for name in ("core.pager", "pager.diff", "pager.log", "pager.worktree", "core.editor"):
        git(project, "config", name, canary)


def external_diff(project: Path, canary: str) -> None:
    git(project, "config", "diff.external", canary)
    git(project, "config", "diff.odd.command", canary)
    git(project, "config", "diff.odd.textconv", canary)
    (project / ".gitattributes").write_text("* diff=odd\n")


def filters(project: Path, canary: str) -> None:
    # A name that an override by `-c name=value` would cut in two.
    for name in ("odd", "od=d.x"):
        for kind in ("clean", "smudge", "process"):
            git(project, "config", f"filter.{name}.{kind}", f"{canary}; cat")
        git(project, "config", f"filter.{name}.required", "true")
    (project / ".gitattributes").write_text("*.txt filter=odd\n*.md filter=od=d.x\n")


def included_filters(project: Path, canary: str) -> None:
    extra = project / ".git" / "extra"
    git(project, "config", "include.path", "extra")
    extra.write_text(f'[filter "odd"]\n\tclean = {canary}; cat\n\tsmudge = {canary}; cat\n')
    (project / ".gitattributes").write_text("* filter=odd\n")


def merge_driver(project: Path, canary: str) -> None:
    git(project, "config", "merge.odd.driver", canary)
    git(project, "config", "merge.default", "odd")
    (project / ".gitattributes").write_text("* merge=odd\n")


def signatures(project: Path, canary: str) -> None:
    program = project.with_name("gpg")
    program.write_text(f"#!/bin/sh\n{canary}\n")
    program.chmod(0o755)
    git(project, "config", "gpg.program", str(program))
    for name in ("commit.gpgSign", "merge.verifySignatures", "tag.gpgSign"):
        git(project, "config", name, "true")


def aliases(project: Path, canary: str) -> None:
    for name in ("worktree", "status", "diff", "merge", "merge-tree", "rev-parse", "config"):
        git(project, "config", f"alias.{name}", f"!{canary}")


@pytest.fixture
def alarm(tmp_path: Path) -> Path:
    return tmp_path / "alarm"


def text(first: str, last: str) -> str:
    return f"{first}\n" + "between\n" * 10 + f"{last}\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """With a branch that merges, and one that does not once the first is in."""
    project = make_repository(tmp_path / "p", {"README.md": "one\n", "a.txt": text("old", "old")})
    for branch in ("feat/work", "feat/clash"):
        git(project, "checkout", "--quiet", "-b", branch, "main")
        commit(project, {"a.txt": text("old", branch), f"{branch[5:]}.txt": "3\n"})
    git(project, "checkout", "--quiet", "main")
    commit(project, {"a.txt": text("new", "old"), ".gitattributes": ""})
    return project


def everything_we_do(repository: Repository) -> None:
    """Every git call of this program, once."""
    path = repository.add("a-1", repository.branch_name(1, "x"), repository.base_commit())
    write(path, {"a.txt": "2\n", "new.txt": "1\n"})
    assert repository.dirty_files(path) == 2
    repository.diff_worktree(path)
    assert repository.changes(path) == (frozenset({"a.txt"}), frozenset({"new.txt"}))
    repository.keep_changes(path, "a-1")
    list(lint_diff(path, f"refs/heads/{repository.base}"))
    (path / "new.txt").unlink()
    write(path, {"a.txt": text("new", "old")})
    candidate = repository.prepare_merge("feat/work")
    if isinstance(candidate, Candidate):
        repository.check_out(path, candidate.commit, discard=True)
    repository.check_out(path, "feat/1-x")
    assert repository.base_file("a.txt") is not None
    assert "a.txt" in repository.base_names()
    repository.remove(path, force=True)
    if isinstance(candidate, Candidate):
        repository.land("feat/work", candidate)
    repository.merge("feat/work")
    repository.diff("feat/work")
    repository.changed_paths("feat/work")
    repository.commits_ahead("feat/work")
    repository.merge("feat/clash")
    repository.delete_branch("feat/1-x")
    repository.prune()
    repository.ignore("x")
    repository.list()


def user_does_the_same(project: Path) -> None:
    """As git is by itself; some of it fails because of the traps."""
    for command in (
        ("worktree", "add", "../w", "-b", "w"),
        ("status",),
        ("diff", "HEAD~1"),
        ("merge", "--no-edit", "feat/work"),
        ("commit", "--all", "--allow-empty", "--message", "x"),
    ):
        subprocess.run(["git", *command], cwd=project, capture_output=True, check=False)


SNAPPING = [hooks, fsmonitor, external_diff, filters, included_filters, merge_driver, signatures]


@pytest.mark.parametrize("trap", [*SNAPPING, pager, aliases])
def test_nothing_the_repository_plants_is_run(project: Path, alarm: Path, trap: Trap) -> None:
    trap(project, f"touch '{alarm}'")
    alarm.unlink(missing_ok=True)

    everything_we_do(open_repository(project))

    assert not alarm.exists()


@pytest.mark.parametrize("trap", SNAPPING)
def test_each_of_these_traps_snaps_for_an_unguarded_git(
    project: Path, alarm: Path, trap: Trap
) -> None:
    trap(project, f"touch '{alarm}'")
    alarm.unlink(missing_ok=True)

    user_does_the_same(project)

    assert alarm.exists()


def test_a_trap_laid_while_agents_run_is_seen(project: Path, alarm: Path) -> None:
    repository = open_repository(project)
    path = repository.add("a-2", "feat/2-y", repository.base_commit())
    assert repository.dirty_files(path) == 0

    filters(project, f"touch '{alarm}'")
    git(project, "config", "extensions.worktreeConfig", "true")
    git(path, "config", "--worktree", "filter.late.clean", f"touch '{alarm}'; cat")
    write(path, {".gitattributes": "* filter=late\n", "a.txt": "5\n"})
    alarm.unlink(missing_ok=True)
    repository.dirty_files(path)
    repository.diff_worktree(path)
    everything_we_do(repository)

    assert not alarm.exists()


def test_a_repository_cannot_be_sent_elsewhere_while_agents_run(
    project: Path, tmp_path: Path
) -> None:
    repository = open_repository(project)
    other = make_repository(tmp_path / "other", {"precious.txt": "1\n"})
    git(project, "config", "core.worktree", str(other))

    everything_we_do(repository)

    assert (project / "work.txt").exists()
    assert (other / "precious.txt").read_text() == "1\n"
    with pytest.raises(ProjectError, match=r"keeps its files at .*other"):
        open_repository(project)


def test_a_merge_driver_nobody_trusts_leaves_the_conflict_to_a_human(project: Path) -> None:
    merge_driver(project, "true")
    commit(project)

    assert open_repository(project).merge("feat/work") == Conflict(("a.txt",))


def test_a_filter_of_the_users_own_works_as_ever(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "gitconfig"
    own.write_text('[filter "shout"]\n\tsmudge = tr a-z A-Z\n\tclean = tr A-Z a-z\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(own))
    commit(project, {".gitattributes": "*.loud filter=shout\n", "x.loud": "hello\n"})
    git(project, "config", "filter.shout.smudge", "false")
    repository = open_repository(project)

    path = repository.add("a-1", "feat/1-x", repository.base_commit())

    assert (path / "x.loud").read_text() == "HELLO\n"
    assert repository.dirty_files(path) == 0
