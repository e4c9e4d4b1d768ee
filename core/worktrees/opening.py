"""Whether a folder can serve as a project, asked once, before anything is written."""

import os
import re
from pathlib import Path
from shlex import quote

from autocoder.core.errors import GitError, ProjectError
from autocoder.core.worktrees.git import Git
from autocoder.core.worktrees.repository import Repository

OLDEST_GIT = (2, 38)


def open_repository(project_dir: Path, base: str = "") -> Repository:
    """The repository at `project_dir`, with `base` or the branch checked out there as its base.

    Raises:
        ProjectError: the folder cannot serve as a project; says why and what to do.
    """
    project = project_dir.resolve()
    if not project.is_dir():
        raise ProjectError(f"{project} is not a folder", "Name the folder of a git repository.")
    try:
        os.fsencode(project).decode()
    except UnicodeDecodeError:
        raise ProjectError(
            f"the path {os.fsencode(project)!r} is not UTF-8", "Rename the folder."
        ) from None
    try:
        return _open(project, base)
    except GitError as error:
        raise ProjectError(
            f"{project}: {error.message}", "Mend the repository; `git status` must work there."
        ) from error
    except OSError as error:
        raise ProjectError(f"{error.filename or project}: {error.strerror}") from error


def _open(project: Path, base: str) -> Repository:
    git = Git(project)
    _require_version(git)
    git_dir, common_dir = _require_top_level(git, project)
    base = base or _current_branch(git, project)
    found = git.run("show-ref", "--verify", "--quiet", f"refs/heads/{base}", ok=(0, 1))
    if found.code:
        raise _no_such_base(git, project, base)
    worktrees_dir = project.with_name(f"{project.name}-worktrees").resolve()
    _require_writable(project, common_dir, worktrees_dir)
    return Repository(project, base, git_dir, common_dir, worktrees_dir)


def _require_version(git: Git) -> None:
    said = git.run("version").line()
    numbers = re.search(r"(\d+)\.(\d+)", said)
    if not numbers or (int(numbers[1]), int(numbers[2])) < OLDEST_GIT:
        wanted = ".".join(map(str, OLDEST_GIT))
        raise ProjectError(f"{said} is too old", f"Install git {wanted} or newer.")


def _require_top_level(git: Git, project: Path) -> tuple[Path, Path]:
    """The folders with the state of this worktree and with that of the whole repository."""
    kind = ("--is-bare-repository", "--is-inside-git-dir", "--show-cdup")
    answer = git.run("rev-parse", *kind, ok=(0, 128))
    if answer.code:
        if "not a git repository" in answer.stderr:
            raise ProjectError(
                f"{project} is not a git repository",
                f"Make it one: git -C {quote(str(project))} init && {_first_commit(project)}",
            )
        # Where the folder belongs to another user git names the remedy itself.
        raise ProjectError(f"{project}: {answer.complaint()}", _last_command(answer.stderr))
    bare, inside, *rest = answer.line().split("\n", 2)
    if bare == "true":
        raise ProjectError(
            f"{project} is a bare repository, without files to work on",
            "Clone it, and name the clone.",
        )
    if inside == "true":
        raise ProjectError(f"{project} is a git directory", "Name the folder above it.")
    if any(rest):
        top = git.run("rev-parse", "--show-toplevel").line()
        if not project.is_relative_to(top):
            raise ProjectError(
                f"{project} keeps its files at {top}", "Name that folder, or unset core.worktree."
            )
        raise ProjectError(f"{project} is a subfolder of a project", f"Name its top level: {top}")
    git_dir = git.run("rev-parse", "--absolute-git-dir").line()
    common_dir = git.run("rev-parse", "--path-format=absolute", "--git-common-dir").line()
    return Path(git_dir), Path(common_dir)


def _current_branch(git: Git, project: Path) -> str:
    head = git.run("symbolic-ref", "--quiet", "--short", "HEAD", ok=(0, 1))
    if head.code:
        raise ProjectError(
            f"{project} has a detached HEAD, so no branch to start from and merge into",
            "Check a branch out, or name one with --base.",
        )
    return head.line()


def _no_such_base(git: Git, project: Path, base: str) -> ProjectError:
    listing = git.run("for-each-ref", "--count=10", "--format=%(refname:short)", "refs/heads")
    branches = ", ".join(listing.line().split("\n"))
    if not branches:
        return ProjectError(f"{project} has no commit yet", f"Make one: {_first_commit(project)}")
    return ProjectError(f"{project} has no branch {base!r}", f"It has: {branches}.")


def _first_commit(project: Path) -> str:
    git = f"git -C {quote(str(project))}"
    return f"{git} add . && {git} commit -m 'Begin'"


def _require_writable(project: Path, common_dir: Path, worktrees_dir: Path) -> None:
    beside = worktrees_dir if worktrees_dir.exists() else worktrees_dir.parent
    if not beside.is_dir():
        raise ProjectError(f"{worktrees_dir} is a file; worktrees go there", "Move it away.")
    for folder in (project, common_dir, beside):
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise ProjectError(
                f"{folder} is not writable", "Make it writable, or work on a clone elsewhere."
            )


def _last_command(stderr: str) -> str:
    commands = [line.strip() for line in stderr.splitlines() if line.strip().startswith("git ")]
    return f"Run: {commands[-1]}" if commands else ""
