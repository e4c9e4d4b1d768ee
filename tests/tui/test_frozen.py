"""Claims about the frozen picture: nothing is written to the terminal, and nothing is missed."""

import sys
from dataclasses import replace
from pathlib import Path

from autocoder.tui.screens.frozen import FrozenScreen
from autocoder.tui.screens.main import MainScreen
from support import panel_process
from support.panel import driven
from support.pty import Terminal
from support.snapshots import a_busy_project, a_snapshot, an_agent

PROCESS = Path(panel_process.__file__)
FLEET = a_snapshot(an_agent(1), an_agent(2))


def test_nothing_is_written_over_a_frozen_picture_until_a_key(tmp_path: Path) -> None:
    log = tmp_path / "a-0f33" / "log"
    log.parent.mkdir()
    log.write_text("before it froze\n")
    env = {"PYTHONPATH": str(PROCESS.parent.parent), "TZ": "UTC"}
    with Terminal([sys.executable, PROCESS, "busy", tmp_path], env=env, size=(140, 40)) as terminal:
        terminal.wait_for("before it froze")
        terminal.press("Z")
        terminal.wait_for("any key goes on")
        terminal.drain(0.2)  # what is left of the frame that says so
        before = len(terminal.raw)
        with log.open("a") as file:
            file.write("written meanwhile\n")
        # Every second the panel looks whether something else is to be said.
        terminal.drain(1.2)
        assert bytes(terminal.raw[before:]) == b""
        terminal.press("X")
        screen = terminal.wait_for("written meanwhile")
        assert "frozen" not in screen
        assert "Kill" not in screen


async def test_ctrl_c_over_a_frozen_picture_goes_on_and_does_not_quit() -> None:
    async with driven(FLEET) as run:
        await run.press("Z", "ctrl+c")
        await run.until(lambda: isinstance(run.panel.screen, MainScreen))
        assert run.panel.return_value is None


async def test_another_size_of_the_terminal_ends_a_frozen_picture() -> None:
    async with driven(FLEET) as run:
        await run.press("Z")
        await run.until(lambda: run.panel._batch_count)
        await run.pilot.resize_terminal(100, 30)
        await run.until(lambda: not isinstance(run.panel.screen, FrozenScreen))
        await run.shows("quit")


async def test_every_view_can_be_frozen_and_has_help(tmp_path: Path) -> None:
    async with driven(replace(a_busy_project(tmp_path), notices=()), size=(140, 40)) as run:
        for key, shown in (("P", "ports of"), ("v", "│ a-0f"), ("F", "backlog")):
            await run.press(key)
            await run.shows(shown)
            await run.press("Z")
            await run.shows("frozen at")
            assert shown in run.screen
            await run.press("j", "question_mark")
            await run.shows("esc back")
            await run.press("escape", "escape")
            assert isinstance(run.panel.screen, MainScreen)


async def test_a_z_that_is_typed_is_a_letter() -> None:
    async with driven(FLEET) as run:
        await run.press("slash")
        await run.type("Z?")
        await run.shows("filter Z?")
        assert isinstance(run.panel.screen, MainScreen)
