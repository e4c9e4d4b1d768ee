"""One line for what the engine has to say: the newest notice that matters."""

from collections.abc import Callable

from textual import events
from textual.reactive import var
from textual.timer import Timer

from autocoder.core.models import Notice, Severity, Snapshot
from autocoder.tui import render
from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, spread, width_of
from autocoder.tui.widgets.painted import TextLines

WORD_S = 5.0
"""How long a word of the panel's own stays."""
INFO_S = 60.0
"""How long news that needs nothing from the user stays on the line."""


class NoticeLine(TextLines):
    snapshot: var[Snapshot | None] = var(None, init=False, always_update=True)
    seen: var[int] = var(0, init=False)
    """Id of the last notice the user has put away."""
    word: var[Line] = var((), init=False)
    """Something the panel itself says meanwhile; goes before the notices."""

    def __init__(self, clock: Callable[[], float], *, only_new: bool = False) -> None:
        """`only_new`: what was said before the first snapshot here is none of its business."""
        super().__init__()
        self._clock = clock
        self._only_new = only_new
        self._silence: Timer | None = None

    def on_mount(self) -> None:
        self.set_interval(1.0, self.tell)

    def on_resize(self, _event: events.Resize) -> None:
        self.tell()

    def watch_snapshot(self, before: Snapshot | None, snapshot: Snapshot | None) -> None:
        if self._only_new and before is None and snapshot is not None:
            self.seen = max((notice.id for notice in snapshot.notices), default=0)
        self.tell()

    def watch_seen(self) -> None:
        self.tell()

    def watch_word(self) -> None:
        self.tell()

    def say(self, text: str, seconds: float | None = WORD_S) -> None:
        """A word of the panel's own, for so long or until another; an empty one takes it away."""
        if self._silence is not None:
            self._silence.stop()
            self._silence = None
        said: Line = ((f" · {text}", Tone.PLAIN),) if text else ()
        self.word = said

        def fall_silent() -> None:
            if self.word == said:
                self.word = ()

        if said and seconds is not None:
            self._silence = self.set_timer(seconds, fall_silent)

    def tell(self) -> None:
        """Say again what is true now."""
        now = self._clock()
        unseen = self._unseen(now)
        if self.word:
            self.lines = (self.word,)
        elif not unseen:
            self.lines = ((),)
        else:
            # What was worst is said first; among equals, what is newest.
            grave = [notice for notice in unseen if notice.severity is not Severity.INFO]
            shown = (grave or unseen)[-1]
            more = len(grave) - 1 if grave else 0
            said = render.notice_line(shown, now)
            right: Line = ((f"  {more} more  M ", Tone.DIM),) if more > 0 else ()
            if not right and width_of(said) > self.size.width:
                right = (("  M reads on ", Tone.DIM),)
            self.lines = (spread(said, right, self.size.width),)

    def _unseen(self, now: float) -> list[Notice]:
        if self.snapshot is None:
            return []
        return [
            notice
            for notice in self.snapshot.notices
            if notice.id > self.seen
            and (notice.severity is not Severity.INFO or now - notice.at < INFO_S)
        ]
