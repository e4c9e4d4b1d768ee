"""Claims about the ports view: what it does to a port, and how full the pools have been."""

from dataclasses import replace

import pytest

from autocoder.core.commands import ProbePort, ReleasePort
from autocoder.core.models import Listener, Notice, Role, Severity
from autocoder.tui.pool_history import SAMPLES, STEP_S, PoolHistory
from autocoder.tui.render_ports import history_line
from autocoder.tui.spans import plain
from support.panel import driven
from support.snapshots import NOW, a_busy_project, a_pool, a_snapshot, an_agent, the_leases


def pools(leased: int) -> tuple[object, ...]:
    return (a_pool(Role.API, leased=leased), a_pool(Role.WEB))


async def test_c_probes_the_port_under_the_cursor_at_once() -> None:
    async with driven(a_busy_project(), size=(140, 48)) as run:
        await run.press("P", "slash")
        await run.type("quarantined")
        await run.press("enter", "c")
        assert run.asked == [ProbePort(5013)]


async def test_a_port_is_released_after_a_question_that_says_who_listens() -> None:
    async with driven(a_busy_project(), size=(140, 48)) as run:
        await run.press("P", "slash")
        await run.type("quarantined")
        await run.press("enter", "R")
        await run.shows("Release port 5013?")
        assert "812 postgres listens on it" in run.screen
        await run.press("enter", "escape")
        assert run.asked == []
        await run.press("R", "y")
        assert run.asked == [ReleasePort(5013)]


async def test_whoever_releases_a_live_agents_port_is_told_beforehand() -> None:
    async with driven(a_busy_project(), size=(140, 48)) as run:
        await run.press("P", "R")
        await run.shows("this will be refused")


async def test_a_port_without_an_agent_here_leads_nowhere_and_says_whose_it_is() -> None:
    busy = a_busy_project()
    other = replace(busy.leases[0], project="/home/dev/shop")
    async with driven(replace(busy, leases=(other, *busy.leases[1:])), size=(140, 48)) as run:
        await run.press("P", "g", "enter")
        await run.shows(f"port {other.port} is held by {other.holder} of shop: no agent here")
        await run.press("slash")
        await run.type("quarantined")
        await run.press("enter", "enter")
        await run.shows("nobody holds port 5013")


async def test_a_filter_that_no_port_matches_does_not_deny_that_there_are_ports() -> None:
    async with driven(a_busy_project(), size=(140, 48)) as run:
        await run.press("P", "slash")
        await run.type("nonsense")
        await run.shows("No port matches the filter")
        assert "No port of this host" not in run.screen


async def test_a_read_only_panel_neither_probes_nor_releases() -> None:
    async with driven(a_busy_project(), read_only=True) as run:
        await run.press("P", "c", "R", "y")
        assert run.asked == []


async def test_the_ports_view_shows_how_full_the_pools_have_been() -> None:
    async with driven(a_busy_project(), size=(140, 48)) as run:
        await run.press("P")
        await run.shows("at most 12%")
        assert "in the last 1 min" in run.screen


def test_time_without_a_snapshot_is_filled_in_and_the_oldest_falls_away() -> None:
    history = PoolHistory()
    history.add(pools(49), NOW)  # type: ignore[arg-type]
    history.add(pools(0), NOW + 3 * STEP_S)  # type: ignore[arg-type]
    assert history.of(Role.API, NOW + 5 * STEP_S) == (50, 50, 50, 50, 0, 0)
    assert history.of(Role.API, NOW + 9 * SAMPLES * STEP_S) == (0,) * SAMPLES


@pytest.mark.parametrize(("percent", "block"), [(0, " "), (1, "▁"), (50, "▄"), (100, "█")])
def test_a_pool_with_anything_leased_is_never_drawn_as_empty(percent: int, block: str) -> None:
    assert f"api {block} {percent}%" in plain(history_line([(Role.API, (percent,))], STEP_S))


async def test_a_refusal_is_said_where_the_key_was_pressed_and_old_notices_are_not() -> None:
    busy = a_busy_project()
    async with driven(busy, size=(140, 48)) as run:
        await run.press("P")
        await run.shows("ports of")
        assert "r recovers it" not in run.screen
        refused = Notice(9, NOW, Severity.WARNING, "port 5000", "its holder lives")
        await run.publish(replace(busy, notices=(*busy.notices, refused)))
        await run.shows("port 5000  its holder lives")


async def test_a_narrow_table_of_ports_still_says_what_to_do_about_the_one_under_the_cursor() -> (
    None
):
    async with driven(a_busy_project(), size=(80, 24)) as run:
        await run.press("P", "slash")
        await run.type("quarantined")
        await run.press("enter")
        await run.shows("── 5013  probed in 8s; c probes now ──")


@pytest.mark.parametrize("width", [60, 80, 100, 200])
async def test_however_narrow_the_title_keeps_its_counts(width: int) -> None:
    async with driven(a_busy_project(), size=(140, 30)) as run:
        await run.press("P")
        await run.pilot.resize_terminal(width, 30)
        title = "20 leased · 1 cooling · 1 quarantined"
        await run.until(lambda: title in run.screen.splitlines()[0])


@pytest.mark.parametrize(
    ("listener", "said"),
    [
        (Listener.OWN, "● own"),
        (Listener.NONE, "○ none yet"),
        (Listener.FOREIGN, "✗ foreign  31870 node (uid 1002)"),
        (Listener.SWAPPED, "⇄ swapped  31870 node (uid 1002)"),
    ],
)
async def test_who_listens_is_said_with_its_process_and_the_remedy(
    listener: Listener, said: str
) -> None:
    agent = an_agent(1, web_listener=Listener.FOREIGN)
    leases = the_leases((agent,))
    agent = replace(agent, web_listener=listener)
    async with driven(a_snapshot(agent, leases=leases), size=(140, 30)) as run:
        await run.press("P", "G")
        await run.shows(said)
        wrong = listener in (Listener.FOREIGN, Listener.SWAPPED)
        row = next(line for line in run.screen.splitlines() if " 5173 " in line)
        assert ("⚠" in row) is wrong
        assert ("then r: another pair" in row) is wrong
