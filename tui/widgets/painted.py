"""The base of every widget that shows text: it paints lines of toned spans, nothing else.

Line API throughout: `render_line` is called for the lines that are dirty, a
table or log of any length costs what is on the screen.
"""

import re

from rich.segment import Segment
from rich.style import Style
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget

from autocoder.core.logs import sanitise
from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, fit

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
"""What `render` must have taken out: here it is only made sure of, for every widget."""


class Painted(Widget):
    COMPONENT_CLASSES = {f"tone--{tone}" for tone in Tone} | {"row--cursor", "row--marked"}

    _own_style: Style | None = None

    @property
    def rich_style(self) -> Style:
        """As Textual works it out from all ancestors, once for each time the styles change."""
        if self._own_style is None:
            self._own_style = super().rich_style
        return self._own_style

    def notify_style_update(self) -> None:
        self._own_style = None
        super().notify_style_update()

    def tone(self, tone: Tone) -> Style:
        return self.get_component_rich_style(f"tone--{tone}", partial=True)

    def paint(self, line: Line, width: int, row: str = "") -> Strip:
        """`line` in exactly `width` cells; `row` names a component style to lie under it."""
        base = self.rich_style
        if any(UNSAFE.search(text) for text, _ in line):
            line = tuple((sanitise(text), tone) for text, tone in line)
        fitted = fit(line, width)
        if row:
            base += self.get_component_rich_style(row, partial=True)
            if base.reverse:
                # Reversed tones would stand there as a patchwork of backgrounds.
                return Strip([Segment("".join(text for text, _ in fitted), base)], width)
        return Strip(
            [Segment(text, base + self.tone(tone)) for text, tone in fitted if text], width
        )


class TextLines(Painted):
    """A few lines, repainted when they differ."""

    lines: reactive[tuple[Line, ...]] = reactive((), init=False)

    def render_line(self, y: int) -> Strip:
        line = self.lines[y] if y < len(self.lines) else ()
        return self.paint(line, self.size.width)
