"""Two lines that answer "is anything wrong": what the agents do, and what the pools have left."""

from collections.abc import Callable

from textual import events
from textual.reactive import var

from autocoder.core.models import Snapshot
from autocoder.tui import render_header
from autocoder.tui.palette import Tone
from autocoder.tui.widgets.painted import TextLines


class Header(TextLines):
    snapshot: var[Snapshot | None] = var(None, init=False, always_update=True)

    def __init__(self, clock: Callable[[], float], project: str) -> None:
        super().__init__()
        self._clock = clock
        self._project = project

    def on_mount(self) -> None:
        self.set_interval(1.0, self.tell)
        self.tell()

    def on_resize(self, _event: events.Resize) -> None:
        self.tell()

    def watch_snapshot(self) -> None:
        self.tell()

    def tell(self) -> None:
        """Say again what is true now."""
        width = self.size.width
        if self.snapshot is None:
            waiting = render_header.waiting_line(self._project, self._clock(), width)
            self.lines = (waiting, ((" reading the project and the ledger …", Tone.DIM),))
            return
        self.lines = (
            render_header.title_line(self.snapshot, self._clock(), width),
            render_header.pools_line(self.snapshot, width),
        )
