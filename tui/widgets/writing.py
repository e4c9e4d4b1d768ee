"""Where a person writes several lines; what ends them is a key of the screen."""

from textual.widgets import TextArea


class Writing(TextArea):
    def __init__(self, *, id: str | None = None, placeholder: str = "") -> None:
        super().__init__(id=id, compact=True, tab_behavior="focus", placeholder=placeholder)
        # A cursor that blinks is an animation: it repaints for ever over a slow link.
        self.cursor_blink = False
