"""The clean-up of worktrees: what is on disk, what would be lost, and what may go."""

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.screen import Screen

from autocoder.core.commands import RemoveWorktrees
from autocoder.core.logs import sanitise
from autocoder.core.models import Notice, Snapshot, WorktreeStatus
from autocoder.core.questions import Questions
from autocoder.tui import keys, render_worktrees
from autocoder.tui.messages import (
    CommandsRequested,
    QuestionAsked,
    QuestionRefused,
    WorktreesAnswered,
)
from autocoder.tui.render_answers import error_page
from autocoder.tui.screens.confirm import ConfirmScreen, Question, key_of
from autocoder.tui.spans import counted
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.notice_line import NoticeLine
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.rule import Rule
from autocoder.tui.widgets.table import Table


class WorktreesScreen(Screen[None]):
    """Ticked are those that nothing would be lost with; others cannot be."""

    BINDINGS: ClassVar[list[BindingType]] = list(keys.WORKTREES)

    def __init__(self, clock: Callable[[], float], *, read_only: bool) -> None:
        super().__init__()
        self._clock = clock
        self._read_only = read_only
        self._worktrees: tuple[WorktreeStatus, ...] = ()
        self._answered = False
        self._notices: tuple[Notice, ...] = ()
        self._on_disk: frozenset[str] = frozenset()

    def compose(self) -> ComposeResult:
        yield TextLines(id="title")
        yield Rule()
        yield Table[WorktreeStatus](
            render_worktrees.WORKTREE_COLUMNS,
            render_worktrees.worktree_key,
            self._clock,
            empty=render_worktrees.LOOKING,
            id="worktrees",
        )
        yield Rule()
        yield NoticeLine(self._clock, only_new=True)
        yield KeyBar()

    def on_mount(self) -> None:
        self._say_what_is_ticked()
        self.watch(self.app, "snapshot", self._on_snapshot)
        self.table.focus()

    @property
    def table(self) -> Table[WorktreeStatus]:
        return self.query_one("#worktrees", Table)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return not (self._read_only and action == "remove")

    def _on_snapshot(self, snapshot: Snapshot | None) -> None:
        """Ask anew when a worktree has come or gone, or an agent has ended."""
        line = self.query_one(NoticeLine)
        notices = snapshot.notices if snapshot else ()
        if notices[-1:] != self._notices[-1:]:
            line.say("")  # what the engine says now matters more
        self._notices = notices
        line.snapshot = snapshot
        agents = snapshot.agents if snapshot else ()
        on_disk = frozenset(
            f"{agent.worktree_path} {agent.live}" for agent in agents if agent.worktree_path
        )
        if not self._answered or on_disk != self._on_disk:
            self._on_disk = on_disk
            self.action_look()

    def action_look(self) -> None:
        def question(ask: Questions) -> WorktreesAnswered:
            return WorktreesAnswered(ask.worktrees())

        self.post_message(QuestionAsked(question, self))

    def on_worktrees_answered(self, message: WorktreesAnswered) -> None:
        self._worktrees = message.worktrees
        table = self.table
        table.empty = render_worktrees.NO_WORKTREES
        table.show(message.worktrees)
        removable = self._removable
        table.mark(table.marks & removable if self._answered else removable)
        self._answered = True
        table.refresh()

    def on_question_refused(self, message: QuestionRefused) -> None:
        self.table.empty = error_page(message.error)
        self.table.show(())
        self.table.refresh()

    @property
    def _removable(self) -> frozenset[str]:
        return frozenset(each.agent_id for each in self._worktrees if each.removable)

    @on(Table.MarksChanged)
    def _say_what_is_ticked(self) -> None:
        line = render_worktrees.worktrees_title(self._worktrees, self.table.marks)
        self.query_one("#title", TextLines).lines = (line,)

    def _say(self, text: str) -> None:
        self.query_one(NoticeLine).say(text, seconds=None)

    def action_mark(self) -> None:
        worktree = self.table.cursor_row
        if worktree is None:
            return
        if not worktree.removable:
            name, why = sanitise(worktree.agent_id), render_worktrees.why_it_stays(worktree)
            self._say(f"{name} stays: {why}")
            return
        self._say("")
        self.table.mark(self.table.marks ^ {worktree.agent_id})
        self.table.action_move(1)

    def action_mark_all(self) -> None:
        self.table.mark(() if self.table.marks == self._removable else self._removable)

    def action_remove(self) -> None:
        chosen = [each for each in self._worktrees if each.agent_id in self.table.marks]
        if not chosen:
            self._say("nothing is ticked")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                ids = tuple(each.agent_id for each in chosen)
                self.post_message(CommandsRequested(RemoveWorktrees(ids)))
                self._say(f"removing {counted(len(ids), 'worktree')} …")

        question = Question(
            title=f"Remove {counted(len(chosen), 'worktree')}?",
            body=render_worktrees.removal_lines(chosen),
            verb="removes",
            otherwise="keeps",
            key=key_of(self, "remove"),
        )
        self.app.push_screen(ConfirmScreen(question), answered)

    def action_back(self) -> None:
        self.dismiss(None)
