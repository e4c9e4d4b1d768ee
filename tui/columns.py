"""Columns of a table of keyed rows: what each says, and how they share the width of the screen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from autocoder.tui.palette import NOTHING, Tone
from autocoder.tui.spans import Line

Row = TypeVar("Row")
NO_VALUE: Line = ((NOTHING, Tone.FAINT),)


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of a table."""

    name: str
    title: str
    cell: Callable[[Row, float], Line]
    """What a row says in it at a time."""
    least: int
    """Cells it needs."""
    most: int = 0
    """Cells it can use; 0 means no more than `least`."""
    worth: int = 9
    """Columns of the least worth go first when the screen is narrow; 9 never goes."""
    beside: int = 0
    """Cells that must be left over for others, or it stays away."""
    right: bool = False
    natural: bool = False
    """As wide as its widest cell, between `least` and `most`, instead of what is left over."""
    order: Callable[[Row], object] | None = None
    """What rows are sorted by; None is what the cell says. A missing value sorts last."""


def columns_for(
    columns: Sequence[Column[Row]], room: int, gap: int
) -> list[tuple[Column[Row], int]]:
    """The columns that fit into `room` cells, each with its width.

    Room that is left over goes to the columns that can use it, in their order.
    """
    shown = list(columns)
    while sum(column.least + column.beside + gap for column in shown) - gap > room:
        cheapest = min(shown, key=lambda column: column.worth)
        if cheapest.worth >= 9:
            break
        shown.remove(cheapest)
    spare = max(0, room - sum(column.least + gap for column in shown) + gap)
    widths = {column.name: column.least for column in shown}
    for column in shown:
        wanted = max(0, column.most - column.least)
        given = min(wanted, spare)
        widths[column.name] += given
        spare -= given
    return [(column, widths[column.name]) for column in shown]
