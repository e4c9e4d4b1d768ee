"""Claims about ctrl+z: the panel stops like any program of a shell, or says why it does not."""

import sys
from pathlib import Path

from support import panel_process
from support.pty import Terminal

PROCESS = Path(panel_process.__file__)
ENV = {"PYTHONPATH": str(PROCESS.parent.parent), "PS1": "ready> ", "TZ": "UTC"}
CTRL_Z = "\x1a"


def test_a_suspended_panel_gives_the_shell_back_and_comes_back_whole(tmp_path: Path) -> None:
    with Terminal(["/bin/bash", "--norc", "--noprofile", "-i"], env=ENV) as terminal:
        terminal.wait_for("ready>")
        terminal.press(f"{sys.executable} {PROCESS} busy {tmp_path}", "enter")
        before = terminal.wait_for(lambda screen: "a-0f3e" in screen and "quit" in screen)
        terminal.press(CTRL_Z)
        terminal.wait_for("Stopped")
        terminal.press("echo $((6*7))", "enter")
        terminal.wait_for("42")
        terminal.press("fg", "enter")
        terminal.wait_for(lambda screen: _grid(screen) == _grid(before), what="all of it again")
        terminal.press("q")
        terminal.wait_for("keep running")
        terminal.press("exit", "enter")
        assert terminal.wait_for_exit() == 0


def _grid(screen: str) -> list[str]:
    return screen.splitlines()[3:20]


def test_where_no_shell_could_bring_it_back_the_panel_stays_and_says_so(tmp_path: Path) -> None:
    with Terminal([sys.executable, PROCESS, "busy", tmp_path], env=ENV) as terminal:
        terminal.wait_for("a-0f31")
        terminal.press(CTRL_Z)
        terminal.wait_for("no shell is here")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0
