"""One of a few words, chosen with the arrows."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip

from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line
from autocoder.tui.widgets.painted import Painted


class Choice(Painted, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("right,l,space", "choose(1)", "next", show=False, id="choice.next"),
        Binding("left,h", "choose(-1)", "previous", show=False, id="choice.previous"),
    ]

    options: reactive[Sequence[str]] = reactive((), init=False)
    index: reactive[int] = reactive(0, init=False)
    note: reactive[Line] = reactive(())
    """A word about what is chosen."""

    class Changed(Message):
        """Another one is chosen."""

    def __init__(self, *options: str, id: str | None = None) -> None:
        super().__init__(id=id)
        self.set_reactive(Choice.options, options)

    @property
    def value(self) -> str:
        return self.options[self.index] if self.options else ""

    def watch_index(self) -> None:
        self.post_message(self.Changed())

    def on_focus(self, _event: events.Focus) -> None:
        self.refresh()

    def on_blur(self, _event: events.Blur) -> None:
        self.refresh()

    def render_line(self, y: int) -> Strip:
        arrow = Tone.ACCENT if self.has_focus else Tone.FAINT
        chosen: Line = ((self.value, Tone.STRONG if self.has_focus else Tone.PLAIN),)
        line = (("‹ ", arrow), *chosen, (" ›  ", arrow), *self.note)
        return self.paint(line if not y else (), self.size.width)

    def action_choose(self, step: int) -> None:
        if self.options:
            self.index = (self.index + step) % len(self.options)
