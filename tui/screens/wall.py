"""The wall: the logs of all marked, or else all live, agents at once."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen

from autocoder.core.models import Agent, Snapshot
from autocoder.tui import keys
from autocoder.tui.palette import Tone
from autocoder.tui.widgets.header import Header
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.log_wall import LogWall
from autocoder.tui.widgets.rule import Rule


class WallScreen(Screen[str | None]):
    """Dismissed with the id of the agent to go to, or None."""

    BINDINGS: ClassVar[list[BindingType]] = list(keys.WALL)

    def __init__(self, clock: Callable[[], float], marked: frozenset[str]) -> None:
        super().__init__()
        self._clock = clock
        self._marked = marked

    def compose(self) -> ComposeResult:
        yield Header(self._clock, "")
        yield Rule()
        yield LogWall()
        yield Rule(id="below")
        yield KeyBar()

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._on_snapshot)
        self.query_one(LogWall).focus()

    def _on_snapshot(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            return
        self.query_one(Header).snapshot = snapshot
        wall = self.query_one(LogWall)
        wall.agents = tuple(agent for agent in snapshot.agents if self._wanted(agent))
        self.call_after_refresh(self._say_what_is_hidden)

    def _say_what_is_hidden(self) -> None:
        hidden = self.query_one(LogWall).hidden
        self.query_one("#below", Rule).right = (
            ((f" {hidden} more do not fit ", Tone.DIM),) if hidden > 0 else ()
        )

    def _wanted(self, agent: Agent) -> bool:
        return agent.agent_id in self._marked if self._marked else agent.live

    def action_go_to_agent(self) -> None:
        self.dismiss(self.query_one(LogWall).chosen or None)

    def action_back(self) -> None:
        self.dismiss(None)
