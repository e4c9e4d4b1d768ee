"""Claims about the table of rows: who is selected, what is repainted."""

from collections.abc import Callable
from typing import Any

from textual.app import App, ComposeResult

from autocoder.core.models import Agent
from autocoder.tui import render_agents
from autocoder.tui.palette import THEMES, Tone
from autocoder.tui.widgets.table import Table
from support.snapshots import NOW, an_agent


class Counting(Table[Agent]):
    painted = 0

    def render_line(self, y: int) -> Any:
        self.painted += 1
        return super().render_line(y)


class Host(App[None]):
    CSS_PATH = "../../tui/app.tcss"

    def __init__(self, clock: Callable[[], float] = lambda: NOW) -> None:
        super().__init__()
        self.table = Counting(render_agents.AGENT_COLUMNS, lambda agent: agent.agent_id, clock)
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = THEMES[0].name

    def compose(self) -> ComposeResult:
        yield self.table


AGENTS = [an_agent(number) for number in range(1, 101)]


async def test_the_cursor_stays_with_its_row_when_rows_come_and_go_above_it() -> None:
    host = Host()
    async with host.run_test(size=(120, 12)) as pilot:
        host.table.show(AGENTS[5:50])
        await pilot.press("j", "j", "j")
        chosen = host.table.cursor_key
        host.table.show(AGENTS[:50])
        assert host.table.cursor_key == chosen
        host.table.show([agent for agent in AGENTS if agent.agent_id != AGENTS[0].agent_id])
        assert host.table.cursor_key == chosen


async def test_what_comes_in_first_is_seen_where_the_first_rows_are() -> None:
    host = Host()
    async with host.run_test(size=(120, 12)) as pilot:
        host.table.show(AGENTS[5:50])
        await pilot.press("j", "j")
        host.table.show(AGENTS[:50])
        assert AGENTS[0].agent_id in host.table.render_line(1).text


async def test_the_head_of_a_table_says_where_there_are_more_rows() -> None:
    host = Host()
    async with host.run_test(size=(120, 12)) as pilot:
        host.table.show(AGENTS[:11])
        assert host.table.render_line(0).text.startswith("   ")
        host.table.show(AGENTS[:20])
        assert host.table.render_line(0).text.startswith(" ↓ ")
        await pilot.press("pagedown", "j")
        assert host.table.render_line(0).text.startswith(" ↕ ")
        await pilot.press("G")
        assert host.table.render_line(0).text.startswith(" ↑ ")


async def test_when_its_row_is_gone_the_cursor_stays_where_it_was() -> None:
    host = Host()
    async with host.run_test(size=(120, 12)) as pilot:
        host.table.show(AGENTS[:10])
        await pilot.press("j", "j")
        host.table.show(AGENTS[:2] + AGENTS[3:10])
        assert host.table.cursor_key == AGENTS[3].agent_id
        host.table.show(AGENTS[:1])
        assert host.table.cursor_key == AGENTS[0].agent_id
        host.table.show([])
        assert host.table.cursor_key is None


async def test_the_cursor_is_always_on_the_screen() -> None:
    host = Host()
    async with host.run_test(size=(120, 12)) as pilot:
        host.table.show(AGENTS)
        for keys in ("G", "pageup", "pageup", "k", "g", "pagedown", "j"):
            await pilot.press(keys)
            top = host.table._top
            assert top <= host.table._cursor < top + 11
        await pilot.resize_terminal(120, 6)
        assert host.table._top <= host.table._cursor < host.table._top + 5


async def test_what_nobody_has_sanitised_is_still_not_painted() -> None:
    host = Host()
    async with host.run_test(size=(120, 12)):
        strip = host.table.paint((("a\x1b[2Jb\x9b2Jc\u202ed", Tone.PLAIN),), 10)
        assert strip.text == "abcd      "


async def test_the_same_rows_again_repaint_nothing() -> None:
    host = Host()
    async with host.run_test(size=(160, 30)) as pilot:
        host.table.show(AGENTS)
        await pilot.pause(0.1)
        before = host.table.painted
        for _ in range(5):
            host.table.show(list(AGENTS))
            await pilot.pause(0.02)
        assert host.table.painted == before


async def test_one_changed_row_repaints_one_line() -> None:
    host = Host()
    async with host.run_test(size=(160, 30)) as pilot:
        host.table.show(AGENTS)
        await pilot.pause(0.1)
        before = host.table.painted
        changed = list(AGENTS)
        changed[3] = an_agent(4, last_line="something new")
        host.table.show(changed)
        await pilot.pause(0.1)
        assert host.table.painted == before + 1


async def test_marks_go_with_their_rows() -> None:
    host = Host()
    async with host.run_test(size=(160, 30)):
        host.table.show(AGENTS[:5])
        host.table.mark([AGENTS[1].agent_id, AGENTS[3].agent_id])
        assert [agent.agent_id for agent in host.table.targets] == [
            AGENTS[1].agent_id,
            AGENTS[3].agent_id,
        ]
        host.table.show(AGENTS[:3])
        assert host.table.targets == [AGENTS[1]]


async def test_marks_of_rows_a_filter_hides_stay_and_nothing_is_done_to_them() -> None:
    host = Host()
    async with host.run_test(size=(160, 30)):
        host.table.show(AGENTS[:5])
        host.table.mark([AGENTS[1].agent_id, AGENTS[3].agent_id])
        host.table.show(AGENTS[:3], hidden={AGENTS[3].agent_id, AGENTS[4].agent_id})
        assert host.table.targets == [AGENTS[1]]
        assert host.table.marks_shown == {AGENTS[1].agent_id}
        host.table.show(AGENTS[2:3], hidden={AGENTS[3].agent_id})
        assert host.table.targets == [AGENTS[2]]
        host.table.show(AGENTS[:5])
        assert host.table.targets == [AGENTS[3]]


async def test_a_filter_that_is_widened_again_gives_the_cursor_back_to_its_row() -> None:
    host = Host()
    async with host.run_test(size=(160, 30)) as pilot:
        host.table.show(AGENTS[:9])
        await pilot.press("j", "j", "j")
        chosen = AGENTS[3].agent_id
        host.table.show(AGENTS[5:7], hidden={chosen}, refiltered=True)
        assert host.table.cursor_key != chosen
        # It comes back by itself, and the cursor is where somebody may be about to press a key.
        host.table.show(AGENTS[3:7])
        assert host.table.cursor_key != chosen
        host.table.show(AGENTS[:9], refiltered=True)
        assert host.table.cursor_key == chosen


async def test_sorting_keeps_the_cursor_on_its_row_at_its_place_among_the_marks() -> None:
    host = Host()
    async with host.run_test(size=(160, 30)) as pilot:
        host.table.show(AGENTS[:9], hidden={AGENTS[20].agent_id})
        await pilot.press("j", "j")
        chosen = host.table.cursor_key
        host.table.mark([AGENTS[5].agent_id])
        for key in ("s", "s", "S", "s"):
            await pilot.press(key)
            assert host.table.cursor_key == chosen
            assert host.table.targets == [AGENTS[5]]
