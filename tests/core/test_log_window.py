"""Claims about reading any part of a log: which bytes it has, which lines, and what is found."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocoder.core.log_files import LogFiles
from autocoder.core.log_lines import BLOCK, LONGEST, chunk_after, chunk_before, line_start
from autocoder.core.log_search import search
from autocoder.core.log_window import GAP, LogWindow
from autocoder.core.logs import SHOWN_LIMIT, LogTail, may_show, shows


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def opened(path: Path) -> LogFiles:
    log = LogFiles(path)
    log.refresh()
    return log


def everything(log: LogFiles) -> bytes:
    return log.read(log.start, log.end - log.start)


def descriptors(path: Path) -> int:
    """How many files of this folder the process has open."""
    fds = [fd for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    return sum(fd.readlink().is_relative_to(path.parent) for fd in fds)


def rotate(path: Path) -> None:
    path.rename(path.with_name("log.1"))


# -- the files


def test_what_was_rotated_away_is_the_beginning_of_the_log(path: Path) -> None:
    path.with_name("log.1").write_bytes(b"one\n")
    path.write_bytes(b"two\n")
    assert everything(opened(path)) == b"one\ntwo\n"


def test_a_byte_keeps_its_offset_through_growth_and_rotation(path: Path) -> None:
    path.write_bytes(b"one\n")
    log = opened(path)
    with path.open("ab") as file:
        file.write(b"two\n")
    rotate(path)
    path.write_bytes(b"three\n")
    log.refresh()
    assert (log.start, everything(log)) == (0, b"one\ntwo\nthree\n")
    rotate(path)
    path.write_bytes(b"four\n")
    log.refresh()
    rotate(path)
    path.write_bytes(b"five\n")
    log.refresh()
    assert (log.start, everything(log)) == (8, b"three\nfour\nfive\n")


def test_of_rotations_that_nobody_saw_the_last_two_files_follow(path: Path) -> None:
    path.write_bytes(b"one\n")
    log = opened(path)
    for line in (b"two\n", b"three\n", b"four\n"):
        rotate(path)
        path.write_bytes(line)
    log.refresh()
    assert everything(log) == b"one\nthree\nfour\n"


def test_a_truncated_log_goes_on_behind_what_it_has_lost(path: Path) -> None:
    path.write_bytes(b"one\ntwo\n")
    log = opened(path)
    path.write_bytes(b"new\n")
    log.refresh()
    assert (log.start, everything(log)) == (8, b"new\n")


def test_a_line_that_was_never_finished_does_not_run_into_the_next_file(path: Path) -> None:
    path.write_bytes(b"killed here")
    log = opened(path)
    path.unlink()
    path.write_bytes(b"made anew\n")
    log.refresh()
    assert everything(log) == b"killed here\nmade anew\n"
    assert log.read(11, 3) == b"\nma"


def test_what_is_no_file_is_an_empty_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    (tmp_path / "log.1").mkdir()
    log = opened(tmp_path / "log")
    assert (log.start, log.end, log.read(0, 10)) == (0, 0, b"")


def test_files_are_closed_when_nobody_reads_them_any_more(path: Path) -> None:
    path.write_bytes(b"one\n")
    path.with_name("log.times").write_bytes(b"0 1.00\n")
    log = LogFiles(path)
    log.timed = True
    for _ in range(5):
        log.refresh()
        rotate(path)
        path.write_bytes(b"more\n")
    assert descriptors(path) <= 6
    del log
    assert descriptors(path) == 0


def test_a_tails_line_is_found_in_the_file_it_was_read_from(path: Path) -> None:
    path.write_bytes(b"one\ntwo\n")
    tail = LogTail(path)
    tail.poll()
    rotate(path)
    path.write_bytes(b"three\nfour\n")
    while tail.poll():
        pass
    log = opened(path)
    places = [log.offset_of(tail.place_of(number)) for number in range(*tail.bounds)]
    assert places == [0, 4, 8, 14]
    path.write_bytes(b"cut\n")
    while tail.poll():
        pass
    log.refresh()
    assert log.offset_of(tail.place_of(0)) is None
    assert log.offset_of(tail.place_of(4)) == log.end - 4
    tail.close()


def test_each_part_has_the_time_of_its_own_file(path: Path) -> None:
    path.write_bytes(b"one\ntwo\n")
    path.with_name("log.times").write_bytes(b"0 100.00\nnonsense\n2 nan\n3 1e99\n4 104.00\n")
    log = LogFiles(path)
    log.refresh()
    assert not log.times_known
    log.timed = True
    assert log.refresh()
    rotate(path)
    path.with_name("log.times").rename(path.with_name("log.1.times"))
    path.write_bytes(b"three\n")
    path.with_name("log.times").write_bytes(b"0 200.00\n")
    log.refresh()
    assert [log.written_at(at) for at in (0, 3, 4, 8)] == [100, 100, 104, 200]
    assert not log.refresh()
    late = LogFiles(path)
    late.timed = True
    late.refresh()
    assert [late.written_at(at) for at in (0, 4, 8)] == [100, 104, 200]


def test_times_of_a_file_that_is_being_rotated_are_not_taken_for_anothers(path: Path) -> None:
    path.with_name("log.1").write_bytes(b"new, and just moved\n")
    path.with_name("log.1.times").write_bytes(b"0 100.00\n")
    log = LogFiles(path)
    log.timed = True
    log.refresh()
    assert log.written_at(0) is None
    path.with_name("log.1.times").write_bytes(b"0 200.00\n")
    path.write_bytes(b"")
    log.refresh()
    assert log.written_at(0) == 200


# -- the lines


def forward(log: LogFiles, at: int) -> list[tuple[int, bytes]]:
    lines: list[tuple[int, bytes]] = []
    while chunk := chunk_after(log, at):
        assert chunk.start == at < chunk.end
        lines += zip(chunk.offsets(), chunk.lines(), strict=True)
        at = chunk.end
    return lines


def backward(log: LogFiles, at: int) -> list[tuple[int, bytes]]:
    lines: list[tuple[int, bytes]] = []
    while chunk := chunk_before(log, at):
        assert chunk.start < at == chunk.end
        lines[:0] = zip(chunk.offsets(), chunk.lines(), strict=True)
        at = chunk.start
    return lines


def random_text(seed: int) -> bytes:
    """Lines of all lengths, many of which meet a block's border, some in other alphabets."""
    choose = random.Random(seed)
    lines = []
    for _ in range(choose.randrange(20)):
        near = choose.choice((1, 80, SHOWN_LIMIT, BLOCK, BLOCK, 2 * BLOCK))
        size = max(0, near + choose.randrange(-3, 4))
        lines.append(("é✓x"[choose.randrange(3)] * size).encode()[:size])
    return b"\n".join(lines) + choose.choice((b"", b"\n"))


@pytest.mark.parametrize("seed", range(8))
def test_lines_are_those_of_a_plain_split_wherever_reading_begins(path: Path, seed: int) -> None:
    text = random_text(seed)
    path.write_bytes(text)
    log = opened(path)
    ends = [at + 1 for at, byte in enumerate(text) if byte == 10]
    starts = [at for at in (0, *ends) if at < len(text)]
    expected = list(zip(starts, (line[:SHOWN_LIMIT] for line in text.splitlines()), strict=False))
    for read in (forward(log, 0), backward(log, len(text))):
        assert [(at, line[:SHOWN_LIMIT]) for at, line in read] == expected
    for start in random.Random(seed).sample(starts, min(3, len(starts))):
        assert backward(log, start) + forward(log, start) == forward(log, 0)
        at = start + 1 if start + 1 < len(text) else start
        assert line_start(log, at) == max(each for each in starts if each <= at)


def test_a_ten_megabyte_line_is_whole_and_clipped_from_either_side(path: Path) -> None:
    before = b"b" * (BLOCK - 1) + b"\n"
    path.write_bytes(before + b"x" * 10_000_000 + b"\nend\n")
    log = opened(path)
    clipped = b"x" * SHOWN_LIMIT + f" … {10_000_000 - SHOWN_LIMIT} more bytes".encode()
    for lines in (forward(log, 0), backward(log, log.end)):
        assert lines[1:] == [(BLOCK, clipped), (BLOCK + 10_000_001, b"end")]


def test_a_line_without_end_has_the_same_pieces_from_either_side(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"start\n")
        file.truncate(5 * LONGEST + 5)
        file.seek(0, os.SEEK_END)
        file.write(b"\nend\n")
    log = opened(path)
    starts = [at for at, _ in forward(log, 0)]
    assert starts == [0, 6, *(n * LONGEST for n in (2, 3, 4, 5)), 5 * LONGEST + 6]
    assert [at for at, _ in backward(log, log.end)] == starts
    assert line_start(log, 3 * LONGEST + 5) == 3 * LONGEST
    assert line_start(log, LONGEST + 5) == 6


def test_of_a_long_progress_bar_the_latest_state_remains(path: Path) -> None:
    path.write_bytes(b"".join(b"\rstep %d" % n for n in range(100_000)) + b"\n")
    log = opened(path)
    for lines in (forward(log, 0), backward(log, log.end)):
        ((_, line),) = lines
        assert line.startswith(b"step 99999 \xe2\x80\xa6 ")


# -- the window


def read_all(window: LogWindow) -> list[str]:
    while window.poll():
        pass
    return window.lines(*window.bounds)


def windowed(path: Path, at: Callable[[LogFiles], int], **limits: int) -> LogWindow:
    window = LogWindow(LogFiles(path), **limits)
    window.enter(at)
    window.poll()
    assert window.ready
    return window


def numbered(count: int) -> bytes:
    return b"".join(b"line %08d\n" % number for number in range(count))


def test_a_place_in_the_middle_is_entered_at_its_line(path: Path) -> None:
    path.write_bytes(numbered(200_000))
    window = windowed(path, lambda _: 14 * 100_000 + 7)
    assert window.lines(-1, 2) == ["line 00099999", "line 00100000", "line 00100001"]
    assert window.offset_of(-1) == 14 * 99_999


def test_the_window_goes_all_the_way_and_keeps_its_size(path: Path) -> None:
    path.write_bytes(numbered(60_000))
    window = windowed(path, lambda log: log.end)
    while (first := window.bounds[0]) > -60_000:
        window.want(first - 100, first)
        window.poll()
        assert window.bounds[1] - window.bounds[0] <= 10_000
    assert window.lines(-60_000, -59_999) == ["line 00000000"]
    while window.bounds[1] < 0:
        window.want(window.bounds[1] - 100, window.bounds[1] + 1)
        window.poll()
        assert window.bounds[1] - window.bounds[0] <= 10_000
    assert window.lines(-1, 1) == ["line 00059999"]
    assert window.offset_of(-2) == 14 * 59_998


def test_lines_as_long_as_can_be_keep_the_window_within_its_bytes(path: Path) -> None:
    path.write_bytes((b"x" * 8000 + b"\n") * 3000)
    window = windowed(path, lambda log: log.end)
    while (first := window.bounds[0]) > -3000:
        window.want(first - 10, first)
        window.poll()
        assert sum(map(len, window.lines(*window.bounds))) < 8 * 1024**2 + BLOCK


def test_the_last_line_grows_in_place(path: Path) -> None:
    path.write_bytes(b"one\nPassword: ")
    window = windowed(path, lambda log: log.start)
    window.want(0, 10)
    assert window.lines(0, 9) == ["one", "Password: "]
    with path.open("ab") as file:
        file.write(b"ok\nthree\n")
    assert read_all(window) == ["one", "Password: ok", "three"]
    assert window.at_end


def test_a_window_that_was_left_reads_nothing_and_keeps_nothing(path: Path) -> None:
    path.write_bytes(b"one\ntwo")
    window = windowed(path, lambda log: log.start)
    window.want(0, 10)
    window.leave()
    path.write_bytes(b"one\ntwo\nthree\n")
    assert not window.poll()
    assert window.lines(0, 10) == []


def test_silence_is_no_news(path: Path) -> None:
    path.write_bytes(b"one\ntwo")
    window = windowed(path, lambda log: log.start)
    window.want(-5, 10)
    assert not window.poll()


def test_what_is_shown_outlives_truncation_and_what_is_gone_is_said(path: Path) -> None:
    path.write_bytes(b"old\n" * 5)
    window = windowed(path, lambda log: log.start, max_lines=8)
    path.write_bytes(b"new\n")
    window.want(0, 10)
    assert read_all(window) == ["old"] * 4 + [GAP.decode(), "new"]


def test_an_unfinished_line_stays_when_its_file_is_cut_short(path: Path) -> None:
    path.write_bytes(b"old\nPassword: ")
    window = windowed(path, lambda log: log.start)
    window.want(0, 10)
    path.write_bytes(b"new\n")
    assert read_all(window) == ["old", "Password: ", "new"]


def test_a_part_on_show_goes_on_through_any_number_of_rotations(path: Path) -> None:
    path.write_bytes(b"one\n")
    window = windowed(path, lambda log: log.start)
    window.want(0, 10)
    for line in (b"two\n", b"three\n", b"four\n", b"five\n"):
        rotate(path)
        path.write_bytes(line)
        window.poll()
    assert read_all(window) == ["one", "two", "three", "four", "five"]


def test_a_window_without_a_log_is_empty_until_there_is_one(path: Path) -> None:
    window = windowed(path, lambda log: log.end)
    window.want(-5, 5)
    assert window.bounds == (0, 0)
    path.write_bytes(b"one\n")
    assert read_all(window) == ["one"]


# -- the search


def found(log: LogFiles, *words: str, step: int = 1, start: int | None = None) -> int | None:
    *_, (_, match) = [(0, None), *search(log, words, step, start)]
    return match.offset if match else None


def test_a_search_finds_every_line_once_in_either_direction(path: Path) -> None:
    lines = [b"nothing here, as everywhere %06d" % number for number in range(30_000)]
    for number in (0, 9_000, 9_001, 29_999):
        lines[number] = b"here: \x1b[1mEr\x1b[31mROR\x1b[0m"
    path.write_bytes(b"\n".join(lines))
    log = opened(path)
    starts = [at for at, line in forward(log, 0) if line.startswith(b"here: ")]
    going_down, going_up = [], []
    at = found(log, "error")
    while at is not None:
        going_down.append(at)
        at = found(log, "error", start=at + 1)
    at = found(log, "error", step=-1)
    while at is not None:
        going_up.append(at)
        at = found(log, "error", step=-1, start=at)
    assert going_down == going_up[::-1] == starts
    assert found(log, "elsewhere") is None


def test_a_search_tells_how_far_it_has_come(path: Path) -> None:
    path.write_bytes(numbered(100_000) + b"the end\n")
    log = opened(path)
    done = [done for done, _ in search(log, ("the end",), 1)]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (18, 100)
    assert [done for done, _ in search(log, ("nowhere",), -1)][-1] == 100


def test_nothing_is_found_in_what_is_not_shown_of_a_line(path: Path) -> None:
    path.write_bytes(b"x" * SHOWN_LIMIT + b"words\n" + b"y" * BLOCK + b"words\nwords\n")
    log = opened(path)
    assert found(log, "words") == found(log, "words", step=-1) == log.end - 6


PIECES = (
    "a",
    "B",
    "\n",
    " ",
    "✓",
    "ß",
    "ſ",
    "é",
    "\t",
    "\x1b[31m",
    "\x1b[0m",
    "\r",
    "\x08",
    "\u200b",
)


@settings(max_examples=100)
@given(st.lists(st.sampled_from(PIECES), max_size=9), st.sampled_from(("ab", "b a", "ss", "é")))
def test_no_block_is_passed_over_that_has_the_words(pieces: list[str], wanted: str) -> None:
    text = "".join(pieces).encode()
    if any(shows(line, wanted) for line in text.split(b"\n")):
        assert may_show(text, wanted)
