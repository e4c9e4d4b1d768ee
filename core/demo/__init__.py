"""Makes the demo project: a small full-stack todo list with a backlog of 12 features.

`project/base` is what the new repository holds, `project/features` what the
scripted agent adds to it. Both are data: nothing here imports them.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from autocoder.core.errors import GitError, ProjectError

BASE = Path(__file__).parent / "project" / "base"
BRANCH = "main"

HISTORY: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Answer todos as JSON", (".gitignore", "ports.py", "api")),
    ("Show them on a page that asks where its API is", ("web",)),
    ("Test both servers, and that no source names a port", ("tests",)),
    ("Say how to run it and what is still to be done", (".",)),
)
"""Commit messages with what each one adds; the last one adds the rest."""


def make_demo_project(
    folder: Path, *, parallel: int = 4, step_s: float = 0.5, misbehave: bool = True
) -> Path:
    """Make the demo project in `folder`, on a clean branch `BRANCH`; return its absolute path.

    The folder appears complete or not at all. `parallel`, `step_s` (seconds
    between two steps of an agent) and `misbehave` are what its `autocoder.toml` says.

    Raises:
        ProjectError: the folder is not empty or cannot be made; it is unchanged.
        GitError: git is missing or refused; nothing is left behind.
    """
    folder = folder.absolute()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise ProjectError(f"{folder} {what}", "Name a folder that does not exist yet.")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _emerging(folder) as draft:
            _copy_tree(draft)
            _set(draft / "autocoder.toml", parallel=parallel, step_s=step_s, misbehave=misbehave)
            _make_history(draft)
    except OSError as error:
        raise ProjectError(
            f"{folder} cannot be made: {error.strerror}", "Name a folder you may write to."
        ) from error
    return folder


@contextlib.contextmanager
def _emerging(folder: Path) -> Iterator[Path]:
    """A place to build in that becomes `folder` when the block ends well."""
    # An empty folder that exists is filled, not replaced: it may be somebody's working directory.
    exists = folder.exists()
    draft = folder if exists else _beside(folder)
    try:
        yield draft
        if not exists:
            draft.chmod(0o777 & ~_umask())
            draft.rename(folder)
    except BaseException:
        for path in draft.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not exists:
            draft.rmdir()
        raise


def _beside(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}-", dir=folder.parent))


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _copy_tree(draft: Path) -> None:
    # Contents only: an installed package may be read-only, the demo is there to be edited.
    shutil.copytree(
        BASE,
        draft,
        dirs_exist_ok=True,
        copy_function=shutil.copyfile,
        ignore=shutil.ignore_patterns("*cache*"),
    )


def _set(path: Path, **values: object) -> None:
    """Give settings that the file already names other values, its comments kept."""
    text = path.read_text("utf-8")
    for name, value in values.items():
        said = str(value).lower()
        text, found = re.subn(rf"(?m)^({name} = )\S+", rf"\g<1>{said}", text)
        assert found == 1, name
    path.write_text(text, "utf-8")


def _make_history(draft: Path) -> None:
    # No template: the user's own hooks have no business in a demo.
    _git(draft, "init", "--quiet", f"--initial-branch={BRANCH}", "--template=")
    _git(draft, "config", "user.name", "Todo Demo")
    _git(draft, "config", "user.email", "demo@localhost")
    for message, paths in HISTORY:
        _git(draft, "add", "--force", "--", *paths)
        _git(draft, "commit", "--quiet", "-m", message)


def _git(folder: Path, *order: str) -> None:
    settings = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.autocrlf=false")
    signing = ("commit.gpgSign=false", "gc.auto=0")
    flags = [part for setting in settings + signing for part in ("-c", setting)]
    # GIT_DIR and its like would point at the repository we may have been started from.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        subprocess.run(
            ["git", *flags, *order],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed", "On Debian: apt-get install git") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines() or ["no output"]
        raise GitError(f"git {order[0]}: {lines[-1]}") from error
