"""Claims about the main screen: every key does what the table of keys says."""

from dataclasses import replace
from pathlib import Path

import pytest
from textual.strip import Strip

from autocoder.core.commands import (
    ExpandPool,
    KillAgent,
    Pause,
    RecoverAgent,
    Resume,
    SpawnAgent,
    StopAgent,
    StopAll,
)
from autocoder.core.errors import ProjectLocked
from autocoder.core.models import AgentState, FeatureCounts, Notice, Role, Severity
from autocoder.tui import keys
from autocoder.tui.screens.main import MainScreen
from autocoder.tui.spans import Line
from autocoder.tui.widgets.header import Header
from autocoder.tui.widgets.notice_line import NoticeLine
from autocoder.tui.widgets.painted import Painted
from support.panel import driven
from support.snapshots import NOW, a_busy_project, a_snapshot, an_agent, an_empty_project, an_ended

ONE, TWO = an_agent(1), an_agent(2, dirty_files=2)
CRASHED = an_ended(3, AgentState.CRASHED, "killed by signal 9 after 4m12s", 62, feature_id=1)
FLEET = a_snapshot(ONE, TWO, CRASHED)


async def test_n_spawns_on_the_next_feature() -> None:
    async with driven(FLEET) as run:
        await run.press("n")
        assert run.asked == [SpawnAgent()]


@pytest.mark.parametrize(("key", "command"), [("x", StopAgent), ("X", KillAgent)])
@pytest.mark.parametrize("yes", ["y", "the same key"])
async def test_ending_work_asks_first_and_names_its_target(
    key: str, command: type[StopAgent | KillAgent], yes: str
) -> None:
    async with driven(FLEET) as run:
        await run.press("j", key)
        await run.shows("2 uncommitted files stay in the worktree")
        assert f"    {TWO.agent_id}  {TWO.feature}" in run.screen
        assert run.asked == []
        await run.press("y" if yes == "y" else key)
        assert run.asked == [command(TWO.agent_id)]


@pytest.mark.parametrize("key", ["x", "X", "Q"])
async def test_enter_and_escape_never_confirm(key: str) -> None:
    async with driven(FLEET) as run:
        await run.press(key)
        await run.press("enter", "enter")
        assert run.asked == []
        await run.press("escape")
        assert run.asked == []
        assert isinstance(run.panel.screen, MainScreen)


async def test_the_target_stays_the_same_while_the_question_is_open() -> None:
    async with driven(FLEET) as run:
        await run.press("X")
        await run.publish(a_snapshot(TWO, CRASHED))
        await run.press("y")
        assert run.asked == [KillAgent(ONE.agent_id)]


async def test_an_agent_that_has_ended_cannot_be_stopped_and_the_panel_says_so() -> None:
    async with driven(FLEET) as run:
        await run.press("G", "x")
        await run.shows("has ended")
        assert run.asked == []


async def test_recovering_the_dead_needs_no_question_and_the_living_does() -> None:
    async with driven(FLEET) as run:
        await run.press("G", "r")
        assert run.asked == [RecoverAgent(CRASHED.agent_id)]
        await run.press("g", "r")
        await run.shows("killing what still lives")
        await run.press("r")
        assert run.asked[1:] == [RecoverAgent(ONE.agent_id)]


async def test_e_extends_the_pools_by_the_chosen_amount() -> None:
    async with driven(FLEET) as run:
        await run.press("e")
        await run.shows("Extend the api and web pools")
        await run.press("up", "enter")
        assert run.asked == [ExpandPool(Role.API, 200), ExpandPool(Role.WEB, 200)]


async def test_e_can_extend_one_pool_alone_or_none() -> None:
    async with driven(FLEET) as run:
        await run.press("e", "right")
        await run.shows("Extend the api pool")
        await run.press("escape")
        assert run.asked == []
        await run.press("e", "right", "right", "enter")
        assert run.asked == [ExpandPool(Role.WEB, 100)]


async def test_p_pauses_and_once_paused_resumes() -> None:
    async with driven(FLEET) as run:
        await run.press("p")
        await run.publish(replace(FLEET, paused=True))
        await run.shows("paused")
        await run.press("p")
        assert run.asked == [Pause(), Resume()]


async def test_q_leaves_and_the_agents_keep_running() -> None:
    async with driven(FLEET) as run:
        await run.press("q")
        departure = run.panel.return_value
        assert departure is not None
        assert departure.live == 2
        assert run.asked == []


async def test_capital_q_stops_all_and_leaves_when_they_have_ended() -> None:
    async with driven(FLEET) as run:
        await run.press("Q")
        await run.shows("Stop all 2 agents and quit?")
        await run.press("Q")
        assert run.asked == [StopAll()]
        await run.shows("stopping 2 agents")
        assert run.panel.return_value is None
        run.engine.publish(a_snapshot(CRASHED))
        await run.until(lambda: run.panel.return_value is not None)


async def test_a_silent_fleet_is_repainted_once_a_minute_and_not_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    painted: list[str] = []
    now = [NOW]
    notice = Notice(1, NOW - 300, Severity.WARNING, "a-0f31", "something to look at")
    fleet = [
        an_agent(number, started_at=NOW - 7200 - number, last_ping=NOW + 60)
        for number in range(1, 101)
    ]
    async with driven(a_snapshot(*fleet, notices=(notice,)), clock=lambda: now[0]) as run:
        screen = run.panel.screen
        assert isinstance(screen, MainScreen)
        grid, header = screen.grid, screen.query_one(Header)
        notices = screen.query_one(NoticeLine)
        paint = Painted.paint

        def counting(self: Painted, line: Line, width: int, row: str = "") -> Strip:
            painted.append(type(self).__name__)
            return paint(self, line, width, row)

        monkeypatch.setattr(Painted, "paint", counting)

        async def a_second_later() -> None:
            now[0] += 1
            grid.update_lines()
            header.tell()
            notices.tell()
            await run.pilot.pause()

        for _ in range(39):  # until 14:13:59
            await a_second_later()
        assert painted == []
        await a_second_later()
        assert {"Table", "Header", "NoticeLine"} <= set(painted)


async def test_the_filter_narrows_while_it_is_typed_and_escape_clears_it() -> None:
    async with driven(FLEET) as run:
        await run.press("slash")
        await run.type("state:crash")
        await run.shows("1 of 3")
        await run.press("enter")
        assert run.panel.focused is not None
        assert run.panel.focused.id == "grid"
        assert ONE.agent_id not in run.screen
        await run.press("escape")
        await run.shows(ONE.agent_id)


async def test_keys_typed_into_the_filter_do_nothing_else() -> None:
    async with driven(FLEET) as run:
        await run.press("slash")
        await run.shows("⏎ keeps  esc clears")
        await run.type("nxXqQ")
        assert run.asked == []
        assert run.panel.return_value is None
        await run.shows("No agent matches")


async def test_help_lists_every_key_of_the_table() -> None:
    async with driven(FLEET, size=(110, 180)) as run:
        await run.press("question_mark")
        await run.shows("Glyphs")
        for binding in (each for screen in (*keys.SCREENS, keys.FIXED) for each in screen):
            assert binding.tooltip in run.screen
        await run.press("escape")
        assert isinstance(run.panel.screen, MainScreen)


async def test_the_log_of_the_selected_agent_is_shown_and_followed(tmp_path: Path) -> None:
    logs = [tmp_path / "one", tmp_path / "two"]
    for path in logs:
        path.write_text(f"this is {path.name}\n")
    one, two = (
        replace(agent, log_path=str(path)) for agent, path in zip((ONE, TWO), logs, strict=True)
    )
    async with driven(a_snapshot(one, two)) as run:
        await run.shows("this is one")
        await run.press("j")
        await run.shows("this is two")
        with logs[1].open("a") as file:
            file.write("and more of it\n")
        await run.shows("and more of it")
        assert "this is one" not in run.screen


async def test_scrolling_up_stops_following_and_the_end_takes_it_up_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number:03}\n" for number in range(200)))
    async with driven(a_snapshot(replace(ONE, log_path=str(path)))) as run:
        await run.shows("line 199")
        await run.press("enter", "g")
        await run.shows("line 000")
        with path.open("a") as file:
            file.write("line 200\n")
        await run.press("j")
        assert "line 200" not in run.screen
        await run.press("G")
        await run.shows("line 200")


async def test_long_lines_are_cut_until_they_are_wrapped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("x" * 300 + "end\n")
    async with driven(a_snapshot(replace(ONE, log_path=str(path)))) as run:
        await run.shows("xxxx")
        assert "xend" not in run.screen
        await run.press("l", "w")
        await run.shows("xend")


async def test_on_a_small_screen_enter_gives_the_log_the_grids_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("hello from the log\n")
    async with driven(a_snapshot(replace(ONE, log_path=str(path))), size=(80, 24)) as run:
        assert "hello" not in run.screen
        await run.press("enter")
        await run.shows("hello from the log")
        assert "worktree" not in run.screen
        await run.press("escape")
        await run.shows("worktree")


async def test_z_gives_the_focused_pane_the_screen_and_takes_it_back() -> None:
    async with driven(a_busy_project()) as run:
        await run.press("z")
        assert not run.panel.screen.query_one("#log").display
        await run.press("z")
        assert run.panel.screen.query_one("#log").display
        await run.press("enter", "z")
        assert not run.panel.screen.query_one("#grid").display
        await run.press("escape")
        assert run.panel.screen.query_one("#grid").display


async def test_too_small_a_terminal_is_told_what_is_needed_and_draws_again() -> None:
    async with driven(FLEET, size=(40, 10)) as run:
        await run.shows("needs 60x16")
        await run.pilot.resize_terminal(100, 30)
        await run.shows(ONE.agent_id)


async def test_the_newest_grave_notice_is_on_the_line_and_news_goes_by_itself() -> None:
    now = [NOW]
    notices = (
        Notice(1, NOW - 3, Severity.WARNING, "port 5004", "postgres listens on it"),
        Notice(2, NOW - 1, Severity.INFO, "a-1", "merged"),
    )
    async with driven(replace(FLEET, notices=notices), clock=lambda: now[0]) as run:
        await run.shows("postgres listens on it")
        await run.publish(replace(FLEET, notices=notices[1:]))
        await run.shows("merged")
        now[0] += 120
        await run.until(lambda: "merged" not in run.screen)


async def test_an_engine_that_cannot_start_ends_the_panel_with_its_error() -> None:
    async with driven(error=ProjectLocked("pid 7 runs this project")) as run:
        await run.until(lambda: run.panel.return_value is not None)
        departure = run.panel.return_value
        assert departure is not None
        assert isinstance(departure.error, ProjectLocked)


async def test_a_key_pressed_before_the_engine_is_open_is_not_lost() -> None:
    async with driven() as run:
        await run.press("n")
        await run.until(lambda: run.asked == [SpawnAgent()])


async def test_a_read_only_panel_changes_nothing() -> None:
    async with driven(FLEET, read_only=True) as run:
        await run.press("n", "x", "X", "r", "e", "p", "Q", "y", "enter")
        assert run.asked == []
        assert isinstance(run.panel.screen, MainScreen)
        assert "spawn" not in run.screen


async def test_a_read_only_panel_says_so_and_what_its_missing_keys_would_not_do() -> None:
    async with driven(FLEET, read_only=True) as run:
        assert " read-only " in run.screen.splitlines()[2]
        await run.press("X")
        await run.shows("this panel is read-only")
        await run.press("enter", "slash", "X")
        assert "read-only" not in run.screen.splitlines()[-2]


async def test_a_problem_that_the_filter_hides_is_not_denied() -> None:
    async with driven(a_snapshot(replace(ONE, problem="web 5175 is not its own"), TWO)) as run:
        await run.press("slash")
        await run.type(TWO.agent_id)
        await run.press("enter", "w")
        await run.shows("the filter hides 1 problem; esc clears it")
        await run.press("escape", "w")
        screen = run.panel.screen
        assert isinstance(screen, MainScreen)
        await run.until(lambda: screen.grid.cursor_key == ONE.agent_id)


async def test_while_a_filter_is_typed_the_footer_offers_no_letter() -> None:
    async with driven(FLEET) as run:
        await run.press("slash", "a")
        await run.until(lambda: "/ filter" not in run.screen)


@pytest.mark.parametrize("key", ["i", "d", "o", "x", "r", "m", "t", "y", "L", "dollar_sign", "E"])
async def test_a_key_for_an_agent_says_so_where_there_is_none(key: str) -> None:
    async with driven(an_empty_project()) as run:
        await run.press(key)
        assert isinstance(run.panel.screen, MainScreen)
        assert run.screen.splitlines()[-2].strip()


async def test_every_empty_grid_says_why_and_what_next() -> None:
    async with driven(an_empty_project()) as run:
        await run.shows("The backlog is empty")
        await run.publish(a_snapshot())
        await run.shows("No agents")
        await run.publish(a_snapshot(features=FeatureCounts(total=2, done=2)))
        await run.shows("All features are done")


async def test_the_narrowest_screen_keeps_state_agent_worktree_pid_and_both_ports() -> None:
    busy = a_busy_project()
    async with driven(busy, size=(60, 32)) as run:
        await run.shows("a-0f38")
        row = next(line for line in run.screen.splitlines() if " a-0f38 " in line)
        for said in ("● active", "…/a-0f38", "48288", "5007 ●", "5180 ●"):
            assert said in row


@pytest.mark.parametrize("width", [60, 80, 140])
async def test_a_stopped_agent_whose_feature_waits_for_a_human_says_so_and_r_goes_on(
    width: int,
) -> None:
    held = an_ended(4, AgentState.KILLED, "stopped on request after 47s", 9, held=True)
    fleet = a_snapshot(ONE, held, features=FeatureCounts(12, 1, 1, pending=10, held=1))
    async with driven(fleet, size=(width, 32)) as run:
        header, row = run.screen.splitlines()[0], row_of(held.agent_id, run.screen)
        assert "▪ 9" in header
        assert "‖ 1" in header
        assert "‖ held" in row
        assert "r goes on with it" in row or width < 140
        await run.press("G")
        await run.shows("r goes on with it")
        await run.press("G", "r")
        assert run.asked == [RecoverAgent(held.agent_id)]


async def test_what_needs_a_human_is_first_and_the_others_stay_in_their_order() -> None:
    wrong = replace(TWO, problem="api 5001: nothing answers")
    crashed = replace(CRASHED, feature_id=3)
    async with driven(a_snapshot(ONE, wrong, crashed)) as run:
        screen = run.panel.screen
        assert isinstance(screen, MainScreen)
        assert list(screen.grid.rows) == [wrong, crashed, ONE]


async def test_marks_gather_over_several_filters_and_the_asterisk_takes_back_what_is_shown() -> (
    None
):
    async with driven(FLEET) as run:
        for words in ("state:active", "state:crashed"):
            await run.press("slash")
            await run.type(words)
            await run.press("enter", "asterisk")
        await run.shows("1 marked  2 marked but hidden: left alone")
        await run.press("asterisk", "escape")
        await run.shows("2 marked")
        assert "hidden" not in run.screen
        await run.press("X")
        await run.shows("Kill 2 agents?")


async def test_the_cursor_comes_back_to_its_agent_when_a_filter_is_taken_back() -> None:
    async with driven(FLEET) as run:
        await run.press("j", "slash")
        await run.type("state:crashed")
        await run.shows("1 of 3")
        await run.press("escape", "X")
        await run.shows("Kill 1 agent?")
        await run.press("y")
        assert run.asked == [KillAgent(TWO.agent_id)]


async def test_what_a_narrow_grid_has_no_room_for_is_said_of_the_agent_under_the_cursor() -> None:
    async with driven(FLEET, size=(80, 24)) as run:
        await run.press("G")
        await run.shows(f"── {CRASHED.agent_id}  {CRASHED.reason} ──")
        await run.press("g")
        await run.shows(f"── {ONE.agent_id}  {ONE.last_line} ──")
        await run.pilot.resize_terminal(160, 24)
        await run.until(lambda: f"── {ONE.agent_id}" not in run.screen)


async def test_at_80_columns_the_footer_has_the_log_and_the_ports() -> None:
    async with driven(FLEET, size=(80, 24)) as run:
        footer = run.screen.splitlines()[-1]
        for key in ("x stop", "r recover", "⏎ log", "P ports", "? help", "q quit"):
            assert key in footer


async def test_a_notice_that_is_cut_says_where_the_rest_of_it_is() -> None:
    notice = Notice(1, NOW - 3, Severity.WARNING, "port 5004", "postgres listens on it; " * 9)
    async with driven(replace(FLEET, notices=(notice,)), size=(80, 24)) as run:
        await run.shows("M reads on")
        await run.press("M")
        await run.shows("esc back")


def row_of(agent_id: str, screen: str) -> str:
    return next(line for line in screen.splitlines() if f" {agent_id} " in line)
