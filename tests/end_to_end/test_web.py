"""`autocoder-tui --web`: the panel in a real browser, and who may open it."""

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.browser import CHROMIUM, browser
from support.projects import Project, Running, running
from support.waiting import wait_until
from support.workers import is_alive

AGAIN_S = 2.0
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@dataclass
class Served:
    run: Running
    process: "subprocess.Popen[str]"
    url: str
    port: int

    def get(self, path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=named)
        response = connection.getresponse()
        connection.close()
        return response

    def cookie(self) -> str:
        given = self.get("/?" + urlsplit(self.url).query)
        assert (given.status, given.headers["Location"]) == (303, "/")
        return given.headers["Set-Cookie"]

    def children(self) -> set[int]:
        """Every process below the panel's own."""
        found, fresh = set[int](), {self.process.pid}
        while fresh:
            pid = fresh.pop()
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    fresh |= {int(child) for child in (task / "children").read_text().split()}
            found |= fresh
        return found


@pytest.fixture
def served(tmp_path: Path, ports: range) -> Iterator[Served]:
    project = Project(tmp_path, ports[:-2], parallel=0)
    with running(project.open_served()) as run:
        run.wait_for(lambda _: True)
        process = subprocess.Popen(
            [sys.executable, "-m", "autocoder.tui", str(project.folder), "--web"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "AUTOCODER_UI_PORT": str(ports[-1])},
        )
        with process:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("In a browser: http://127.0.0.1:")
            made = Served(run, process, line.partition(": ")[2].strip(), ports[-1])
            try:
                yield made
            finally:
                below = made.children()
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
                wait_until(lambda: not any(map(is_alive, below)), what="all of it ends")


def test_nobody_gets_in_without_the_token_from_elsewhere_or_by_another_name(
    served: Served,
) -> None:
    for path in ("/", "/ws", "/static/js/textual.js", "/?token=wrong"):
        own = {"Origin": f"http://127.0.0.1:{served.port}"}
        assert served.get(path, **own).status == 401
    cookie = served.cookie()
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert urlsplit(served.url).query.partition("=")[2] not in cookie
    has = {"Cookie": cookie.partition(";")[0]}
    inside = served.get("/", **has)
    assert (inside.status, "default-src 'none'" in inside.headers["Content-Security-Policy"]) == (
        200,
        True,
    )
    assert served.get("/", **has, Host=f"rebound.example:{served.port}").status == 403
    assert served.get("/ws", **has, **UPGRADE, Origin="http://localhost:5173").status == 403
    assert served.get("/ws", **has, **UPGRADE).status == 403


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_a_key_pressed_in_a_browser_reaches_the_orchestrator(
    served: Served, tmp_path: Path
) -> None:
    with browser(tmp_path / "profile") as page:
        page.open(served.url)
        page.wait_for("document.body.classList.contains('-first-byte')")
        pressed_at = 0.0

        def pauses() -> bool:
            nonlocal pressed_at
            # Keys count once the panel has attached, which nothing outside of it shows.
            if time.monotonic() - pressed_at > AGAIN_S:
                pressed_at = time.monotonic()
                page.press("p")
            snapshot = served.run.snapshot
            return snapshot is not None and snapshot.paused

        wait_until(pauses, seconds=60, what="the orchestrator is paused")
        address = page.run("location.href")
        if shot := os.environ.get("AUTOCODER_WEB_SCREENSHOT"):
            page.screenshot(Path(shot))
        asked_for = page.asked_for

    assert address == f"http://127.0.0.1:{served.port}/"
    hosts = {urlsplit(url).hostname for url in asked_for if not url.startswith("data:")}
    assert hosts == {"127.0.0.1"}
