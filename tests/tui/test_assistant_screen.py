"""Claims about the chat with the assistant."""

import gc

import pytest

from autocoder.core.assistant import Said
from autocoder.core.events import Finished, Outcome, Retry, Text, ToolEnd, ToolStart
from autocoder.tui.assistant_thread import AssistantThread
from autocoder.tui.render_assistant import By, Part, assistant_lines, take_in
from autocoder.tui.screens.assistant import AssistantScreen
from autocoder.tui.screens.main import MainScreen
from autocoder.tui.spans import plain, width_of, wrapped
from support.assistance import ScriptedAssistance
from support.attacks import ATTACKS, FORBIDDEN
from support.panel import driven
from support.snapshots import NOW, a_snapshot, an_agent
from support.waiting import wait_until

ONE, TWO = an_agent(1), an_agent(2)
FLEET = a_snapshot(ONE, TWO)
ANSWER = (
    ToolStart("1", "Read", "api/search.py"),
    Text("It serves "),
    Text("todos by tag."),
)


async def test_an_answer_comes_with_its_tools_the_agents_ports_and_the_cost() -> None:
    assistance = ScriptedAssistance(*ANSWER)
    async with driven(FLEET, assistance=assistance) as run:
        await run.press("j", "a")
        await run.shows("api 5001  web 5174")
        assert TWO.feature in run.screen
        await run.type("what is it")
        await run.press("enter")
        await run.shows("It serves todos by tag.")
        await run.shows("$0.42")
        assert "Read  api/search.py" in run.screen
        assert "▶ what is it" in run.screen
        assert assistance.asked == ["what is it"]
        assert assistance.about == [TWO.agent_id]
        await run.press("escape")
        assert isinstance(run.panel.screen, MainScreen)
        await run.until(lambda: assistance.closed == 1)


def test_a_thread_stopped_by_its_screen_and_by_the_panel_closes_its_conversation_once() -> None:
    for _ in range(50):
        assistance = ScriptedAssistance(*ANSWER)
        thread = AssistantThread(assistance, ONE)
        opened: list[object] = []
        thread.open(opened.append)
        wait_until(lambda: bool(opened))  # noqa: B023
        thread.stop()
        thread.stop()
        thread.join()
        assert assistance.closed == 1
    gc.collect()  # a task that was never run would be told of here, and fail the test


async def test_what_was_said_before_is_still_there() -> None:
    said = (Said(NOW, "human", "is it done?"), Said(NOW, "assistant", "almost", cost_usd=0.1))
    async with driven(FLEET, assistance=ScriptedAssistance(*ANSWER, said=said)) as run:
        await run.press("a")
        await run.shows("▶ is it done?")
        assert "almost" in run.screen
        assert "$0.10" in run.screen


async def test_escape_first_ends_the_answer_and_then_leaves() -> None:
    assistance = ScriptedAssistance(Text("well, "), ends=False)
    async with driven(FLEET, assistance=assistance) as run:
        await run.press("a")
        await run.type("hm")
        await run.press("enter")
        await run.shows("◍ answering")
        await run.press("escape")
        await run.shows("interrupted")
        await run.until(lambda: "answering" not in run.screen)
        assert isinstance(run.panel.screen, AssistantScreen)
        await run.press("escape")
        assert isinstance(run.panel.screen, MainScreen)


async def test_without_the_program_it_says_how_to_get_it() -> None:
    async with driven(FLEET, assistance=ScriptedAssistance()) as run:
        await run.press("a")
        await run.shows("needs the Claude Agent SDK")
        assert "pip install it" in run.screen


async def test_a_read_only_panel_has_no_assistant() -> None:
    async with driven(FLEET, assistance=ScriptedAssistance(*ANSWER), read_only=True) as run:
        await run.press("a")
        assert isinstance(run.panel.screen, MainScreen)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_a_model_says_or_runs_is_more_than_text(name: str) -> None:
    bad = ATTACKS[name]
    parts: list[Part] = []
    events = (
        Text(bad[: len(bad) // 2]),
        Text(bad[len(bad) // 2 :]),
        ToolStart("1", bad, bad),
        ToolEnd("1", False, bad),
        Retry(bad),
        Finished(Outcome.FAILED, bad),
    )
    for event in events:
        take_in(parts, event)
    said = "".join(map(plain, assistant_lines(parts)))
    assert not [sequence for sequence in FORBIDDEN if sequence in said]
    assert not [char for char in said if ord(char) < 32 or 0x7F <= ord(char) < 0xA0]


def test_long_lines_are_wrapped_between_words_and_nothing_is_lost() -> None:
    words = " ".join(f"word{number}" for number in range(40)) + " " + "x" * 90 + " 你好" * 20
    part = Part(By.ASSISTANT, words)
    line = assistant_lines([part])[1]
    rows = wrapped(line, 30)
    assert max(map(width_of, rows)) <= 30
    assert "".join(map(plain, rows)).replace(" ", "") == plain(line).replace(" ", "")
    assert all(plain(row).startswith(" ") for row in rows)
