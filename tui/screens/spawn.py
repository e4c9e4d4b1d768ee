"""Spawns an agent on what the user types: it becomes a feature, and an agent starts at once."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, TextArea

from autocoder.core.commands import SpawnAgent
from autocoder.core.logs import sanitise
from autocoder.core.models import Snapshot
from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, counted
from autocoder.tui.widgets.painted import TextLines


def spawn_words(snapshot: Snapshot) -> Line:
    """What the agent will start from, or why it cannot start now."""
    left = min((pool.available for pool in snapshot.pools), default=0)
    if not left:
        return (("  No free pair of ports: e extends the pools first.", Tone.BAD),)
    return (
        ("  It branches from ", Tone.DIM),
        (sanitise(snapshot.base), Tone.PLAIN),
        (f" at {sanitise(snapshot.base_commit)}; {counted(left, 'pair')} of ports left.", Tone.DIM),
    )


class SpawnScreen(ModalScreen[SpawnAgent | None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "leave", id="spawn.leave"),
    ]

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot

    def compose(self) -> ComposeResult:
        with Vertical(id="spawn"):
            yield TextLines(id="spawn-title")
            yield Input(id="spawn-name", compact=True, placeholder="what is to be done")
            yield TextLines(id="spawn-details-title")
            yield TextArea(id="spawn-details", compact=True, tab_behavior="focus")
            yield TextLines(id="spawn-words")

    def on_mount(self) -> None:
        self.query_one("#spawn-title", TextLines).lines = (
            (("  Spawn an agent on a new feature", Tone.STRONG),),
            (),
            (("  name", Tone.DIM),),
        )
        self.query_one("#spawn-details-title", TextLines).lines = ((), (("  details", Tone.DIM),))
        self.query_one("#spawn-words", TextLines).lines = (
            (),
            spawn_words(self._snapshot),
            (
                ("  ⏎", Tone.ACCENT),
                (" on the name spawns,  ", Tone.DIM),
                ("tab", Tone.ACCENT),
                (" name or details,  ", Tone.DIM),
                ("esc", Tone.ACCENT),
                (" leaves", Tone.DIM),
            ),
        )
        self.query_one("#spawn-name", Input).cursor_blink = False
        self.query_one("#spawn-details", TextArea).cursor_blink = False
        self.query_one("#spawn-name", Input).focus()

    @on(Input.Submitted)
    def _spawn(self, event: Input.Submitted) -> None:
        name = event.value.strip()
        if not name:
            return
        details = self.query_one("#spawn-details", TextArea).text.strip()
        self.dismiss(SpawnAgent(task=f"{name}\n{details}" if details else name))

    def action_leave(self) -> None:
        self.dismiss(None)
