"""`autocoder serve`: the orchestrator and its REST API, without a panel."""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from autocoder.core.cli.options import JsonOption, ProjectOption
from autocoder.core.cli.output import guarded, print_json

if TYPE_CHECKING:
    from autocoder.core.models import Snapshot


def serve(
    project_dir: ProjectOption = Path(),
    port: Annotated[
        int | None, typer.Option(help="TCP port on loopback; else $AUTOCODER_UI_PORT, else 8888.")
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option("--parallel", "-n", help="Agents that run by themselves; 0: only on request."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the project's orchestrator with its REST API on TCP, until Ctrl-C; agents go on.

    Every request needs the token of the file that is named at the start.

    \\b
    Examples:
      autocoder serve --parallel 0
      curl -H "Authorization: Bearer $(cat TOKEN_FILE)" http://127.0.0.1:8888/api/status
      curl --unix-socket .autocoder/control.sock http://localhost/api/agents
    """
    with guarded(as_json=as_json):
        # SQL and the process libraries cost most of a second: not for --help.
        from autocoder.core.composition import existing_folder, open_controlled
        from autocoder.core.control import tcp_way, token_file
        from autocoder.core.settings import load_settings

        folder = existing_folder(project_dir)
        chosen = {"ui.port": port, "parallel": parallel, "stop_when_done": False}
        settings = load_settings(folder, environ=os.environ, cli=chosen)
        way = tcp_way(settings)
        engine = open_controlled(folder, settings, way)

        def leave(_number: int, _frame: FrameType | None) -> None:
            engine.stop()

        handlers = {
            number: signal.signal(number, leave)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        served = threading.Event()

        def tell(_snapshot: "Snapshot") -> None:
            if served.is_set():
                return
            served.set()
            url = f"http://{way.host}:{way.port}"
            if as_json:
                print_json({"url": url, "token_file": str(token_file()), "pid": os.getpid()})
            else:
                typer.echo(f"{url}/docs  token in {token_file()}  Ctrl-C leaves, agents go on")
            sys.stdout.flush()

        try:
            engine.run(tell)
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
