"""Claims about the views beside the main screen, and about choosing among many agents."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core.commands import (
    ExpandPool,
    KillAgent,
    MergeFeature,
    RecoverAll,
    RetryFeature,
    SpawnAgent,
    StopAgent,
)
from autocoder.core.models import (
    Agent,
    AgentState,
    Feature,
    FeatureStatus,
    PortRange,
    RecoveryPlan,
    Role,
    Severity,
)
from autocoder.core.questions import (
    PastEvent,
    Questions,
)
from autocoder.tui import outside
from autocoder.tui.render_answers import diff_page, events_page
from autocoder.tui.screens.confirm import ConfirmScreen
from autocoder.tui.screens.main import MainScreen
from autocoder.tui.spans import plain
from autocoder.tui.widgets.log_wall import LogWall
from support.answers import Answers
from support.attacks import ATTACKS, FORBIDDEN
from support.panel import Driven, driven
from support.snapshots import (
    NOW,
    a_busy_project,
    a_snapshot,
    an_agent,
    an_empty_project,
    an_ended,
)

ONE, TWO, THREE = an_agent(1), an_agent(2), an_agent(3, problem="web 5175 is not its own")
CRASHED = an_ended(4, AgentState.CRASHED, "killed by signal 9", 62)
FLEET = a_snapshot(ONE, TWO, THREE, CRASHED)


def cursor(run: Driven) -> str | None:
    screen = run.panel.screen
    assert isinstance(screen, MainScreen)
    return screen.grid.cursor_key


# -- choosing


async def test_who_needs_a_human_stands_first_and_the_cursor_stays_on_its_agent() -> None:
    async with driven(a_snapshot(ONE, TWO)) as run:
        screen = run.panel.screen
        assert isinstance(screen, MainScreen)
        await run.publish(a_snapshot(ONE, replace(TWO, problem="web 5174 is not its own")))
        await run.until(lambda: screen.grid.rows[0].agent_id == TWO.agent_id)
        assert cursor(run) == ONE.agent_id


async def test_keys_act_on_all_marked_agents_and_name_them() -> None:
    async with driven(FLEET) as run:
        await run.press("space", "j", "space", "X")
        await run.shows("Kill 2 agents?")
        assert ONE.agent_id in run.screen
        assert THREE.agent_id in run.screen
        await run.press("y")
        assert run.asked == [KillAgent(THREE.agent_id), KillAgent(ONE.agent_id)]


async def test_of_marked_agents_only_the_living_are_stopped() -> None:
    async with driven(FLEET) as run:
        await run.press("asterisk", "x")
        await run.shows("Stop 3 agents?")
        await run.press("x")
        assert run.asked == [StopAgent(agent.agent_id) for agent in (THREE, ONE, TWO)]


async def test_escape_takes_the_marks_away() -> None:
    async with driven(FLEET) as run:
        await run.press("asterisk")
        await run.shows("4 marked")
        await run.press("escape")
        assert "marked" not in run.screen


async def test_problems_only_and_the_way_from_one_to_the_next() -> None:
    async with driven(FLEET) as run:
        await run.press("G", "w")
        assert cursor(run) == THREE.agent_id
        await run.press("w")
        assert cursor(run) == CRASHED.agent_id
        await run.press("w")
        assert cursor(run) == THREE.agent_id
        await run.press("exclamation_mark")
        await run.shows("2 of 4")
        assert ONE.agent_id not in run.screen
        await run.press("escape")
        await run.shows(ONE.agent_id)


async def test_sorting_goes_through_the_columns_and_back_to_the_given_order() -> None:
    async with driven(FLEET, size=(140, 36)) as run:
        await run.press("g", "s")
        screen = run.panel.screen
        assert isinstance(screen, MainScreen)
        assert screen.grid.rows[0] == THREE
        await run.press("S")
        assert screen.grid.rows[-1] == THREE
        await run.press("S")
        for _ in screen.grid.columns:
            if screen.grid._sorted_by:
                await run.press("s")
        assert list(screen.grid.rows) == [THREE, CRASHED, ONE, TWO]


async def test_rows_without_a_value_sort_last_either_way() -> None:
    async with driven(FLEET, size=(140, 36)) as run:
        screen = run.panel.screen
        assert isinstance(screen, MainScreen)
        while screen.grid._sorted_by != "pid":
            await run.press("s")
        assert screen.grid.rows[-1] == CRASHED
        await run.press("S")
        assert list(screen.grid.rows) == [THREE, TWO, ONE, CRASHED]


# -- spawning, recovering, merging


async def test_what_is_typed_becomes_a_feature_with_its_details() -> None:
    async with driven(FLEET) as run:
        await run.press("N")
        await run.shows("Spawn an agent on a new feature")
        await run.type("Fix login")
        await run.press("tab")
        await run.type("it fails")
        await run.press("tab", "enter")
        assert run.asked == [SpawnAgent(task="Fix login\nit fails")]


async def test_an_empty_name_spawns_nothing() -> None:
    async with driven(FLEET) as run:
        await run.press("N", "enter", "space", "enter", "escape")
        assert run.asked == []


async def test_recovering_all_shows_four_lists_before_it_does_anything() -> None:
    plan = RecoveryPlan(("a-0f31",), (CRASHED.agent_id,), (5009, 5182), (16,))
    async with driven(replace(a_busy_project(), recovery=plan)) as run:
        await run.press("R")
        await run.shows("Recover all of this?")
        for said in ("adopt", "go on with", CRASHED.agent_id, "5182", "feature 16"):
            assert said in run.screen
        await run.press("enter")
        assert run.asked == []
        await run.press("R")
        assert run.asked == [RecoverAll()]


async def test_where_nothing_is_to_recover_the_panel_says_so() -> None:
    async with driven(FLEET) as run:
        await run.press("R")
        await run.shows("there is nothing")
        assert run.asked == []


async def test_m_asks_and_merges_those_of_the_chosen_that_are_finished() -> None:
    fleet = replace(FLEET, backlog=(finished(3), finished(4, variant_of=3), working(5)))
    async with driven(fleet) as run:
        await run.press("asterisk", "m")
        await run.shows("Merge 2 branches?")
        for said in ("feat/3-it into main", "feat/4-it into", "other variants are then not"):
            assert said in run.screen
        await run.press("enter", "escape")
        assert run.asked == []
        await run.press("m", "m")
        assert run.asked == [MergeFeature(3), MergeFeature(4)]


async def test_where_nothing_is_finished_m_says_so() -> None:
    async with driven(replace(FLEET, backlog=(working(3),))) as run:
        await run.press("m")
        await run.shows("m merges a finished branch; here is none to merge")
        await run.press("F", "m")
        await run.shows("m merges a finished branch; here is none to merge")
        assert run.asked == []


def finished(number: int, **changes: object) -> Feature:
    ready = Feature(number, "It", status=FeatureStatus.DONE, branch_name=f"feat/{number}-it")
    return replace(ready, review_status="READY_FOR_VERIFICATION", **changes)  # type: ignore[arg-type]


def working(number: int) -> Feature:
    return Feature(number, "It", status=FeatureStatus.IN_PROGRESS)


# -- ports


async def test_the_ports_view_says_who_holds_and_who_listens() -> None:
    async with driven(a_busy_project(), size=(140, 40)) as run:
        await run.press("P")
        await run.shows("ports of")
        rows = {line.split()[0]: line for line in run.screen.splitlines() if "api" in line[:20]}
        assert "812 postgres" in rows["5013"]
        assert "quarantined" in rows["5013"]
        assert "cooling 12s" in rows["5012"]
        assert "own  48224 python -m api" in run.screen
        assert "foreign  31870 node" in run.screen


async def test_the_ports_view_filters_extends_and_leads_to_the_agent() -> None:
    async with driven(a_busy_project(), size=(140, 40)) as run:
        await run.press("P", "slash")
        await run.type("0f33 web")
        await run.until(lambda: "a-0f31" not in run.screen)
        await run.press("enter", "e", "right", "enter")
        assert run.asked == [ExpandPool(Role.API, 100)]
        await run.press("enter")
        assert cursor(run) == "a-0f33"


async def test_ports_of_another_project_are_shown_as_its_own() -> None:
    busy = a_busy_project()
    other = replace(busy.leases[0], port=5050, holder="a-1", project="/home/dev/shop")
    async with driven(replace(busy, leases=(*busy.leases, other)), size=(140, 48)) as run:
        await run.press("P")
        await run.shows("a-1 shop")


# -- features


async def test_the_features_view_spawns_retries_and_merges() -> None:
    busy = a_busy_project()
    first, *others = busy.backlog
    backlog = (first, finished(16), *others[1:])
    async with driven(replace(busy, backlog=backlog), size=(140, 40)) as run:
        await run.press("F")
        await run.shows("backlog")
        await run.press("j", "n", "r", "m")
        await run.shows("feat/16-it into main")
        await run.press("y")
        assert run.asked == [SpawnAgent(16), RetryFeature(16), MergeFeature(16)]
        await run.press("enter")
        await run.shows("feature 16")


# -- the wall


async def test_the_wall_shows_every_live_log_and_leads_to_one(tmp_path: Path) -> None:
    agents = []
    for agent in (ONE, TWO, THREE):
        path = tmp_path / agent.agent_id
        path.write_text(f"this is {agent.agent_id}\n")
        agents.append(replace(agent, log_path=str(path)))
    async with driven(a_snapshot(*agents, CRASHED), size=(140, 40)) as run:
        await run.press("v")
        for agent in agents:
            await run.shows(f"this is {agent.agent_id}")
        with Path(agents[1].log_path).open("a") as file:
            file.write("one more line\n")
        await run.shows("one more line")
        await run.press("tab", "enter")
        assert cursor(run) == TWO.agent_id


async def test_the_wall_shows_marked_agents_when_there_are_any() -> None:
    async with driven(FLEET, size=(140, 40)) as run:
        await run.press("G", "space", "v")
        wall = run.panel.screen.query_one(LogWall)
        await run.until(lambda: [agent.agent_id for agent in wall.agents] == [TWO.agent_id])


async def test_the_wall_says_how_many_do_not_fit() -> None:
    fleet = a_snapshot(*(an_agent(number) for number in range(1, 30)))
    async with driven(fleet, size=(80, 24)) as run:
        await run.press("v")
        await run.shows("more do not fit")


# -- the log


@pytest.fixture
def with_log(tmp_path: Path) -> Agent:
    path = tmp_path / "log"
    lines = [f"line {number:03} {'needle' if number % 50 == 7 else ''}\n" for number in range(200)]
    path.write_text("".join(lines))
    path.with_name("log.times").write_text(f"0 {NOW}\n{len(lines[0]) * 2} {NOW + 60}\n")
    return replace(ONE, log_path=str(path))


async def test_a_search_goes_to_the_last_match_and_on_from_there(with_log: Agent) -> None:
    async with driven(a_snapshot(with_log)) as run:
        await run.shows("line 199")
        await run.press("enter", "slash")
        await run.type("NEEDLE")
        await run.press("enter")
        await run.shows("line 157 needle")
        await run.press("N")
        await run.shows("line 107 needle")
        await run.press("n")
        await run.shows("line 157 needle")
        assert run.asked == []


async def test_a_search_that_finds_nothing_says_so(with_log: Agent) -> None:
    async with driven(a_snapshot(with_log)) as run:
        await run.shows("line 199")
        await run.press("enter", "slash")
        await run.type("haystack")
        await run.press("enter")
        await run.shows("is nowhere in this log")


async def test_times_stand_before_the_lines_they_belong_to(with_log: Agent) -> None:
    async with driven(a_snapshot(with_log)) as run:
        await run.shows("line 199")
        await run.press("enter", "t", "g")
        await run.shows("14:13:20  line 000")
        await run.shows("14:14:20  line 005")


# -- looking closer


@pytest.fixture
def answers() -> Questions:
    return Answers(refused=TWO)


async def test_details_show_tree_ports_and_names_but_no_secret(answers: Questions) -> None:
    async with driven(FLEET, questions=answers, size=(120, 60)) as run:
        await run.press("i")
        await run.shows("python -m api")
        for said in (
            "AUTOCODER_API_PORT = 5000",
            "ANTHROPIC_API_KEY",
            "its own listener",
            "Do it.",
        ):
            assert said in run.screen
        assert "owned" not in run.screen
        await run.press("escape")
        assert isinstance(run.panel.screen, MainScreen)


async def test_a_diff_is_shown_and_its_control_sequences_are_not(answers: Questions) -> None:
    async with driven(FLEET, questions=answers) as run:
        await run.press("d")
        await run.shows("+new")
        assert "\x1b" not in run.screen


async def test_a_question_git_refuses_is_answered_with_its_reason(answers: Questions) -> None:
    async with driven(FLEET, questions=answers) as run:
        await run.press("G", "d")
        await run.shows("not a tree object")
        assert "Look at the repository." in run.screen


async def test_what_extending_brings_is_shown_and_exactly_that_is_asked_for(
    answers: Questions,
) -> None:
    async with driven(FLEET, questions=answers) as run:
        await run.press("e", "right", "up")
        await run.shows("6000-6199")
        assert "200 ports, 199 free now" in run.screen
        assert "taken: 6007 812 postgres" in run.screen
        await run.press("enter")
        assert run.asked == [ExpandPool(Role.API, PortRange(6000, 6200))]


async def test_where_no_block_is_left_the_dialog_says_so(answers: Questions) -> None:
    async with driven(FLEET, questions=answers) as run:
        await run.press("e", "up", "up")
        await run.shows("no block of 500 ports is left")


async def test_events_and_settings_say_when_and_whence(answers: Questions) -> None:
    async with driven(FLEET, questions=answers) as run:
        await run.press("H")
        await run.shows("on feature 1")
        await run.press("escape", "comma")
        await run.shows("from $AUTOCODER_PARALLEL")


# -- beside the panel


async def test_a_url_is_copied_by_the_terminals_own_clipboard() -> None:
    async with driven(FLEET) as run:
        await run.press("G", "k", "y")
        await run.shows("copied  http://localhost:5173")
        assert run.panel.clipboard == "http://localhost:5173"


async def test_urls_branch_and_folder_are_there_to_select() -> None:
    async with driven(FLEET) as run:
        await run.press("G", "k", "o")
        await run.shows(ONE.worktree_path)
        assert "http://localhost:5000" in run.screen


def test_the_ssh_line_names_the_server_as_the_client_knows_it() -> None:
    environ = {"SSH_CONNECTION": "10.0.0.9 5512 10.0.0.5 22"}
    line = outside.ssh_line((ONE, CRASHED), environ, "box7")
    assert line.startswith("ssh -N -L 5000:localhost:5000 -L 5173:localhost:5173 ")
    assert line.endswith("@10.0.0.5")
    assert outside.ssh_line((ONE,), {}, "box7").endswith("@box7")
    assert outside.ssh_line((CRASHED,), {}, "box7") == ""


def test_a_shell_gets_the_agents_own_ports() -> None:
    env = outside.agent_environment(TWO, {"PATH": "/bin", "PORT": "9"})
    assert (env["PORT"], env["VITE_PORT"], env["PATH"]) == ("5001", "5174", "/bin")
    assert env["AUTOCODER_AGENT_ID"] == TWO.agent_id


async def test_themes_change_in_turn() -> None:
    async with driven(FLEET) as run:
        seen = []
        for _ in range(3):
            await run.press("T")
            seen.append(run.panel.theme)
        assert seen == ["day", "terminal", "night"]


async def test_the_palette_finds_an_agent_and_goes_there() -> None:
    async with driven(FLEET) as run:
        await run.press("colon")
        await run.type(THREE.agent_id)
        await run.shows(f"Go to {THREE.agent_id}")
        await run.press("enter")
        await run.until(lambda: isinstance(run.panel.screen, MainScreen))
        await run.until(lambda: cursor(run) == THREE.agent_id)


async def test_the_palette_takes_names_for_text_not_markup() -> None:
    bad = replace(ONE, feature="[bold]x[/] [@click=app.quit]y[/]" + ATTACKS["clipboard, OSC 52"])
    async with driven(a_snapshot(bad)) as run:
        await run.press("colon")
        await run.type("Go to")
        await run.shows("[@click=app.quit]y")
        assert not [found for found in FORBIDDEN if found in run.screen]


async def test_a_read_only_panel_looks_everywhere_and_changes_nothing(answers: Questions) -> None:
    async with driven(FLEET, read_only=True, questions=answers) as run:
        await run.press("N", "R", "m", "dollar_sign")
        assert isinstance(run.panel.screen, MainScreen)
        await run.press("F", "n", "r", "m", "escape", "P", "e", "enter", "d")
        assert run.asked == []


async def test_the_palette_finds_a_feature_nobody_works_on_and_goes_there() -> None:
    busy = a_busy_project()
    name = busy.backlog[3].name
    async with driven(replace(busy, agents=())) as run:
        await run.press("colon")
        await run.type(name)
        await run.shows("Go to feature 18")
        await run.press("enter")
        await run.shows("backlog")
        assert re.search(r"▶ +18 .*" + name, run.screen)


async def test_a_sheet_says_where_in_it_one_is_and_hangs_its_rows_below_their_text(
    answers: Questions,
) -> None:
    async with driven(FLEET, questions=answers, size=(80, 24)) as run:
        await run.press("question_mark")
        await run.shows("1-19 of ")
        await run.press("G")
        await run.until(lambda: "1-19 of " not in run.screen)
        await run.press("escape", "comma")
        await run.shows("settings    esc back")
        assert "scroll" not in run.screen


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "Nothing is committed, edited or added yet"),
        ({"state": AgentState.FAILED}, "It has left neither commits nor changed files"),
        ({"state": AgentState.COMPLETED, "worktree_path": ""}, "Its worktree is gone"),
    ],
)
def test_where_there_is_no_difference_the_diff_says_why(
    changes: dict[str, object], why: str
) -> None:
    assert why in "".join(map(plain, diff_page("", an_agent(1, **changes))))


def test_events_are_told_by_day() -> None:
    def event(at: float) -> PastEvent:
        return PastEvent(at, Severity.INFO, "notice", "paused", "", None)

    text = [plain(line).strip() for line in events_page([event(NOW - 86_400), event(NOW)])]
    days = [line for line in text if line.endswith(("-20", "-21"))]
    assert days == ["Monday, 2026-09-21", "Sunday, 2026-09-20"]


async def test_an_empty_backlog_says_how_it_is_filled() -> None:
    async with driven(an_empty_project()) as run:
        await run.press("F")
        for said in ("autocoder features add", "autocoder features import FILE", "N"):
            await run.shows(said)


async def test_in_a_view_the_palette_has_the_keys_of_the_view(tmp_path: Path) -> None:
    file = tmp_path / "panel.toml"
    file.write_text('[keys]\nfeatures.retry = "ctrl+r"\n')
    async with driven(a_busy_project(), preferences=file) as run:
        await run.until(lambda: run.panel._preferences.keys)
        await run.press("F", "ctrl+p")
        await run.type("retry")
        await run.shows("retry   ctrl+r")
        await run.press("enter")
        await run.until(lambda: run.asked == [RetryFeature(15)])


async def test_over_a_question_there_is_no_palette() -> None:
    async with driven(FLEET) as run:
        await run.press("X", "ctrl+p")
        assert isinstance(run.panel.screen, ConfirmScreen)
        await run.press("y")
        assert len(run.asked) == 1


async def test_the_palette_of_a_read_only_panel_changes_nothing(answers: Questions) -> None:
    async with driven(a_busy_project(), questions=answers, read_only=True) as run:
        for view in ("", "F"):
            await run.press(*view, "ctrl+p", *"re")
            await run.shows("Freeze the picture")
            for word in ("Recover", "Retry", "Release", "Remove", "Merge"):
                assert word not in run.screen
            await run.press("escape", *(["escape"] if view else []))
        assert run.asked == []


async def test_the_help_of_a_read_only_panel_has_only_what_it_can_do() -> None:
    async with driven(FLEET, read_only=True, size=(120, 200)) as run:
        await run.press("question_mark")
        await run.shows("This panel is read-only")
        for absent in (
            "Kill the agent",
            "Release a port",
            "Retry:",
            "Remove the ticked",
            "Send what",
            "▌  Agents",
        ):
            assert absent not in run.screen
        for there in ("Details:", "In the worktrees view", "Look at the disk again"):
            assert there in run.screen


@pytest.mark.parametrize("view", ["P", "F", "W", "v"])
async def test_the_smallest_screen_says_how_to_leave_a_view(view: str, answers: Questions) -> None:
    async with driven(FLEET, questions=answers, size=(60, 16)) as run:
        await run.press(view)
        await run.shows("esc back  ? help")


def test_of_an_endless_line_a_diff_shows_the_beginning() -> None:
    first, last = diff_page("+" + "x" * 1_000_000 + "\n+end", an_agent(1))[1:]
    assert len(plain(first)) < 5000
    assert plain(first).endswith("995,905 more")
    assert plain(last) == "  +end"
