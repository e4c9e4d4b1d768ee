"""The other end of the control socket: requests, and lines that keep coming."""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autocoder.core.errors import RefusedError, UsageError

SOCKET = Path(".autocoder", "control.sock")
ANSWER_LIMIT_S = 30.0
"""An orchestrator that has just started imports its server first."""


class NoOrchestrator(RefusedError):
    """Nobody serves the project's control socket."""


class Client:
    """For one project; every call is a connection of its own, so any thread may ask."""

    def __init__(self, project_dir: Path, timeout_s: float = ANSWER_LIMIT_S) -> None:
        self._project_dir = project_dir
        self._timeout_s = timeout_s

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer.

        Raises:
            NoOrchestrator: there is none; nothing was asked.
            UsageError, RefusedError: what was asked is wrong, or refused in the present
                state; or the answer never came.
        """
        with self._connected() as connection:
            headers = {"Content-Type": "application/json"}
            try:
                connection.request(method, path, json.dumps(body or {}), headers)
                response = connection.getresponse()
                status, content = response.status, response.read()
            except (OSError, http.client.HTTPException) as error:
                raise RefusedError(
                    f"the orchestrator of {self._project_dir} did not answer: {error}",
                    "Ask again; whether it has heard this is not known.",
                ) from error
        return _answer(status, content)

    @contextlib.contextmanager
    def lines(self, path: str, timeout_s: float) -> Iterator["Lines"]:
        """What a stream says, line by line.

        Raises:
            NoOrchestrator: there is none.
            OSError: it says nothing for `timeout_s`, or stops in the middle.
        """
        with self._connected() as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status != 200:
                _answer(response.status, response.read())
            assert connection.sock is not None
            connection.sock.settimeout(timeout_s)
            yield Lines(connection.sock, response)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        try:
            connected = connect(self._project_dir, self._timeout_s)
        except OSError as error:
            raise NoOrchestrator(
                f"no orchestrator runs {self._project_dir}",
                "Start one: autocoder-tui, autocoder parallel or autocoder serve.",
            ) from error
        connection = http.client.HTTPConnection("localhost")
        connection.sock = connected
        with contextlib.closing(connection):
            yield connection


class Lines:
    """The lines of one stream; `stop` may be called from another thread."""

    def __init__(self, connected: socket.socket, response: http.client.HTTPResponse) -> None:
        self._socket = connected
        self._response = response

    def __iter__(self) -> Iterator[str]:
        while line := self._response.readline():
            yield line.decode("ascii").strip()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


def connect(project_dir: Path, timeout_s: float) -> socket.socket:
    """A connection to the project's control socket. Raises `OSError` where nobody answers."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(timeout_s)
    try:
        with short_name(project_dir / SOCKET) as name:
            connected.connect(name)
    except OSError:
        connected.close()
        raise
    return connected


@contextlib.contextmanager
def short_name(path: Path) -> Iterator[str]:
    """A name of the socket that fits its address, which has room for 107 bytes only."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = Path(f"/proc/self/fd/{folder}")
        yield str(short / path.name if short.exists() else path)
    finally:
        os.close(folder)


def _answer(status: int, content: bytes) -> Any:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = {"detail": content[:200].decode("utf-8", "replace")}
    if status < 400:
        return answer
    detail = str(answer.get("detail", "")) if isinstance(answer, dict) else ""
    hint = str(answer.get("hint", "")) if isinstance(answer, dict) else ""
    kind = UsageError if status in (400, 404, 422) else RefusedError
    raise kind(detail or f"refused with status {status}", hint)
