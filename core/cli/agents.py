"""`autocoder agents`: list, follow and end agents, whether or not an orchestrator runs."""

import contextlib
import dataclasses
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocoder.core.cli.asking import (
    ask,
    newcomer,
    newcomers,
    once_cleaned,
    once_ended,
    once_told,
    require_live,
)
from autocoder.core.cli.options import (
    BackendOption,
    BaseOption,
    JsonOption,
    ModelOption,
    ProjectOption,
    opened,
)
from autocoder.core.cli.output import guarded, print_json, print_table, warn
from autocoder.core.commands import MOST_VARIANTS
from autocoder.core.shapes import agent_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from autocoder.core.logs import LogTail
    from autocoder.core.models import Agent, WorktreeStatus
    from autocoder.core.settings import Settings

FOLLOW_S = 0.1
LIVENESS_S = 1.0
COLUMNS = ("AGENT", "STATE", "FEATURE", "BACKEND", "PID", "API", "WEB", "AGE", "WHAT")
WORKTREE_COLUMNS = ("AGENT", "BRANCH", "SIZE", "UNCOMMITTED", "MERGED", "WHAT")
MARKS = {"own": "●", "none": "○", "foreign": "✗", "swapped": "⇄"}
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
    backend: BackendOption = "",
    model: ModelOption = "",
    base: BaseOption = "",
    variants: Annotated[
        int,
        typer.Option(
            min=1,
            max=MOST_VARIANTS,
            help="That many tries of one task, each merged when asked for.",
        ),
    ] = 1,
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Start an agent now, even beyond `parallel`: for a feature, for a task, or for the next one.

    Backend, model and base are the feature's from then on.

    \b
    Examples:
      autocoder agents spawn
      autocoder agents spawn 12 --backend codex
      autocoder agents spawn --task "Let the list be sorted by due date" --base release
      autocoder agents spawn --task "A logo as SVG" --variants 3
      autocoder features merge 17     # the variant that is to stay
    """
    with guarded(as_json=as_json):
        from autocoder.core.commands import SpawnAgent
        from autocoder.core.errors import UsageError

        if feature_id is not None and task:
            raise UsageError("either a feature or --task, not both")
        if variants > 1 and not task.strip():
            raise UsageError("only a --task can have --variants")
        folder, _ = opened(project_dir)
        wish = SpawnAgent(feature_id, task, backend, model, base, variants)
        started = ask(folder, wish, newcomers(variants))
        if as_json:
            shown = [agent_json(agent) for agent in started]
            print_json(shown if variants > 1 else shown[0])
        else:
            for agent in started:
                typer.echo(f"{agent.agent_id} starts: {agent.feature}")


@agents_app.command()
def stop(
    agent_id: AgentArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Ask an agent to end, then force it; its feature goes back to the backlog uncounted.

    There it waits for `features retry`, `agents spawn ID` or the next orchestrator.

    \b
    Examples:
      autocoder agents stop a-0f31
    """
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

    \b
    Examples:
      autocoder agents kill a-0f31
      autocoder agents kill a-0f31 --json | jq .reason
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
def tell(
    agent_id: AgentArgument,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to tell it; - reads stdin.")],
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Send a message to a running agent, which reads it at its next turn.

    \b
    Examples:
      autocoder agents tell a-0f31 "Leave the header as it is"
      git diff | autocoder agents tell a-0f31 -
    """
    with guarded(as_json=as_json):
        from autocoder.core.commands import TellAgent

        folder, _ = opened(project_dir)
        require_live(folder, agent_id)
        said = sys.stdin.read() if text == "-" else text
        told = ask(folder, TellAgent(agent_id, said), once_told(agent_id))
        if as_json:
            print_json(agent_json(told))
        else:
            typer.echo(f"{agent_id} is told; `autocoder agents logs {agent_id}` shows its answer")


@agents_app.command()
def recover(
    agent_id: AgentArgument, project_dir: ProjectOption = Path(), as_json: JsonOption = False
) -> None:
    """Go on with an agent's work in a new agent, in its worktree; a live one is killed first.

    \b
    Examples:
      autocoder agents recover a-0f2e
    """
    with guarded(as_json=as_json):
        from autocoder.core.commands import RecoverAgent

        folder, _ = opened(project_dir)
        started = ask(folder, RecoverAgent(agent_id), newcomer)
        if as_json:
            print_json(agent_json(started))
        else:
            typer.echo(f"{started.agent_id} goes on with {agent_id}: {started.feature}")


@agents_app.command()
def clean(
    agent_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[AGENT]...", help="Only these; otherwise all that can go."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would go, and remove nothing.")
    ] = False,
    project_dir: ProjectOption = Path(),
    as_json: JsonOption = False,
) -> None:
    """Remove worktrees that agents left and that hold nothing base has not.

    One that is lived in, has uncommitted files or unmerged commits stays, and so does one
    git can say nothing about. Works without an orchestrator, too. Exits with 3 where one
    that was named stays.

    \b
    Examples:
      autocoder agents clean --dry-run
      autocoder agents clean
      autocoder agents clean a-0f2e a-0f31
    """
    with guarded(as_json=as_json):
        from autocoder.core import roster
        from autocoder.core.errors import RefusedError, UsageError

        folder, settings = opened(project_dir)
        found = {status.agent_id: status for status in roster.worktrees(folder, settings)}
        unknown = sorted(set(agent_ids or ()) - found.keys())
        if unknown:
            raise UsageError(
                f"{unknown[0]!r} has no worktree", "`autocoder agents clean -n` lists those."
            )
        chosen = [
            status
            for name, status in found.items()
            if (name in agent_ids if agent_ids else status.removable)
        ]
        if dry_run:
            _show_worktrees(list(found.values()), {each.agent_id for each in chosen}, as_json)
            return
        kept = _clean(folder, settings, chosen) if chosen else []
        gone = [each for each in chosen if not Path(each.path).exists()]
        if as_json:
            print_json({"removed": [each.agent_id for each in gone], "kept": kept})
        else:
            typer.echo(f"removed {len(gone)} of {len(found)}, {_size(gone)} freed")
            for said in kept:
                warn(said)
        if kept:
            raise typer.Exit(RefusedError.exit_code)


def _clean(folder: Path, settings: "Settings", chosen: "list[WorktreeStatus]") -> list[str]:
    """Why each stays that does."""
    from autocoder.core import roster
    from autocoder.core.client import NoOrchestrator
    from autocoder.core.commands import RemoveWorktrees

    paths = {each.agent_id: Path(each.path) for each in chosen}
    try:
        return ask(folder, RemoveWorktrees(tuple(paths)), once_cleaned(paths))
    except NoOrchestrator:
        cleaned = roster.clean(folder, settings, tuple(paths))
        return [f"{each.agent_id}: {each.kept}" for each in cleaned if each.kept]


def _show_worktrees(
    found: "list[WorktreeStatus]", chosen: "Collection[str]", as_json: bool
) -> None:
    if as_json:
        print_json(
            [
                dataclasses.asdict(each)
                | {"removable": each.removable, "chosen": each.agent_id in chosen}
                for each in found
            ]
        )
        return
    if not found:
        typer.echo("no agent has left a worktree")
        return
    rows = [
        (
            each.agent_id,
            each.branch or "(none)",
            _size([each]),
            "?" if each.unknown else each.dirty_files or "",
            "?" if each.unknown else "yes" if each.merged else "no",
            ("would go" if each.removable else "stays, for all that")
            if each.agent_id in chosen
            else "in use"
            if each.in_use
            else "stays",
        )
        for each in found
    ]
    print_table(WORKTREE_COLUMNS, rows, right=("SIZE", "UNCOMMITTED"))


def _size(worktrees: "list[WorktreeStatus]") -> str:
    return f"{sum(each.bytes for each in worktrees) / (1 << 20):.1f} MiB"


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
