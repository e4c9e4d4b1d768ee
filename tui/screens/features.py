"""The features view: the backlog in the order it is claimed, and what failed before."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen

from autocoder.core.commands import Command, MergeFeature, RetryFeature, SpawnAgent
from autocoder.core.models import Feature, Snapshot
from autocoder.tui import render_features
from autocoder.tui.messages import CommandsRequested
from autocoder.tui.palette import Tone
from autocoder.tui.screens.sheet import SheetScreen
from autocoder.tui.spans import counted
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.rule import Rule
from autocoder.tui.widgets.table import Table

CHANGING = frozenset({"spawn", "retry", "merge"})


class FeaturesScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,i", "details", "details", key_display="⏎", id="features.details"),
        Binding("n", "spawn", "spawn on it", id="features.spawn"),
        Binding("r", "retry", "retry", id="features.retry"),
        Binding("m", "merge", "merge", id="features.merge"),
        Binding("escape,q,F", "back", "back", key_display="esc", id="features.back"),
    ]

    def __init__(self, clock: Callable[[], float], *, read_only: bool) -> None:
        super().__init__()
        self._clock = clock
        self._read_only = read_only

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
        self.table.show(snapshot.backlog)
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
        self._want(MergeFeature)

    def action_details(self) -> None:
        for feature in self.table.targets[:1]:
            lines = render_features.feature_page(feature, self._clock())
            self.app.push_screen(SheetScreen(f"feature {feature.id}", lines))

    def action_back(self) -> None:
        self.dismiss(None)
