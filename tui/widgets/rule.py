"""A line between two parts of the screen, with room for a word at either end."""

from textual.reactive import reactive
from textual.strip import Strip

from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, width_of
from autocoder.tui.widgets.painted import Painted


class Rule(Painted):
    left: reactive[Line] = reactive(())
    right: reactive[Line] = reactive(())
    active: reactive[bool] = reactive(False)
    """Stands above the pane that has the focus."""

    def render_line(self, y: int) -> Strip:  # noqa: ARG002 - it is one line high
        width = self.size.width
        tone = Tone.ACCENT if self.active else Tone.FAINT
        spare = width - width_of(self.left) - width_of(self.right)
        if spare < 4:
            return self.paint((("─" * width, tone),), width)
        line = (("──", tone), *self.left, ("─" * (spare - 4), tone), *self.right, ("──", tone))
        return self.paint(line, width)
