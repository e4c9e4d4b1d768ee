"""Claims about the features view: the backlog is reordered and switched from there."""

from dataclasses import replace

import pytest

from autocoder.core.commands import EnableFeature, PrioritiseFeature
from autocoder.core.models import Feature, FeatureStatus
from autocoder.tui.render_features import feature_page
from autocoder.tui.spans import plain
from support.panel import driven
from support.snapshots import NOW, a_busy_project

BUSY = a_busy_project()
FIRST, SECOND, THIRD = BUSY.backlog[:3]


async def test_a_feature_is_claimed_sooner_or_later_than_its_neighbour() -> None:
    async with driven(BUSY, size=(140, 40)) as run:
        await run.press("F", "j", "plus", "minus")
        assert run.asked == [
            PrioritiseFeature(SECOND.id, FIRST.priority + 1),
            PrioritiseFeature(SECOND.id, THIRD.priority - 1),
        ]


async def test_the_first_cannot_come_sooner_and_the_last_not_later() -> None:
    async with driven(BUSY, size=(140, 40)) as run:
        await run.press("F", "plus", "G", "minus")
        assert run.asked == []


async def test_the_details_are_those_of_the_row_under_the_cursor_whatever_is_marked() -> None:
    async with driven(BUSY, size=(140, 40)) as run:
        await run.press("F", "space", "enter")
        await run.shows(f"feature {SECOND.id}    esc back")


async def test_marked_features_are_switched_off_together_and_on_again() -> None:
    async with driven(BUSY, size=(140, 40)) as run:
        await run.press("F", "space", "space", "o")
        assert run.asked == [EnableFeature(FIRST.id, False), EnableFeature(SECOND.id, False)]
        off = tuple(replace(each, enabled=each not in (FIRST, SECOND)) for each in BUSY.backlog)
        await run.publish(replace(BUSY, backlog=off))
        await run.shows("‖ off")
        await run.press("o")
        assert run.asked[2:] == [EnableFeature(FIRST.id, True), EnableFeature(SECOND.id, True)]


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        (FIRST, "by the backlog's order"),
        (replace(FIRST, enabled=False), "off: never"),
        (replace(FIRST, status=FeatureStatus.BLOCKED), "not before it is retried"),
        (replace(FIRST, held=True), "not before somebody lets it go on"),
        (replace(FIRST, status=FeatureStatus.DONE), ""),
    ],
)
def test_a_feature_says_when_an_agent_takes_it_on(feature: Feature, said: str) -> None:
    lines = filter(None, feature_page(feature, NOW))
    facts = {name.strip(): plain(tuple(value)) for (name, _), *value in lines}
    assert facts.get("claimed", "") == said


async def test_a_feature_says_what_it_waits_for_and_why_it_failed() -> None:
    failed = replace(SECOND, attempts=2, last_error="exit code 1", depends_on=(3, 9), base="dev")
    async with driven(replace(BUSY, backlog=(FIRST, failed)), size=(140, 40)) as run:
        await run.press("F", "j")
        await run.shows("exit code 1")
        assert "3 9" in run.screen
        await run.press("enter")
        await run.shows("last error  exit code 1")
        assert "base        dev" in run.screen


async def test_a_read_only_panel_leaves_the_backlog_as_it_is() -> None:
    async with driven(BUSY, read_only=True) as run:
        await run.press("F", "j", "plus", "minus", "o")
        assert run.asked == []
