"""A line between two parts of the screen, with room for a word at either end."""

from textual.reactive import reactive
from textual.strip import Strip

from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, fit, width_of
from autocoder.tui.widgets.painted import Painted

EDGE = "──"


class Rule(Painted):
    left: reactive[Line] = reactive(())
    right: reactive[Line] = reactive(())
    active: reactive[bool] = reactive(False)
    """Stands above the pane that has the focus."""

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 - it is one line high
        width = self.size.width
        tone = Tone.ACCENT if self.active else Tone.FAINT
        room = width - width_of(self.right) - 2 * len(EDGE)
        if room < 0:
            return self.paint((("─" * width, tone),), width)
        left = self.left if width_of(self.left) <= room else fit(self.left, room)
        middle = ("─" * (room - width_of(left)), tone)
        line = ((EDGE, tone), *left, middle, *self.right, (EDGE, tone))
        return self.paint(line, width)
