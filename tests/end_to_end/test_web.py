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

    @property
    def token(self) -> str:
        return urlsplit(self.url).fragment.partition("/")[0]

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
    own = {"Origin": f"http://127.0.0.1:{served.port}"}
    for path in ("/ws", "/ws/wrong", "/download/1"):
        assert served.get(path, **own, **UPGRADE).status == 401
    page = served.get("/")
    assert (page.status, page.headers["Set-Cookie"]) == (200, None)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert served.get("/", Host=f"rebound.example:{served.port}").status == 403
    inside = f"/ws/{served.token}"
    assert served.get(inside, **UPGRADE, Origin="http://localhost:5173").status == 403
    assert served.get(inside, **UPGRADE).status == 403
    assert served.get(inside, **UPGRADE, **own).status == 101


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_without_the_token_the_page_says_what_to_do(served: Served, tmp_path: Path) -> None:
    with browser(tmp_path / "profile") as page:
        page.open(f"http://127.0.0.1:{served.port}/")
        page.wait_for("document.body.innerText.includes('with all behind its #')")
        page.open(f"http://127.0.0.1:{served.port}/#wrong/project")
        page.wait_for("document.body.innerText.includes('No panel was opened')")


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
        address, title = page.run("location.href"), page.run("document.title")
        if shot := os.environ.get("AUTOCODER_WEB_SCREENSHOT"):
            page.screenshot(Path(shot))
        asked_for = page.asked_for

    assert (address, title) == (f"http://127.0.0.1:{served.port}/", "autocoder project")
    assert not any(served.token in url for url in asked_for if not url.startswith("ws:"))
    hosts = {urlsplit(url).hostname for url in asked_for if not url.startswith("data:")}
    assert hosts == {"127.0.0.1"}
