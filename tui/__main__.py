"""The composition root of the panel: arguments, terminal, settings, engine, App.

Whatever is slow to import is imported after the first paint, in the engine's
thread; `--help` and refusals import next to nothing.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autocoder.core.errors import AutocoderError, ProjectError, UsageError

if TYPE_CHECKING:
    from autocoder.core.assistant import Said
    from autocoder.core.engine import Engine
    from autocoder.core.models import Agent
    from autocoder.core.questions import Questions
    from autocoder.tui.app import Departure
    from autocoder.tui.assistant_thread import Assistance, Conversation

PARSER_WORDS = """\
commands:
  demo                 make a small project with a backlog and open the panel on it
  autocoder            everything else, without a screen: see `autocoder --help`
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the panel; the exit code is 0, 1 (crash), 2 (usage), 3 (refused) or 130 (Ctrl-C)."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.project == "demo":
            return _demo(arguments)
        return _panel(Path(arguments.project), arguments)
    except AutocoderError as error:
        if arguments.debug:
            raise
        _complain(error)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autocoder-tui",
        description="The control panel for coding agents that work in parallel.",
        epilog=PARSER_WORDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("project", nargs="?", default=".", help="project folder (default: here)")
    parser.add_argument("--parallel", type=int, metavar="N", help="agents that run at once")
    parser.add_argument("--backend", metavar="B", help="the program that works on features")
    parser.add_argument("--preset", metavar="P", help="how much is spent on a feature")
    parser.add_argument("--read-only", action="store_true", help="no key that changes anything")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _panel(project: Path, arguments: argparse.Namespace) -> int:
    from autocoder.core.settings import load_settings

    project = project.expanduser().resolve()
    if not project.is_dir():
        raise ProjectError(f"{project} is not a folder", "Name the project's folder.")
    settings = load_settings(project, environ=os.environ, cli=_given(arguments))
    _check_terminal(project)

    def open_engine() -> "Engine":
        # Imported here because the database layer takes longer than the first paint.
        from autocoder.core.composition import join_engine

        return join_engine(project, settings)

    return _show(open_engine, project, arguments)


def _demo(arguments: argparse.Namespace) -> int:
    from autocoder.core.composition import run_demo

    def show(open_engine: "Callable[[], Engine]", project: Path) -> int:
        return _show(open_engine, project, arguments)

    return run_demo(show if _has_terminal() else None, _given(arguments))


def _show(open_engine: "Callable[[], Engine]", project: Path, arguments: argparse.Namespace) -> int:
    def open_questions() -> "Questions":
        # Imported here because git and the database are not needed to paint.
        from autocoder.core.composition import open_questions

        return open_questions(project, _given(arguments))

    return run_panel(
        open_engine,
        project,
        open_questions=open_questions,
        assistance=_Assistance(project, _given(arguments)),
        read_only=arguments.read_only,
        debug=arguments.debug,
    )


class _Assistance:
    """Conversations with the assistant; what they need is imported with the first."""

    def __init__(self, project: Path, cli: "dict[str, object]") -> None:
        self._project = project
        self._cli = cli

    def history(self) -> "tuple[Said, ...]":
        from autocoder.core.assistant import history

        return history(self._project)

    def converse(self, agent: "Agent | None") -> "Conversation":
        from autocoder.core.assistant import Assistant
        from autocoder.core.settings import load_settings

        settings = load_settings(self._project, environ=os.environ, cli=self._cli)
        return Assistant(self._project, settings, agent)


def run_panel(
    open_engine: "Callable[[], Engine]",
    project: Path,
    *,
    open_questions: "Callable[[], Questions] | None" = None,
    assistance: "Assistance | None" = None,
    read_only: bool = False,
    debug: bool = False,
) -> int:
    """Draw until the user leaves, then say what goes on without the panel."""
    from autocoder.tui.app import Panel
    from autocoder.tui.preferences import preferences_file

    panel = Panel(
        open_engine,
        project.name,
        open_questions=open_questions,
        assistance=assistance,
        read_only=read_only,
        preferences=preferences_file(),
    )
    try:
        # Without the mouse the terminal's own selection keeps working, which is how
        # people copy over SSH.
        departure = panel.run(mouse=False)
    finally:
        panel.stop_engine()
    return _farewell(departure, project, debug=debug) if departure else panel.return_code or 1


def _given(arguments: argparse.Namespace) -> dict[str, object]:
    return {name: getattr(arguments, name) for name in ("parallel", "backend", "preset")}


def _has_terminal() -> bool:
    ends = sys.stdin.isatty() and sys.stderr.isatty()
    return ends and os.environ.get("TERM", "") not in ("", "dumb")


def _check_terminal(project: Path) -> None:
    if not _has_terminal():
        raise UsageError(
            "the panel needs a terminal that can move its cursor",
            f"Without one: autocoder parallel --project-dir {project}",
        )


def _farewell(departure: "Departure", project: Path, *, debug: bool) -> int:
    if departure.error is not None:
        if debug:
            raise departure.error
        error = departure.error
        if not isinstance(error, AutocoderError):
            what = f"the engine broke: {type(error).__name__}: {error}"
            error = AutocoderError(what, "`--debug` shows where. Agents keep running.")
        _complain(error)
        return error.exit_code
    if departure.live:
        verb = "agent keeps" if departure.live == 1 else "agents keep"
        print(f"{departure.live} {verb} running. Come back with: autocoder-tui {project}")  # noqa: T201
    return 130 if departure.interrupted else 0


def _complain(error: AutocoderError) -> None:
    print(f"autocoder-tui: {error.message}", file=sys.stderr)  # noqa: T201
    if error.hint:
        print(error.hint, file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
