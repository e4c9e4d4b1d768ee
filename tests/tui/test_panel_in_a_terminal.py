"""Claims about the panel as a process in a real pseudo terminal."""

import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from autocoder.tui.__main__ import _kept
from support import panel_process
from support.attacks import ATTACKS, FORBIDDEN
from support.hostile import LAST_WORDS
from support.pty import Terminal
from support.waiting import wait_until

PROCESS = Path(panel_process.__file__)
PANEL = Path(sys.executable).with_name("autocoder-tui")


def a_panel(mode: str, folder: Path, size: tuple[int, int] = (120, 36), **env: str) -> Terminal:
    paths = {"PYTHONPATH": str(PROCESS.parent.parent), "TZ": "UTC"}
    return Terminal([sys.executable, PROCESS, mode, folder], env=paths | env, size=size)


DIALOGS = (
    ("X", "Kill 1 agent?", "q"),
    ("R", "Recover all of this?", "q"),
    ("Q", "Stop all", "q"),
    ("e", "taken: ", "q"),
    ("N", "Spawn an agent on a new feature", "escape"),
    ("t", "Tell 1 agent", "escape"),
    ("v", "more do not fit", "q"),
)
PAGES = (
    ("o", "urls"),
    ("M", "notices"),
    ("H", "events"),
    ("i", "Processes"),
    ("d", "against base"),
    (",", "settings"),
)
"""Read to their ends."""
INSIDE = (
    ("F", "backlog", "\r", "feature 1"),
    ("P", "ports of", "R", "Release port"),
    ("W", "40 ticked", "X", "Remove 40 worktrees?"),
)
"""Views from which a key leads on."""
OWN_SEQUENCES = re.compile(r"\x1b\]22;default\x07|\x1b\]9;[^\x00-\x1f\x7f-\x9f]+\x07")
"""The pointer's shape, which Textual sets, and what is told to a desktop."""


class Visit:
    """Presses keys and waits for what they bring, without an interpreter: that takes far longer."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    @property
    def logs(self) -> set[bytes]:
        """The attacks whose logs have been shown."""
        self._terminal.drain(0.01)
        return set(re.findall(rb"attack: ([^\x1b]*[^\x1b ])", self._terminal.raw))

    def has_shown_more_than(self, logs: int) -> bool:
        return len(self.logs) > logs

    def press(self, key: str, brings: str) -> None:
        start = len(self._terminal.raw)
        self._terminal.press(key)
        self._terminal.wait_for_bytes(brings.encode(), start)

    def leave(self, key: str = "q", *, top: str = "cpu", bottom: str = "quit") -> None:
        """Leave, and wait until what is below is painted again without a dialog's edge on it."""
        start = len(self._terminal.raw)
        self._terminal.press(key)

        def is_left() -> object:
            while self._terminal.drain(0):
                pass
            _, found, painted = self._terminal.raw[start:].rpartition(top.encode())
            return found and bottom.encode() in painted and "▌".encode() not in painted

        wait_until(is_left)


def test_nothing_an_agent_wrote_reaches_the_terminal_as_a_control_sequence(tmp_path: Path) -> None:
    config = tmp_path / "autocoder" / "panel.toml"
    config.parent.mkdir()
    config.write_text('attention = "osc9"\n')
    env = {"PYTHONPATH": str(PROCESS.parent.parent), "XDG_CONFIG_HOME": str(tmp_path)}
    argv = [sys.executable, str(PROCESS), "hostile", str(tmp_path)]
    with Terminal(argv, env=env, size=(110, 36), interpret=False) as terminal:
        visit = Visit(terminal)
        terminal.wait_for_bytes(b"attack: ", 0)
        visit.press("enter", "search")
        terminal.press("z")
        wait_until(lambda: len(visit.logs) >= 6, what="the zoomed log")
        while (seen := len(visit.logs)) < len(ATTACKS):
            terminal.press("pageup")
            wait_until(partial(visit.has_shown_more_than, seen), what="more of the log")
        visit.leave("escape")
        terminal.press("G", "g")
        for key, shown, leave in DIALOGS:
            visit.press(key, shown)
            visit.leave(leave)
        for key, shown in PAGES:
            visit.press(key, shown)
            terminal.press(*["space"] * 5)
            visit.leave()
        for key, shown, leading_on, then_shown in INSIDE:
            visit.press(key, shown)
            visit.press(leading_on, then_shown)
            visit.leave(top=shown, bottom="back")
            visit.leave()
        visit.press("a", "about ")
        terminal.press("why")
        visit.press("enter", LAST_WORDS)
        visit.leave("escape")
        visit.press(":", "Search for commands")
        terminal.press(*"a-0f")
        terminal.wait_for_bytes(b"Go to ", 0)
        visit.leave("escape")
        visit.press("p", "\x1b]9;autocoder p: a-0f31 is done")
        terminal.press("p")
        assert terminal.wait_for_exit() == 3
        screen, _, after = terminal.written.rpartition("\x1b[?1049l")
    assert "autocoder-tui: " in after
    written = OWN_SEQUENCES.sub("", screen + after)
    assert [bad for bad in FORBIDDEN if bad in written] == []


def test_the_screen_is_given_back_as_it_was(tmp_path: Path) -> None:
    with a_panel("busy", tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        terminal.press("q")
        assert terminal.wait_for_exit() == 0
        written = terminal.written
    for on, off in (("?1049h", "?1049l"), ("?25l", "?25h"), ("?2004h", "?2004l")):
        assert written.rindex(f"\x1b[{off}") > written.rindex(f"\x1b[{on}")
    assert "10 agents keep running. Come back with: autocoder-tui /home/dev/todo-app" in written


def test_the_mouse_is_left_to_the_terminal(tmp_path: Path) -> None:
    with a_panel("busy", tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        assert "\x1b[?1000h" not in terminal.written
        assert "\x1b[?1003h" not in terminal.written


def test_keys_reach_the_engine(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    with a_panel("busy", tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        terminal.press("n")
        wait_until(lambda: asked.exists() and "SpawnAgent" in asked.read_text())
        terminal.press("x")
        terminal.wait_for("Stop 1 agent?")
        terminal.press("x")
        wait_until(lambda: "StopAgent(agent_id='a-0f33')" in asked.read_text())


def test_ctrl_c_leaves_with_its_own_exit_code(tmp_path: Path) -> None:
    with a_panel("busy", tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        terminal.press("ctrl+c")
        assert terminal.wait_for_exit() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_restores_the_terminal_first(tmp_path: Path, number: int) -> None:
    with a_panel("busy", tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        terminal.process.send_signal(number)
        assert terminal.wait_for_exit() == 0
        assert "\x1b[?1049l" in terminal.written


def test_a_lost_connection_ends_the_panel(tmp_path: Path) -> None:
    with a_panel("busy", tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        terminal.hang_up()
        wait_until(lambda: terminal.process.poll() is not None, seconds=15)


def test_resizing_at_any_speed_ends_in_a_whole_screen(tmp_path: Path) -> None:
    with a_panel("busy", tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        for columns in (100, 61, 40, 200, 90, 132):
            terminal.resize(columns, columns // 4 + 5)
        screen = terminal.wait_for(lambda text: "a-0f3e" in text and "quit" in text)
        assert max(map(len, screen.splitlines())) <= 132


def test_an_engine_that_is_refused_is_said_after_the_screen_is_restored(tmp_path: Path) -> None:
    with a_panel("locked", tmp_path) as terminal:
        assert terminal.wait_for_exit() == 3
        after = terminal.written.rpartition("\x1b[?1049l")[2]
    assert "pid 4711 runs todo-app" in after
    assert "Traceback" not in after


def test_a_broken_engine_is_one_sentence_not_a_traceback(tmp_path: Path) -> None:
    with a_panel("broken", tmp_path) as terminal:
        assert terminal.wait_for_exit() == 1
        after = terminal.written.rpartition("\x1b[?1049l")[2]
    assert "ZeroDivisionError: a bug" in after
    assert "Traceback" not in after


def test_a_mistake_of_the_panels_own_is_one_sentence_too_and_a_log_says_where(
    tmp_path: Path,
) -> None:
    with a_panel("mistaken", tmp_path) as terminal:
        assert terminal.wait_for_exit() == 1
        after = terminal.written.rpartition("\x1b[?1049l")[2]
    log = tmp_path / ".autocoder" / "panel.log"
    assert "the panel broke: AttributeError" in after
    assert str(log) in after.replace("\r\n", "")
    assert "Traceback" not in after
    assert "Traceback" in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_where_a_panel_broke_is_written_through_no_link(tmp_path: Path) -> None:
    theirs, log = tmp_path / "theirs", tmp_path / "panel.log"
    theirs.write_text("untouched")
    log.symlink_to(theirs)
    assert _kept(ZeroDivisionError("a bug"), log) == "`--debug`"
    assert theirs.read_text() == "untouched"


def test_no_colour_means_no_colour(tmp_path: Path) -> None:
    with a_panel("busy", tmp_path, NO_COLOR="1") as terminal:
        terminal.wait_for("a-0f31")
        assert "38;2;" not in terminal.written
        assert "48;2;" not in terminal.written
        assert "\x1b[31m" not in terminal.written


def test_a_shell_in_the_worktree_has_the_agents_ports_and_the_panel_comes_back(
    tmp_path: Path,
) -> None:
    with a_panel("shell", tmp_path, SHELL="/bin/sh", PS1="ready> ") as terminal:
        terminal.wait_for("a-0f31")
        terminal.press("$")
        wait_until(lambda: "\x1b[?1049l" in terminal.written)
        terminal.press("echo api=$API_PORT in $(pwd)", "enter")
        wait_until(lambda: f"api=5000 in {tmp_path}" in terminal.written)
        # An interrupt is the shell's, not the panel's.
        terminal.press("ctrl+c")
        # The third prompt: what is typed before it may go the way of the interrupted line.
        wait_until(lambda: terminal.written.count("ready> ") == 3)
        terminal.press("exit", "enter")
        wait_until(lambda: terminal.written.count("\x1b[?1049h") == 2)
        terminal.press("q")
        assert terminal.wait_for_exit() == 0


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_the_panel_draws_and_leaves_inside_tmux(tmp_path: Path) -> None:
    server = ["tmux", "-f", os.devnull, "-S", str(tmp_path / "socket")]
    inside = f"{sys.executable} {PROCESS} busy {tmp_path}; echo left with $?; read line"
    env = {"PYTHONPATH": str(PROCESS.parent.parent), "TERM": "screen-256color"}
    try:
        with Terminal([*server, "new-session", inside], env=env) as terminal:
            terminal.wait_for("a-0f31")
            terminal.wait_for("quit")
            terminal.press("X")
            terminal.wait_for("Kill 1 agent?")
            terminal.press("escape")
            terminal.wait_for(lambda screen: "Kill 1 agent?" not in screen)
            terminal.resize(90, 30)
            terminal.wait_for(lambda screen: "quit" in screen and "last line" not in screen)
            terminal.press("q")
            terminal.wait_for("left with 0")
    finally:
        subprocess.run([*server, "kill-server"], capture_output=True, check=False)


@pytest.mark.skipif(shutil.which("screen") is None, reason="GNU screen is not installed")
def test_inside_gnu_screen_the_panel_is_whole_again_after_a_shell(tmp_path: Path) -> None:
    sockets = tmp_path / "s"
    sockets.mkdir(mode=0o700)
    inside = [sys.executable, str(PROCESS), "shell", str(tmp_path)]
    paths = {"PYTHONPATH": str(PROCESS.parent.parent), "SCREENDIR": str(sockets)}
    server = ["screen", "-c", os.devnull, "-S", "panel"]
    env = paths | {"TERM": "xterm-256color", "SHELL": "/bin/sh"}
    try:
        with Terminal([*server, *inside], env=env) as terminal:
            before = terminal.wait_for(lambda screen: "a-0f31" in screen and "quit" in screen)
            terminal.press("$")
            terminal.wait_for(lambda screen: "a-0f31" not in screen, what="the shell")
            terminal.press("echo api=$API_PORT", "enter")
            terminal.wait_for("api=5000")
            terminal.press("exit", "enter")
            after = terminal.wait_for(lambda screen: "a-0f31" in screen and "quit" in screen)
            assert _rules(after) == _rules(before)
            terminal.press("q")
            assert terminal.wait_for_exit() == 0
    finally:
        quits = [*server, "-X", "quit"]
        subprocess.run(quits, env=os.environ | paths, capture_output=True, check=False)


def _rules(screen: str) -> list[int]:
    """Where the lines between the parts of the screen are."""
    return [number for number, line in enumerate(screen.splitlines()) if line.startswith("────")]


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_draw_is_told_what_to_use_instead(tmp_path: Path, term: str) -> None:
    with Terminal([PANEL, tmp_path], env={"TERM": term}) as terminal:
        assert terminal.wait_for_exit() == 2
        assert "autocoder parallel --project-dir" in terminal.written
        assert "\x1b" not in terminal.written


def test_without_a_terminal_the_headless_command_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [PANEL, tmp_path], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 2
    assert "autocoder parallel --project-dir" in done.stderr
    assert done.stdout == ""


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with Terminal([PANEL, tmp_path / "nowhere"]) as terminal:
        assert terminal.wait_for_exit() == 2
        assert "nowhere" in terminal.written


def test_a_bad_setting_is_refused_before_the_screen_changes(tmp_path: Path) -> None:
    with Terminal([PANEL, tmp_path], env={"AUTOCODER_PARALLEL": "many"}) as terminal:
        assert terminal.wait_for_exit() == 2
        assert "AUTOCODER_PARALLEL" in terminal.written
        assert "\x1b[?1049h" not in terminal.written


def test_the_panel_imports_nothing_before_it_paints_that_can_wait() -> None:
    late = ["sqlmodel", "sqlalchemy", "psutil", "watchfiles", "textual.widgets._text_area"]
    late += ["autocoder.core.questions", "autocoder.core.events", "autocoder.tui.screens.ports"]
    code = f"import sys, autocoder.tui.app; print([name for name in {late} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
