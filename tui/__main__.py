"""The composition root of the panel: arguments, terminal, settings, engine, App.

Whatever is slow to import is imported after the first paint, in the engine's
thread; `--help` and refusals import next to nothing.
"""

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autocoder.core.errors import AutocoderError, ProjectError, UsageError
from autocoder.core.logs import sanitise

if TYPE_CHECKING:
    from types import FrameType

    from autocoder.core.assistant import Said
    from autocoder.core.engine import Engine
    from autocoder.core.models import Agent
    from autocoder.core.questions import Questions
    from autocoder.core.settings import Settings
    from autocoder.tui.app import Departure
    from autocoder.tui.assistant_thread import Assistance, Conversation
    from autocoder.tui.live_settings import LiveSettings

CRASH_LOG = Path(".autocoder", "panel.log")
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
        return _open(Path(arguments.project), arguments)
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
    parser.add_argument(
        "--web", action="store_true", help="also in a browser, on $AUTOCODER_UI_PORT"
    )
    parser.add_argument("--api", action="store_true", help="REST API on $AUTOCODER_UI_PORT")
    parser.add_argument("--read-only", action="store_true", help="no key that changes anything")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def _open(project: Path, arguments: argparse.Namespace) -> int:
    from autocoder.core.settings import load_settings
    from autocoder.tui.live_settings import LiveSettings

    project = project.expanduser().resolve()
    if not project.is_dir():
        raise ProjectError(f"{project} is not a folder", "Name the project's folder.")
    settings = load_settings(project, environ=os.environ, cli=_given(arguments))
    drawn = _has_terminal()
    if not drawn and not arguments.web:
        raise UsageError(
            "the panel needs a terminal that can move its cursor",
            f"Without one: autocoder parallel --project-dir {project}",
        )
    told: list[str] = []

    def read_settings() -> "Settings":
        from autocoder.core.backends.choice import check_backend

        found = load_settings(project, environ=os.environ, cli=_given(arguments))
        check_backend(found)
        return found

    def run_by() -> str:
        from autocoder.core.project_lock import run_elsewhere

        return run_elsewhere(project)

    live = LiveSettings(settings, read_settings, run_by)

    def open_engine() -> "Engine":
        # Imported here because the database layer takes longer than the first paint.
        from autocoder.core.composition import api_way, join_engine

        def opening(chosen: "Settings") -> "Engine":
            way = api_way(chosen)[0] if arguments.api else None
            return join_engine(project, chosen, way)

        return live.open(opening)

    with contextlib.ExitStack() as served:
        if arguments.api:
            from autocoder.core.composition import api_way

            told.append(api_way(settings)[1])
        if arguments.web:
            from autocoder.core.composition import web_way
            from autocoder.tui.web import browsers_served

            way = web_way(settings, beside_api=arguments.api)
            options = _passed_on(arguments)
            url = served.enter_context(browsers_served(way, project, options))
            told.append(f"In a browser: {url}")
        if not drawn:
            return _run_unseen(open_engine(), told)
        _tell(told)
        return _show(open_engine, project, arguments, told, live)


def _run_unseen(engine: "Engine", told: Sequence[str]) -> int:
    """Only browsers see it; until it is interrupted."""

    def leave(_number: int, _frame: "FrameType | None") -> None:
        engine.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    # Not before: whoever reads an address may also send a signal.
    _tell(told)
    engine.run(lambda _snapshot: None)
    return 0


def _tell(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201


def _demo(arguments: argparse.Namespace) -> int:
    from autocoder.core.composition import run_demo

    def show(project: Path) -> int:
        return _open(project, arguments)

    shown = show if _has_terminal() or arguments.web else None
    return run_demo(shown, _given(arguments), served=arguments.api or arguments.web)


def _show(
    open_engine: "Callable[[], Engine]",
    project: Path,
    arguments: argparse.Namespace,
    told: Sequence[str],
    live: "LiveSettings",
) -> int:
    from autocoder.core.settings import PROJECT_FILE, user_file

    def open_questions() -> "Questions":
        # Imported here because git and the database are not needed to paint.
        from autocoder.core.composition import open_questions

        return open_questions(project, live.current)

    return run_panel(
        open_engine,
        project,
        open_questions=open_questions,
        assistance=_Assistance(project, live),
        read_only=arguments.read_only,
        debug=arguments.debug,
        told=told,
        settings=live,
        settings_files=(project / PROJECT_FILE, user_file()),
    )


class _Assistance:
    """Conversations with the assistant; what they need is imported with the first."""

    def __init__(self, project: Path, live: "LiveSettings") -> None:
        self._project = project
        self._live = live

    def history(self) -> "tuple[Said, ...]":
        from autocoder.core.assistant import history

        return history(self._project)

    def converse(self, agent: "Agent | None") -> "Conversation":
        from autocoder.core.assistant import Assistant

        return Assistant(self._project, self._live.current, agent)


def run_panel(
    open_engine: "Callable[[], Engine]",
    project: Path,
    *,
    open_questions: "Callable[[], Questions] | None" = None,
    assistance: "Assistance | None" = None,
    read_only: bool = False,
    debug: bool = False,
    told: Sequence[str] = (),
    settings: "LiveSettings | None" = None,
    settings_files: Sequence[Path] = (),
) -> int:
    """Draw until the user leaves, then say what goes on without the panel."""
    from autocoder.tui.app import Departure, Panel
    from autocoder.tui.outside import wipe
    from autocoder.tui.preferences import preferences_file

    panel = Panel(
        open_engine,
        project.name,
        open_questions=open_questions,
        assistance=assistance,
        read_only=read_only,
        preferences=preferences_file(),
        told=told,
        settings=settings,
        settings_files=settings_files,
    )
    try:
        # Without the mouse the terminal's own selection keeps working, which is how
        # people copy over SSH.
        departure = panel.run(mouse=False)
    finally:
        panel.stop_engine()
    wipe(os.environ)
    if departure is None:
        departure = Departure(panel.snapshot, panel.broken or RuntimeError("no reason known"))
    return _farewell(departure, project, debug=debug)


def _given(arguments: argparse.Namespace) -> dict[str, object]:
    return {name: getattr(arguments, name) for name in ("parallel", "backend", "preset")}


def _passed_on(arguments: argparse.Namespace) -> list[str]:
    """What a panel in a browser is started with; if it takes over, it runs agents alike."""
    given = {name: value for name, value in _given(arguments).items() if value is not None}
    options = [f"--{name}={value}" for name, value in given.items()]
    return [*options, "--read-only"] if arguments.read_only else options


def _has_terminal() -> bool:
    if os.environ.get("TEXTUAL_DRIVER"):
        return True  # drawn in a browser
    ends = sys.stdin.isatty() and sys.stderr.isatty()
    return ends and os.environ.get("TERM", "") not in ("", "dumb")


def _farewell(departure: "Departure", project: Path, *, debug: bool) -> int:
    if departure.error is not None:
        if debug:
            raise departure.error
        error = departure.error
        if not isinstance(error, AutocoderError):
            where = _kept(error, project / CRASH_LOG)
            what = f"the panel broke: {type(error).__name__}: {error}"
            error = AutocoderError(what, f"{where} says where. Agents keep running.")
        _complain(error)
        return error.exit_code
    if departure.live:
        verb = "agent keeps" if departure.live == 1 else "agents keep"
        again = shlex.join(["autocoder-tui", sanitise(str(project))])
        print(f"{departure.live} {verb} running. Come back with: {again}")  # noqa: T201
    return 130 if departure.interrupted else 0


def _kept(error: BaseException, log: Path) -> str:
    """What tells where it happened: the log it was added to, or the option that shows it."""
    import time
    import traceback

    told = "".join(traceback.format_exception(error)).splitlines()
    lines = (time.strftime("%Y-%m-%d %H:%M:%S"), *map(sanitise, told), "")
    try:
        with open(log, "a", encoding="utf-8", opener=_for_the_user_alone) as file:
            file.write("\n".join(lines))
    except OSError:
        return "`--debug`"
    return sanitise(str(log))


def _for_the_user_alone(path: str, flags: int) -> int:
    # Agents run as the same user: no link of theirs is followed, and no pipe waited for.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)


def _complain(error: AutocoderError) -> None:
    # Names of branches and files, which are not ours, are part of what is said.
    print(f"autocoder-tui: {sanitise(error.message)}", file=sys.stderr)  # noqa: T201
    if error.hint:
        print(sanitise(error.hint), file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
