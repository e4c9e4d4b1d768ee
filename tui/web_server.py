"""The panel in browsers: each page runs an attached panel of its own, drawn over a websocket.

A program of its own, started by `tui.web`: it reads what it is to serve as one line of
JSON on stdin, answers with one line, and ends when stdin does, so that it never
outlives the panel that asked for it. Who is in a browser has every key of the panel,
hence the token, without which there is a page and no panel; nothing is loaded from any
other host.
"""

import asyncio
import contextlib
import hmac
import json
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from textual_serve.app_service import AppService
from textual_serve.server import Server, to_int

MOST_PANELS = 8
LARGEST = 500
"""Columns or rows; a browser may say anything."""

PAGE = Path(__file__).with_name("web_page")
KILL_AFTER_S = 5.0
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Way:
    """What is served, where, and who may come."""

    host: str
    port: int
    token: str
    hosts: tuple[str, ...]
    """Names, without port, this server goes by."""
    origins: tuple[str, ...]
    """Other pages that may open a panel, besides its own."""
    command: tuple[str, ...]
    """Starts one attached panel."""


class PanelServer(Server):
    """textual-serve behind a token, a Host and an Origin that are checked."""

    def __init__(self, way: Way) -> None:
        super().__init__(
            shlex.join(way.command),
            host=way.host,
            port=way.port,
            title="autocoder",
            templates_path=PAGE,
        )
        self._way = way
        self._panels: set[AppService] = set()

    async def application(self) -> web.Application:
        made = await self._make_app()
        made.middlewares.append(self._guard)
        script = PAGE / "panel.js"
        made.router.add_get("/panel.js", lambda _: _sent(script))
        made.router.add_get("/ws/{token}", self.handle_websocket)
        return made

    async def on_startup(self, app: web.Application) -> None:
        """Says nothing: stdout belongs to who started this."""

    async def on_shutdown(self, app: web.Application) -> None:  # noqa: ARG002
        for panel in tuple(self._panels):
            await _end(panel)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        response = self._refusal(request)
        if response is None:
            response = await handler(request)
            assert isinstance(response, web.StreamResponse)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        """None for the page, which says nothing of the project, and for who has the token."""
        if _name(request.host) not in self._way.hosts:
            return web.Response(status=403, text="this server does not go by that host name\n")
        origin = request.headers.get("Origin")
        own = f"http://{request.host}"
        if origin is not None and origin != own and origin not in self._way.origins:
            return web.Response(status=403, text="pages of that origin may not ask\n")
        if request.path in ("/", "/panel.js") or request.path.startswith("/static/"):
            return None
        if not _same(request.match_info.get("token", ""), self._way.token):
            return web.Response(
                status=401, text="Open the address that the panel named at its start.\n"
            )
        if origin is None:
            return web.Response(status=403, text="only a page of this server may open a panel\n")
        return None

    async def handle_index(self, request: web.Request) -> web.Response:
        import aiohttp_jinja2

        values = {
            "most_panels": MOST_PANELS,
            "font_size": min(max(to_int(request.query.get("fontsize", "14"), 14), 6), 40),
        }
        return aiohttp_jinja2.render_template("index.html", request, values)

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        if len(self._panels) >= MOST_PANELS:
            raise web.HTTPTooManyRequests(text=f"{MOST_PANELS} panels are open already\n")

        async def close() -> None:
            await websocket.close()

        websocket = web.WebSocketResponse(heartbeat=15, max_msg_size=1 << 20)
        panel = AppService(
            self.command,
            write_bytes=websocket.send_bytes,
            write_str=websocket.send_str,
            close=close,
            download_manager=self.download_manager,
        )
        self._panels.add(panel)
        try:
            await websocket.prepare(request)
            sizes = (request.query.get("width", "80"), request.query.get("height", "24"))
            width, height = (min(max(to_int(size, 80), 10), LARGEST) for size in sizes)
            await panel.start(width, height)
            # What is no message of the page's own script ends its panel, and nothing else.
            with contextlib.suppress(ValueError, TypeError, LookupError, AttributeError):
                await self._process_messages(websocket, panel)
        finally:
            await _end(panel)
            self._panels.discard(panel)
        return websocket


async def _end(panel: AppService) -> None:
    """Ask the panel to leave, then end it; its agents go on in either case."""
    process = panel._process
    if process is None:
        return
    try:
        async with asyncio.timeout(KILL_AFTER_S):
            await panel.stop()
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _sent(file: Path) -> web.FileResponse:
    return web.FileResponse(file)


def _name(host: str) -> str:
    """A Host header without its port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0].lower()


def _same(given: str, wanted: str) -> bool:
    # Constant time: how long a refusal takes says nothing about the secret.
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _bound(way: Way) -> socket.socket:
    family = socket.AF_INET6 if ":" in way.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    # Connections of an earlier server may linger; no other program can be listening.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((way.host.strip("[]"), way.port))
    return bound


async def serve(way: Way, bound: socket.socket) -> None:
    """Until stdin ends."""
    runner = web.AppRunner(await PanelServer(way).application(), access_log=None)
    await runner.setup()
    try:
        await web.SockSite(runner, bound, shutdown_timeout=1.0).start()
        sys.stdout.write("{}\n")
        sys.stdout.flush()
        # Where textual-serve says what a panel complained about: to the log, from now on.
        sys.stdout = sys.stderr
        ended = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
        await ended.read()
    finally:
        await runner.cleanup()


def main() -> int:
    given = json.loads(sys.stdin.readline())
    lists = {name: tuple(given[name]) for name in ("hosts", "origins", "command")}
    way = Way(**{**given, **lists})
    try:
        bound = _bound(way)
    except OSError as error:
        sys.stdout.write(json.dumps({"error": error.strerror or str(error)}) + "\n")
        return 1
    asyncio.run(serve(way, bound))
    return 0


if __name__ == "__main__":
    sys.exit(main())
