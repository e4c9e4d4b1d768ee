"""Extends the port pools: which of them, by how many ports, and what that would bring.

What is shown is what is asked for: the command names the block of the preview.
Until there is one, the engine is left to find the block.
"""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.screen import ModalScreen

from autocoder.core.commands import ExpandPool
from autocoder.core.logs import sanitise
from autocoder.core.models import PoolStatus, Role
from autocoder.core.questions import Growth, Questions
from autocoder.tui.messages import GrowthAnswered, QuestionAsked
from autocoder.tui.palette import CURSOR, Tone
from autocoder.tui.spans import Line, counted
from autocoder.tui.widgets.painted import TextLines

AMOUNTS = (10, 25, 50, 100, 200, 500)
CHOICES: tuple[tuple[Role, ...], ...] = ((Role.API, Role.WEB), (Role.API,), (Role.WEB,))
TAKEN_SHOWN = 3


class ExpandScreen(ModalScreen[tuple[ExpandPool, ...]]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "extend", "extend", id="expand.extend"),
        Binding("up,k", "resize(1)", "more", id="expand.more"),
        Binding("down,j", "resize(-1)", "fewer", id="expand.fewer"),
        Binding("right,left,tab", "next_pools", "which pools", id="expand.pools"),
        Binding("escape,q,e", "leave", "leave", id="expand.leave"),
    ]

    size_chosen: reactive[int] = reactive(AMOUNTS.index(100), init=False)
    choice: reactive[int] = reactive(0, init=False)

    def __init__(self, pools: tuple[PoolStatus, ...]) -> None:
        super().__init__()
        self._pools = pools
        self._growth: dict[Role, Growth] = {}

    def compose(self) -> ComposeResult:
        yield TextLines(id="dialog")

    def on_mount(self) -> None:
        self._ask()

    def watch_size_chosen(self) -> None:
        self._ask()

    def watch_choice(self) -> None:
        self._ask()

    def on_growth_answered(self, message: GrowthAnswered) -> None:
        growth = {each.role: each for each in message.growth}
        if message.amount == self._amount and growth.keys() == set(self._roles):
            self._growth = growth
            self._tell()

    @property
    def _amount(self) -> int:
        return AMOUNTS[self.size_chosen]

    @property
    def _roles(self) -> tuple[Role, ...]:
        return CHOICES[self.choice]

    def _ask(self) -> None:
        self._growth = {}
        self._tell()
        pools, roles, amount = self._pools, self._roles, self._amount

        def question(ask: Questions) -> GrowthAnswered:
            return GrowthAnswered(ask.growth(pools, roles, amount), amount)

        # Without an answer the engine still finds a block by itself.
        self.post_message(QuestionAsked(question, self))

    def _tell(self) -> None:
        dialog = self.query_one("#dialog", TextLines)
        dialog.lines = self._lines()
        dialog.styles.height = len(dialog.lines) + 1

    def _lines(self) -> tuple[Line, ...]:
        names = " and ".join(role.value for role in self._roles)
        plural = "pools" if len(self._roles) > 1 else "pool"
        lines: list[Line] = [(), ((f"  Extend the {names} {plural}", Tone.STRONG),), ()]
        for pool in self._pools:
            lines += self._pool_lines(pool)
        lines += [
            (),
            (
                ("  ⏎", Tone.ACCENT),
                (" extends,  ", Tone.DIM),
                ("↑↓", Tone.ACCENT),
                (" size,  ", Tone.DIM),
                ("←→", Tone.ACCENT),
                (" which,  ", Tone.DIM),
                ("esc", Tone.ACCENT),
                (" leaves", Tone.DIM),
            ),
        ]
        return tuple(lines)

    def _pool_lines(self, pool: PoolStatus) -> list[Line]:
        here = pool.role in self._roles
        tone = Tone.PLAIN if here else Tone.DIM
        ranges = ", ".join(map(str, pool.ranges))
        now: Line = (
            (f" {CURSOR} " if here else "   ", Tone.ACCENT),
            (f"{pool.role.value}   now  {ranges}", tone),
            (f"   {pool.leased} of {pool.usable} leased, {pool.available} free", Tone.DIM),
        )
        if not here:
            return [now, (), ()]
        growth = self._growth.get(pool.role)
        if growth is None:
            block: Line = (
                (f"{counted(self._amount, 'port')}", tone),
                (" in the next block free of conflicts", Tone.DIM),
            )
            return [now, _add(block), ()]
        if growth.span is None:
            return [now, _add(((f"no block of {self._amount} ports is left", Tone.BAD),)), ()]
        free = f"   {counted(len(growth.span), 'port')}, {growth.free} free now"
        return [now, _add(((str(growth.span), tone), (free, Tone.DIM))), _taken(growth)]

    def action_resize(self, by: int) -> None:
        self.size_chosen = max(0, min(self.size_chosen + by, len(AMOUNTS) - 1))

    def action_next_pools(self) -> None:
        self.choice = (self.choice + 1) % len(CHOICES)

    def action_extend(self) -> None:
        blocks = {role: growth.span for role, growth in self._growth.items()}
        self.dismiss(
            tuple(ExpandPool(role, blocks.get(role) or self._amount) for role in self._roles)
        )

    def action_leave(self) -> None:
        self.dismiss(())


def _add(words: Line) -> Line:
    return (("         add  ", Tone.PLAIN), *words)


def _taken(growth: Growth) -> Line:
    """Who holds what of the block, as far as there is room to say."""
    if not growth.taken:
        return ()
    said = [f"{port} {sanitise(who)}".strip() for port, who in growth.taken[:TAKEN_SHOWN]]
    more = len(growth.taken) - len(said)
    rest = f" and {more} more" if more else ""
    return ((f"              taken: {', '.join(said)}{rest}", Tone.WARN),)
