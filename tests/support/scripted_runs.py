"""Runs of the scripted agent as a worker starts it: own worktree, own pair, clean environment."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import autocoder.core.backends
from support.sockets import bind

SCRIPT = Path(autocoder.core.backends.__path__[0]) / "scripted.py"


def git(folder: Path, *order: str) -> str:
    """What git prints, without the newline at the end."""
    done = subprocess.run(
        ["git", "-c", "core.hooksPath=/dev/null", *order],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.rstrip("\n")


def a_repository(folder: Path) -> Path:
    """A repository with one commit on `main` and no identity of its own."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "README").write_text("a project\n")
    git(folder, "add", "README")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.invalid")
    git(folder, *who, "commit", "--quiet", "-m", "Begin")
    return folder


@contextlib.contextmanager
def held_pair() -> Iterator[tuple[int, int]]:
    """Two ports that only servers with SO_REUSEADDR can bind, as a worker holds them."""
    with bind(0, reuse=True) as api, bind(0, reuse=True) as web:
        yield api.getsockname()[1], web.getsockname()[1]


@dataclass(frozen=True)
class Outcome:
    code: int
    output: bytes

    @property
    def lines(self) -> list[str]:
        return self.output.decode(errors="replace").splitlines()

    @property
    def reason(self) -> str:
        return self.lines[-1]


@dataclass(frozen=True)
class AgentRun:
    """One attempt at one feature in a worktree of its own."""

    project: Path
    feature: Mapping[str, object]
    pair: tuple[int, int] = (0, 0)
    agent_id: str = "a-0001"
    attempt: int = 1
    options: Mapping[str, object] | None = None

    @property
    def worktree(self) -> Path:
        return self.project.parent / "worktrees" / self.agent_id

    @property
    def branch(self) -> str:
        return f"feat/{self.agent_id}"

    def prepare(self) -> "AgentRun":
        git(self.project, "worktree", "add", "-q", "-b", self.branch, str(self.worktree), "main")
        return self

    def start(self, *flags: str) -> "subprocess.Popen[bytes]":
        described = {
            "agent_id": self.agent_id,
            "backend": "scripted",
            "worktree": str(self.worktree),
            "branch": self.branch,
            "base": "main",
            "feature": {**self.feature, "attempt": self.attempt},
            "options": self.options or {},
        }
        path = self.project.parent / f"{self.agent_id}.json"
        path.write_text(json.dumps(described))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", *flags, str(SCRIPT), str(path)],
            cwd=self.worktree,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def finish(self, *flags: str) -> Outcome:
        """Run to the end; a process left behind may still hold its own files, never this pipe."""
        process = self.start(*flags)
        output, _ = process.communicate(timeout=60)
        return Outcome(process.returncode, output)

    def commits(self) -> list[str]:
        """Subjects on the branch that base does not have."""
        return git(self.worktree, "log", "--format=%s", f"main..{self.branch}").splitlines()

    def dirty(self) -> list[str]:
        listed = git(self.worktree, "status", "--porcelain", "-uall").splitlines()
        return [line[3:] for line in listed]

    def _environment(self) -> dict[str, str]:
        home = self.project.parent / "home"
        home.mkdir(exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AUTOCODER_AGENT_ID": self.agent_id,
        }
        if all(self.pair):
            api, web = map(str, self.pair)
            environment |= {"AUTOCODER_API_PORT": api, "AUTOCODER_WEB_PORT": web}
        return environment
