"""The command line: every way to the engine that needs no panel."""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer

from autocoder.core.cli.agents import agents_app
from autocoder.core.cli.chat import chat
from autocoder.core.cli.config import config
from autocoder.core.cli.doctor import doctor
from autocoder.core.cli.features import features_app
from autocoder.core.cli.mcp import mcp
from autocoder.core.cli.options import JsonOption, ProjectOption
from autocoder.core.cli.output import guarded
from autocoder.core.cli.ports import ports_app
from autocoder.core.cli.serve import serve
from autocoder.core.settings import PRESETS, load_settings

app = typer.Typer(
    name="autocoder",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(agents_app)
app.add_typer(features_app)
app.add_typer(ports_app, name="ports")
app.command()(config)
app.command()(doctor)
app.command()(mcp)
app.command()(chat)
app.command()(serve)


@app.callback()
def autocoder(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Run many autonomous coding agents on one box, each in its own worktree with its own two
    ports.

    Exit codes: 0 done, 1 the run had failures, 2 wrong usage or settings, 3 refused because of
    the present state, 130 on Ctrl-C.
    """
    if debug:
        sys.excepthook = sys.__excepthook__


@app.command()
def parallel(
    project_dir: ProjectOption = Path(),
    parallel: Annotated[
        int | None, typer.Option("--parallel", "-n", help="Agents that run at once.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="How much is spent on a feature: " + ", ".join(PRESETS))
    ] = None,
    backend: Annotated[str | None, typer.Option(help="The program that works on features.")] = None,
    model: Annotated[str | None, typer.Option(help="The model the backend uses.")] = None,
    base: Annotated[str | None, typer.Option(help="Branch to start from and merge into.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Work through the backlog without a panel, and report.

    Ctrl-C stops the agents and reports; a second one leaves them running, for the next
    `autocoder parallel` or `autocoder-tui` to adopt.

    \b
    Examples:
      autocoder parallel --project-dir my-app --parallel 3
      autocoder parallel --json 2>progress.jsonl >report.json
    """
    with guarded(as_json=as_json):
        # SQL and the process libraries cost most of a second: not for --help.
        from autocoder.core.composition import existing_folder, open_controlled
        from autocoder.core.headless import run_headless

        folder = existing_folder(project_dir)
        chosen = {
            "parallel": parallel,
            "preset": preset,
            "backend": backend,
            "model": model,
            "base": base,
            "stop_when_done": True,
        }
        settings = load_settings(folder, environ=os.environ, cli=chosen)
        code = run_headless(open_controlled(folder, settings), as_json=as_json)
    raise typer.Exit(code)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    add_help_option=False,
)
def worker(context: typer.Context) -> None:
    """Run one agent by hand, as `python agent_worker.py` does; `autocoder worker --help`."""
    from autocoder.core import agent_worker

    if agent_worker.Arguments(context.args).backend != "scripted":
        with guarded():
            # SQL and the process libraries cost most of a second: not for a scripted one.
            from autocoder.core.by_hand import describe_by_hand

            describe_by_hand(context.args, os.environ)
    os.execv(  # noqa: S606
        sys.executable, [sys.executable, "-I", "-S", agent_worker.__file__, *context.args]
    )


def main() -> None:
    sys.excepthook = _say_crash
    app()


def _say_crash(
    kind: type[BaseException], crash: BaseException, _trace: TracebackType | None
) -> None:
    sys.stderr.write(
        f"autocoder: this should not have happened: {kind.__name__}: {crash}\n"
        "  `autocoder --debug ...` shows where. Agents that run go on.\n"
    )
