"""`autocoder agents`: list, follow and end agents, whether or not an orchestrator runs."""

import contextlib
import dataclasses
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocoder.core.cli.asking import ask, newcomer, once_ended, require_live
from autocoder.core.cli.options import JsonOption, ProjectOption, opened
from autocoder.core.cli.output import guarded, print_json, print_table
from autocoder.core.shapes import agent_json

if TYPE_CHECKING:
    from autocoder.core.logs import LogTail
    from autocoder.core.models import Agent

FOLLOW_S = 0.1
LIVENESS_S = 1.0
COLUMNS = ("AGENT", "STATE", "FEATURE", "BACKEND", "PID", "API", "WEB", "AGE", "WHAT")
MARKS = {"own": "●", "none": "○", "foreign": "✗"}
SHORTENED = 40

agents_app = typer.Typer(
    name="agents", help="The project's agents.", no_args_is_help=True, rich_markup_mode=None
)
AgentArgument = Annotated[str, typer.Argument(metavar="AGENT", help="An id of `agents list`.")]


@agents_app.command("list")
def list_(
    project_dir: ProjectOption = Path(),
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Ended agents as well, the latest 500.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Live agents, and what the kernel says of them now.

    \b
    Examples:
      autocoder agents list
      autocoder agents list --all --json | jq '.[] | select(.state == "CRASHED")'
    """
    with guarded(as_json=as_json):
        # SQL and the process libraries cost most of a second: not for --help.
        from autocoder.core import roster

        found = [agent for agent in roster.agents(*opened(project_dir)) if everything or agent.live]
        if as_json:
            print_json([agent_json(agent) for agent in found])
        elif found:
            print_table(COLUMNS, map(_row, found), right=("PID", "AGE"))
        else:
            typer.echo("no agent runs; `autocoder agents list --all` shows those that ended")


@agents_app.command()
def logs(
    agent_id: AgentArgument,
    project_dir: ProjectOption = Path(),
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the agent ends.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, help="How many to begin with.")
    ] = 50,
) -> None:
    """The end of an agent's log, with nothing in it that could act on the terminal.

    \b
    Examples:
      autocoder agents logs a-0f31
      autocoder agents logs a-0f31 -f -n 0
    """
    with guarded():
        from autocoder.core import roster
        from autocoder.core.logs import LogTail, log_path, sanitise

        folder, settings = opened(project_dir)
        live = roster.agent(folder, settings, agent_id).live
        tail = LogTail(log_path(folder, agent_id), max_lines=max(lines, 1000), start=1 << 20)
        with contextlib.closing(tail):
            _take_all(tail)
            first, end = tail.bounds
            shown, looked, pause = max(first, end - lines), time.monotonic(), threading.Event()
            while True:
                going_on = follow and live
                # The last line may still be growing; it is shown when another one follows it.
                for line in tail.lines(shown, whole := end - 1 if going_on else end):
                    sys.stdout.write(sanitise(line) + "\n")
                sys.stdout.flush()
                if not going_on:
                    return
                shown = max(shown, whole)
                pause.wait(FOLLOW_S)
                if time.monotonic() - looked >= LIVENESS_S:
                    looked = time.monotonic()
                    live = roster.agent(folder, settings, agent_id).live
                _take_all(tail)
                end = tail.bounds[1]


@agents_app.command()
def spawn(
    feature_id: Annotated[
        int | None, typer.Argument(metavar="[FEATURE]", help="An id of `features list`.")
    ] = None,
    task: Annotated[
        str, typer.Option("--task", "-t", help="What to do; becomes a feature of its own.")
    ] = "",
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Start an agent now, even beyond `parallel`: for a feature, for a task, or for the next one.

    \b
    Examples:
      autocoder agents spawn
      autocoder agents spawn 12
      autocoder agents spawn --task "Let the list be sorted by due date"
    """
    with guarded(as_json=as_json):
        from autocoder.core.commands import SpawnAgent
        from autocoder.core.errors import UsageError

        if feature_id is not None and task:
            raise UsageError("either a feature or --task, not both")
        folder, _ = opened(project_dir)
        started = ask(folder, SpawnAgent(feature_id, task), newcomer)
        if as_json:
            print_json(agent_json(started))
        else:
            typer.echo(f"{started.agent_id} starts: {started.feature}")


@agents_app.command()
def stop(
    agent_id: AgentArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Ask an agent to end, then force it; its feature goes back to the backlog uncounted."""
    with guarded(as_json=as_json):
        from autocoder.core.commands import StopAgent

        folder, _ = opened(project_dir)
        require_live(folder, agent_id)
        _say_ended(ask(folder, StopAgent(agent_id), once_ended(agent_id)), as_json=as_json)


@agents_app.command()
def kill(
    agent_id: AgentArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """End an agent's whole process tree at once; its feature goes back to the backlog.

    Works without an orchestrator, too. What is in its worktree stays.
    """
    with guarded(as_json=as_json):
        from autocoder.core import roster
        from autocoder.core.client import NoOrchestrator
        from autocoder.core.commands import KillAgent

        folder, settings = opened(project_dir)
        try:
            require_live(folder, agent_id)
            ended = ask(folder, KillAgent(agent_id), once_ended(agent_id))
        except NoOrchestrator:
            killed = roster.kill(folder, settings, agent_id)
            if as_json:
                print_json({"agent_id": agent_id, **dataclasses.asdict(killed)})
            else:
                typer.echo(f"{agent_id} killed: {killed.receipt}")
        else:
            _say_ended(ended, as_json=as_json)


@agents_app.command()
def recover(
    agent_id: AgentArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Go on with an agent's work in a new agent, in its worktree; a live one is killed first."""
    with guarded(as_json=as_json):
        from autocoder.core.commands import RecoverAgent

        folder, _ = opened(project_dir)
        started = ask(folder, RecoverAgent(agent_id), newcomer)
        if as_json:
            print_json(agent_json(started))
        else:
            typer.echo(f"{started.agent_id} goes on with {agent_id}: {started.feature}")


def _say_ended(agent: "Agent", *, as_json: bool) -> None:
    if as_json:
        print_json(agent_json(agent))
    else:
        typer.echo(f"{agent.agent_id} {agent.state.lower()}: {agent.reason}")


def _row(agent: "Agent") -> tuple[object, ...]:
    from autocoder.core.lifecycle import spoken_duration

    ended = agent.ended_at or time.time()
    return (
        agent.agent_id,
        agent.state.lower(),
        _shortened(agent.feature),
        agent.backend,
        agent.pid,
        f"{agent.api_port} {MARKS[agent.api_listener]}" if agent.api_port else "",
        f"{agent.web_port} {MARKS[agent.web_listener]}" if agent.web_port else "",
        spoken_duration(ended - agent.started_at) if agent.started_at else "",
        agent.problem or agent.reason or _shortened(agent.last_line),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= SHORTENED else text[: SHORTENED - 1] + "…"


def _take_all(tail: "LogTail") -> None:
    while tail.poll():
        pass
