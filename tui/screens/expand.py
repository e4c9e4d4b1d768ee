"""Extends the port pools: which of them, and by how many ports."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.screen import ModalScreen

from autocoder.core.commands import ExpandPool
from autocoder.core.models import PoolStatus, Role
from autocoder.tui.palette import CURSOR, Tone
from autocoder.tui.spans import Line
from autocoder.tui.widgets.painted import TextLines

AMOUNTS = (10, 25, 50, 100, 200, 500)
CHOICES: tuple[tuple[Role, ...], ...] = ((Role.API, Role.WEB), (Role.API,), (Role.WEB,))


class ExpandScreen(ModalScreen[tuple[ExpandPool, ...]]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "extend", "extend", id="expand.extend"),
        Binding("up,k", "resize(1)", "more", id="expand.more"),
        Binding("down,j", "resize(-1)", "fewer", id="expand.fewer"),
        Binding("right,left,tab", "next_pools", "which pools", id="expand.pools"),
        Binding("escape,q,e", "leave", "leave", id="expand.leave"),
    ]

    amount: reactive[int] = reactive(AMOUNTS.index(100), init=False)
    choice: reactive[int] = reactive(0, init=False)

    def __init__(self, pools: tuple[PoolStatus, ...]) -> None:
        super().__init__()
        self._pools = pools

    def compose(self) -> ComposeResult:
        dialog = TextLines(id="dialog")
        dialog.lines = self._lines()
        dialog.styles.height = len(dialog.lines) + 1
        yield dialog

    def _watch_state(self) -> None:
        self.query_one("#dialog", TextLines).lines = self._lines()

    watch_amount = _watch_state
    watch_choice = _watch_state

    def _lines(self) -> tuple[Line, ...]:
        chosen = CHOICES[self.choice]
        names = " and ".join(role.value for role in chosen)
        plural = "pools" if len(chosen) > 1 else "pool"
        lines: list[Line] = [(), ((f"  Extend the {names} {plural}", Tone.STRONG),), ()]
        for pool in self._pools:
            here = pool.role in chosen
            ranges = ", ".join(map(str, pool.ranges))
            tone = Tone.PLAIN if here else Tone.DIM
            lines += [
                (
                    (f" {CURSOR} " if here else "   ", Tone.ACCENT),
                    (f"{pool.role.value}   now  {ranges}", tone),
                    (f"   {pool.leased} of {pool.usable} leased, {pool.available} free", Tone.DIM),
                ),
                (
                    ("         add  ", tone),
                    (f"{AMOUNTS[self.amount]} ports", tone),
                    (" in the next block free of conflicts", Tone.DIM),
                )
                if here
                else (),
            ]
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

    def action_resize(self, by: int) -> None:
        self.amount = max(0, min(self.amount + by, len(AMOUNTS) - 1))

    def action_next_pools(self) -> None:
        self.choice = (self.choice + 1) % len(CHOICES)

    def action_extend(self) -> None:
        self.dismiss(tuple(ExpandPool(role, AMOUNTS[self.amount]) for role in CHOICES[self.choice]))

    def action_leave(self) -> None:
        self.dismiss(())
