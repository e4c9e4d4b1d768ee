"""The features view: the backlog in the order it is claimed, and what failed before."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen

from autocoder.core.commands import (
    Command,
    EnableFeature,
    MergeFeature,
    PrioritiseFeature,
    RetryFeature,
    SpawnAgent,
)
from autocoder.core.models import Feature, Snapshot
from autocoder.tui import keys, render_features
from autocoder.tui.messages import CommandsRequested
from autocoder.tui.palette import Tone
from autocoder.tui.screens.confirm import ConfirmScreen, key_of, merge_question
from autocoder.tui.screens.sheet import SheetScreen
from autocoder.tui.spans import counted
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.notice_line import NoticeLine
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.rule import Rule
from autocoder.tui.widgets.table import Table

CHANGING = frozenset({"spawn", "retry", "merge", "enable", "raise", "lower"})


class FeaturesScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = list(keys.FEATURES)

    def __init__(
        self, clock: Callable[[], float], *, read_only: bool, at: int | None = None
    ) -> None:
        """`at`: the feature the cursor begins on."""
        super().__init__()
        self._at = at
        self._clock = clock
        self._read_only = read_only
        self._backlog: tuple[Feature, ...] = ()
        self._base = ""

    def compose(self) -> ComposeResult:
        yield TextLines(id="title")
        yield Rule()
        yield Table[Feature](
            render_features.FEATURE_COLUMNS,
            render_features.feature_key,
            self._clock,
            empty=render_features.NO_FEATURES,
            id="features",
        )
        yield Rule()
        yield NoticeLine(self._clock, only_new=True)
        yield KeyBar()

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._on_snapshot)
        self.table.focus()

    @property
    def table(self) -> Table[Feature]:
        return self.query_one("#features", Table)

    def _on_snapshot(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            return
        self.query_one(NoticeLine).snapshot = snapshot
        self._backlog, self._base = snapshot.backlog, snapshot.base
        self.table.show(snapshot.backlog)
        if self._at is not None:
            self.table.go_to(str(self._at))
            self._at = None
        self.query_one("#title", TextLines).lines = (
            (
                (" backlog ", Tone.STRONG),
                (f"   {counted(len(snapshot.backlog), 'feature')}", Tone.DIM),
                (f", {snapshot.features.done} of {snapshot.features.total} done", Tone.DIM),
            ),
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return not (self._read_only and action in CHANGING)

    def _want(self, make: Callable[[int], Command]) -> None:
        commands = [make(feature.id) for feature in self.table.targets]
        if commands:
            self.post_message(CommandsRequested(*commands))

    def action_spawn(self) -> None:
        self._want(SpawnAgent)

    def action_retry(self) -> None:
        self._want(RetryFeature)

    def action_merge(self) -> None:
        features = [each for each in self.table.targets if each.mergeable]
        key = key_of(self, "merge")
        if not features:
            self._say(f"{key} merges a finished branch; here is none to merge")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                commands = (MergeFeature(each.id) for each in features)
                self.post_message(CommandsRequested(*commands))

        self.app.push_screen(ConfirmScreen(merge_question(features, self._base, key)), answered)

    def action_enable(self) -> None:
        chosen = self.table.targets
        on = not any(feature.enabled for feature in chosen)
        self._want(lambda number: EnableFeature(number, on))

    def _say(self, text: str) -> None:
        self.query_one(NoticeLine).say(text)

    def action_raise(self) -> None:
        self._move(-1)

    def action_lower(self) -> None:
        self._move(1)

    def _move(self, step: int) -> None:
        """Give the feature the priority that brings it past its neighbour in claim order."""
        feature = self.table.cursor_row
        order = self._backlog
        if feature is None or feature not in order:
            return
        at = order.index(feature) + step
        if 0 <= at < len(order):
            priority = order[at].priority - step
            self.post_message(CommandsRequested(PrioritiseFeature(feature.id, priority)))

    def action_mark(self) -> None:
        key = self.table.cursor_key
        if key is not None:
            self.table.mark(self.table.marks ^ {key})
            self.table.action_move(1)

    def action_details(self) -> None:
        feature = self.table.cursor_row
        if feature is not None:
            lines = render_features.feature_page(feature, self._clock())
            self.app.push_screen(SheetScreen(f"feature {feature.id}", lines))

    def action_back(self) -> None:
        self.dismiss(None)
