"""Claims about telling a running agent something."""

from autocoder.core.commands import TellAgent
from autocoder.core.models import AgentState
from autocoder.tui.screens.main import MainScreen
from support.panel import driven
from support.snapshots import a_snapshot, an_agent, an_ended

ONE, TWO = an_agent(1), an_agent(2)
CRASHED = an_ended(3, AgentState.CRASHED, "killed by signal 9", 62, feature_id=1)
FLEET = a_snapshot(ONE, TWO, CRASHED)


async def test_what_is_typed_reaches_the_agent_under_the_cursor_line_by_line() -> None:
    async with driven(FLEET) as run:
        await run.press("j", "t")
        await run.shows("Tell 1 agent")
        assert TWO.feature in run.screen
        await run.type("use sqlite")
        await run.press("ctrl+j")
        await run.type("not json")
        await run.press("enter")
        assert run.asked == [TellAgent(TWO.agent_id, "use sqlite\nnot json")]
        assert isinstance(run.panel.screen, MainScreen)


async def test_of_marked_agents_all_that_live_are_told() -> None:
    async with driven(FLEET) as run:
        await run.press("asterisk", "t")
        await run.shows("Tell 2 agents")
        await run.type("stop soon")
        await run.press("enter")
        assert run.asked == [TellAgent(each.agent_id, "stop soon") for each in (ONE, TWO)]


async def test_nothing_is_told_by_nothing_typed_or_by_escape() -> None:
    async with driven(FLEET) as run:
        await run.press("t", "enter")
        await run.shows("Tell 1 agent")
        await run.type("never mind")
        await run.press("escape")
        assert run.asked == []
        await run.press("G", "t")
        await run.shows("here is none")


async def test_a_read_only_panel_tells_nobody_anything() -> None:
    async with driven(FLEET, read_only=True) as run:
        await run.press("t")
        assert isinstance(run.panel.screen, MainScreen)
