"""The ways into a running engine from other processes, served from a thread of its process.

The control socket `<project>/.autocoder/control.sock` belongs to whoever holds the
project's lock and is open to its user alone; TCP is opened only when asked for, and
asks for a token. FastAPI takes half a second to import: it is imported in that
thread, after the engine has published once, so that no start waits for it.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from autocoder.core.client import SOCKET, short_name
from autocoder.core.commands import Command
from autocoder.core.engine import ReportingEngine
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.feature_choice import draft_check
from autocoder.core.models import RunReport, Snapshot
from autocoder.core.port_config import get_ui_cors_origins
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import local_kernel
from autocoder.core.settings import Settings, database_path, ledger_path, state_dir
from autocoder.core.store import ProjectStore
from autocoder.core.worktrees import open_repository

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from autocoder.core.api import Feed

LOG = Path(".autocoder", "control.log")
START_LIMIT_S = 30.0
DRAIN_S = 1.0
BACKLOG = 128
HEADER_BYTES = 16 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True, slots=True)
class TcpWay:
    """Where TCP is served, and what must be shown there."""

    host: str
    port: int
    token: str
    origins: tuple[str, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names, without port, that this server goes by."""
        named = (urlsplit(origin).hostname or "" for origin in self.origins)
        return tuple(dict.fromkeys((*LOOPBACK, self.host, *filter(None, named))))


class ControlServer:
    """Serves one engine from `start` to `stop`."""

    def __init__(
        self,
        project_dir: Path,
        settings: Settings,
        submit: Callable[[Command], None],
        tcp: TcpWay | None = None,
    ) -> None:
        self._project_dir = project_dir
        self._settings = settings
        self._submit = submit
        self._tcp = tcp
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._wanted = threading.Event()
        """The engine has published, or is being stopped."""
        self._started = threading.Event()
        self._stopping = False
        self._latest: Snapshot | None = None
        self._feed: Feed | None = None
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._sockets: list[socket.socket] = []

    def start(self) -> None:
        """Bind, then serve in a thread; requests wait until that is ready.

        Raises:
            RefusedError: the socket or the port cannot be had.
        """
        self._sockets.append(bound_socket(self._project_dir))
        if self._tcp is not None:
            try:
                self._sockets.append(_bound_port(self._tcp))
            except RefusedError:
                self._close_sockets()
                raise
        self._thread.start()

    def publish(self, snapshot: Snapshot) -> None:
        """Safe from any thread; never waits."""
        with self._lock:
            self._latest = snapshot
            feed = self._feed
        self._wanted.set()
        if feed is not None:
            feed.publish(snapshot)

    def stop(self) -> None:
        """Serve no more; what is under way has a second to end."""
        self._stopping = True
        self._wanted.set()
        self._started.wait(START_LIMIT_S)
        loop, ending = self._loop, self._ending
        if loop is not None and ending is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(ending.set)
        self._thread.join(START_LIMIT_S)
        # The file stays: by now it may be that of the project's next orchestrator.
        self._close_sockets()

    # ------------------------------------------------------------------ in its thread

    def _run(self) -> None:
        self._wanted.wait()
        try:
            if not self._stopping:
                with _logging_to(self._project_dir / LOG):
                    asyncio.run(self._serve())
        finally:
            self._started.set()

    async def _serve(self) -> None:
        # Half a second of imports, kept away from every start.
        import uvicorn
        from starlette.middleware.cors import CORSMiddleware

        from autocoder.core.api import Feed, Guard, QuietServer, Service, build_application

        feed = Feed()
        feed.attach()
        with self._lock:
            self._feed = feed
            latest = self._latest
        if latest is not None:
            feed.publish(latest)
        service = Service(
            project_dir=self._project_dir,
            submit=self._submit,
            feed=feed,
            open_allocator=self._open_allocator,
            open_store=lambda: ProjectStore(database_path(self._settings, self._project_dir)),
            check_choice=draft_check(self._settings, self._branches),
        )
        application = build_application(service, _version())
        ways: list[ASGIApp] = [Guard(application, hosts=("localhost", "autocoder"))]
        if self._tcp is not None:
            tcp = self._tcp
            guard = Guard(application, token=tcp.token, hosts=tcp.hosts, origins=tcp.origins)
            # Outside the guard: a browser asks beforehand, and without the token.
            ways.append(
                CORSMiddleware(
                    guard,
                    allow_origins=tcp.origins,
                    allow_methods=("GET", "POST"),
                    allow_headers=("Authorization", "Content-Type", "Idempotency-Key"),
                )
            )
        ending = asyncio.Event()
        servers = [
            QuietServer(
                uvicorn.Config(
                    way,
                    http="h11",
                    ws="none",
                    loop="asyncio",
                    lifespan="off",
                    log_config=None,
                    access_log=False,
                    server_header=False,
                    h11_max_incomplete_event_size=HEADER_BYTES,
                    limit_concurrency=BACKLOG * 4,
                    timeout_graceful_shutdown=int(DRAIN_S),
                ),
                ending,
            )
            for way in ways
        ]
        self._loop, self._ending = asyncio.get_running_loop(), ending
        self._started.set()
        serving = [
            asyncio.create_task(server.serve(sockets=[bound]))
            for server, bound in zip(servers, self._sockets, strict=True)
        ]
        await ending.wait()
        feed.end()
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving)
        await asyncio.to_thread(service.close)

    def _open_allocator(self) -> PortAllocator:
        settings = self._settings
        return PortAllocator(
            ledger_path(settings), settings.ports, ui_port=settings.ui.port, kernel=local_kernel()
        )

    def _branches(self) -> tuple[str, ...]:
        return open_repository(self._project_dir, self._settings.base).branches()

    def _close_sockets(self) -> None:
        for bound in self._sockets:
            bound.close()


class Controlled:
    """An engine that other processes may use as well, while it runs."""

    def __init__(self, engine: ReportingEngine, server: ControlServer) -> None:
        self._engine = engine
        self._server = server

    def run(self, publish: Callable[[Snapshot], None]) -> None:
        self.run_to_report(publish)

    def run_to_report(self, publish: Callable[[Snapshot], None]) -> RunReport:
        """As `run`, then say what was done.

        Raises:
            RefusedError: a way in cannot be opened; the engine has not run, and is closed.
        """

        def tell_all(snapshot: Snapshot) -> None:
            publish(snapshot)
            self._server.publish(snapshot)

        try:
            self._server.start()
        except RefusedError:
            self._engine.close()
            raise
        try:
            return self._engine.run_to_report(tell_all)
        finally:
            self._server.stop()

    def submit(self, command: Command) -> None:
        self._engine.submit(command)

    def stop(self) -> None:
        self._engine.stop()

    def close(self) -> None:
        """Let go of the engine instead of running it."""
        self._engine.close()


def bound_socket(project_dir: Path) -> socket.socket:
    """A listening control socket of mode 0600; only the holder of the project's lock may ask.

    Raises:
        RefusedError: it cannot be made.
    """
    path = project_dir / SOCKET
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # What an orchestrator that was killed has left answers to nobody.
        path.unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with short_name(path) as name:
            bound.bind(name)
        # Nobody can connect before it listens, so the mode is set in time.
        path.chmod(0o600)
        bound.listen(BACKLOG)
    except OSError as error:
        raise RefusedError(f"{path} cannot be made: {error.strerror}") from error
    return bound


def _bound_port(tcp: TcpWay) -> socket.socket:
    family = socket.AF_INET6 if ":" in tcp.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Connections of an earlier server may linger; no other program can be listening.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((tcp.host.strip("[]"), tcp.port))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise RefusedError(
            f"{tcp.host} port {tcp.port} cannot be listened on: {error.strerror}",
            "End what listens there, or choose another port: AUTOCODER_UI_PORT.",
        ) from error
    return bound


def api_token() -> str:
    """The token of this user's servers, made when first needed; its file is the user's alone.

    Raises:
        UsageError: others could read or change the file.
    """
    path = token_file()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_urlsafe(32))
    status = path.stat()
    if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(f"{path} is not yours alone", f"Delete it: rm '{path}'")
    token = path.read_text("ascii").strip()
    if len(token) < 32:
        raise UsageError(f"{path} holds no token", f"Delete it: rm '{path}'")
    return token


def token_file() -> Path:
    return state_dir() / "api-token"


def tcp_way(settings: Settings) -> TcpWay:
    """Where the settings say TCP is served.

    Raises:
        UsageError: other hosts could reach it, which nobody has allowed.
    """
    ui = settings.ui
    if ui.host not in ("127.0.0.1", "localhost", "::1") and not ui.allow_remote:
        raise UsageError(
            f"{settings.origin('ui.host')}: {ui.host} can be reached from other hosts",
            "Use 127.0.0.1 and an SSH tunnel, or set AUTOCODER_UI_ALLOW_REMOTE=1.",
        )
    return TcpWay(ui.host, ui.port, api_token(), tuple(get_ui_cors_origins()))


@contextlib.contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Let the server's own complaints go to a file: the panel draws on stderr."""
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("uvicorn", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _version() -> str:
    from importlib.metadata import version

    return version("autocoder-tui")
