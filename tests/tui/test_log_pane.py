"""Claims about the pane of one log, on files that are treated as logs are."""

import re
from dataclasses import replace
from pathlib import Path

from autocoder.core.models import Agent
from autocoder.tui.spans import plain
from autocoder.tui.widgets.log_pane import LogPane
from support.panel import driven
from support.snapshots import NOW, a_snapshot, an_agent


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


def a_sparse_log(log: Path, *, step: int = 1024**3) -> Agent:
    """Three places with text, `step` bytes apart, and hardly anything on the disk between them."""
    some_lines = "".join(f"line {number:02}\n" for number in range(80))
    agent = an_agent_with(log, f"the very first\nerror: long ago\n{some_lines}")
    with log.open("r+b") as file:
        for number in (1, 2):
            file.seek(number * step)
            file.write(b"\n" + b"x" * 10 * 1024**2 + b" cut\nplace %d\n" % number)
            file.write(some_lines.encode())
    return agent


async def test_the_top_of_a_two_gigabyte_log_is_one_key_away(tmp_path: Path) -> None:
    async with driven(a_snapshot(a_sparse_log(tmp_path / "log"))) as run:
        await run.shows("line 79")
        await run.press("enter", "g")
        await run.shows("the very first")
        await run.press("G")
        await run.shows("follow ●")
        assert "line 79" in run.screen
        await run.press("k")
        await run.shows("% of 2.0GB")
        assert "line 78" in run.screen


async def test_all_of_a_log_is_searched(tmp_path: Path) -> None:
    agent = a_sparse_log(tmp_path / "log", step=20 * 1024**2)
    async with driven(a_snapshot(agent)) as run:
        await run.press("enter", "exclamation_mark")
        await run.shows("the very first")
        await run.press("exclamation_mark")
        await run.shows("no further error below")
        await run.press("escape", "G", "slash", *"place", "enter", "N")
        await run.shows("place 1")
        await run.press("slash", *"zz", "enter")
        await run.shows("'zz' is nowhere in this log")


async def test_a_search_says_so_and_is_ended_by_esc(tmp_path: Path) -> None:
    async with driven(a_snapshot(a_sparse_log(tmp_path / "log"))) as run:
        await run.shows("line 79")
        pane = run.panel.screen.query_one(LogPane)
        pane.search("nowhere")
        assert "searching" in plain(pane.status)
        assert pane.leave_search()
        assert "searching" not in plain(pane.status)
        await run.shows("the search is ended")
        await run.press("enter", "escape")
        assert not pane.words


async def test_beyond_the_first_line_of_the_tail_the_log_goes_on(tmp_path: Path) -> None:
    lines = "".join(f"line {number:05}\n" for number in range(30_000))
    async with driven(a_snapshot(an_agent_with(tmp_path / "log", lines))) as run:
        await run.shows("line 29999")
        await run.press("enter")
        run.panel.screen.query_one(LogPane).action_scroll_rows(-4_000)
        await run.shows("line 25999")
        await run.press("pageup", "pageup", "k")
        await run.shows("line 25971")
        numbers = [int(each) for each in re.findall(r"line (\d+)", run.screen)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


async def test_what_is_read_outlives_rotation_and_leads_on_into_the_new_file(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    lines = "".join(f"line {number:02}\n" for number in range(40))
    log.with_name("log.1").write_text("the oldest\n")
    log.with_name("log.times").write_text(f"0 {NOW}\n")
    async with driven(a_snapshot(an_agent_with(log, lines))) as run:
        await run.shows("line 39")
        await run.press("enter", "t", "g")
        await run.shows("14:13:20  line 00")
        assert "           the oldest" in run.screen
        log.rename(log.with_name("log.1"))
        log.with_name("log.times").rename(log.with_name("log.1.times"))
        log.write_text("of the new file\n")
        log.with_name("log.times").write_text(f"0 {NOW + 60}\n")
        await run.press("pagedown", "pagedown")
        await run.shows("14:13:20  line 35")
        await run.press("pagedown")
        await run.shows("14:14:20  of the new file")
        await run.press("g")
        await run.shows("the oldest")


async def test_a_wrapped_line_longer_than_the_pane_is_scrolled_row_by_row(tmp_path: Path) -> None:
    line = " ".join(f"word{number:03}" for number in range(400))
    async with driven(a_snapshot(an_agent_with(tmp_path / "log", f"{line}\nlast\n"))) as run:
        await run.shows("last")
        await run.press("enter", "w", "k")
        await run.until(lambda: "last" not in run.screen)
        assert "word399" in run.screen
        await run.press("g")
        await run.shows("word000")
        await run.press("j", "j")
        await run.until(lambda: "word000" not in run.screen)
        assert "word040" in run.screen
        await run.press("k", "k")
        await run.shows("word000")


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
