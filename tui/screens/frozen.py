"""A picture that stands still, so that text can be selected with the terminal's own means.

Whatever is written to a terminal may take a selection away: nothing is, until a key.
Beneath it everything goes on, and is shown again at once.
"""

from contextlib import ExitStack

from textual import events
from textual.app import ComposeResult
from textual.geometry import Size
from textual.screen import ModalScreen

from autocoder.tui.palette import HELD, Tone
from autocoder.tui.spans import clock
from autocoder.tui.widgets.painted import TextLines


class FrozenScreen(ModalScreen[None]):
    """Dismissed by any key, which does nothing else, or by another size of the terminal."""

    def __init__(self, now: float) -> None:
        super().__init__()
        self._now = now
        self._still = ExitStack()
        self._size_then: Size | None = None

    def compose(self) -> ComposeResult:
        bar = TextLines(id="frozen")
        bar.lines = (
            (
                (f" {HELD} frozen at {clock(self._now)} ", Tone.WARN),
                (" select and copy with your terminal; any key goes on", Tone.PLAIN),
            ),
        )
        yield bar

    def on_mount(self) -> None:
        self.call_after_refresh(self._hold_still)

    def on_resize(self, event: events.Resize) -> None:
        if self._size_then not in (None, event.size):
            self.thaw()
        self._size_then = event.size

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        self.thaw()

    def on_unmount(self) -> None:
        self._still.close()

    def thaw(self) -> None:
        """Show again what is true now."""
        self._still.close()
        if self.is_current:
            self.dismiss(None)

    def _hold_still(self) -> None:
        if self.is_current:
            self._still.enter_context(self.app.batch_update())
