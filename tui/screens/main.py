"""The main screen: header, grid of agents, the selected agent's log, notices, keys.

It composes widgets and moves among them; what its other keys ask for is in
`wishes`, `looking` and `beside`. What is true comes down in one snapshot, and a
wish shows only when a later snapshot says so.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.reactive import var
from textual.widgets import Input

from autocoder.core.logs import sanitise
from autocoder.core.models import Agent, Snapshot
from autocoder.tui import keys, render, render_agents
from autocoder.tui.palette import Tone
from autocoder.tui.query import Query, parse
from autocoder.tui.screens.beside import Beside
from autocoder.tui.screens.looking import Looking
from autocoder.tui.screens.wishes import Wishes
from autocoder.tui.spans import Line, counted, width_of
from autocoder.tui.widgets.header import Header
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.log_pane import LogPane
from autocoder.tui.widgets.notice_line import WORD_S, NoticeLine
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.rule import Rule
from autocoder.tui.widgets.table import Table

LEAST_WIDTH, LEAST_HEIGHT = 60, 16


class MainScreen(Wishes, Looking, Beside):
    CSS_PATH = "main.tcss"
    BINDINGS: ClassVar[list[BindingType]] = list(keys.MAIN)
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012 - as Textual declares it

    leaving: var[str] = var("", init=False)
    """What the panel waits for before it leaves; empty while it stays."""
    filter: var[Query] = var(Query(), init=False)
    only_problems: var[bool] = var(False, init=False)

    def __init__(self, clock: Callable[[], float], project: str, *, read_only: bool) -> None:
        super().__init__(clock, read_only=read_only)
        self._project = project
        self._searching = False
        """The bar is for the log, not for the grid."""

    def compose(self) -> ComposeResult:
        yield Header(self._clock, self._project).data_bind(MainScreen.snapshot)
        yield Rule(id="grid-rule")
        yield Table[Agent](
            render_agents.AGENT_COLUMNS, lambda agent: agent.agent_id, self._clock, id="grid"
        )
        yield Rule(id="log-rule")
        yield LogPane(id="log")
        yield Rule(id="notice-rule")
        yield NoticeLine(self._clock).data_bind(MainScreen.snapshot)
        with Horizontal(id="filter"):
            yield TextLines(id="filter-label")
            yield Input(id="filter-input", compact=True)
            yield TextLines(id="filter-hint")
        yield KeyBar()
        yield TextLines(id="too-small")

    @property
    def grid(self) -> Table[Agent]:
        return self.query_one("#grid", Table)

    @property
    def log_pane(self) -> LogPane:
        return self.query_one("#log", LogPane)

    def on_mount(self) -> None:
        if self._read_only:
            self.query_one("#grid-rule", Rule).right = render.READ_ONLY
        self.query_one("#filter-input", Input).cursor_blink = False
        self.watch(self.grid, "cursor_key", self._show_log, init=False)
        self.grid.focus()

    # -- what comes down

    def watch_snapshot(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            return
        self.pool_history.add(snapshot.pools, self._clock())
        self._show_agents()
        self._show_log()

    def watch_filter(self) -> None:
        self._show_agents(refiltered=True)

    def watch_only_problems(self) -> None:
        self._show_agents(refiltered=True)

    def watch_leaving(self) -> None:
        self.query_one(NoticeLine).word = (
            ((f" ◍ {self.leaving}", Tone.WARN),) if self.leaving else ()
        )

    def _show_agents(self, *, refiltered: bool = False) -> None:
        if self.snapshot is None:
            return
        snapshot = self.snapshot
        choose = render_agents.problems if self.only_problems else render_agents.problems_first
        agents = choose(snapshot)
        filtered = bool(self.filter.terms)
        shown = [agent for agent in agents if self.filter.holds(agent)] if filtered else agents
        grid = self.grid
        if self.only_problems and not agents:
            grid.empty = render.NO_PROBLEMS
        else:
            grid.empty = render.empty_grid(snapshot, filtered=filtered)
        hidden: set[str] = set()
        if len(shown) < len(snapshot.agents):
            hidden = {agent.agent_id for agent in snapshot.agents}
            hidden.difference_update(agent.agent_id for agent in shown)
        grid.show(shown, hidden=hidden, refiltered=refiltered)
        self._say_what_is_shown()

    @on(Table.MarksChanged)
    def _say_what_is_shown(self) -> None:
        if self.snapshot is not None:
            self.query_one("#grid-rule", Rule).left = render.grid_word(
                self.filter,
                len(self.grid.rows),
                len(self.snapshot.agents),
                problems=self.only_problems,
                marked=len(self.grid.marks_shown),
                marked_hidden=len(self.grid.marks) - len(self.grid.marks_shown),
            )

    @property
    def targets(self) -> Sequence[Agent]:
        return self.grid.targets

    @property
    def marked(self) -> frozenset[str]:
        return self.grid.marks_shown

    @property
    def selected(self) -> Agent | None:
        return self.grid.cursor_row

    def say(self, text: str, *, seconds: float = WORD_S) -> None:
        self.query_one(NoticeLine).say(text, seconds)

    def _show_log(self) -> None:
        self.log_pane.agent = self.selected
        self._say_what_is_left_out()

    def _say_what_is_left_out(self) -> None:
        """On a narrow screen the grid has no room for why an agent needs somebody."""
        agent, said = self.selected, self.grid.left_out("last")
        shown: Line = ()
        # Its log and the title of that tell of everything else.
        in_the_log = agent is not None and self.log_pane.display and not agent.problem
        if agent is not None and width_of(said) and not in_the_log:
            shown = ((f" {sanitise(agent.agent_id)}  ", Tone.STRONG), *said, (" ", Tone.PLAIN))
        self.query_one("#notice-rule", Rule).left = shown

    @on(LogPane.StatusChanged)
    def _on_status_changed(self) -> None:
        self.query_one("#log-rule", Rule).right = self.log_pane.status

    def on_descendant_focus(self, _event: events.DescendantFocus) -> None:
        self._mark_focus()

    def _mark_focus(self) -> None:
        on_log = self.focused is self.log_pane
        self.query_one("#log-rule", Rule).active = on_log
        self.query_one("#grid-rule", Rule).active = not on_log

    def on_resize(self, event: events.Resize) -> None:
        width, height = event.size
        self.call_after_refresh(self._say_what_is_left_out)
        small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        self.set_class(small, "-too-small")
        self.query_one("#too-small", TextLines).lines = (
            (("", Tone.PLAIN),),
            ((f" autocoder needs {LEAST_WIDTH}x{LEAST_HEIGHT}", Tone.STRONG),),
            ((f" this terminal is {width}x{height}", Tone.DIM),),
            ((" make it larger; agents go on", Tone.DIM),),
        )

    # -- moving about

    def go_to(self, agent_id: str | None) -> None:
        if not agent_id:
            return
        if not self.grid.go_to(agent_id):
            self.only_problems = False
            self.filter = Query()
            self.grid.go_to(agent_id)
        self.action_focus_log()

    def action_focus_log(self) -> None:
        if self.focused is self.log_pane:
            return
        if self.has_class("-short"):
            self._zoom("-zoom-log")
        self.log_pane.focus()

    def action_zoom(self) -> None:
        if self.has_class("-zoom-log") or self.has_class("-zoom-grid"):
            self._zoom("")
        else:
            self._zoom("-zoom-log" if self.focused is self.log_pane else "-zoom-grid")

    def _zoom(self, pane: str) -> None:
        for name in ("-zoom-log", "-zoom-grid"):
            self.set_class(name == pane, name)
        self.call_after_refresh(self._say_what_is_left_out)

    def action_back(self) -> None:
        if self.focused is self.query_one("#filter-input", Input):
            if self._searching:
                self.log_pane.words = ""
            else:
                self.filter = Query()
            self._leave_bar()
        elif self.focused is self.log_pane and self.log_pane.leave_search():
            return
        elif self.focused is self.log_pane or self.has_class("-zoom-grid"):
            self._zoom("")
            self.grid.focus()
        elif self.filter.text:
            self.filter = Query()
        elif self.only_problems:
            self.only_problems = False
        else:
            self.grid.mark(())

    # -- choosing

    def action_mark(self) -> None:
        key = self.grid.cursor_key
        if key is not None:
            self.grid.mark(self.grid.marks ^ {key})
            self.grid.action_move(1)

    def action_mark_all(self) -> None:
        shown, marks = {agent.agent_id for agent in self.grid.rows}, self.grid.marks
        self.grid.mark(marks - shown if shown <= marks else marks | shown)

    def action_problems(self) -> None:
        self.only_problems = not self.only_problems

    def action_next_problem(self) -> None:
        if self.snapshot is None:
            return
        wrong = {agent.agent_id for agent in render_agents.problems(self.snapshot)}
        ids = [agent.agent_id for agent in self.grid.rows]
        here = ids.index(self.grid.cursor_key) + 1 if self.grid.cursor_key in ids else 0
        for agent_id in ids[here:] + ids[:here]:
            if agent_id in wrong:
                self.grid.go_to(agent_id)
                return
        hidden = f"the filter hides {counted(len(wrong), 'problem')}; esc clears it"
        self.say(hidden if wrong else "no problems")

    # -- the filter

    def action_filter(self) -> None:
        self._open_bar("filter", self.filter.text)

    @on(LogPane.SearchRequested)
    def _on_search_requested(self) -> None:
        self._open_bar("search", self.log_pane.words)

    def _open_bar(self, purpose: str, text: str) -> None:
        self._searching = purpose == "search"
        self.query_one("#filter-label", TextLines).lines = (((f" {purpose} ", Tone.ACCENT),),)
        ends = ("finds", "leaves") if self._searching else ("keeps", "clears")
        self.query_one("#filter-hint", TextLines).lines = (render.typing_hint(*ends),)
        typed = self.query_one("#filter-input", Input)
        with self.prevent(Input.Changed):
            typed.value = text
        self.add_class("-filtering")
        typed.focus()

    def _leave_bar(self) -> None:
        self.remove_class("-filtering")
        (self.log_pane if self._searching else self.grid).focus()

    @on(Input.Changed, "#filter-input")
    def _on_typed(self, event: Input.Changed) -> None:
        if self._searching:
            self.log_pane.words = event.value
        else:
            self.filter = parse(event.value)

    @on(Input.Submitted, "#filter-input")
    def _on_submitted(self, event: Input.Submitted) -> None:
        self._leave_bar()
        if self._searching:
            self.log_pane.search(event.value)

    @on(LogPane.NothingFound)
    def _on_nothing_found(self, message: LogPane.NothingFound) -> None:
        self.say(message.text)
