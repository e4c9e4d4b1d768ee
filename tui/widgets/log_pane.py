"""The log of one agent: follows its end, or stays where it was scrolled to.

Only the lines on show are decoded and sanitised. The pane keeps a line number,
not a scroll offset, so that old lines can be let go without the text moving.
"""

from pathlib import Path
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.reactive import var
from textual.strip import Strip

from autocoder.core.logs import LogTail, LogTimes, sanitise
from autocoder.core.models import Agent
from autocoder.tui import render
from autocoder.tui.log_reader import LogReader
from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, clock, size
from autocoder.tui.widgets.log_rows import StyledRow, painted_row, rows_of
from autocoder.tui.widgets.painted import Painted

ERROR_WORDS = ("error", "exception", "traceback", "failed")


class LogPane(Painted, can_focus=True):
    BINDING_GROUP_TITLE = "Log"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll_rows(1)", "down", show=False, id="log.down"),
        Binding("k,up", "scroll_rows(-1)", "up", show=False, id="log.up"),
        Binding("pagedown,ctrl+d,space", "page(1)", "page down", show=False, id="log.page_down"),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False, id="log.page_up"),
        Binding("g,home", "top", "first kept line", show=False, id="log.first"),
        Binding("G,end", "follow_end", "last line, and follow", show=False, id="log.last"),
        Binding(
            "f", "toggle_follow", "follow", tooltip="Follow the end of the log", id="log.follow"
        ),
        Binding("w", "toggle_wrap", "wrap", tooltip="Wrap long lines", id="log.wrap"),
        Binding("t", "toggle_times", "times", tooltip="When each line was written", id="log.times"),
        Binding("slash", "search", "search", key_display="/", tooltip="Search", id="log.search"),
        Binding("n", "next_match(1)", "next", tooltip="Next match", id="log.next"),
        Binding("N", "next_match(-1)", "previous match", show=False, id="log.previous"),
        Binding(
            "exclamation_mark",
            "find_error",
            "error",
            key_display="!",
            tooltip="The first line that tells of an error",
            id="log.error",
        ),
    ]

    agent: var[Agent | None] = var(None, init=False)
    following: var[bool] = var(True, init=False)
    wrap: var[bool] = var(False, init=False)
    timed: var[bool] = var(False, init=False)
    """Each line is preceded by the time it was written."""
    words: var[str] = var("", init=False)
    """What is searched for; shown wherever it occurs."""

    class LinesMoved(Message):
        """The reader took in more of the file."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LogPane.LinesMoved)

    class StatusChanged(Message):
        """What the pane's status says differs."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LogPane.StatusChanged)

    class SearchRequested(Message):
        """The user wants to type what to search for."""

    class NothingFound(Message):
        """What was looked for is not there."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._reader = LogReader(lambda: self.post_message(self.LinesMoved()))
        self._tail: LogTail | None = None
        self._top = 0
        self._times: LogTimes | None = None
        self._match: int | None = None
        self._shown: list[StyledRow] = []

    def on_unmount(self) -> None:
        self._reader.stop()

    # -- state

    def watch_agent(self, before: Agent | None, agent: Agent | None) -> None:
        old = before.log_path if before else ""
        new = agent.log_path if agent else ""
        if old != new:
            self._tail = None
            if new:
                path = Path(new)
                self._times = LogTimes(path)
                self._tail = self._reader.follow((path,))[path]
            else:
                self._reader.follow(())
            self.following = True
            self.words = ""
            self._match = None
            self._top = 0
            self.post_message(self.StatusChanged())
        self._lay_out()
        self.refresh_line(0)

    def watch_following(self) -> None:
        self._lay_out()
        self.post_message(self.StatusChanged())

    def watch_wrap(self) -> None:
        self._lay_out()
        self.post_message(self.StatusChanged())

    def watch_timed(self) -> None:
        self._lay_out()
        self.post_message(self.StatusChanged())

    def watch_words(self) -> None:
        self._lay_out()

    def on_resize(self, _event: events.Resize) -> None:
        self._shown = []
        self._lay_out()

    def on_show(self, _event: events.Show) -> None:
        self._lay_out()

    def on_log_pane_lines_moved(self) -> None:
        self._lay_out()
        self.post_message(self.StatusChanged())

    @property
    def status(self) -> Line:
        """Follow, wrap and size, for the rule under the pane."""
        spans: list[tuple[str, Tone]] = []
        for word, on in (("follow", self.following), ("wrap", self.wrap), ("times", self.timed)):
            spans += [
                (f" {word} ", Tone.DIM),
                ("●" if on else "○", Tone.ACCENT if on else Tone.DIM),
            ]
        if self._tail is not None:
            spans.append((f"  {size(self._tail.size)}B ", Tone.DIM))
        return tuple(spans)

    # -- painting

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self.paint(render.log_title(self.agent, width), width)
        if y - 1 < len(self._shown):
            return painted_row(self._shown[y - 1], width, self.rich_style)
        return self.paint(self._empty() if y == 2 and not self._shown else (), width)

    def refresh_line(self, y: int) -> None:
        self.refresh(Region(0, y, self.size.width, 1))

    def _empty(self) -> Line:
        if self.agent is None:
            return (("   The output of the agent under the cursor appears here.", Tone.DIM),)
        return (("   It has printed nothing yet.", Tone.DIM),)

    def _lay_out(self) -> None:
        """Work out the rows on show, and repaint those that differ."""
        height = max(0, self.size.height - 1)
        rows = self._rows_from_end(height) if self.following else self._rows_from(self._top, height)
        before, self._shown = self._shown, rows
        for y in range(max(len(before), len(rows))):
            if before[y : y + 1] != rows[y : y + 1]:
                self.refresh_line(y + 1)
        if not rows:
            self.refresh_line(2)

    def _rows_from_end(self, height: int) -> list[StyledRow]:
        if self._tail is None or not height:
            return []
        first, end = self._tail.bounds
        rows: list[StyledRow] = []
        number = end
        while number > first and len(rows) < height:
            # Wrapped lines fill the pane before `height` of them are read.
            start = max(first, number - height)
            for offset, line in enumerate(reversed(self._tail.lines(start, number)), 1):
                rows[:0] = self._rows_of(number - offset, line)
                if len(rows) >= height:
                    self._top = number - offset
                    return rows[-height:]
            number = start
        self._top = number
        return rows

    def _rows_from(self, number: int, height: int) -> list[StyledRow]:
        if self._tail is None:
            return []
        rows: list[StyledRow] = []
        first = max(number, self._tail.bounds[0])
        for index, line in enumerate(self._tail.lines(first, first + height)):
            rows.extend(self._rows_of(first + index, line))
        return rows[:height]

    def _rows_of(self, number: int, line: str) -> list[StyledRow]:
        room = self.size.width - 2 if self.wrap else 0
        return rows_of(line, words=self.words, margin=self._margin(number), room=room)

    def _margin(self, number: int) -> str:
        if not self.timed or self._times is None or self._tail is None:
            return ""
        self._times.poll()
        if not self._times.known:
            return ""
        moment = self._times.at(self._tail.offset_of(number))
        return f"{clock(moment)}  " if moment is not None else " " * 10

    # -- scrolling

    def scroll_to_line(self, number: int) -> None:
        """Show line `number` at the top, as far as there is text below it."""
        if self._tail is None:
            return
        first, end = self._tail.bounds
        self._top = max(first, min(number, end - 1))
        self.following = False
        self._lay_out()

    def action_scroll_rows(self, by: int) -> None:
        if self._tail is None or (self.following and by > 0):
            return
        height = max(1, self.size.height - 1)
        _, end = self._tail.bounds
        if by > 0 and self._top + by + height > end:
            self.following = True
            return
        self.scroll_to_line(self._top + by)

    def action_page(self, pages: int) -> None:
        self.action_scroll_rows(pages * max(1, self.size.height - 2))

    def action_top(self) -> None:
        if self._tail is not None:
            self.scroll_to_line(self._tail.bounds[0])

    def action_follow_end(self) -> None:
        self.following = True

    def action_toggle_follow(self) -> None:
        self.following = not self.following

    def action_toggle_wrap(self) -> None:
        self.wrap = not self.wrap

    def action_toggle_times(self) -> None:
        self.timed = not self.timed

    # -- searching

    def action_search(self) -> None:
        self.post_message(self.SearchRequested())

    def search(self, words: str) -> None:
        """Show the last match at the middle of the pane."""
        self.words = words
        if words and self._tail is not None:
            found = self._tail.find(words, self._tail.bounds[1], -1)
            self._show_match(found, f"{words!r} is nowhere in {self._searched}")

    def action_next_match(self, step: int) -> None:
        if self._tail is None:
            return
        if not self.words:
            self.post_message(self.NothingFound("n and N go on with a search; / begins one"))
            return
        start = self._match + step if self._match is not None else self._top
        found = self._tail.find(self.words, start, step)
        self._show_match(found, f"no further {self.words!r} {'below' if step > 0 else 'above'}")

    def action_find_error(self) -> None:
        if self._tail is None:
            return
        number = self._tail.find(ERROR_WORDS, self._tail.bounds[0], 1)
        if number is not None:
            said = "".join(map(sanitise, self._tail.lines(number, number + 1))).casefold()
            self.words = next((word for word in ERROR_WORDS if word in said), "")
        self._show_match(number, f"no error is told of in {self._searched}")

    @property
    def _searched(self) -> str:
        """What of the file is kept, for words about what is not there."""
        if self._tail is None or not self._tail.offset_of(self._tail.bounds[0]):
            return "this log"
        return f"the latest part of this log, which is {size(self._tail.size)}B; E opens all of it"

    def _show_match(self, number: int | None, otherwise: str) -> None:
        if number is None:
            self.post_message(self.NothingFound(otherwise))
            return
        self._match = number
        self.scroll_to_line(number - self.size.height // 2)

    def on_mouse_scroll_down(self, _event: events.MouseScrollDown) -> None:
        self.action_scroll_rows(3)

    def on_mouse_scroll_up(self, _event: events.MouseScrollUp) -> None:
        self.action_scroll_rows(-3)
