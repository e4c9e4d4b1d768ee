"""Claims about what the screen says, without a screen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from autocoder.core.models import AgentState, Feature, FeatureStatus, Listener, Role
from autocoder.tui import columns, render, render_agents, render_header
from autocoder.tui.palette import Tone
from autocoder.tui.spans import amount, clip, duration, fit, plain, size, spread, width_of
from support.attacks import ATTACKS, FORBIDDEN
from support.snapshots import NOW, a_busy_project, a_pool, a_snapshot, an_agent, an_ended


@given(st.text(alphabet="ab日é "), st.integers(0, 20))
def test_fitted_text_has_exactly_its_width(text: str, width: int) -> None:
    assert width_of(fit(((text, Tone.PLAIN), (text, Tone.DIM)), width)) == width


@given(st.text(alphabet="ab日é "), st.integers(1, 20))
def test_clipped_text_is_never_wider_and_says_that_it_was_cut(text: str, width: int) -> None:
    clipped = clip(text, width)
    assert cell_len(clipped) <= width
    assert clipped == text or clipped.endswith("…")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-3, "0s"), (59.9, "59s"), (252, "4m12"), (3600 * 3 + 300, "3h05"), (86400 * 12, "12d")],
)
def test_durations_are_short(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0"), (999, "999"), (9300, "9.1K"), (212 * 1024**2, "212M"), (5 * 1024**4, "5.0T")],
)
def test_sizes_are_short(count: int, said: str) -> None:
    assert size(count) == said


def test_where_both_ends_do_not_fit_the_left_one_is_cut() -> None:
    line = spread((("left " * 10, Tone.PLAIN),), (("right", Tone.PLAIN),), 20)
    assert plain(line).endswith("right")
    assert width_of(line) == 20


@pytest.mark.parametrize("width", [60, 80, 100, 140, 200])
def test_the_header_fits_every_width_and_keeps_clock_and_trouble(width: int) -> None:
    line = plain(render_header.title_line(a_busy_project(), NOW, width))
    assert cell_len(line) == width
    assert "  ⚠ 2" in line
    assert "14:13" in line


def test_an_agent_that_nobody_has_looked_at_yet_has_no_figures() -> None:
    figures = [each for each in render_agents.AGENT_COLUMNS if each.name in ("cpu", "mem")]
    fresh = an_agent(1, memory_bytes=0, cpu_percent=0.0)
    assert [plain(column.cell(fresh, NOW)) for column in figures] == ["–", "–"]
    assert [plain(column.cell(an_agent(1), NOW)) for column in figures] == ["3%", "187M"]


def test_columns_fall_away_by_worth_and_never_those_that_matter() -> None:
    names = [
        [column.name for column, _ in columns.columns_for(render_agents.AGENT_COLUMNS, room, 2)]
        for room in (56, 76, 136, 196)
    ]
    for shown in names:
        assert {"state", "agent", "worktree", "pid", "api", "web"} <= set(shown)
    assert "last" not in names[1]
    assert "last" in names[2]
    assert "backend" in names[3]


@pytest.mark.parametrize("room", range(130, 170, 2))
def test_a_backend_is_shown_only_where_a_features_name_can_be_read(room: int) -> None:
    widths = {
        column.name: width
        for column, width in columns.columns_for(render_agents.AGENT_COLUMNS, room, 2)
    }
    assert "backend" not in widths or widths["feature"] >= 18


def test_the_gauges_say_how_many_pairs_are_left() -> None:
    snapshot = a_snapshot(pools=(a_pool(Role.API, leased=97), a_pool(Role.WEB, leased=3)))
    assert "1 pair left" in plain(render_header.pools_line(snapshot, 120))


def test_an_exhausted_pool_is_said_in_the_tone_of_trouble() -> None:
    snapshot = a_snapshot(pools=(a_pool(Role.API, leased=98), a_pool(Role.WEB, leased=98)))
    line = render_header.pools_line(snapshot, 120)
    assert ("0 pairs left", Tone.BAD) in line


def test_a_crash_counts_as_trouble_until_somebody_works_on_its_feature() -> None:
    crashed = an_ended(1, AgentState.CRASHED, "killed", 9)
    assert render_agents.problems(a_snapshot(crashed)) == (crashed,)
    retry = replace(an_agent(2), feature_id=1)
    assert render_agents.problems(a_snapshot(retry, crashed)) == ()


def test_a_crash_counts_no_more_once_its_feature_is_done() -> None:
    crashed = an_ended(1, AgentState.CRASHED, "killed", 9)
    later = replace(an_ended(2, AgentState.COMPLETED, "merged", 3), feature_id=1)
    assert render_agents.problems(a_snapshot(later, crashed)) == ()
    done = Feature(id=1, name="x", status=FeatureStatus.DONE)
    assert render_agents.problems(a_snapshot(crashed, backlog=(done,))) == ()


def test_each_listener_has_its_own_mark() -> None:
    marks = {
        plain(column.cell(replace(an_agent(1), api_listener=listener), NOW))
        for listener in Listener
        for column in render_agents.AGENT_COLUMNS
        if column.name == "api"
    }
    assert marks == {"5000 ●", "5000 ○", "5000 ✗", "5000 ⇄"}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_field_of_an_agent_carries_an_attack_into_the_grid(name: str) -> None:
    bad = ATTACKS[name]
    agent = replace(
        an_agent(1),
        agent_id=bad,
        model=bad,
        last_tool=bad,
        retrying=bad,
        feature=bad,
        backend=bad,
        branch=bad,
        worktree_path=f"/w/{bad}",
        reason=bad,
        problem=bad,
        last_line=bad,
    )
    said = "".join(plain(column.cell(agent, NOW)) for column in render_agents.AGENT_COLUMNS)
    said += plain(render.log_title(agent, 2000))
    said += "".join(map(plain, render.target_lines((agent,))))
    said += plain(
        render_header.title_line(a_snapshot(project=bad, base=bad, base_commit=bad), NOW, 200)
    )
    assert not [sequence for sequence in FORBIDDEN if sequence in said]
    assert not [char for char in said if ord(char) < 32 or 0x7F <= ord(char) < 0xA0]


def test_the_log_title_of_a_phone_sized_screen_names_both_ports() -> None:
    line = plain(render.log_title(an_agent(1), 60))
    assert len(line) <= 60
    assert line.endswith("api localhost:5000   web localhost:5173")


def test_the_log_title_tells_how_far_an_agent_is_and_what_it_has_used() -> None:
    agent = an_agent(
        1, model="opus", iteration=7, last_tool="Bash", tokens=9_130, cost_usd=0.214, retrying="529"
    )
    line = plain(render.log_title(agent, 300))
    for said in ("opus", "iteration 7", "tool Bash", "9.1k tok", "$0.21", "retrying: 529"):
        assert said in line
    assert "iteration" not in plain(render.log_title(an_agent(1), 300))


@pytest.mark.parametrize("width", [140, 110, 90])
def test_a_narrow_log_title_keeps_urls_and_progress(width: int) -> None:
    agent = an_agent(1, iteration=7, last_tool="Bash", tokens=9_130, cost_usd=0.214)
    line = render.log_title(agent, width)
    assert width_of(line) <= width
    assert "http://localhost:5000" in plain(line)
    assert "$0.21" in plain(line)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_however_long_its_reason_is_an_ended_agent_keeps_its_name_and_feature(width: int) -> None:
    agent = an_ended(1, AgentState.FAILED, "exit code 1 after 3.2s, last output: " + "x" * 200, 9)
    line = plain(fit(render.log_title(agent, width), width))
    assert f"{agent.agent_id}   {agent.feature}" in line
    assert "exit code 1" in line


def test_a_feature_that_does_not_fit_beside_the_urls_is_cut_and_not_left_out() -> None:
    line = render.log_title(an_agent(2), 80)
    assert width_of(line) <= 80
    assert "a-0f32   Due date" in plain(line)
    assert "web http://localhost:5174" in plain(line)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (812, "812"), (9130, "9.1k"), (214_400, "214k"), (1_400_000, "1.4M")],
)
def test_amounts_are_short(count: int, shown: str) -> None:
    assert amount(count) == shown
