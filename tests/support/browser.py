"""A real headless Chromium, spoken to over its debugging pipe."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ANSWER_S = 30.0


class Page:
    """One page, and the addresses it has asked for."""

    def __init__(self, process: "subprocess.Popen[bytes]", to: int, out_of: int) -> None:
        self._process = process
        self._to = to
        self._from = out_of
        self._number = 0
        self._unread = b""
        self._session = ""
        self.asked_for: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Network", "Page", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        message: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_S
        while True:
            heard = self._hear(deadline)
            if heard.get("id") == self._number:
                if "error" in heard:
                    raise AssertionError(f"{method}: {heard['error']}")
                result: dict[str, Any] = heard["result"]
                return result
            if heard.get("method") == "Network.requestWillBeSent":
                self.asked_for.append(heard["params"]["request"]["url"])
            if heard.get("method") == "Network.webSocketCreated":
                self.asked_for.append(heard["params"]["url"])

    def open(self, url: str, width: int = 1400, height: int = 800) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.ask("Emulation.setFocusEmulationEnabled", enabled=True)
        self.ask("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True)["result"]
        return result.get("value")

    def wait_for(self, script: str, seconds: float = 60.0) -> None:
        """Until the JavaScript expression is true; asked rarely, since asking stops the page."""
        deadline, pause = time.monotonic() + seconds, threading.Event()
        while not self.run(script):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {script}")
            pause.wait(0.2)

    def press(self, key: str) -> None:
        """A letter, as from the keyboard of whoever has the page before them."""
        names = {"key": key, "code": f"Key{key.upper()}", "windowsVirtualKeyCode": ord(key.upper())}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=key, **names)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **names)

    def screenshot(self, path: Path) -> None:
        shot = self.ask("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(shot))

    def _hear(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            if not select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise AssertionError("the browser does not answer")
            chunk = os.read(self._from, 1 << 16)
            if not chunk:
                raise AssertionError(f"the browser ended with {self._process.wait()}")
            self._unread += chunk
        first, _, self._unread = self._unread.partition(b"\0")
        heard: dict[str, Any] = json.loads(first)
        return heard


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A page of a browser with a profile of its own, which ends with the block."""
    assert CHROMIUM
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def at_3_and_4() -> None:
        # Above both first, since either may be where the other has to go.
        high_read, high_write = os.dup2(to_read, 20), os.dup2(from_write, 21)
        os.dup2(high_read, 3)
        os.dup2(high_write, 4)

    start: Callable[[], None] = at_3_and_4
    process = subprocess.Popen(
        [
            CHROMIUM,
            *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync"),
            *("--remote-debugging-pipe", f"--user-data-dir={folder}", "about:blank"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(3, 4, to_read, from_write),
        preexec_fn=start,
        start_new_session=True,
        env={**os.environ, "HOME": str(folder)},
    )
    os.close(to_read)
    os.close(from_write)
    try:
        yield Page(process, to_write, from_read)
    finally:
        with contextlib.suppress(OSError):
            os.write(to_write, b'{"id": 0, "method": "Browser.close"}\0')
        os.close(to_write)
        os.close(from_read)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
