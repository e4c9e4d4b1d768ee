"""A panel process with a recording engine, to be started in a terminal by tests.

Usage: panel_process.py MODE LOG_FOLDER; what the engine was asked is written to
LOG_FOLDER/asked, one command a line.
"""

import sys
from dataclasses import replace
from pathlib import Path

from autocoder.core.commands import Command, Pause
from autocoder.core.errors import ProjectLocked, RefusedError
from autocoder.core.models import AgentState
from autocoder.tui.__main__ import run_panel
from support.fake_engine import RecordingEngine
from support.hostile import (
    ALL,
    HostileAnswers,
    hostile_agents,
    hostile_assistance,
    hostile_snapshot,
)
from support.snapshots import a_busy_project, a_snapshot, an_agent


class Writing(RecordingEngine):
    def __init__(self, folder: Path, *snapshots: object, error: Exception | None = None) -> None:
        super().__init__(*snapshots, error=error)  # type: ignore[arg-type]
        self._folder = folder

    def submit(self, command: Command) -> None:
        with (self._folder / "asked").open("a") as file:
            file.write(f"{command}\n")


class Hostile(Writing):
    """Asked to pause, it lets agents end; asked once more, it breaks."""

    def __init__(self, folder: Path) -> None:
        self._agents = hostile_agents(folder)
        super().__init__(folder, hostile_snapshot(self._agents))
        self._paused = False

    def submit(self, command: Command) -> None:
        super().submit(command)
        if isinstance(command, Pause) and self._paused:
            self._error = RefusedError(ALL, ALL)
            self.stop()
        elif isinstance(command, Pause):
            self._paused = True
            first, *others = self._agents
            ended = replace(first, state=AgentState.COMPLETED, feature=ALL)
            self.publish(hostile_snapshot((ended, *others)))

    def run(self, publish: object) -> None:
        super().run(publish)  # type: ignore[arg-type]
        if self._error is not None:
            raise self._error


def main(mode: str, folder: Path) -> int:
    if mode == "hostile":
        engine: Writing = Hostile(folder)
    elif mode == "mistaken":
        (folder / ".autocoder").mkdir()
        engine = Writing(folder, "no snapshot")
        return run_panel(lambda: engine, folder)
    elif mode == "shell":
        engine = Writing(folder, a_snapshot(an_agent(1, worktree_path=str(folder))))
    elif mode == "locked":
        error = ProjectLocked("pid 4711 runs todo-app", "Attach to it, or end it first.")
        engine = Writing(folder, error=error)
    elif mode == "broken":
        engine = Writing(folder, error=ZeroDivisionError("a bug"))
    else:
        engine = Writing(folder, a_busy_project(folder))
    return run_panel(
        lambda: engine,
        Path("/home/dev/todo-app"),
        open_questions=HostileAnswers if mode == "hostile" else None,
        assistance=hostile_assistance() if mode == "hostile" else None,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
