"""Spawns an agent on what the user types: it becomes a feature, and an agent starts at once.

What it would get is asked for with every change, and what would be refused is refused
here, while the words are still there to change.
"""

from collections.abc import Iterator
from itertools import chain
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, TextArea

from autocoder.core.commands import MOST_VARIANTS, SpawnAgent
from autocoder.core.logs import sanitise
from autocoder.core.models import Snapshot
from autocoder.core.questions import Questions, SpawnForecast
from autocoder.tui import keys
from autocoder.tui.messages import QuestionAsked, QuestionRefused, SpawnForeseen
from autocoder.tui.palette import Tone
from autocoder.tui.render_spawn import forecast_lines
from autocoder.tui.spans import Line
from autocoder.tui.widgets.choice import Choice
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.writing import Writing

PAUSE_S = 0.15
"""How long the typing rests before a look is worth while."""


def _keys(field: Widget | None) -> Line:
    """What the keys do while `field` has the focus."""
    meaning = [("⏎", "new line" if isinstance(field, Writing) else "spawns"), ("tab", "next field")]
    if isinstance(field, Choice):
        meaning.append(("←→", "choose"))
    pieces = [((f"  {key}", Tone.ACCENT), (f" {does},", Tone.DIM)) for key, does in meaning]
    return (*chain.from_iterable(pieces), ("  esc", Tone.ACCENT), (" leaves", Tone.DIM))


class SpawnScreen(ModalScreen[SpawnAgent | None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.SPAWNING,
        Binding("ctrl+j", "new_line", "new line", show=False),
    ]

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self._snapshot = snapshot
        self._forecast: SpawnForecast | None = None
        self._foreseen: SpawnAgent | None = None
        """The wish the forecast is of."""
        self._nobody_knows = False
        self._wanted = False
        """Enter was pressed before the forecast was there."""
        self._asking: Timer | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="spawn"):
            title = TextLines(id="spawn-title")
            title.lines = ((("  Spawn an agent on a new feature", Tone.STRONG),),)
            yield title
            yield from _field("what", Input(id="spawn-name", compact=True, placeholder="in a line"))
            yield from _field("details", Writing(id="spawn-details"), high=True)
            yield from _field("backend", Choice("the project's", id="spawn-backend"))
            yield from _field("model", Input(id="spawn-model", compact=True))
            base = Input(id="spawn-base", compact=True, placeholder=sanitise(self._snapshot.base))
            yield from _field("base", base)
            numbers = map(str, range(1, MOST_VARIANTS + 1))
            yield from _field("variants", Choice(*numbers, id="spawn-variants"))
            yield TextLines(id="spawn-words")

    def on_mount(self) -> None:
        for field in self.query(Input):
            field.cursor_blink = False
        self.query_one("#spawn-name", Input).focus()
        self._ask()

    @property
    def _wish(self) -> SpawnAgent:
        def typed(name: str) -> str:
            return self.query_one(f"#{name}", Input).value.strip()

        name, details = typed("spawn-name"), self.query_one(Writing).text.strip()
        backend = self.query_one("#spawn-backend", Choice)
        return SpawnAgent(
            task=f"{name}\n{details}" if details else name,
            backend=backend.value if backend.index else "",
            model=typed("spawn-model"),
            base=typed("spawn-base"),
            variants=int(self.query_one("#spawn-variants", Choice).value),
        )

    # -- what it would get

    @on(Input.Changed)
    @on(TextArea.Changed)
    @on(Choice.Changed)
    def _on_changed(self) -> None:
        if self._asking is not None:
            self._asking.stop()
        self._asking = self.set_timer(PAUSE_S, self._ask)

    def _ask(self) -> None:
        wish, snapshot = self._wish, self._snapshot

        def question(ask: Questions) -> SpawnForeseen:
            return SpawnForeseen(wish, ask.forecast(wish, snapshot))

        self.post_message(QuestionAsked(question, self))
        self._tell()

    def on_spawn_foreseen(self, message: SpawnForeseen) -> None:
        if message.wish != self._wish:
            return
        forecast = self._forecast = message.forecast
        self._foreseen = message.wish
        backend = self.query_one("#spawn-backend", Choice)
        backend.options = tuple(sanitise(each.name) for each in forecast.backends)
        chosen = forecast.backends[backend.index]
        note = "the project's" if not backend.index else sanitise(chosen.detail)
        backend.note = ((note, Tone.DIM if chosen.usable else Tone.WARN),)
        self.query_one("#spawn-model", Input).placeholder = (
            sanitise(forecast.model) or "the backend's own"
        )
        self._tell()
        if self._wanted:
            self._go()

    def on_question_refused(self, message: QuestionRefused) -> None:
        """Nobody can look ahead: what cannot be done, the engine refuses in a notice."""
        self._nobody_knows = True
        self.query_one("#spawn-words", TextLines).lines = (
            (),
            ((f"  not looked ahead: {sanitise(str(message.error))}", Tone.DIM),),
            (),
            _keys(self.focused),
        )
        if self._wanted:
            self._go()

    def _tell(self) -> None:
        if not self._nobody_knows:
            foreseen = forecast_lines(self._forecast, self._wish.variants)
            self.query_one("#spawn-words", TextLines).lines = ((), *foreseen, _keys(self.focused))

    def on_descendant_focus(self, _event: events.DescendantFocus) -> None:
        words = self.query_one("#spawn-words", TextLines)
        words.lines = (*words.lines[:-1], _keys(self.focused))

    # -- wanting it

    @on(Input.Submitted)
    def action_spawn(self) -> None:
        self._wanted = True
        if self._nobody_knows or self._foreseen == self._wish:
            self._go()

    def _go(self) -> None:
        self._wanted = False
        wish = self._wish
        refused = self._forecast is not None and self._forecast.refusal
        if wish.task.strip() and not refused:
            self.dismiss(wish)

    def action_new_line(self) -> None:
        writing = self.query_one(Writing)
        if self.focused is writing:
            writing.insert("\n")

    def action_leave(self) -> None:
        self.dismiss(None)


def _field(label: str, widget: Widget, *, high: bool = False) -> Iterator[Widget]:
    name = TextLines(classes="label")
    name.lines = (((f"  {label}", Tone.DIM),),)
    row = Horizontal(name, widget, classes="field")
    row.set_class(high, "-high")
    yield row
