"""The whole life of an agent, as a table."""

import itertools
import random

import pytest

from autocoder.core import lifecycle
from autocoder.core.lifecycle import ExitFacts, may_become, next_live_state, verdict
from autocoder.core.models import LIVE_STATES, AgentState
from autocoder.core.probe import Liveness

FINAL_STATES = set(AgentState) - LIVE_STATES


def facts(ending: str = "exited", exit_code: int | None = 0, **changes: object) -> ExitFacts:
    values: dict[str, object] = {
        "ending": ending,
        "exit_code": exit_code,
        "error": "",
        "started_at": 100.0,
        "ended_at": 352.0,
        "processes_ended": 0,
        "left_behind": (),
        "ports_free": (5000, 5173),
        "eaddrinuse": 0,
        "foreign_ports": (),
        "last_lines": ("compiling", "all tests pass"),
    }
    return ExitFacts(**(values | changes))  # type: ignore[arg-type]  # the table above is typed by eye


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_a_final_state_leads_nowhere(state: AgentState) -> None:
    assert not any(may_become(state, other) for other in AgentState)


@pytest.mark.parametrize("state", sorted(LIVE_STATES))
def test_every_live_state_can_end_in_a_crash(state: AgentState) -> None:
    assert may_become(state, AgentState.CRASHED)


def test_no_agent_becomes_active_again_once_it_is_stopping() -> None:
    assert not may_become(AgentState.STOPPING, AgentState.ACTIVE)


@pytest.mark.parametrize(
    ("state", "reported", "asked", "worker"),
    itertools.product(sorted(AgentState), (True, False), (True, False), sorted(Liveness)),
)
def test_the_next_state_is_always_one_the_table_allows(
    state: AgentState, reported: bool, asked: bool, worker: Liveness
) -> None:
    new = next_live_state(state, worker_reported=reported, ending_asked=asked, worker=worker)

    assert new is state or may_become(state, new)


@pytest.mark.parametrize("state", sorted(FINAL_STATES))
def test_a_heartbeat_never_revives_an_ended_agent(state: AgentState) -> None:
    new = next_live_state(state, worker_reported=True, ending_asked=False, worker=Liveness.ALIVE)

    assert new is state


def test_an_agent_whose_worker_is_unknown_stays_as_it_is() -> None:
    new = next_live_state(
        AgentState.STARTING, worker_reported=True, ending_asked=False, worker=Liveness.UNKNOWN
    )

    assert new is AgentState.STARTING


@pytest.mark.parametrize(
    ("found", "commits", "state", "reason", "counted"),
    [
        (facts(), 2, AgentState.COMPLETED, "2 commits after 4m12s", True),
        (facts(), 0, AgentState.FAILED, "finished after 4m12s without a commit", True),
        (
            facts(exit_code=1),
            None,
            AgentState.FAILED,
            'exit code 1 after 4m12s, last output: "all tests pass"',
            True,
        ),
        (
            facts(exit_code=-9, last_lines=()),
            None,
            AgentState.CRASHED,
            "killed by signal 9 (SIGKILL) after 4m12s",
            True,
        ),
        (facts("stopped", -2), None, AgentState.KILLED, "stopped on request after 4m12s", False),
        (facts("killed", -9), None, AgentState.KILLED, "killed on request after 4m12s", False),
        (
            facts("wall_limit", -15),
            None,
            AgentState.FAILED,
            "stopped after 4m12s: limits.agent_minutes reached",
            True,
        ),
        (
            facts("not_started", None, error="my-agent cannot be started: not found"),
            None,
            AgentState.FAILED,
            "my-agent cannot be started: not found",
            True,
        ),
        (None, None, AgentState.CRASHED, "worker killed after 4m12s", True),
    ],
)
def test_an_end_is_named_with_its_cause(
    found: ExitFacts | None, commits: int | None, state: AgentState, reason: str, counted: bool
) -> None:
    end = verdict(found, ran_s=252.0, commits=commits)

    assert (end.state, end.reason, end.counted) == (state, reason, counted)


def test_what_an_agent_left_behind_is_named_in_its_reason() -> None:
    end = verdict(facts(exit_code=1, left_behind=("4711 node server.js",)), ran_s=1.0, commits=None)

    assert end.reason.endswith("left behind and ended: 4711 node server.js")


def test_a_killed_worker_that_a_human_asked_for_costs_no_attempt() -> None:
    end = verdict(None, ran_s=1.0, commits=None, asked=AgentState.KILLED)

    assert (end.state, end.counted) == (AgentState.KILLED, False)


def test_equal_failures_have_equal_keys_and_others_do_not() -> None:
    one = verdict(facts(exit_code=1, ended_at=110.0), ran_s=10.0, commits=None)
    same = verdict(facts(exit_code=1, ended_at=999.0), ran_s=899.0, commits=None)
    other = verdict(facts(exit_code=2), ran_s=10.0, commits=None)

    assert one.error_key == same.error_key != other.error_key


def test_the_wait_before_a_retry_doubles_up_to_ten_minutes() -> None:
    rng = random.Random(1)

    for attempts in range(1, 12):
        middle = min(10.0 * 2 ** (attempts - 1), 600.0)
        delay = lifecycle.retry_delay(attempts, 10.0, rng)
        assert 0.7 * middle <= delay <= 1.3 * middle


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (59.9, "59s"), (252, "4m12s"), (7384, "2h03m"), (-3, "0.0s")],
)
def test_durations_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert lifecycle.spoken_duration(seconds) == text


def test_an_exit_file_of_another_shape_is_no_exit_file() -> None:
    assert lifecycle.parse_exit([1, 2]) is None
    assert lifecycle.parse_exit({"ending": 3}) is None


def test_what_an_agent_printed_is_sanitised_where_it_comes_in() -> None:
    parsed = lifecycle.parse_exit({"ending": "exited", "last_lines": ["\x1b]0;owned\x07done"]})

    assert parsed is not None
    assert "\x1b" not in parsed.last_lines[0]
