"""Claims about what is for the user's own terminal: it gets there, whatever lies between."""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from support import panel_process
from support.pty import Terminal

PROCESS = Path(panel_process.__file__)
PATHS = {"PYTHONPATH": str(PROCESS.parent.parent)}
Between = Callable[[Path, list[str]], AbstractContextManager[Terminal]]
COPIED = base64.b64encode(b"http://localhost:5175")


@contextmanager
def directly(_folder: Path, panel: list[str]) -> Iterator[Terminal]:
    with Terminal(panel, env=PATHS) as terminal:
        yield terminal


@contextmanager
def in_tmux(folder: Path, panel: list[str], *settings: str) -> Iterator[Terminal]:
    (folder / "tmux.conf").write_text("\n".join(settings))
    server = ["tmux", "-f", str(folder / "tmux.conf"), "-S", str(folder / "socket")]
    try:
        with Terminal([*server, "new-session", *panel], env=PATHS) as terminal:
            yield terminal
    finally:
        subprocess.run([*server, "kill-server"], capture_output=True, check=False)


@contextmanager
def in_screen(folder: Path, panel: list[str]) -> Iterator[Terminal]:
    sockets = folder / "s"
    sockets.mkdir(mode=0o700)
    env = PATHS | {"SCREENDIR": str(sockets)}
    server = ["screen", "-c", os.devnull, "-S", "panel"]
    try:
        with Terminal([*server, *panel], env=env) as terminal:
            yield terminal
    finally:
        quits = [*server, "-X", "quit"]
        subprocess.run(quits, env=os.environ | env, capture_output=True, check=False)


@pytest.mark.parametrize(
    ("between", "program"), [(directly, ""), (in_tmux, "tmux"), (in_screen, "screen")]
)
def test_a_copied_url_reaches_the_users_own_terminal(
    tmp_path: Path, between: Between, program: str
) -> None:
    if program and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with between(tmp_path, [sys.executable, str(PROCESS), "busy", str(tmp_path)]) as terminal:
        terminal.wait_for("a-0f33")
        terminal.press("g", "y")
        terminal.wait_for_bytes(COPIED, 0)
        said = terminal.raw[: terminal.raw.index(COPIED)]
        assert b"\x1b]52;" in said[-10:]
        terminal.wait_for("copied  http://localhost:5175")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0


CALL = """
import os, sys
from autocoder.tui.outside import notification_sequence
sys.stdout.write(notification_sequence("a-1 needs you", os.environ))
sys.stdout.flush()
input("called")
"""


def in_passing_tmux(folder: Path, panel: list[str]) -> AbstractContextManager[Terminal]:
    return in_tmux(folder, panel, "set -g allow-passthrough on")


@pytest.mark.parametrize(
    ("between", "program"), [(directly, ""), (in_passing_tmux, "tmux"), (in_screen, "screen")]
)
def test_a_call_reaches_the_users_own_terminal(
    tmp_path: Path, between: Between, program: str
) -> None:
    if program and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    with between(tmp_path, [sys.executable, "-c", CALL]) as terminal:
        terminal.wait_for_bytes(b"\x1b]9;a-1 needs you\x07", 0)


def test_of_a_call_that_tmux_does_not_hand_on_nothing_is_seen(tmp_path: Path) -> None:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    settings = "set -g allow-passthrough off"
    with in_tmux(tmp_path, [sys.executable, "-c", CALL], settings) as terminal:
        terminal.wait_for("called")
        assert b"needs you" not in terminal.raw
