"""Claims about calling somebody who looks elsewhere."""

from dataclasses import replace

import pytest

from autocoder.core.models import AgentState
from autocoder.tui.attention import what_calls
from autocoder.tui.preferences import Attention, Preferences
from support.attacks import ATTACKS, FORBIDDEN
from support.panel import driven
from support.snapshots import NOW, a_snapshot, an_agent, an_ended

ONE, TWO = an_agent(1), an_agent(2)
BEFORE = a_snapshot(ONE, TWO)
IN_TROUBLE = replace(ONE, problem="web 5175 is not its own")
DONE = an_ended(2, AgentState.COMPLETED, "merged", 1)


def test_a_new_problem_and_an_end_call_and_what_was_known_does_not() -> None:
    after = a_snapshot(IN_TROUBLE, DONE)
    said = what_calls(BEFORE, after)
    assert "a-0f31 needs you (Search todos by tag)" in said
    assert "a-0f32 is done" in said
    assert what_calls(after, after) == ""
    assert what_calls(after, BEFORE) == ""


def test_several_are_counted_not_listed() -> None:
    trouble = (replace(agent, problem="no") for agent in (ONE, TWO))
    assert what_calls(BEFORE, a_snapshot(*trouble)).endswith("2 agents need you")


def test_fifty_that_end_at_once_call_once() -> None:
    fleet = [an_agent(number) for number in range(1, 51)]
    ended = [an_ended(number, AgentState.COMPLETED, "merged", 1) for number in range(1, 51)]
    assert what_calls(a_snapshot(*fleet), a_snapshot(*ended)) == (
        "autocoder todo-app: 50 agents are done"
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_a_call_carries_no_attack_to_the_desktop(name: str) -> None:
    bad = ATTACKS[name]
    hostile = replace(IN_TROUBLE, agent_id=bad, feature=bad)
    said = what_calls(BEFORE, a_snapshot(hostile, project=bad))
    assert said
    assert not [sequence for sequence in FORBIDDEN if sequence in said]
    assert not [char for char in said if ord(char) < 32 or 0x7F <= ord(char) < 0xA0]


@pytest.mark.parametrize(
    ("way", "start"),
    [
        (Attention.NEVER, ""),
        (Attention.BELL, "\x07"),
        (Attention.OSC9, "\x1b]9;autocoder todo-app: a-0f31 needs you"),
    ],
)
async def test_the_terminal_is_told_the_way_the_user_has_chosen(
    way: Attention, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with driven(BEFORE) as run:
        run.panel._preferences = Preferences(attention=way)
        written: list[str] = []
        monkeypatch.setattr(run.panel._driver, "write", written.append)
        monkeypatch.setattr(type(run.panel), "is_headless", False)
        await run.publish(a_snapshot(IN_TROUBLE, TWO))
        await run.publish(a_snapshot(IN_TROUBLE, TWO, paused=True))
        said = "".join(written)
        assert said.startswith(start)
        assert said.count("\x07") == bool(start)


async def test_a_problem_that_comes_and_goes_is_told_once_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [NOW]
    async with driven(BEFORE, clock=lambda: now[0]) as run:
        run.panel._preferences = Preferences(attention=Attention.BELL)
        written: list[str] = []
        monkeypatch.setattr(run.panel._driver, "write", written.append)
        monkeypatch.setattr(type(run.panel), "is_headless", False)
        calls = []
        for at in (NOW, NOW + 59, NOW + 61):
            now[0] = at
            await run.publish(a_snapshot(IN_TROUBLE, TWO))
            calls.append("".join(written).count("\x07"))
            await run.publish(a_snapshot(ONE, TWO, paused=at > NOW))
        assert calls == [1, 1, 2]
