"""Claims about the pane of one log, on files that are treated as logs are."""

from dataclasses import replace
from pathlib import Path

from autocoder.core.models import Agent
from support.panel import driven
from support.snapshots import a_snapshot, an_agent


def an_agent_with(log: Path, content: str = "") -> Agent:
    log.write_text(content)
    return replace(an_agent(1), log_path=str(log))


async def test_a_log_is_followed_through_truncation_rotation_and_removal(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with driven(a_snapshot(an_agent_with(log, "at first\n"))) as run:
        await run.shows("at first")
        log.write_text("cut\n")
        await run.shows("cut")
        log.rename(tmp_path / "log.1")
        with (tmp_path / "log.1").open("a") as rotated:
            rotated.write("late, into the rotated one\n")
        await run.shows("late, into the rotated one")
        log.write_text("after the rotation\n")
        await run.shows("after the rotation")
        log.unlink()
        log.write_text("made anew\n")
        await run.shows("made anew")
        for line in ("at first", "cut", "late, into the rotated one", "after the rotation"):
            assert line in run.screen


GIGABYTE = 1024**3


def a_huge_log(log: Path, **lines: str) -> Agent:
    """Two gigabytes, hardly any of which take room on the disk: lines are far apart."""
    agent = an_agent_with(log, "the very first\nerror: long ago\nand what came of it\n")
    with log.open("r+b") as file:
        for at in range(GIGABYTE, 2 * GIGABYTE + 1, GIGABYTE):
            file.seek(at)
            file.write(b"\n" + b"x" * 10 * 1024**2 + b" cut\nafter %d GB\n" % (at // GIGABYTE))
    return agent


async def test_the_top_of_a_two_gigabyte_log_is_one_key_away(tmp_path: Path) -> None:
    async with driven(a_snapshot(a_huge_log(tmp_path / "log"))) as run:
        await run.shows("after 2 GB")
        await run.press("enter", "g")
        await run.shows("the very first")
        await run.press("G")
        await run.shows("follow ●")
        assert "after 2 GB" in run.screen
        await run.press("k")
        await run.shows("follow ○")
        assert "after 2 GB" in run.screen


async def test_all_of_a_log_is_searched_and_the_way_back_is_open(tmp_path: Path) -> None:
    async with driven(a_snapshot(a_huge_log(tmp_path / "log"))) as run:
        await run.press("enter", "exclamation_mark")
        await run.shows("and what came of it")
        await run.press("exclamation_mark")
        await run.shows("no further error below")
        await run.press("escape", "slash", *"after", "space", "1", "enter")
        await run.shows("after 1 GB")


async def test_a_search_tells_how_far_it_is_and_esc_ends_it(tmp_path: Path) -> None:
    async with driven(a_snapshot(a_huge_log(tmp_path / "log"))) as run:
        await run.shows("after 2 GB")
        await run.press("enter", "slash", *"nowhere", "enter")
        await run.shows("searching")
        await run.press("k")
        await run.shows("follow ○")
        await run.press("escape")
        await run.shows("the search is ended")
        assert "searching" not in run.screen


async def test_the_first_error_is_found_and_its_word_is_what_n_goes_on_with(tmp_path: Path) -> None:
    lines = [f"line {number:03}\n" for number in range(300)]
    lines[40] = "api: \x1b[31mTrace\x1b[1mback\x1b[0m (most recent call last)\n"
    lines[200] = "Traceback, once more\n"
    async with driven(a_snapshot(an_agent_with(tmp_path / "log", "".join(lines)))) as run:
        await run.shows("line 299")
        await run.press("enter", "n")
        await run.shows("/ begins one")
        await run.press("exclamation_mark")
        await run.shows("api: Traceback")
        await run.press("n")
        await run.shows("Traceback, once more")
        await run.press("n")
        await run.shows("no further 'traceback' below")


async def test_a_scrolled_pane_stands_still_while_its_log_grows(tmp_path: Path) -> None:
    log = tmp_path / "log"
    agent = an_agent_with(log, "".join(f"line {number:03}\n" for number in range(200)))
    async with driven(a_snapshot(agent)) as run:
        await run.shows("line 199")
        await run.press("enter", "k", "k", "k")
        await run.shows("line 196")
        shown = [line for line in run.screen.splitlines() if line.startswith(" line ")]
        with log.open("a") as file:
            file.write("one more line\n" * 50)
        await run.until(lambda: "2.4KB" in run.screen, "the size is the new one")
        assert [line for line in run.screen.splitlines() if line.startswith(" line ")] == shown
