"""Claims about agent logs: tails that survive what happens to files, and text made harmless."""

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocoder.core.logs import (
    MARKS_LIMIT,
    SHOWN_LIMIT,
    Ink,
    InkSpan,
    LogTail,
    log_path,
    sanitise,
    sanitise_styled,
    shows,
)
from support.attacks import ATTACKS, FORBIDDEN

# -- the sanitiser


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_leaves_a_control_character_behind(name: str) -> None:
    shown = sanitise(ATTACKS[name])
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs")]
    assert not [bad for bad in FORBIDDEN if bad in shown]


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"rich markup"}))
def test_what_an_attack_hides_among_stays_readable(name: str) -> None:
    shown = sanitise(ATTACKS[name])
    plain = "".join(char for char in unicodedata.normalize("NFD", shown) if char.isalpha())
    assert "after" in plain or "before" in plain


@given(st.text())
def test_no_text_at_all_leaves_a_control_character_behind(text: str) -> None:
    for shown in (sanitise(text), sanitise_styled(text)[0]):
        assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]


def test_emoji_keep_no_variant_whose_width_terminals_do_not_agree_on() -> None:
    assert sanitise("\u26a0\ufe0f two \U0001f44d\U0001f3fd 1\ufe0f\u20e3") == (
        "\u26a0 two \U0001f44d 1\u20e3"
    )
    assert shows("\u26a0\ufe0f two".encode(), "\u26a0 two")


@given(st.text(alphabet="ab\x1b[]0;17m\x9b\x07\\\r\x08\té\u0301"))
def test_a_sanitised_text_needs_no_second_pass(text: str) -> None:
    assert sanitise(sanitise(text)) == sanitise(text)


@given(st.text(alphabet="ab\x1b[]0;13m\x9b\t\u0301"))
def test_styled_and_plain_agree_on_the_text(text: str) -> None:
    shown, spans = sanitise_styled(text)
    assert shown == sanitise(text)
    assert all(0 <= span.start < span.end <= len(shown) for span in spans if span.end)


PIECES = ("ab", "a", "b", " ", "é", "\t", "\x1b[31m", "\x1b[0m", "\x1b[2J", "\r", "\x08", "\u200b")


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.sampled_from(("ab", "b a", "é", "ba")))
def test_a_search_sees_what_the_screen_shows(pieces: list[str], wanted: str) -> None:
    line = "".join(pieces)
    assert shows(line.encode(), wanted) == (wanted in sanitise(line).casefold())


def test_printable_text_comes_back_untouched() -> None:
    for text in ("plain ASCII, with [brackets]", "Grüße – 日本語 ✓", "Việt"):
        assert sanitise(text) == text


def test_of_a_progress_bar_its_last_state_remains() -> None:
    assert sanitise("10 %\r50 %\r100 %\r\n") == "100 %"
    assert sanitise("100 %\r\x1b[K") == "100 %"


def test_tabs_reach_their_stops_across_colours() -> None:
    assert sanitise("ab\x1b[31mcd\x1b[0m\tx") == "abcd    x"


def test_a_character_keeps_at_most_two_marks() -> None:
    assert sanitise("e" + "\u0301" * 40 + "x") == "e" + "\u0301" * MARKS_LIMIT + "x"


def test_colours_are_kept_as_spans() -> None:
    assert sanitise_styled("a\x1b[1;31mbc\x1b[0md\x1b[38;5;200me\x1b[38;2;1;2;3mf") == (
        "abcdef",
        (
            InkSpan(1, 3, Ink(colour=1, bold=True)),
            InkSpan(4, 5, Ink(colour=200)),
            InkSpan(5, 6, Ink(colour=(1, 2, 3))),
        ),
    )


def test_colours_with_colons_are_understood() -> None:
    assert sanitise_styled("\x1b[38:2::9:8:7mx\x1b[0;38:5:33my")[1] == (
        InkSpan(0, 1, Ink(colour=(9, 8, 7))),
        InkSpan(1, 2, Ink(colour=33)),
    )


def test_nothing_can_be_painted_over_or_hidden() -> None:
    text, spans = sanitise_styled("\x1b[8mhidden\x1b[28m \x1b[41;5mloud\x1b[0m \x1b[48;5;1mx")
    assert (text, spans) == ("hidden loud x", ())


def test_absurd_parameters_are_no_error() -> None:
    assert sanitise("\x1b[" + "9" * 10_000 + ";" * 500 + "mx") == "x"


# -- the tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = log_path(tmp_path, "a-1")
    path.parent.mkdir(parents=True)
    return path


def everything(tail: LogTail) -> list[str]:
    while tail.poll():
        pass
    return tail.lines(*tail.bounds)


def test_the_log_is_in_the_agents_run_folder() -> None:
    assert log_path(Path("/p"), "a-1") == Path("/p/.autocoder/agents/a-1/log")


def test_a_log_that_does_not_exist_yet_is_empty_and_then_followed(log: Path) -> None:
    tail = LogTail(log)
    assert tail.poll() is False
    log.write_text("one\n")
    assert everything(tail) == ["one"]
    tail.close()


def test_what_is_appended_shows_and_silence_reports_no_change(log: Path) -> None:
    log.write_text("one\n")
    tail = LogTail(log)
    everything(tail)
    with log.open("a") as file:
        file.write("two\n")
    assert tail.poll() is True
    assert tail.poll() is False
    assert tail.lines(*tail.bounds) == ["one", "two"]
    tail.close()


def test_an_unfinished_line_shows_and_is_completed_in_place(log: Path) -> None:
    log.write_text("Password: ")
    tail = LogTail(log)
    assert everything(tail) == ["Password: "]
    with log.open("a") as file:
        file.write("ok\nnext")
    assert everything(tail) == ["Password: ok", "next"]
    tail.close()


def test_after_truncation_it_starts_again(log: Path) -> None:
    log.write_text("old\n" * 5)
    tail = LogTail(log)
    everything(tail)
    log.write_text("new\n")
    assert everything(tail) == ["old"] * 5 + ["new"]
    tail.close()


def test_a_rotated_log_loses_no_line(log: Path) -> None:
    log.write_text("one\n")
    tail = LogTail(log)
    everything(tail)
    with log.open("a") as file:
        file.write("two\n")
    log.rename(log.with_name("log.1"))
    log.write_text("three\n")
    assert everything(tail) == ["one", "two", "three"]
    tail.close()


def test_an_unlinked_log_stays_readable_and_its_successor_is_followed(log: Path) -> None:
    log.write_text("one\n")
    tail = LogTail(log)
    everything(tail)
    log.unlink()
    assert everything(tail) == ["one"]
    log.write_text("two\n")
    assert everything(tail) == ["one", "two"]
    tail.close()


def test_a_huge_file_is_entered_near_its_end(log: Path) -> None:
    with log.open("wb") as file:
        file.truncate(2 * 1024**3)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    tail = LogTail(log)
    lines = everything(tail)
    assert lines[-1] == "last"
    assert tail.size == 2 * 1024**3 + 6
    assert sum(map(len, lines)) < 2 * SHOWN_LIMIT
    tail.close()


def test_a_ten_megabyte_line_is_clipped_on_the_screen_not_in_the_file(log: Path) -> None:
    log.write_bytes(b"start\n" + b"x" * 10_000_000 + b"\nend\n")
    tail = LogTail(log, start=20_000_000)
    lines = everything(tail)
    tail.close()
    assert lines[-1] == "end"
    assert len(lines[-2]) < SHOWN_LIMIT + 50
    assert "more bytes" in lines[-2]
    assert log.stat().st_size == 10_000_011


def test_a_long_line_written_in_pieces_is_clipped_with_its_true_length(log: Path) -> None:
    log.write_bytes(b"")
    tail = LogTail(log)
    tail.poll()
    for _ in range(10):
        with log.open("ab") as file:
            file.write(b"y" * 1000)
        tail.poll()
    with log.open("ab") as file:
        file.write(b"\n")
    (line,) = everything(tail)
    tail.close()
    assert line == "y" * SHOWN_LIMIT + f" … {10_000 - SHOWN_LIMIT} more bytes"


def test_a_bar_that_redraws_itself_for_ever_shows_its_latest_state(log: Path) -> None:
    log.write_bytes(b"")
    tail = LogTail(log)
    tail.poll()
    for percent in range(2000):
        with log.open("ab") as file:
            file.write(f"\rstep {percent}".encode())
        tail.poll()
    (line,) = tail.lines(*tail.bounds)
    tail.close()
    assert sanitise(line) == "step 1999"


def test_bytes_that_are_no_text_are_no_error(log: Path) -> None:
    log.write_bytes(b"\xff\xfe\x00\x9b2J ok\n")
    tail = LogTail(log)
    (line,) = everything(tail)
    tail.close()
    assert sanitise(line).endswith(" ok")


def test_old_lines_are_let_go_and_the_others_keep_their_numbers(log: Path) -> None:
    log.write_text("".join(f"{number}\n" for number in range(3000)))
    tail = LogTail(log, max_lines=1000)
    everything(tail)
    first, end = tail.bounds
    assert end == 3000
    assert 1000 <= end - first <= 1125
    assert tail.lines(2500, 2502) == ["2500", "2501"]
    tail.close()


def test_of_a_flood_between_two_polls_the_end_is_taken(log: Path) -> None:
    log.write_text("start\n")
    tail = LogTail(log)
    everything(tail)
    with log.open("ab") as file:
        file.write(b"flood of lines\n" * 200_000 + b"end\n")
    lines = everything(tail)
    tail.close()
    assert lines[-1] == "end"
    assert len(lines) < 20_000


def test_each_line_knows_its_place_in_the_file(log: Path) -> None:
    log.write_text("zero\none\ntwo\nthr")
    tail = LogTail(log)
    everything(tail)
    assert [tail.place_of(number).offset for number in range(4)] == [0, 5, 9, 13]
    assert {tail.place_of(number).inode[1] for number in range(4)} == {log.stat().st_ino}
    tail.close()


def test_a_folder_in_the_logs_place_is_an_empty_log(tmp_path: Path) -> None:
    tail = LogTail(tmp_path)
    assert tail.poll() is False
    tail.close()


def test_a_fifo_in_the_logs_place_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    tail = LogTail(tmp_path / "log")
    assert tail.poll() is False
    tail.close()
