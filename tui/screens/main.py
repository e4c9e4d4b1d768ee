"""The main screen: header, grid of agents, the selected agent's log, notices, keys.

It composes widgets and turns keys into wishes; what is true comes down in one
snapshot, and a wish shows only when a later snapshot says so.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult, SuspendNotSupported
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.reactive import reactive
from textual.screen import Screen
from textual.widgets import Input

from autocoder.core.commands import (
    Command,
    KillAgent,
    MergeFeature,
    Pause,
    RecoverAgent,
    RecoverAll,
    Resume,
    SpawnAgent,
    StopAgent,
)
from autocoder.core.logs import sanitise
from autocoder.core.models import Agent, Snapshot
from autocoder.core.questions import Questions
from autocoder.tui import keys, outside, render
from autocoder.tui.messages import CommandsRequested, Page, QuestionAsked, QuitRequested
from autocoder.tui.palette import THEMES, Tone
from autocoder.tui.query import Query, parse
from autocoder.tui.render_answers import ASKING, details_page, diff_page, events_page, settings_page
from autocoder.tui.screens.confirm import ConfirmScreen, Question
from autocoder.tui.screens.expand import ExpandScreen
from autocoder.tui.screens.features import FeaturesScreen
from autocoder.tui.screens.help import help_lines
from autocoder.tui.screens.ports import PortsScreen
from autocoder.tui.screens.sheet import SheetScreen
from autocoder.tui.screens.spawn import SpawnScreen
from autocoder.tui.screens.wall import WallScreen
from autocoder.tui.spans import Line, counted
from autocoder.tui.widgets.header import Header
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.log_pane import LogPane
from autocoder.tui.widgets.notice_line import NoticeLine
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.rule import Rule
from autocoder.tui.widgets.table import Table

LEAST_WIDTH, LEAST_HEIGHT = 60, 16
CHANGING = frozenset(
    {
        *("spawn", "spawn_typed", "stop", "kill", "recover", "recover_all", "merge"),
        *("expand", "pause", "stop_all", "shell"),
    }
)
"""Actions that a read-only panel does not have."""
WORD_S = 5.0
EVENTS_SHOWN = 500


class MainScreen(Screen[None]):
    CSS_PATH = "main.tcss"
    BINDINGS: ClassVar[list[BindingType]] = list(keys.MAIN)
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-tall")]  # noqa: RUF012 - as Textual declares it

    snapshot: reactive[Snapshot | None] = reactive(None, init=False, always_update=True)
    leaving: reactive[str] = reactive("", init=False)
    """What the panel waits for before it leaves; empty while it stays."""
    filter: reactive[Query] = reactive(Query(), init=False)
    only_problems: reactive[bool] = reactive(False, init=False)

    def __init__(self, clock: Callable[[], float], project: str, *, read_only: bool) -> None:
        super().__init__()
        self._clock = clock
        self._project = project
        self._read_only = read_only
        self._searching = False
        """The bar is for the log, not for the grid."""

    def compose(self) -> ComposeResult:
        yield Header(self._clock, self._project).data_bind(MainScreen.snapshot)
        yield Rule(id="grid-rule")
        yield Table[Agent](
            render.AGENT_COLUMNS, lambda agent: agent.agent_id, self._clock, id="grid"
        )
        yield Rule(id="log-rule")
        yield LogPane(id="log")
        yield Rule(id="notice-rule")
        yield NoticeLine(self._clock).data_bind(MainScreen.snapshot)
        with Horizontal(id="filter"):
            yield TextLines(id="filter-label")
            yield Input(id="filter-input", compact=True)
        yield KeyBar()
        yield TextLines(id="too-small")

    @property
    def grid(self) -> Table[Agent]:
        return self.query_one("#grid", Table)

    @property
    def log_pane(self) -> LogPane:
        return self.query_one("#log", LogPane)

    def on_mount(self) -> None:
        self.query_one("#filter-input", Input).cursor_blink = False
        self.grid.focus()

    # -- what comes down

    def watch_snapshot(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            return
        self._show_agents()
        self._show_log()

    def watch_filter(self) -> None:
        self._show_agents()

    def watch_only_problems(self) -> None:
        self._show_agents()

    def watch_leaving(self) -> None:
        self.query_one(NoticeLine).word = (
            ((f" ◍ {self.leaving}", Tone.WARN),) if self.leaving else ()
        )

    def _show_agents(self) -> None:
        if self.snapshot is None:
            return
        snapshot = self.snapshot
        agents = render.problems(snapshot) if self.only_problems else snapshot.agents
        filtered = bool(self.filter.terms)
        shown = [agent for agent in agents if self.filter.holds(agent)] if filtered else agents
        grid = self.grid
        if self.only_problems and not agents:
            grid.empty = render.NO_PROBLEMS
        else:
            grid.empty = render.empty_grid(snapshot, filtered=filtered)
        grid.show(shown)
        self._say_what_is_shown()

    @on(Table.MarksChanged)
    def _say_what_is_shown(self) -> None:
        if self.snapshot is not None:
            self.query_one("#grid-rule", Rule).left = render.grid_word(
                self.filter,
                len(self.grid.rows),
                len(self.snapshot.agents),
                problems=self.only_problems,
                marked=len(self.grid.marks),
            )

    @property
    def selected(self) -> Agent | None:
        """The agent under the cursor."""
        return self.grid.cursor_row

    def _show_log(self) -> None:
        self.log_pane.agent = self.selected

    @on(Table.CursorMoved, "#grid")
    def _on_cursor_moved(self) -> None:
        self._show_log()

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
        small = width < LEAST_WIDTH or height < LEAST_HEIGHT
        self.set_class(small, "-too-small")
        self.query_one("#too-small", TextLines).lines = (
            (("", Tone.PLAIN),),
            ((f" autocoder needs {LEAST_WIDTH}x{LEAST_HEIGHT}", Tone.STRONG),),
            ((f" this terminal is {width}x{height}", Tone.DIM),),
            ((" make it larger; agents go on", Tone.DIM),),
        )

    # -- wishes

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return not (self._read_only and action in CHANGING)

    def say(self, text: str) -> None:
        """A word of the panel's own, for a few seconds."""
        line = self.query_one(NoticeLine)
        line.word = ((f" · {text}", Tone.PLAIN),)

        def fall_silent(said: Line = line.word) -> None:
            if line.word == said:
                line.word = ()

        self.set_timer(WORD_S, fall_silent)

    def want(self, *commands: Command) -> None:
        if commands:
            self.post_message(CommandsRequested(*commands))

    def action_spawn(self) -> None:
        self.want(SpawnAgent())

    def action_spawn_typed(self) -> None:
        if self.snapshot is not None:
            self.app.push_screen(SpawnScreen(self.snapshot), self._spawn)

    def _spawn(self, command: SpawnAgent | None) -> None:
        self.want(*([command] if command else []))

    def action_stop(self) -> None:
        self._end("stop", "x", StopAgent)

    def action_kill(self) -> None:
        self._end("kill", "X", KillAgent)

    def _end(self, verb: str, key: str, command: type[StopAgent | KillAgent]) -> None:
        targets = [agent for agent in self.grid.targets if agent.live]
        if not targets:
            self.say(
                f"{key} {verb}s live agents; this one has ended"
                if self.grid.rows
                else f"{key} {verb}s live agents; there is none"
            )
            return
        question = Question(
            title=f"{verb.capitalize()} {counted(len(targets), 'agent')}?",
            body=render.target_lines(targets),
            verb=f"{verb}s",
            otherwise="keeps",
            key=key,
        )
        self._confirm(question, tuple(command(agent.agent_id) for agent in targets))

    def action_recover(self) -> None:
        targets = self.grid.targets
        commands = tuple(RecoverAgent(agent.agent_id) for agent in targets)
        if not targets:
            self.say("r recovers an agent; there is none")
        elif not any(agent.live for agent in targets):
            self.want(*commands)
        else:
            question = Question(
                title=f"Recover {counted(len(targets), 'agent')}, killing what still lives?",
                body=render.target_lines(targets),
                verb="recovers",
                otherwise="leaves all as it is",
                key="r",
            )
            self._confirm(question, commands)

    def action_recover_all(self) -> None:
        if self.snapshot is None or not self.snapshot.recovery:
            self.say("R recovers what nobody looks after; there is nothing")
            return
        question = Question(
            title="Recover all of this?",
            body=render.recovery_lines(self.snapshot),
            verb="recovers",
            otherwise="leaves all as it is",
            key="R",
        )
        self._confirm(question, (RecoverAll(),))

    def action_merge(self) -> None:
        self.want(*(MergeFeature(agent.feature_id) for agent in self.grid.targets))

    def _confirm(self, question: Question, commands: tuple[Command, ...]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self.want(*commands)

        self.app.push_screen(ConfirmScreen(question), answered)

    def action_expand(self) -> None:
        if self.snapshot is None:
            return
        self.app.push_screen(ExpandScreen(self.snapshot.pools), self._extend)

    def _extend(self, commands: tuple[Command, ...] | None) -> None:
        self.want(*(commands or ()))

    def action_pause(self) -> None:
        if self.snapshot is not None:
            self.want(Resume() if self.snapshot.paused else Pause())

    def action_quit(self) -> None:
        self.post_message(QuitRequested(stop_agents=False))

    def action_stop_all(self) -> None:
        live = [agent for agent in self.snapshot.agents if agent.live] if self.snapshot else []
        if not live:
            self.post_message(QuitRequested(stop_agents=True))
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.post_message(QuitRequested(stop_agents=True))

        question = Question(
            title=f"Stop all {counted(len(live), 'agent')} and quit?",
            body=render.target_lines(live),
            verb="stops them",
            otherwise="stays",
            key="Q",
        )
        self.app.push_screen(ConfirmScreen(question), answered)

    # -- moving about

    def action_help(self) -> None:
        self.app.push_screen(SheetScreen("help", help_lines()))

    def action_ports(self) -> None:
        screen = PortsScreen(self._clock, read_only=self._read_only)
        self.app.push_screen(screen, self._go_to)

    def action_wall(self) -> None:
        self.app.push_screen(WallScreen(self._clock, self.grid.marks), self._go_to)

    def action_features(self) -> None:
        self.app.push_screen(FeaturesScreen(self._clock, read_only=self._read_only))

    def action_details(self) -> None:
        agent, now = self.selected, self._clock()
        if agent is not None:
            self._ask(agent.agent_id, lambda ask: details_page(agent, ask.details(agent), now))

    def action_diff(self) -> None:
        agent = self.selected
        if agent is not None:
            self._ask(f"{agent.agent_id} against base", lambda ask: diff_page(ask.diff(agent)))

    def action_events(self) -> None:
        self._ask("events", lambda questions: events_page(questions.events(EVENTS_SHOWN)))

    def action_settings(self) -> None:
        self._ask("settings", lambda questions: settings_page(questions.settings()))

    def _ask(self, title: str, question: Callable[[Questions], Page]) -> None:
        sheet = SheetScreen(sanitise(title), ASKING)
        self.app.push_screen(sheet)
        self.post_message(QuestionAsked(question, sheet))

    # -- beside the panel

    def action_copy(self) -> None:
        found = outside.urls(self.selected) if self.selected else ()
        self._copy(found[0] if found else "", "y copies a URL; here is none")

    def action_ssh(self) -> None:
        line = outside.ssh_line(self.grid.targets, os.environ, os.uname().nodename)
        self._copy(line, "no ports to forward")

    def _copy(self, text: str, otherwise: str) -> None:
        if text:
            self.app.copy_to_clipboard(text)
        self.say(f"copied  {text}" if text else otherwise)

    def action_urls(self) -> None:
        self.app.push_screen(SheetScreen("urls", render.urls_page(self.grid.targets)))

    def action_shell(self) -> None:
        agent = self.selected
        if agent is None or not agent.worktree_path or not Path(agent.worktree_path).is_dir():
            self.say("$ opens a shell in a worktree; here is none")
            return
        env = outside.agent_environment(agent, os.environ)
        self._run_outside(outside.shell(os.environ), Path(agent.worktree_path), env)

    def action_editor(self) -> None:
        agent = self.selected
        if agent is None or not agent.log_path or not Path(agent.log_path).is_file():
            self.say("E opens a log in the editor; here is none")
            return
        log = Path(agent.log_path)
        self._run_outside(outside.editor(os.environ, log), log.parent, os.environ)

    def _run_outside(self, argv: list[str], folder: Path, env: Mapping[str, str]) -> None:
        try:
            with self.app.suspend():
                complaint = outside.run_in_terminal(argv, cwd=folder, env=env)
        except SuspendNotSupported:
            complaint = "this terminal cannot be handed over"
        if complaint:
            self.say(complaint)

    def action_palette(self) -> None:
        self.app.action_command_palette()

    def action_theme(self) -> None:
        names = [theme.name for theme in THEMES]
        at = names.index(self.app.theme) if self.app.theme in names else -1
        self.app.theme = names[(at + 1) % len(names)]

    def go_to(self, agent_id: str) -> None:
        """Put the cursor on an agent, its log beside it; whatever hides it is lifted."""
        self.only_problems = False
        self.filter = Query()
        self._go_to(agent_id)

    def _go_to(self, agent_id: str | None) -> None:
        if agent_id and self.grid.go_to(agent_id):
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

    def action_back(self) -> None:
        if self.focused is self.query_one("#filter-input", Input):
            if self._searching:
                self.log_pane.words = ""
            else:
                self.filter = Query()
            self._leave_bar()
        elif self.focused is self.log_pane and self.log_pane.words:
            self.log_pane.words = ""
        elif self.focused is self.log_pane or self.has_class("-zoom-grid"):
            self._zoom("")
            self.grid.focus()
        elif self.grid.marks:
            self.grid.mark(())
        elif self.filter.text:
            self.filter = Query()
        else:
            self.only_problems = False

    # -- choosing

    def action_mark(self) -> None:
        key = self.grid.cursor_key
        if key is not None:
            self.grid.mark(self.grid.marks ^ {key})
            self.grid.action_move(1)

    def action_mark_all(self) -> None:
        shown = {agent.agent_id for agent in self.grid.rows}
        self.grid.mark(() if self.grid.marks == shown else shown)

    def action_problems(self) -> None:
        self.only_problems = not self.only_problems

    def action_next_problem(self) -> None:
        if self.snapshot is None:
            return
        wrong = {agent.agent_id for agent in render.problems(self.snapshot)}
        ids = [agent.agent_id for agent in self.grid.rows]
        here = ids.index(self.grid.cursor_key) + 1 if self.grid.cursor_key in ids else 0
        for agent_id in ids[here:] + ids[:here]:
            if agent_id in wrong:
                self.grid.go_to(agent_id)
                return
        self.say("no problems")

    def action_notices(self) -> None:
        if self.snapshot is None:
            return
        notices = self.snapshot.notices
        self.query_one(NoticeLine).seen = max((notice.id for notice in notices), default=0)
        lines = render.notices_page(notices)
        self.app.push_screen(SheetScreen("notices", lines))

    # -- the filter

    def action_filter(self) -> None:
        self._open_bar("filter", self.filter.text)

    @on(LogPane.SearchRequested)
    def _on_search_requested(self) -> None:
        self._open_bar("search", self.log_pane.words)

    def _open_bar(self, purpose: str, text: str) -> None:
        self._searching = purpose == "search"
        self.query_one("#filter-label", TextLines).lines = (((f" {purpose} ", Tone.ACCENT),),)
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
        if self._searching and not self.log_pane.search(event.value):
            self.say(f"{event.value!r} is nowhere in what is kept of this log")
