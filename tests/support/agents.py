"""Real agent programs under real workers, talking to the stub of the model services."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autocoder.core import agent_worker
from autocoder.core.backends.choice import backend_command
from autocoder.core.events import EVENTS_FILE, Event, Progress, decode, last_progress
from autocoder.core.mcp_servers import ServedAgent, mcp_servers
from autocoder.core.settings import Settings
from autocoder.core.store import FeatureDraft, NewAgent, ProjectStore
from support.model_stub import ModelStub
from support.repositories import git, make_repository
from support.waiting import wait_until

KEY = "dummy-key-of-the-tests"


def clean_environment(home: Path, stub: ModelStub) -> dict[str, str]:
    """What an agent program needs and nothing of the user's; every service is the stub."""
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        **{name: value for name, value in os.environ.items() if name.startswith("GIT_")},
        "ANTHROPIC_BASE_URL": stub.url,
        "ANTHROPIC_API_KEY": KEY,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "3",
        "OPENAI_BASE_URL": f"{stub.url}/v1",
        "OPENAI_API_KEY": KEY,
        "CODEX_API_KEY": KEY,
        "GEMINI_API_KEY": KEY,
        "GOOGLE_GEMINI_BASE_URL": stub.url,
        "NO_PROXY": "*",
    }


class RunningAgent:
    """One agent of a project of its own: a worktree, a claimed feature, a worker."""

    def __init__(
        self,
        folder: Path,
        stub: ModelStub,
        pair: tuple[int, int],
        *,
        settings: Settings,
        script: str,
        agent_id: str = "a-0001",
        environ: Mapping[str, str] | None = None,
        **run: Any,
    ) -> None:
        self.api_port, self.web_port = pair
        self.project = folder / "todo"
        if not self.project.exists():
            make_repository(self.project)
        self.worktree = folder / "todo-worktrees" / agent_id
        if not self.worktree.exists():
            git(self.project, "worktree", "add", "-q", "-b", f"feat/{agent_id}", str(self.worktree))
        start = git(self.project, "rev-parse", "HEAD")
        self.run_folder = self.project / ".autocoder" / "agents" / agent_id
        self.run_folder.mkdir(parents=True, exist_ok=True)
        self.store = ProjectStore(folder / f"{agent_id}.db")
        if not self.store.features():
            self.store.add_features([FeatureDraft("Other"), FeatureDraft("Search", priority=5)])
            assert self.store.claim(2, NewAgent(agent_id, *pair, 1, f"feat/{agent_id}", "claude"))
        served = ServedAgent(
            project_dir=self.project,
            database=self.store.path,
            run_folder=self.run_folder,
            agent_id=agent_id,
            feature_id=2,
            api_port=self.api_port,
            web_port=self.web_port,
            start_commit=start,
        )
        prompt = self.run_folder / "prompt.md"
        prompt.write_text(f"Do the feature. [script:{script}]\n")
        run_file = self.run_folder / "run.json"
        values = {
            "agent_id": agent_id,
            "feature_id": "2",
            "worktree": str(self.worktree),
            "api_port": str(self.api_port),
            "web_port": str(self.web_port),
            "model": settings.model,
            "prompt_file": str(prompt),
            "prompt": prompt.read_text(),
        }
        description = {
            "agent_id": agent_id,
            "backend": settings.backend,
            "command": backend_command(settings, run_file, values),
            "worktree": str(self.worktree),
            "project_dir": str(self.project),
            "database": str(self.store.path),
            "base": "main",
            "start_commit": start,
            "prompt_file": str(prompt),
            "model": settings.model,
            "max_iterations": 2,
            "feature": {"id": 2, "name": "Search"},
            "fence": {"mode": "off", "pools": [[self.api_port, self.api_port + 100]]},
            "mcp_servers": mcp_servers(served, browser=False),
            "limits": {"stop_grace_s": 8},
        } | run
        run_file.write_text(json.dumps(description))
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", agent_worker.__file__),
                *("--project-dir", str(self.project), "--agent-id", agent_id),
                *("--feature-id", "2", "--worktree-path", str(self.worktree)),
                *("--api-port", str(self.api_port), "--web-port", str(self.web_port)),
                *("--backend", settings.backend),
            ],
            env={**clean_environment(folder / "home", stub), **(environ or {})},
            start_new_session=True,
        )

    def wait(self, seconds: float = 60.0) -> dict[str, Any]:
        """The facts in `exit.json`, once the worker has ended."""
        self.process.wait(seconds)
        facts: dict[str, Any] = json.loads((self.run_folder / "exit.json").read_text())
        return facts

    @property
    def log(self) -> str:
        path = self.run_folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def events(self) -> list[Event]:
        path = self.run_folder / EVENTS_FILE
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [event for line in lines if (event := decode(line)) is not None]

    @property
    def progress(self) -> Progress:
        return last_progress(self.run_folder)

    def wait_for(self, text: str, seconds: float = 30.0) -> None:
        def said() -> bool:
            if self.process.poll() is not None and text not in self.log:
                raise AssertionError(f"ended without {text!r}:\n{self.log}")
            return text in self.log

        wait_until(said, seconds=seconds, what=f"{text!r} in the log")

    def written(self) -> str:
        """Everything a human or the panel may come to see of it."""
        names = ("log", "exit.json", "status.json", EVENTS_FILE)
        paths = [self.run_folder / name for name in names]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self.store.close()


@contextlib.contextmanager
def running_agent(
    folder: Path, stub: ModelStub, pair: tuple[int, int], **more: Any
) -> Iterator[RunningAgent]:
    agent = RunningAgent(folder, stub, pair, **more)
    try:
        yield agent
    finally:
        agent.close()
