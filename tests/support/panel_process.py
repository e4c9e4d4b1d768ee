"""A panel process with a recording engine, to be started in a terminal by tests.

Usage: panel_process.py MODE LOG_FOLDER; what the engine was asked is written to
LOG_FOLDER/asked, one command a line.
"""

import sys
from dataclasses import replace
from pathlib import Path

from autocoder.core.assistant import Said
from autocoder.core.commands import Command
from autocoder.core.errors import ProjectLocked
from autocoder.core.events import Text, ToolStart
from autocoder.core.models import Feature, Notice, Severity, WorktreeStatus
from autocoder.core.questions import BackendChoice, SpawnForecast
from autocoder.tui.__main__ import run_panel
from support.answers import Answers
from support.assistance import ScriptedAssistance
from support.attacks import ATTACKS
from support.fake_engine import RecordingEngine
from support.snapshots import NOW, a_busy_project, a_snapshot, an_agent, the_leases


class Writing(RecordingEngine):
    def __init__(self, folder: Path, *snapshots: object, error: Exception | None = None) -> None:
        super().__init__(*snapshots, error=error)  # type: ignore[arg-type]
        self._folder = folder

    def submit(self, command: Command) -> None:
        with (self._folder / "asked").open("a") as file:
            file.write(f"{command}\n")


def hostile(folder: Path) -> Writing:
    """One agent per attack, in every field and in its log."""
    agents, notices = [], []
    for number, (name, bad) in enumerate(ATTACKS.items(), 1):
        log = folder / f"log-{number}"
        with log.open("wb") as file:
            for line in (f"attack: {name}", bad, f"\x1b[31m{bad}\x1b[0m"):
                file.write(line.encode("utf-8", "surrogatepass") + b"\n")
            file.write(b"raw: \x9b2J\x9d0;title\x9c\xff\xfe\x00 end\n")
        agent = an_agent(number)
        agents.append(
            replace(
                agent,
                feature=bad,
                branch=bad,
                backend=bad,
                worktree_path=f"/w/{bad}",
                last_line=bad,
                problem=bad if number % 2 else "",
                log_path=str(log),
            )
        )
        notices.append(Notice(number, NOW, Severity.WARNING, bad, bad))
    snapshot = a_snapshot(*agents, project="p\x1b]0;owned\x07", base="b\x9b2J")
    features = tuple(
        Feature(number, bad, bad, (bad,), bad, last_error=bad, branch_name=bad)
        for number, bad in enumerate(ATTACKS.values(), 1)
    )
    leases = tuple(
        replace(lease, listener=bad)
        for lease, bad in zip(the_leases(tuple(agents)), ATTACKS.values(), strict=False)
    )
    hostile_one = replace(snapshot, notices=tuple(notices), backlog=features, leases=leases)
    return Writing(folder, hostile_one)


def answering() -> tuple[Answers, ScriptedAssistance]:
    """Worktrees, backends and a conversation that are hostile as well."""
    bad_ones = list(ATTACKS.values())
    trees = (
        WorktreeStatus(bad, bad, bad, number, 0, merged=True, in_use=False)
        for number, bad in enumerate(bad_ones)
    )
    choices = tuple(BackendChoice(bad, False, bad, bad) for bad in bad_ones)
    bad = "".join(bad_ones)
    forecast = SpawnForecast(choices, bad, bad, bad, bad, refusal=bad, remedy=bad)
    said = tuple(Said(NOW, "assistant", each, each) for each in bad_ones)
    events = [event for each in bad_ones for event in (Text(each), ToolStart("1", each, each))]
    return (
        Answers(*trees, forecast=forecast),
        ScriptedAssistance(*events, Text("that was all"), said=said),
    )


def main(mode: str, folder: Path) -> int:
    if mode == "hostile":
        engine = hostile(folder)
    elif mode == "shell":
        engine = Writing(folder, a_snapshot(an_agent(1, worktree_path=str(folder))))
    elif mode == "locked":
        error = ProjectLocked("pid 4711 runs todo-app", "Attach to it, or end it first.")
        engine = Writing(folder, error=error)
    elif mode == "broken":
        engine = Writing(folder, error=ZeroDivisionError("a bug"))
    else:
        engine = Writing(folder, a_busy_project(folder))
    questions, assistance = answering() if mode == "hostile" else (None, None)
    return run_panel(
        lambda: engine,
        Path("/home/dev/todo-app"),
        open_questions=(lambda: questions) if questions else None,
        assistance=assistance,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
