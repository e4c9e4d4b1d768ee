"""Several logs at once, all drawn by one widget.

So the cost is that of the screen, whatever the number of panes.
"""

from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.reactive import var
from textual.strip import Strip

from autocoder.core.logs import LogTail, sanitise
from autocoder.core.models import Agent
from autocoder.tui.log_reader import LogReader
from autocoder.tui.palette import CURSOR, Tone, state_of
from autocoder.tui.spans import Line, fit
from autocoder.tui.widgets.log_rows import inked, painted_row
from autocoder.tui.widgets.painted import Painted

FRAME_S = 0.125
"""Nobody reads a wall twenty times a second."""
KEPT_LINES = 200
LEAST_WIDTH, LEAST_HEIGHT = 56, 7
"""Smallest pane worth looking at, its title included."""


class LogWall(Painted, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,l,right,down,j", "move(1)", "next pane", key_display="tab", id="wall.next"),
        Binding("shift+tab,h,left,up,k", "move(-1)", "last pane", show=False, id="wall.previous"),
    ]

    agents: var[tuple[Agent, ...]] = var((), init=False)
    chosen: var[str] = var("", init=False)
    """Id of the agent whose pane the cursor is on."""

    class LinesMoved(Message):
        """The reader took in more of a file."""

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LogWall.LinesMoved)

    def __init__(self) -> None:
        super().__init__()
        self._reader = LogReader(
            lambda: self.post_message(self.LinesMoved()), frame_s=FRAME_S, max_lines=KEPT_LINES
        )
        self._tails: dict[str, LogTail] = {}
        self._columns = 1
        self._shown: tuple[Agent, ...] = ()
        self._bounds: list[tuple[int, int]] = []
        self._rows: dict[str, list[Strip]] = {}

    def on_unmount(self) -> None:
        self._reader.stop()

    def watch_agents(self, before: tuple[Agent, ...], agents: tuple[Agent, ...]) -> None:
        if [_place(agent) for agent in before] != [_place(agent) for agent in agents]:
            self._arrange()
            return
        for index, (old, new) in enumerate(zip(self._shown, agents, strict=False)):
            if old != new:
                self._refresh_title(index)
        self._shown = agents[: len(self._shown)]

    def watch_chosen(self, before: str, chosen: str) -> None:
        for index, agent in enumerate(self._shown):
            if agent.agent_id in (before, chosen):
                self._refresh_title(index)

    def _refresh_title(self, index: int) -> None:
        top, _ = self._bounds[index // self._columns]
        self.refresh(Region(0, top, self.size.width, 1))

    def on_resize(self, _event: events.Resize) -> None:
        self._arrange()

    def on_log_wall_lines_moved(self) -> None:
        self._read()

    @property
    def hidden(self) -> int:
        """Agents for which there is no room."""
        return len(self.agents) - len(self._shown)

    def _arrange(self) -> None:
        """Give every pane the same width and as much height as there is."""
        width, height = self.size
        if not width or not height:
            return
        rows_most = max(1, height // LEAST_HEIGHT)
        columns_most = max(1, width // LEAST_WIDTH)
        count = min(len(self.agents), rows_most * columns_most)
        self._columns = min(columns_most, max(1, -(-count // rows_most)), max(1, count))
        if count > 3:
            self._columns = max(self._columns, min(columns_most, 2))
        rows = -(-count // self._columns) if count else 1
        self._shown = self.agents[:count]
        self._bounds = [(height * row // rows, height * (row + 1) // rows) for row in range(rows)]
        paths = {agent.agent_id: Path(agent.log_path) for agent in self._shown if agent.log_path}
        tails = self._reader.follow(tuple(paths.values()))
        self._tails = {name: tails[path] for name, path in paths.items()}
        if self.chosen not in {agent.agent_id for agent in self._shown}:
            self.chosen = self._shown[0].agent_id if self._shown else ""
        self._rows = {}
        self._read()
        self.refresh()

    def _widths(self) -> list[int]:
        width = self.size.width - (self._columns - 1)
        return [
            width * (column + 1) // self._columns - width * column // self._columns
            for column in range(self._columns)
        ]

    def _read(self) -> None:
        """Fetch the last lines of every pane; repaint where they differ."""
        widths = self._widths()
        for index, agent in enumerate(self._shown):
            row, column = divmod(index, self._columns)
            top, bottom = self._bounds[row]
            tail = self._tails.get(agent.agent_id)
            if tail is None:
                continue
            end, height, room = tail.bounds[1], bottom - top - 1, widths[column]
            rows = [
                painted_row(inked(line), room, self.rich_style)
                for line in tail.lines(end - height, end)
            ]
            before = self._rows.get(agent.agent_id, [])
            differ = [y for y in range(height) if rows[y : y + 1] != before[y : y + 1]]
            if differ:
                self._rows[agent.agent_id] = rows
                left = sum(widths[:column]) + column
                first, last = differ[0], differ[-1]
                self.refresh(Region(left, top + 1 + first, room, last + 1 - first))

    def render_line(self, y: int) -> Strip:
        row = next((i for i, (top, end) in enumerate(self._bounds) if top <= y < end), 0)
        first = row * self._columns
        agents = self._shown[first : first + self._columns]
        if not agents:
            empty: Line = (("   No agent is at work; marks decide who else is shown.", Tone.DIM),)
            return self.paint(empty if y == 1 else (), self.size.width)
        below = y - self._bounds[row][0]
        pieces: list[Strip] = []
        divider = Strip([Segment("│", self.rich_style + self.tone(Tone.FAINT))], 1)
        for agent, width in zip(agents, self._widths(), strict=False):
            if pieces:
                pieces.append(divider)
            if below == 0:
                pieces.append(self._title(agent, width))
            else:
                rows = self._rows.get(agent.agent_id, [])
                blank = Strip.blank(width, self.rich_style)
                pieces.append(rows[below - 1] if below <= len(rows) else blank)
        return Strip.join(pieces).adjust_cell_length(self.size.width, self.rich_style)

    def _title(self, agent: Agent, width: int) -> Strip:
        glyph, word, tone = state_of(agent)
        here = agent.agent_id == self.chosen
        ports = f"  {agent.api_port} {agent.web_port}" if agent.api_port else ""
        line: Line = (
            (CURSOR if here else " ", Tone.ACCENT),
            (f"{sanitise(agent.agent_id)} ", Tone.STRONG if here else Tone.ACCENT),
            (f" {glyph} {word} ", tone),
            (f" {sanitise(agent.feature)}", Tone.PLAIN),
            (ports, Tone.DIM),
        )
        return self.paint(fit(line, width), width, "row--cursor" if here else "row--marked")

    def action_move(self, by: int) -> None:
        ids = [agent.agent_id for agent in self._shown]
        if ids:
            at = ids.index(self.chosen) if self.chosen in ids else 0
            self.chosen = ids[(at + by) % len(ids)]


def _place(agent: Agent) -> tuple[str, str]:
    """What decides which pane is whose."""
    return agent.agent_id, agent.log_path
