"""What the parts of the main screen share: the snapshot, who is chosen, how to ask for things."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from textual import events
from textual.reactive import var
from textual.screen import Screen

from autocoder.core.commands import Command
from autocoder.core.models import Agent, Snapshot
from autocoder.tui import keys
from autocoder.tui.messages import CommandsRequested
from autocoder.tui.pool_history import PoolHistory
from autocoder.tui.screens.confirm import key_of
from autocoder.tui.widgets.notice_line import WORD_S

CHANGING = frozenset(
    {
        *("spawn", "spawn_typed", "stop", "kill", "recover", "recover_all", "merge"),
        *("expand", "pause", "stop_all", "shell", "tell", "assistant", "take_settings"),
    }
)
"""Actions that a read-only panel does not have."""


class FleetScreen(Screen[None]):
    """A screen of agents, some of them chosen."""

    snapshot: var[Snapshot | None] = var(None, init=False, always_update=True)

    def __init__(self, clock: Callable[[], float], *, read_only: bool) -> None:
        super().__init__()
        self.own_keys: Mapping[str, str] = MappingProxyType({})
        """The user's keys, by the name of their binding."""
        self.settings_note: Callable[[], str] = str
        """What a reader of the settings must know besides."""
        self.pool_history = PoolHistory()
        self._clock = clock
        self._read_only = read_only

    @property
    def targets(self) -> Sequence[Agent]:
        """Whom a key acts on: the marked agents, else the one under the cursor."""
        raise NotImplementedError

    @property
    def marked(self) -> frozenset[str]:
        """Ids of the marked agents that are shown."""
        raise NotImplementedError

    @property
    def selected(self) -> Agent | None:
        """The agent under the cursor."""
        raise NotImplementedError

    def go_to(self, agent_id: str | None) -> None:
        """Put the cursor on an agent, its log beside it; whatever hides it is lifted."""
        raise NotImplementedError

    def say(self, text: str, *, seconds: float = WORD_S) -> None:
        """A word of the panel's own, for a while."""
        raise NotImplementedError

    def key_of(self, action: str) -> str:
        """The key that leads to an action now, by Textual's name."""
        return key_of(self, action)

    def want(self, *commands: Command) -> None:
        if commands:
            self.post_message(CommandsRequested(*commands))

    def on_key(self, event: events.Key) -> None:
        if self._read_only and event.key not in self.active_bindings:
            lacking = (each for each in keys.MAIN if each.action in CHANGING)
            own = (self.own_keys.get(each.id or "", each.key) for each in lacking)
            if any(event.key in each.split(",") for each in own):
                self.say("this panel is read-only: it changes nothing")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return not (self._read_only and action in CHANGING)
