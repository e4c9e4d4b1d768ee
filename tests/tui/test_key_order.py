"""Claims about keys that arrive in one piece, as a slow link delivers what was typed."""

import sys
from pathlib import Path

from support import panel_process
from support.pty import Terminal

PROCESS = Path(panel_process.__file__)


def a_panel(folder: Path) -> Terminal:
    env = {"PYTHONPATH": str(PROCESS.parent.parent), "TZ": "UTC"}
    return Terminal([sys.executable, PROCESS, "busy", folder], env=env, size=(140, 40))


def test_what_is_typed_behind_a_slash_at_once_is_a_filter_and_no_command(tmp_path: Path) -> None:
    with a_panel(tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        terminal.press("/xyq XyQy")
        terminal.wait_for("filter xyq XyQy  0 of 14")
        terminal.press("\x7f" * 9 + "0f31\rjx")
        terminal.wait_for("Stop 1 agent?")
        assert not (tmp_path / "asked").exists()


def test_keys_behind_one_that_opens_or_closes_a_dialog_go_where_they_would_go_one_by_one(
    tmp_path: Path,
) -> None:
    asked = tmp_path / "asked"
    with a_panel(tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        terminal.press("gXnXyPqvqXX")
        terminal.wait_for(lambda screen: asked.exists() and asked.read_text().count("\n") == 2)
        terminal.wait_for("quit")
        assert "Kill" not in terminal.text
        terminal.press("tgo on, please")
        terminal.wait_for("go on, please")
    assert [line.partition("(")[0] for line in asked.read_text().splitlines()] == ["KillAgent"] * 2


def test_keys_behind_a_choice_from_the_palette_act_on_what_was_chosen(tmp_path: Path) -> None:
    with a_panel(tmp_path) as terminal:
        terminal.wait_for("a-0f31")
        terminal.press(":a-0f35")
        terminal.wait_for("Go to a-0f35")
        terminal.press("\rX")
        assert "a-0f35" in terminal.wait_for("Kill 1 agent?")
