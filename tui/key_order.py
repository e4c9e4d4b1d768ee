"""An App whose keys act one after the other, however fast they arrive.

Textual hands a key to the widget that has the focus when it is read. Of a burst, as a
slow link delivers what was typed, all keys would go there before the first has had its
effect: the words typed behind `/` would be taken for commands, and `x` with `y` behind
it would end an agent.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, TypeVar

from textual import events
from textual.app import App
from textual.command import CommandPalette
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget

Result = TypeVar("Result")

PATIENCE_S = 0.3
"""For a widget that has gone before it could say that it is done with its key."""


@dataclass(frozen=True, slots=True, eq=False)
class UnderWay:
    """A key that is being acted on."""

    key: events.Key
    target: Widget
    screen: Screen[Any]
    """On which it was pressed."""
    since: float

    @property
    def lost(self) -> bool:
        return not self.target.is_attached or time.monotonic() - self.since > PATIENCE_S


class KeyTaken(Message, bubble=True):
    """Follows a key that a widget may keep to itself; at the App, the widget is done with it."""

    def __init__(self, key: UnderWay) -> None:
        super().__init__()
        self.key = key


class EffectTaken(KeyTaken, bubble=True):
    """Follows what a key made its widget say; at the App, that has been heard."""


class KeyOrder(App[Result]):
    _under_way: UnderWay | None = None

    def __init__(self, *, ansi_color: bool | None = None) -> None:
        super().__init__(ansi_color=ansi_color)
        self._typed_ahead: deque[events.Key] = deque()

    async def on_event(self, event: events.Event) -> None:
        if not isinstance(event, events.Key):
            await super().on_event(event)
        elif event.is_forwarded:
            await super().on_event(event)
            if self._under_way is not None and self._under_way.key is event:
                self._let_effect_pass(self._under_way)
        else:
            self._typed_ahead.append(event)
            if self._under_way is None or self._under_way.lost:
                await self._act_on_next()
            elif len(self._typed_ahead) == 1:
                self._wait_for(self._under_way)

    async def _act_on_next(self) -> None:
        key, target = self._typed_ahead.popleft(), self.focused or self.screen
        self._under_way = UnderWay(key, target, self.screen, time.monotonic())
        await super().on_event(key)
        if self._typed_ahead:
            self._wait_for(self._under_way)

    def _wait_for(self, key: UnderWay) -> None:
        """Called for a key only when another is typed behind it: one alone costs no message."""
        key.target.post_message(KeyTaken(key))
        self._lose_patience_with(key)

    def _lose_patience_with(self, key: UnderWay) -> None:
        self.set_timer(PATIENCE_S, lambda: self._go_on_after(key))

    def on_key_taken(self, message: KeyTaken) -> None:
        if self._under_way is message.key:
            self._let_effect_pass(message.key)

    def _let_effect_pass(self, key: UnderWay) -> None:
        same_screen = self.screen is key.screen
        if same_screen and isinstance(key.screen, CommandPalette) and key.key.key == "enter":
            # It takes several messages to choose, and says so when it has.
            self._lose_patience_with(key)
        elif not same_screen:
            self.call_after_refresh(self._go_on_after, key)
        elif self._typed_ahead:
            key.target.post_message(EffectTaken(key))
        else:
            self._under_way = None

    def on_command_palette_closed(self) -> None:
        if self._under_way is not None:
            # What was chosen is done first.
            self.call_after_refresh(self._go_on_after, self._under_way)

    def on_effect_taken(self, message: EffectTaken) -> None:
        # What the effect asked for is in the queue by now, and the next key comes behind it.
        self.call_later(self._go_on_after, message.key)

    async def _go_on_after(self, key: UnderWay) -> None:
        if self._under_way is key:
            self._under_way = None
            if self._typed_ahead:
                await self._act_on_next()
