"""The log of one agent: follows its end, or stays where it was scrolled to, anywhere in it.

It draws and takes keys; which rows are on show is the view's business. Searches
look through all of the log and end in a message, so that no key waits for them.
"""

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.reactive import var
from textual.strip import Strip

from autocoder.core.models import Agent
from autocoder.tui import render
from autocoder.tui.log_reader import LogReader
from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, size
from autocoder.tui.widgets.log_rows import Look, StyledRow, painted_row
from autocoder.tui.widgets.painted import Painted

if TYPE_CHECKING:
    from autocoder.core.log_search import Match
    from autocoder.tui.log_search import LogSearch
    from autocoder.tui.widgets.log_view import LogView

ERROR_WORDS = ("error", "exception", "traceback", "failed")


class LogPane(Painted, can_focus=True):
    BINDING_GROUP_TITLE = "Log"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll_rows(1)", "down", show=False, id="log.down"),
        Binding("k,up", "scroll_rows(-1)", "up", show=False, id="log.up"),
        Binding("pagedown,ctrl+d,space", "page(1)", "page down", show=False, id="log.page_down"),
        Binding("pageup,ctrl+u", "page(-1)", "page up", show=False, id="log.page_up"),
        Binding("g,home", "top", "first line", show=False, id="log.first"),
        Binding("G,end", "follow_end", "last line, and follow", show=False, id="log.last"),
        Binding(
            "f", "toggle_follow", "follow", tooltip="Follow the end of the log", id="log.follow"
        ),
        Binding("w", "toggle_wrap", "wrap", tooltip="Wrap long lines", id="log.wrap"),
        Binding("t", "toggle_times", "times", tooltip="When each line was written", id="log.times"),
        Binding(
            "slash",
            "search",
            "search",
            key_display="/",
            tooltip="Search all of it; esc ends that",
            id="log.search",
        ),
        Binding("n", "next_match(1)", "next", tooltip="Next match", id="log.next"),
        Binding("N", "next_match(-1)", "previous match", show=False, id="log.previous"),
        Binding(
            "exclamation_mark",
            "find_error",
            "error",
            key_display="!",
            tooltip="The first line that tells of an error; again: the next",
            id="log.error",
        ),
    ]

    agent: var[Agent | None] = var(None, init=False)
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

    class SearchMoved(Message):
        """A search has come further, or is over."""

        def __init__(self, search: "LogSearch") -> None:
            super().__init__()
            self.search = search

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._reader = LogReader(lambda: self.post_message(self.LinesMoved()))
        self._view: LogView | None = None
        self._shown: list[StyledRow] = []
        self._search: LogSearch | None = None
        self._further: deque[int] = deque()
        """Steps to matches beyond the one that is being looked for."""
        self._match: Match | None = None
        self._by_error = False
        """The match was found as an error, and the next one may be asked for."""

    def on_unmount(self) -> None:
        if self._search is not None:
            self._search.end()
            self._search.join()
        self._reader.stop()
        self._reader.read(None)
        self._view = None

    # -- state

    def watch_agent(self, before: Agent | None, agent: Agent | None) -> None:
        old = before.log_path if before else ""
        new = agent.log_path if agent else ""
        if old != new:
            self._open(Path(new) if new else None)
        self._lay_out()
        self.refresh_line(0)

    def _open(self, path: Path | None) -> None:
        self._end_search()
        self._match, self.words = None, ""
        tails = self._reader.follow((path,) if path else ())
        self._view = None
        if path:
            # With the first log, and a search with the first of them: they would hold up the
            # first paint.
            from autocoder.tui.widgets.log_view import LogView

            self._view = LogView(tails[path])
        self._reader.read(self._view.window if self._view else None)
        self.watch_timed()

    def watch_wrap(self) -> None:
        self._lay_out()
        self.post_message(self.StatusChanged())

    def watch_timed(self) -> None:
        if self._view is not None:
            self._view.log.timed = self.timed
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
        """A search that is under way; follow, wrap, times; how much there is and was passed."""
        spans: list[tuple[str, Tone]] = []
        if self._search is not None:
            spans.append((f" searching {self._search.done} % ", Tone.ACCENT))
        following = self._view is None or self._view.following
        for word, on in (("follow", following), ("wrap", self.wrap), ("times", self.timed)):
            spans += [
                (f" {word} ", Tone.DIM),
                ("●" if on else "○", Tone.ACCENT if on else Tone.DIM),
            ]
        if self._view is not None:
            passed = "" if following else f"{self._view.passed} % of "
            spans.append((f"  {passed}{size(self._view.size)}B ", Tone.DIM))
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
        if self._view is None:
            rows: list[StyledRow] | None = []
        else:
            width, height = self.size.width, max(0, self.size.height - 1)
            rows = self._view.rows(Look(width, height, self.words, self.wrap, self.timed))
        if rows is None:
            return
        before, self._shown = self._shown, rows
        for y in range(max(len(before), len(rows))):
            if before[y : y + 1] != rows[y : y + 1]:
                self.refresh_line(y + 1)
        if not rows:
            self.refresh_line(2)

    # -- scrolling

    def _moved(self) -> None:
        """Read what is to be shown now, and show it."""
        if self._view is not None:
            self._reader.read(self._view.window)
        self._lay_out()
        self.post_message(self.StatusChanged())

    def action_scroll_rows(self, by: int) -> None:
        if self._view is not None:
            self._view.scroll(by)
            self._moved()

    def action_page(self, pages: int) -> None:
        self.action_scroll_rows(pages * max(1, self.size.height - 2))

    def action_top(self) -> None:
        if self._view is not None:
            self._view.go_to_first()
            self._moved()

    def action_follow_end(self) -> None:
        if self._view is not None:
            self._view.follow()
            self._moved()

    def action_toggle_follow(self) -> None:
        if self._view is not None and self._view.following:
            self._view.stand_still()
            self._moved()
        else:
            self.action_follow_end()

    def action_toggle_wrap(self) -> None:
        self.wrap = not self.wrap

    def action_toggle_times(self) -> None:
        self.timed = not self.timed

    def on_mouse_scroll_down(self, _event: events.MouseScrollDown) -> None:
        self.action_scroll_rows(3)

    def on_mouse_scroll_up(self, _event: events.MouseScrollUp) -> None:
        self.action_scroll_rows(-3)

    # -- searching

    def action_search(self) -> None:
        self._end_search()
        self.post_message(self.SearchRequested())

    def search(self, words: str) -> None:
        """Show the last match at the middle of the pane."""
        self.words = words
        self._match, self._by_error = None, False
        if words:
            self._look_for((words,), -1, None, f"{words!r} is nowhere in this log")

    def action_next_match(self, step: int) -> None:
        if self._view is None:
            return
        if self._search is not None:
            self._further.append(step)
        elif not self.words:
            self.post_message(self.NothingFound("n and N go on with a search; / begins one"))
        else:
            start = self._view.offset
            if self._match is not None:
                start = self._match.offset + (step > 0)
            below = "below" if step > 0 else "above"
            self._look_for((self.words,), step, start, f"no further {self.words!r} {below}")

    def action_find_error(self) -> None:
        if self._by_error and self._match is not None:
            otherwise = "no further error below; ! goes to the first one again"
            self._look_for(ERROR_WORDS, 1, self._match.offset + 1, otherwise)
        else:
            self._look_for(ERROR_WORDS, 1, None, "no error is told of in this log")

    def leave_search(self) -> bool:
        """End the search that is under way, or else forget its words; False when there is none."""
        if self._search is not None:
            self._end_search()
            self.post_message(self.NothingFound("the search is ended"))
        elif self.words:
            self.words = ""
        else:
            return False
        return True

    def _look_for(
        self, words: tuple[str, ...], step: int, start: int | None, otherwise: str
    ) -> None:
        self._end_search()
        if self._view is not None:
            from autocoder.tui.log_search import LogSearch

            self._search = LogSearch(
                self._view.log,
                words,
                step,
                start,
                moved=lambda search: self.post_message(self.SearchMoved(search)),
                otherwise=otherwise,
            )
            self.post_message(self.StatusChanged())

    def _end_search(self) -> None:
        self._further.clear()
        if self._search is not None:
            self._search.end()
            self._search = None
            self.post_message(self.StatusChanged())

    def on_log_pane_search_moved(self, message: SearchMoved) -> None:
        search = message.search
        if search is not self._search or self._view is None:
            return
        self.post_message(self.StatusChanged())
        if not search.over:
            return
        self._search = None
        self._by_error = search.found is not None and search.words == ERROR_WORDS
        if search.found is None:
            self._further.clear()
            self.post_message(self.NothingFound(search.otherwise))
            return
        self._match = search.found
        if self._by_error:
            self.words = self._match.words
        self._view.go_to(self._match.offset, row=self.size.height // 2)
        self._moved()
        further = list(self._further)
        self._further.clear()
        for step in further:
            self.action_next_match(step)
