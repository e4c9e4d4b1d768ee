"""How a project tests itself, read from its base branch.

Only what base says counts: neither the branch under test nor an edit in somebody's
checkout can change the exam. Without a word in autocoder.toml the usual files of
each ecosystem are believed, and only where the program they need is installed.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from autocoder.core.settings import PROJECT_FILE, Settings, verify_settings
from autocoder.core.worktrees import Repository

NPM_PLACEHOLDER = "no test specified"
_PYTHON_CONFIG = (
    *("pyproject.toml", "setup.cfg", "tox.ini", "pytest.ini"),
    *("requirements.txt", "requirements-dev.txt"),
)


@dataclass(frozen=True, slots=True)
class Exam:
    commands: tuple[str, ...]
    """Shell commands that must all exit with 0, in this order."""
    source: str
    """Who says so; without commands, why there are none."""
    timeout_s: float
    """For all of them together."""


def find_exam(repository: Repository, settings: Settings) -> Exam:
    """What a branch has to pass before it is merged.

    Raises:
        UsageError: base's autocoder.toml cannot be read.
        GitError: base cannot be.
    """
    origin = settings.origin("verify.commands")
    if origin.startswith(("--", "$")):
        return Exam(settings.verify.commands, origin, settings.verify.timeout_s)
    text = repository.base_file(PROJECT_FILE)
    verify = verify_settings(text or "", f"{repository.base}:{PROJECT_FILE}", settings)
    if verify.commands:
        return Exam(verify.commands, f"{PROJECT_FILE} of {repository.base}", verify.timeout_s)
    commands = tuple(detected(repository))
    source = "detected" if commands else "no test command found; name one in [verify] commands"
    return Exam(commands, source, verify.timeout_s)


def detected(repository: Repository) -> Iterator[str]:
    """Test commands of every ecosystem that base's files speak of.

    A Makefile with a `test` target speaks for all of them.
    """
    names = frozenset(repository.base_names())
    makefile = repository.base_file("Makefile") if "Makefile" in names else None
    if makefile and shutil.which("make") and re.search(r"^test\s*:(?!=)", makefile, re.MULTILINE):
        yield "make test"
        return
    yield from _node(repository, names)
    yield from _python(repository, names)
    if "Cargo.toml" in names and shutil.which("cargo"):
        yield "cargo test"
    if "go.mod" in names and shutil.which("go"):
        yield "go test ./..."


def _node(repository: Repository, names: Collection[str]) -> Iterator[str]:
    if "package.json" not in names:
        return
    try:
        package = json.loads(repository.base_file("package.json") or "")
        script = package["scripts"]["test"]
    except (ValueError, KeyError, TypeError):
        return
    lock = next((lock for lock in _NODE_RUNNERS if lock in names), "")
    runner, install = _NODE_RUNNERS.get(lock, ("npm", "npm install --no-audit --no-fund"))
    if NPM_PLACEHOLDER in str(script) or not shutil.which(runner):
        return
    if any(package.get(kind) for kind in ("dependencies", "devDependencies")):
        yield f"[ -d node_modules ] || {install}"
    yield f"{runner} test"


_NODE_RUNNERS = {
    "pnpm-lock.yaml": ("pnpm", "pnpm install --frozen-lockfile"),
    "yarn.lock": ("yarn", "yarn install --frozen-lockfile"),
    "package-lock.json": ("npm", "npm ci --no-audit --no-fund"),
}
"""Who wrote a lock file, and how it is installed without changing it."""


def _python(repository: Repository, names: Collection[str]) -> Iterator[str]:
    if not any(re.search(r"(^|/)(test_[^/]*|[^/]*_test)\.py$", name) for name in names):
        return
    files = [name for name in _PYTHON_CONFIG if name in names]
    uses_pytest = "conftest.py" in names or "tests/conftest.py" in names
    uses_pytest |= any("pytest" in (repository.base_file(name) or "") for name in files)
    if "uv.lock" in names and shutil.which("uv"):
        yield "uv run pytest -q" if uses_pytest else "uv run python -m unittest"
    elif uses_pytest and _runs("python3", "-c", "import pytest"):
        yield "python3 -m pytest -q"
    elif not uses_pytest and shutil.which("python3"):
        yield "python3 -m unittest"


def _runs(*command: str) -> bool:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
