"""Looks at real processes, sockets and files."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core.events import (
    EVENTS_FILE,
    READ_AT_ONCE,
    Event,
    EventLog,
    Finished,
    Iteration,
    Outcome,
    Progress,
    Retry,
    Started,
    ToolStart,
    Usage,
)
from autocoder.core.models import Agent, AgentState, Listener
from autocoder.core.observer import (
    PROGRESS_KEPT,
    WORD_CHARACTERS,
    Observation,
    Observer,
    Watched,
    with_progress,
)
from autocoder.core.probe import HostView, local_kernel

LISTENS = """
import socket, sys
listening = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv[1:]]
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def listen() -> Iterator[Callable[..., int]]:
    """Start a process that listens on these ports; its pid."""
    with ExitStack() as stack:

        def start(*ports: int) -> int:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", LISTENS, *map(str, ports)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            return process.pid

        yield start


def agent(folder: Path, number: int, pid: int | None, pair: tuple[int, int]) -> Watched:
    run_folder = folder / f"a-{number}"
    run_folder.mkdir(exist_ok=True)
    return Watched(f"a-{number}", pid, *pair, run_folder / "log")


def look(
    *agents: Watched, observer: Observer | None = None, pools: range = range(0)
) -> Mapping[str, Observation]:
    view = HostView.of(local_kernel())
    return (observer or Observer()).look(agents, view, frozenset(pools), time.monotonic())


def write(watched: Watched, *events: Event) -> None:
    log = EventLog(watched.log.parent)
    for event in events:
        log.write(event)


def test_two_agents_on_each_others_ports_are_swapped_and_a_third_is_not(
    tmp_path: Path, ports: range, listen: Callable[..., int]
) -> None:
    first = agent(tmp_path, 1, listen(ports[2], ports[1]), (ports[0], ports[1]))
    second = agent(tmp_path, 2, listen(ports[0], ports[3]), (ports[2], ports[3]))
    third = agent(tmp_path, 3, listen(ports[4], ports[5]), (ports[4], ports[5]))
    seen = look(first, second, third)
    one, two, three = seen["a-1"], seen["a-2"], seen["a-3"]
    assert (one.api_listener, one.web_listener) == (Listener.SWAPPED, Listener.OWN)
    assert one.problem.startswith(
        f"api {ports[0]}: a-2 listens on it, and this agent on its {ports[2]}"
    )
    assert (two.api_listener, two.web_listener) == (Listener.SWAPPED, Listener.OWN)
    assert (three.api_listener, three.web_listener) == (Listener.OWN, Listener.OWN)
    assert three.problem == ""


def test_an_agent_that_only_takes_anothers_port_is_foreign_there_and_rogue_itself(
    tmp_path: Path, ports: range, listen: Callable[..., int]
) -> None:
    robbed = agent(tmp_path, 1, listen(ports[1]), (ports[0], ports[1]))
    pid = listen(ports[0], ports[2])
    robber = agent(tmp_path, 2, pid, (ports[2], ports[3]))
    seen = look(robbed, robber)
    assert seen["a-1"].api_listener is Listener.FOREIGN
    assert f"pid {pid}" in seen["a-1"].problem
    assert "of a-2, not this agent" in seen["a-1"].problem
    assert seen["a-2"].rogue == f"listens on {ports[0]} of a-1, which is not its own"


def test_a_port_of_the_pools_without_an_agent_is_rogue_and_one_outside_is_nobodys_business(
    tmp_path: Path, ports: range, listen: Callable[..., int]
) -> None:
    rogue = agent(tmp_path, 1, listen(ports[5], ports[7]), (ports[0], ports[1]))
    seen = look(rogue, pools=ports[:6])
    assert seen["a-1"].rogue == f"listens on {ports[5]}, which is not its own"
    assert (seen["a-1"].api_listener, seen["a-1"].web_listener) == (Listener.NONE, Listener.NONE)


def test_a_program_of_nobodys_is_foreign(tmp_path: Path, ports: range) -> None:
    watched = agent(tmp_path, 1, None, (ports[0], ports[1]))
    with socket.create_server(("127.0.0.1", ports[1])):
        seen = look(watched)["a-1"]
    assert seen.web_listener is Listener.FOREIGN
    assert f"pid {os.getpid()}" in seen.problem


def test_what_a_backend_says_of_itself_is_seen_as_it_grows(tmp_path: Path) -> None:
    watched = agent(tmp_path, 1, None, (1, 2))
    observer = Observer()
    assert look(watched, observer=observer)["a-1"].progress == Progress()
    write(watched, Started("codex", "gpt", "c-1"), Iteration(1), ToolStart("1", "shell"))
    assert look(watched, observer=observer)["a-1"].progress.last_tool == "shell"
    write(watched, Usage(1000, 20, 0.5, 1), Retry("overloaded (529)"))
    seen = look(watched, observer=observer)["a-1"].progress
    shown = with_progress(Agent("a-1", AgentState.ACTIVE, 1, "Search", "codex"), seen)
    assert (shown.model, shown.iteration, shown.last_tool) == ("gpt", 1, "shell")
    assert (shown.tokens, shown.cost_usd, shown.retrying) == (1020, 0.5, "overloaded (529)")


def test_the_last_words_of_an_ended_agent_stay_known(tmp_path: Path) -> None:
    watched = agent(tmp_path, 1, None, (1, 2))
    observer = Observer()
    look(watched, observer=observer)
    write(watched, Usage(7, 3, 0.1), Finished(Outcome.SUCCESS))
    look(observer=observer)
    assert observer.progress("a-1").tokens == 10
    assert observer.progress("a-never") == Progress()
    others = [agent(tmp_path, 10 + number, None, (1, 2)) for number in range(PROGRESS_KEPT)]
    look(*others, observer=observer)
    assert observer.progress("a-1").tokens == 10
    look(observer=observer)
    assert observer.progress("a-1") == Progress()


def test_nothing_an_agent_writes_into_its_events_reaches_the_screen_as_it_is(
    tmp_path: Path,
) -> None:
    watched = agent(tmp_path, 1, None, (1, 2))
    events = watched.log.parent / EVENTS_FILE
    events.write_text(
        '{"event": "usage", "input_tokens": "many", "cost_usd": NaN}\n'
        '{"event": "usage", "input_tokens": 1e999, "output_tokens": -1e400}\n'
        '{"event": "iteration", "number": [1]}\n'
        f'{{"event": "iteration", "number": {10**30}}}\n'
        '{"event": "retry", "reason": {"a": 1}}\n'
        '{"event": "retry", "reason": "over\\u001b]52;c;eA==\\u0007load\\u009b2J\\n\\u202ex"}\n'
        + '{"event": "tool_start", "id": "", "tool": "'
        + "x" * 5000
        + '"}\n'
    )
    seen = look(watched)["a-1"].progress
    assert seen == replace(Progress(), last_tool="x" * WORD_CHARACTERS)
    with events.open("a") as file:
        file.write('{"event": "retry", "reason": "over\\u001b]52;c;eA==\\u0007load\\n\\u202ex"}\n')
    retrying = look(watched)["a-1"].progress.retrying
    assert retrying.startswith("over")
    assert retrying.isprintable()


def test_a_look_reads_only_what_is_new_and_never_more_than_a_piece(tmp_path: Path) -> None:
    watched = agent(tmp_path, 1, None, (1, 2))
    events = watched.log.parent / EVENTS_FILE
    line = b'{"event": "iteration", "number": 1}\n'
    events.write_bytes(line)
    observer = Observer()
    assert look(watched, observer=observer)["a-1"].progress.iteration == 1
    # Of the same length in the same file: whoever reads it again sees another number.
    with events.open("r+b") as file:
        file.write(line.replace(b"1}", b"2}"))
    assert look(watched, observer=observer)["a-1"].progress.iteration == 1
    with events.open("ab") as file:
        file.write(b"x" * READ_AT_ONCE + b"\n" + line.replace(b"1}", b"3}"))
    assert look(watched, observer=observer)["a-1"].progress.iteration == 1
    assert look(watched, observer=observer)["a-1"].progress.iteration == 3
