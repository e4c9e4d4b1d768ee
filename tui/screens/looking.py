"""The keys of the main screen that look closer and change nothing.

A view is imported with its first use: together they would hold up the first paint.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from autocoder.core.logs import sanitise
from autocoder.tui import render
from autocoder.tui.messages import AssistantRequested, Page, PageAnswered, QuestionAsked
from autocoder.tui.render_answers import (
    ASKING,
    EVENTS_HANG,
    SETTINGS_HANG,
    details_page,
    diff_page,
    events_page,
    settings_page,
)
from autocoder.tui.screens.fleet import FleetScreen
from autocoder.tui.screens.sheet import SheetScreen
from autocoder.tui.widgets.notice_line import NoticeLine

if TYPE_CHECKING:
    from autocoder.core.questions import Questions

EVENTS_SHOWN = 500


class Looking(FleetScreen):
    def action_ports(self) -> None:
        from autocoder.tui.screens.ports import PortsScreen

        screen = PortsScreen(self._clock, self.pool_history, read_only=self._read_only)
        self.app.push_screen(screen, self.go_to)

    def action_wall(self) -> None:
        from autocoder.tui.screens.wall import WallScreen

        self.app.push_screen(WallScreen(self._clock, self.marked), self.go_to)

    def action_features(self) -> None:
        from autocoder.tui.screens.features import FeaturesScreen

        self.app.push_screen(FeaturesScreen(self._clock, read_only=self._read_only))

    def go_to_feature(self, number: int) -> None:
        from autocoder.tui.screens.features import FeaturesScreen

        screen = FeaturesScreen(self._clock, read_only=self._read_only, at=number)
        self.app.push_screen(screen)

    def action_assistant(self) -> None:
        self.post_message(AssistantRequested(self.selected))

    def action_worktrees(self) -> None:
        from autocoder.tui.screens.worktrees import WorktreesScreen

        self.app.push_screen(WorktreesScreen(self._clock, read_only=self._read_only))

    def action_details(self) -> None:
        agent, now = self.selected, self._clock()
        if agent is None:
            self.say(f"{self.key_of('details')} shows all of an agent; there is none")
            return
        self._ask(agent.agent_id, lambda ask: details_page(agent, ask.details(agent), now))

    def action_diff(self) -> None:
        agent = self.selected
        if agent is None:
            self.say(f"{self.key_of('diff')} shows what an agent has changed; there is none")
            return
        self._ask(f"{agent.agent_id} against base", lambda ask: diff_page(ask.diff(agent), agent))

    def action_events(self) -> None:
        self._ask("events", lambda ask: events_page(ask.events(EVENTS_SHOWN)), hang=EVENTS_HANG)

    def action_settings(self) -> None:
        note = self.settings_note()
        self._ask("settings", lambda ask: settings_page(ask.settings(), note), hang=SETTINGS_HANG)

    def _ask(self, title: str, question: "Callable[[Questions], Page]", *, hang: int = 2) -> None:
        sheet = SheetScreen(sanitise(title), ASKING, hang=hang)
        self.app.push_screen(sheet)
        self.post_message(QuestionAsked(lambda ask: PageAnswered(question(ask)), sheet))

    def action_notices(self) -> None:
        if self.snapshot is None:
            return
        notices = self.snapshot.notices
        self.query_one(NoticeLine).seen = max((notice.id for notice in notices), default=0)
        lines = render.notices_page(notices)
        self.app.push_screen(SheetScreen("notices", lines, hang=EVENTS_HANG))
