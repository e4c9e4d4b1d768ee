"""Where a person writes several lines; what sends them is a key of the screen.

That key waits its turn behind what was typed before it: with priority it would
overtake the letters of a fast hand, or of a slow link.
"""

from textual import events
from textual.widgets import TextArea

PASSED_ON = frozenset({"send", "new_line"})
"""Actions of the screen whose keys are no text."""


class Writing(TextArea):
    def __init__(self, *, id: str | None = None, placeholder: str = "") -> None:
        super().__init__(id=id, compact=True, tab_behavior="focus", placeholder=placeholder)
        # A cursor that blinks is an animation: it repaints for ever over a slow link.
        self.cursor_blink = False

    async def _on_key(self, event: events.Key) -> None:
        active = self.screen.active_bindings.get(event.key)
        if active is not None and active.binding.action in PASSED_ON:
            event.prevent_default()
