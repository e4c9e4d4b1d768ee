"""Claims about each page and row on its own: no attack is left for the widget to stop."""

from collections.abc import Callable, Iterable

import pytest

from autocoder.core.commands import SpawnAgent
from autocoder.core.errors import RefusedError
from autocoder.tui import (
    render,
    render_agents,
    render_answers,
    render_assistant,
    render_features,
    render_header,
    render_ports,
    render_spawn,
    render_worktrees,
)
from autocoder.tui.columns import Column
from autocoder.tui.screens.expand import ExpandScreen
from autocoder.tui.spans import Line, plain
from autocoder.tui.widgets.painted import UNSAFE
from support.attacks import FORBIDDEN
from support.hostile import ALL, BAD, HostileAnswers, hostile_agents, hostile_snapshot
from support.snapshots import NOW

ASK = HostileAnswers()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Line]]:
    """What each page says of a project where everything is an attack, by the page's name."""
    agents = hostile_agents(tmp_path_factory.mktemp("logs"))
    snapshot = hostile_snapshot(agents)
    agent = agents[0]
    trees = ASK.worktrees()
    parts = [render_assistant.said_before("human", bad) for bad in BAD]
    parts.append(render_assistant.trouble(RefusedError(ALL, ALL)))
    expand = ExpandScreen(snapshot.pools)
    expand._growth = {each.role: each for each in ASK.growth((), expand._roles, 1)}
    orphaned: Callable[..., bool] = lambda _: True  # noqa: E731
    held: Callable[..., object] = lambda _: agent  # noqa: E731
    found: dict[str, Iterable[Line]] = {
        "details": render_answers.details_page(agent, ASK.details(agent), NOW),
        "diff": render_answers.diff_page(ASK.diff(agent), agent),
        "events": render_answers.events_page(ASK.events(1)),
        "settings": render_answers.settings_page(ASK.settings(), ALL),
        "refusal": render_answers.error_page(RefusedError(ALL, ALL)),
        "crash": render_answers.error_page(ValueError(ALL)),
        "features": _rows(render_features.FEATURE_COLUMNS, snapshot.backlog),
        "feature": [
            line for each in snapshot.backlog for line in render_features.feature_page(each, NOW)
        ],
        "worktrees": _rows(render_worktrees.WORKTREE_COLUMNS, trees),
        "removal": render_worktrees.removal_lines(trees),
        "spawn": render_spawn.forecast_lines(ASK.forecast(SpawnAgent(), snapshot), 1),
        "expand": expand._lines(),
        "assistant": render_assistant.assistant_lines(parts),
        "assistant's title": [render_assistant.assistant_title(agent, 1.0, answering=True)],
        "grid": _rows(render_agents.AGENT_COLUMNS, agents),
        "header": [
            render_header.title_line(snapshot, NOW, 200),
            render_header.pools_line(snapshot, 200),
        ],
        "log's title": [render.log_title(each, 500) for each in agents],
        "names": render.target_lines(agents),
        "notice": [render.notice_line(each, NOW) for each in snapshot.notices],
        "notices": render.notices_page(snapshot.notices),
        "recovery": render.recovery_lines(snapshot),
        "urls": render.urls_page(agents),
        "waiting": [render_header.waiting_line(ALL, NOW, 200)],
        "ports": _rows(render_ports.lease_columns(held, orphaned), snapshot.leases),  # type: ignore[arg-type]
        "release": [
            line for each in snapshot.leases for line in render_ports.release_lines(each, held=True)
        ],
    }
    return {name: list(lines) for name, lines in found.items()}


def _rows(columns: Iterable[Column], rows: Iterable[object]) -> list[Line]:  # type: ignore[type-arg]
    return [column.cell(row, NOW) for row in rows for column in columns]


@pytest.mark.parametrize(
    "name",
    [
        *("details", "diff", "events", "settings", "refusal", "crash", "features", "feature"),
        *("worktrees", "removal", "spawn", "expand", "assistant", "assistant's title", "grid"),
        *("header", "log's title", "names", "notice", "notices", "recovery", "urls"),
        *("waiting", "ports", "release"),
    ],
)
def test_no_page_hands_an_attack_on(pages: dict[str, list[Line]], name: str) -> None:
    text = "\n".join(map(plain, pages[name]))
    assert text
    assert [bad for bad in FORBIDDEN if bad in text] == []
    assert UNSAFE.search(text.replace("\n", "")) is None
