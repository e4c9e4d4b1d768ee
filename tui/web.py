"""`--web`: a process that serves attached panels to browsers while this one runs."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from autocoder.core.errors import RefusedError, UsageError

LOG = Path(".autocoder", "web.log")
END_S = 15.0


class TcpWay(Protocol):
    """Where TCP is served, and what must be shown there."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def token(self) -> str: ...
    @property
    def hosts(self) -> Sequence[str]: ...
    @property
    def origins(self) -> Sequence[str]: ...


@contextlib.contextmanager
def browsers_served(way: TcpWay, project: Path, options: Sequence[str]) -> Iterator[str]:
    """Serve panels of the project while the block runs; the address to open, token included.

    `options` are those of this panel that theirs have too.

    Raises:
        UsageError: what serves them is not installed.
        RefusedError: the port cannot be had.
    """
    if find_spec("textual_serve") is None:
        raise UsageError(
            "--web needs textual-serve, which is not installed",
            "pip install 'autocoder-tui[web]'",
        )
    python = [sys.executable, "-P", "-m"]
    told = {
        "host": way.host,
        "port": way.port,
        "token": way.token,
        "hosts": list(way.hosts),
        "origins": list(way.origins),
        "command": [*python, "autocoder.tui", *options, "--", str(project)],
    }
    log = project / LOG
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with (
        log.open("ab") as errors,
        subprocess.Popen(
            [*python, "autocoder.tui.web_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # Ctrl-C is for this panel; the server ends when its stdin does.
            start_new_session=True,
        ) as server,
    ):
        assert server.stdin
        assert server.stdout
        try:
            server.stdin.write(json.dumps(told) + "\n")
            server.stdin.flush()
            answer = json.loads(server.stdout.readline() or '{"error": "it ended at once"}')
            if "error" in answer:
                raise RefusedError(
                    f"{way.host} port {way.port} cannot be served: {answer['error']}",
                    f"End what listens there, or choose AUTOCODER_UI_PORT. See {log}.",
                )
            yield f"http://{way.host}:{way.port}/#{way.token}/{quote(project.name)}"
        finally:
            server.stdin.close()
            try:
                server.wait(END_S)
            except subprocess.TimeoutExpired:
                server.kill()
