import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocoder.core.errors import UsageError
from autocoder.core.events import (
    EVENTS_FILE,
    TEXT_LIMIT,
    Event,
    EventLog,
    Finished,
    Iteration,
    Outcome,
    Progress,
    ProgressReader,
    Retry,
    Started,
    Text,
    Told,
    ToolEnd,
    ToolStart,
    Usage,
    Warned,
    decode,
    encode,
    folded,
    last_progress,
    progress_at_end,
)
from autocoder.core.telling import LONGEST, take, tell, waits

ONE_OF_EACH: list[Event] = [
    Started("claude", "opus", "7b0c", resumed=True),
    Iteration(2, of=5),
    Text("Wiring the page next.\n"),
    ToolStart("t1", "Bash", "pytest -q"),
    ToolEnd("t1", ok=False, detail="1 failed"),
    Usage(1200, 340, 0.21, 4),
    Retry("overloaded", attempt=2, wait_s=4.0),
    Warned("the budget is nearly used up"),
    Told("stop at the API"),
    Finished(Outcome.FAILED, "401"),
]


@pytest.mark.parametrize("event", ONE_OF_EACH, ids=lambda event: type(event).__name__)
def test_an_event_survives_its_line(event: Event) -> None:
    line = encode(event, at=12.5)
    assert "\n" not in line
    assert decode(line) == event
    assert json.loads(line)["at"] == 12.5


@given(st.one_of(st.text(), st.binary()))
def test_any_line_is_read_without_an_error(line: str | bytes) -> None:
    decode(line)


def test_lines_of_a_later_version_are_passed_over() -> None:
    assert decode('{"at": 1, "event": "thought", "text": "x"}') is None
    assert decode('{"at": 1, "event": "text", "text": "x", "more": 1}') == Text("x")
    assert decode('{"at": 1, "event": "finished", "outcome": "odd"}') is None
    assert decode("[1]") is None
    assert decode("[" * 100_000) is None


def test_progress_is_what_a_grid_shows() -> None:
    lines = [encode(event, 0) for event in ONE_OF_EACH]
    assert folded(lines[:-1]) == Progress(
        resume_id="7b0c",
        model="opus",
        iteration=2,
        last_tool="Bash",
        input_tokens=1200,
        output_tokens=340,
        cost_usd=0.21,
        turns=4,
        retrying="overloaded",
    )
    done = folded(lines)
    assert (done.outcome, done.reason, done.retrying) == (Outcome.FAILED, "401", "")
    assert done.tokens == 1540


def test_a_run_taken_up_again_is_no_longer_finished() -> None:
    ended = Progress().after(Started("codex", resume_id="x")).after(Finished(Outcome.INTERRUPTED))
    again = ended.after(Started("codex", resumed=True))
    assert again.outcome is None
    assert again.resume_id == "x"


def test_a_reader_sees_what_is_appended_and_waits_for_whole_lines(tmp_path: Path) -> None:
    reader = ProgressReader(tmp_path)
    assert reader.poll() == Progress()
    log = EventLog(tmp_path)
    log.write(ToolStart("1", "Bash"))
    assert reader.poll().last_tool == "Bash"
    with (tmp_path / EVENTS_FILE).open("a") as file:
        file.write(encode(ToolStart("2", "Edit"), 0)[:20])
        file.flush()
        assert reader.poll().last_tool == "Bash"
        file.write(encode(ToolStart("2", "Edit"), 0)[20:] + "\n")
    assert reader.poll().last_tool == "Edit"


def test_the_file_is_begun_anew_and_nothing_that_counts_is_lost(tmp_path: Path) -> None:
    log = EventLog(tmp_path, limit=4000)
    reader = ProgressReader(tmp_path)
    log.write(Started("codex", "m", "id-1"))
    for number in range(200):
        log.write(Text("x" * 40))
        log.write(Usage(number, number))
        reader.poll()
    assert (tmp_path / EVENTS_FILE).stat().st_size < 2500
    assert reader.poll().resume_id == "id-1"
    assert reader.poll().input_tokens == 199
    assert last_progress(tmp_path).input_tokens == 199
    assert progress_at_end(tmp_path).input_tokens == 199


def test_how_far_an_ended_run_got_is_read_from_both_ends_of_its_events(tmp_path: Path) -> None:
    events = EventLog(tmp_path, limit=64 << 20)
    events.write(Started("codex", model="gpt-4.1"))
    for number in range(1, 1000):
        events.write(Text("x" * 100))
        events.write(Usage(input_tokens=number))

    ended = progress_at_end(tmp_path)

    assert (tmp_path / EVENTS_FILE).stat().st_size > 100_000
    assert (ended.model, ended.input_tokens) == ("gpt-4.1", 999)


def test_what_stands_where_events_should_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(encode(Usage(input_tokens=1), 0.0) + "\n")
    os.mkfifo(tmp_path / EVENTS_FILE)
    assert progress_at_end(tmp_path) == Progress()
    (tmp_path / EVENTS_FILE).unlink()
    (tmp_path / EVENTS_FILE).symlink_to("elsewhere")
    assert progress_at_end(tmp_path) == Progress()


def test_secrets_are_concealed_and_long_texts_clipped(tmp_path: Path) -> None:
    log = EventLog(tmp_path, conceal=lambda line: line.replace("sk-secret", "***"))
    log.write(Text("the key is sk-secret " + "x" * 10_000))
    line = (tmp_path / EVENTS_FILE).read_text()
    assert "sk-secret" not in line
    assert "***" in line
    assert len(line) < TEXT_LIMIT + 100


def test_a_disk_that_refuses_does_not_stop_the_backend(tmp_path: Path) -> None:
    EventLog(tmp_path / "gone").write(Text("x"))


def test_a_message_is_taken_once_and_in_order(tmp_path: Path) -> None:
    assert not waits(tmp_path)
    for text in ("first", "second\nline", "third"):
        tell(tmp_path, text)
    assert waits(tmp_path)
    assert take(tmp_path) == ["first", "second\nline", "third"]
    assert take(tmp_path) == []
    assert not waits(tmp_path)


def test_messages_told_at_once_all_arrive(tmp_path: Path) -> None:
    tellers = [threading.Thread(target=tell, args=(tmp_path, f"m{n}")) for n in range(20)]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    assert sorted(take(tmp_path)) == sorted(f"m{n}" for n in range(20))


@pytest.mark.parametrize("text", ["", "  \n", "x" * (LONGEST + 1)])
def test_an_empty_or_endless_message_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        tell(tmp_path, text)
    assert not waits(tmp_path)
