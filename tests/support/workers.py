"""Real workers with real programs as their backend, and what /proc says of them."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autocoder.core import agent_worker
from support.waiting import wait_until


def is_alive(pid: int) -> bool:
    """Whether /proc shows a process of that pid that is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"


class RunningWorker:
    """`agent_worker.py` as a process, with a Python program of the test's as its backend."""

    def __init__(self, folder: Path, program: str, ports: tuple[int, int], **run: Any) -> None:
        self.project = folder / "project"
        self.worktree = folder / "worktree"
        self.run_folder = self.project / ".autocoder" / "agents" / "a-0001"
        self.run_folder.mkdir(parents=True)
        self.worktree.mkdir()
        script = folder / "program.py"
        script.write_text(textwrap.dedent(program))
        environment = run.pop("environ", {})
        description = {"command": [sys.executable, "-I", "-S", str(script)], **run}
        (self.run_folder / "run.json").write_text(json.dumps(description))
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", agent_worker.__file__),
                *("--project-dir", str(self.project), "--agent-id", "a-0001"),
                *("--feature-id", "7", "--worktree-path", str(self.worktree)),
                *("--api-port", str(ports[0]), "--web-port", str(ports[1])),
                *("--heartbeat-seconds", "0.2"),
            ],
            env=os.environ | environment,
            start_new_session=True,
        )

    def wait(self, seconds: float = 20.0) -> dict[str, Any]:
        """The facts in `exit.json`, once the worker has ended."""
        self.process.wait(seconds)
        facts: dict[str, Any] = json.loads((self.run_folder / "exit.json").read_text())
        return facts

    def says(self, text: str) -> bool:
        log = self.run_folder / "log"
        return log.exists() and text in log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_until(lambda: self.says(text), what=f"{text!r} in the log")

    def pids(self, *names: str) -> list[int]:
        """What the program wrote into files of its worktree, one pid each."""
        files = [self.worktree / name for name in names]

        def complete() -> bool:
            return all(file.exists() and file.read_text().endswith("\n") for file in files)

        wait_until(complete, what=f"pids in {names}")
        return [int(file.read_text()) for file in files]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)


@contextlib.contextmanager
def running_worker(
    folder: Path, program: str, ports: tuple[int, int], **run: Any
) -> Iterator[RunningWorker]:
    worker = RunningWorker(folder, program, ports, **run)
    try:
        yield worker
    finally:
        worker.close()
