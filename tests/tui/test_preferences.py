"""Claims about the user's own keys and theme, read again while the panel runs."""

import os
import re
import shutil
import threading
import tomllib
from pathlib import Path

import pytest

from autocoder.core.commands import KillAgent, SpawnAgent
from autocoder.core.errors import UsageError
from autocoder.tui import keys
from autocoder.tui.file_watch import FileWatch
from autocoder.tui.preferences import Attention, Preferences, _is_key, read_preferences
from autocoder.tui.screens.main import MainScreen
from support.panel import driven
from support.snapshots import a_snapshot, an_agent
from support.waiting import wait_until


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "panel.toml"


def test_without_a_file_everything_is_as_it_comes(file: Path) -> None:
    assert read_preferences(file) == Preferences()


def test_theme_attention_and_keys_are_read(file: Path) -> None:
    file.write_text('theme = "day"\nattention = "bell"\n[keys]\n"agent.kill" = "ctrl+k, K"\n')
    assert read_preferences(file) == Preferences("day", Attention.BELL, {"agent.kill": "ctrl+k,K"})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("theme = ", "panel.toml"),
        ('theme = "pink"', "night, day, terminal"),
        ("colour = 1", "colour"),
        ("attention = 1", "never, bell, osc9"),
        ("keys = 1", "keys"),
        ('[keys]\n"agent.fly" = "f"', "agent.fly"),
        ('[keys]\n"agent.kill" = ""', "agent.kill"),
        ('[keys]\n"agent.kill" = "n"', "agent.spawn"),
        ('[keys]\n"agent.kill" = "/"', "both .*filter"),
        ('[keys]\n"agent.kill" = "ctrl+c"', "quitting at once"),
        ('[keys]\n"agent.kill" = "ctrl+kill"', "must be a key such as"),
        ('[keys]\n"agent.kill" = "shift+k"', "must be a key such as"),
        ('[keys]\n"agent.kill" = "control+k"', "must be a key such as"),
        ('[keys]\n"agent.kill" = "F3"', "must be a key such as"),
        ('[keys]\n"agent.kill" = "K,,"', "must be a key such as"),
        ("x" * 1_100_000, "larger than 1 MiB"),
    ],
)
def test_what_means_nothing_is_refused_by_name(file: Path, text: str, named: str) -> None:
    file.write_text(text)
    with pytest.raises(UsageError, match=named):
        read_preferences(file)


def test_a_name_needs_no_quotes_and_a_sign_may_be_written_as_itself(file: Path) -> None:
    file.write_text('[keys]\nagent.kill = "%,f5,ctrl+right,exclamation_mark"\nproblems = "B"\n')
    kill = "percent_sign,f5,ctrl+right,exclamation_mark"
    assert read_preferences(file).keys == {"agent.kill": kill, "problems": "B"}


def test_what_is_no_plain_file_is_refused_without_being_read(file: Path) -> None:
    file.mkdir()
    with pytest.raises(UsageError, match="no plain file"):
        read_preferences(file)
    file.rmdir()
    os.mkfifo(file)
    with pytest.raises(UsageError, match="no plain file"):
        read_preferences(file)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="no plain file"):
        read_preferences(file)


def test_every_key_of_the_panel_is_one_that_a_user_could_name() -> None:
    for screen in keys.SCREENS:
        for each in screen:
            assert each.id
            written = f'[keys]\n"{each.id}" = "{each.key}"\n'
            assert tomllib.loads(written)["keys"][each.id]
            assert all(map(_is_key, each.key.split(","))), each.key


def test_a_file_in_a_folder_that_is_made_later_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "config" / "autocoder" / "panel.toml"
    seen: list[bool] = []
    watch = FileWatch((file,), lambda: seen.append(file.exists()))
    watch.start()
    wait_until(lambda: seen == [False])
    pause = threading.Event()
    # Made again and again until it is seen: the first may come before the watch has begun.
    while not pause.wait(0.1) and not seen[-1]:
        shutil.rmtree(tmp_path / "config", ignore_errors=True)
        file.parent.mkdir(parents=True)
        file.write_text("")
        pause.wait(0.2)
    watch.stop()
    assert seen[-1]


def test_a_file_that_is_written_made_or_removed_is_noticed(file: Path) -> None:
    seen: list[bool] = []
    watch = FileWatch((file,), lambda: seen.append(file.exists()))
    watch.start()
    wait_until(lambda: seen == [False])
    pause = threading.Event()
    # The first write may come before the watch has begun: write until it is seen.
    while not pause.wait(0.1) and len(seen) < 2:
        file.write_text('theme = "day"\n')
    file.unlink()
    wait_until(lambda: not seen[-1])
    watch.stop()


async def test_a_key_of_ones_own_works_confirms_and_is_in_the_help(file: Path) -> None:
    file.write_text('theme = "day"\n[keys]\n"agent.kill" = "K"\n')
    agent = an_agent(1)
    async with driven(a_snapshot(agent), preferences=file, size=(150, 180)) as run:
        await run.until(lambda: run.panel.theme == "day")
        await run.press("X")
        assert isinstance(run.panel.screen, MainScreen)
        await run.press("K")
        await run.shows("y or K kills")
        await run.press("K")
        assert run.asked == [KillAgent(agent.agent_id)]
        await run.press("question_mark")
        await run.until(
            lambda: re.search(r" K +Kill the agent.* agent\.kill\n", run.screen) is not None
        )
        assert "panel.toml" in run.screen


async def test_a_bad_file_leaves_the_keys_and_is_named_until_it_is_mended(file: Path) -> None:
    file.write_text("[keys]\nnonsense = 'x'\n")
    async with driven(a_snapshot(an_agent(1)), preferences=file, size=(100, 30)) as run:
        await run.shows("panel.toml: there is no key named 'nonsense'; keys and theme stay as they")
        await run.press("n")
        assert run.asked == [SpawnAgent()]
        file.write_text('[keys]\n"agent.spawn" = "b"\n')
        await run.shows("keys and theme can be read again")
        await run.press("n", "b")
        assert run.asked == [SpawnAgent(), SpawnAgent()]
