"""The ports view: every row of the host's ledger, this project's and others'."""

import os
from collections.abc import Callable
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.widgets import Input

from autocoder.core.commands import ExpandPool, ProbePort, ReleasePort
from autocoder.core.models import Agent, Lease, Snapshot
from autocoder.tui import keys, render, render_header, render_ports
from autocoder.tui.messages import CommandsRequested
from autocoder.tui.palette import Tone
from autocoder.tui.pool_history import STEP_S, PoolHistory
from autocoder.tui.screens.confirm import ConfirmScreen, Question, key_of
from autocoder.tui.screens.expand import ExpandScreen
from autocoder.tui.spans import Line
from autocoder.tui.widgets.key_bar import KeyBar
from autocoder.tui.widgets.notice_line import NoticeLine
from autocoder.tui.widgets.painted import TextLines
from autocoder.tui.widgets.rule import Rule
from autocoder.tui.widgets.table import Table

CHANGING = frozenset({"expand", "release", "probe"})


class PortsScreen(Screen[str | None]):
    """Dismissed with the id of the agent to go to, or None."""

    BINDINGS: ClassVar[list[BindingType]] = list(keys.PORTS)

    def __init__(
        self, clock: Callable[[], float], history: PoolHistory, *, read_only: bool
    ) -> None:
        super().__init__()
        self._clock = clock
        self._history = history
        self._read_only = read_only
        self._snapshot: Snapshot | None = None
        self._holders: dict[str, Agent] = {}
        self._words = ""

    def compose(self) -> ComposeResult:
        yield TextLines(id="title")
        yield TextLines(id="gauges")
        yield TextLines(id="history")
        yield Rule()
        yield Table[Lease](
            render_ports.lease_columns(self._agent_of, self._is_orphaned),
            render_ports.lease_key,
            self._clock,
            empty=render_ports.NO_LEASES,
            id="leases",
        )
        yield Rule(id="remedy-rule")
        yield NoticeLine(self._clock, only_new=True)
        with Horizontal(id="filter"):
            yield TextLines(id="filter-label")
            yield Input(id="filter-input", compact=True)
            yield TextLines(id="filter-hint")
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one("#filter-label", TextLines).lines = (((" filter ", Tone.ACCENT),),)
        hint = render.typing_hint("keeps", "clears")
        self.query_one("#filter-hint", TextLines).lines = (hint,)
        self.watch(self.app, "snapshot", self._on_snapshot)
        self.watch(self.table, "cursor_key", self._say_what_is_left_out, init=False)
        self.set_interval(1.0, self._say_what_is_left_out)
        self.table.focus()

    @property
    def table(self) -> Table[Lease]:
        return self.query_one("#leases", Table)

    def _on_snapshot(self, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            return
        self._snapshot = snapshot
        self.query_one(NoticeLine).snapshot = snapshot
        self._holders = {agent.agent_id: agent for agent in snapshot.agents if agent.live}
        self._show_pools(self.app.size.width)
        self._show_history()
        self._show()

    def _show_pools(self, width: int) -> None:
        if self._snapshot is not None:
            title = render_ports.ports_title(self._snapshot, os.uname().nodename, width)
            self.query_one("#title", TextLines).lines = (title,)
            gauges = render_header.pools_line(self._snapshot, width)
            self.query_one("#gauges", TextLines).lines = (gauges,)

    def _show_history(self) -> None:
        roles = (
            list(dict.fromkeys(pool.role for pool in self._snapshot.pools))
            if self._snapshot
            else []
        )
        now = self._clock()
        past = [(role, self._history.of(role, now)) for role in roles]
        self.query_one("#history", TextLines).lines = (render_ports.history_line(past, STEP_S),)

    def _show(self) -> None:
        if self._snapshot is not None:
            leases = self._snapshot.leases
            shown = [lease for lease in leases if render_ports.lease_matches(lease, self._words)]
            self.table.empty = render_ports.NONE_MATCHES if leases else render_ports.NO_LEASES
            self.table.show(shown)
            self._say_what_is_left_out()

    def on_resize(self, event: events.Resize) -> None:
        self._show_pools(event.size.width)
        self.call_after_refresh(self._say_what_is_left_out)

    def _say_what_is_left_out(self) -> None:
        """On a narrow screen the table has no room for what to do about a port."""
        lease, said = self.table.cursor_row, self.table.left_out("remedy")
        shown: Line = ()
        if lease is not None and said:
            shown = ((f" {lease.port}  ", Tone.STRONG), *said, (" ", Tone.PLAIN))
        self.query_one("#remedy-rule", Rule).left = shown

    def _agent_of(self, lease: Lease) -> Agent | None:
        if self._snapshot is None or lease.project != self._snapshot.project_dir:
            return None
        return self._holders.get(lease.holder)

    def _is_orphaned(self, lease: Lease) -> bool:
        ours = self._snapshot is not None and lease.project == self._snapshot.project_dir
        return ours and lease.holder not in self._holders

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        return not (self._read_only and action in CHANGING)

    def action_go_to_agent(self) -> None:
        lease = self.table.cursor_row
        agent = self._agent_of(lease) if lease is not None else None
        if agent is not None:
            self.dismiss(agent.agent_id)
        elif lease is not None:
            self.query_one(NoticeLine).say(render_ports.no_agent(lease))

    def action_probe(self) -> None:
        lease = self.table.cursor_row
        if lease is not None:
            self.post_message(CommandsRequested(ProbePort(lease.port)))

    def action_release(self) -> None:
        lease = self.table.cursor_row
        if lease is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.post_message(CommandsRequested(ReleasePort(lease.port)))

        question = Question(
            title=f"Release port {lease.port}?",
            body=render_ports.release_lines(lease, held=self._agent_of(lease) is not None),
            verb="releases",
            otherwise="keeps",
            key=key_of(self, "release"),
        )
        self.app.push_screen(ConfirmScreen(question), answered)

    def action_expand(self) -> None:
        if self._snapshot is not None:
            self.app.push_screen(ExpandScreen(self._snapshot.pools), self._extend)

    def _extend(self, commands: tuple[ExpandPool, ...] | None) -> None:
        if commands:
            self.post_message(CommandsRequested(*commands))

    def action_back(self) -> None:
        typed = self.query_one("#filter-input", Input)
        if self.focused is typed or self._words:
            typed.value = ""
            self._leave_filter()
        else:
            self.dismiss(None)

    def action_filter(self) -> None:
        self.add_class("-filtering")
        self.query_one("#filter-input", Input).focus()

    def _leave_filter(self) -> None:
        self.remove_class("-filtering")
        self.table.focus()

    @on(Input.Changed)
    def _on_typed(self, event: Input.Changed) -> None:
        self._words = event.value
        self._show()

    @on(Input.Submitted)
    def _on_submitted(self) -> None:
        self._leave_filter()
