"""A measurement beside what it is measured against."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table that `make bench` prints."""

    what: str
    value: float
    unit: str
    target: str = ""
    """As 5 s, <= 1.5x, or nothing where the figure only explains another."""
    met: bool | None = None
    """None: there is no target."""
    note: str = ""
    """Size, peer and everything else a reader needs to judge it."""
    load: float = 0.0
    """The machine's load average when it was taken."""


def figure(
    what: str,
    value: float,
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    note: str = "",
) -> Figure:
    """A figure with its target, judged, and the machine's load now."""
    met: bool | None = None
    target = ""
    if at_most is not None:
        met, target = value <= at_most, f"<= {at_most:g} {unit}"
    elif at_least is not None:
        met, target = value >= at_least, f">= {at_least:g} {unit}"
    return Figure(what, value, unit, target, met, note, os.getloadavg()[0])
