"""What the spawn dialog says: what an agent would get now, or why it would get nothing."""

from autocoder.core.logs import sanitise
from autocoder.core.questions import SpawnForecast
from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, counted

PAIRS_SHOWN = 3


def forecast_lines(forecast: SpawnForecast | None, variants: int) -> tuple[Line, ...]:
    """Two lines, whatever is foreseen."""
    if forecast is None:
        return ((("  looking …", Tone.DIM),), ())
    if forecast.refusal:
        refused = ((f"  {sanitise(forecast.refusal)}", Tone.BAD),)
        return (refused, ((f"  {sanitise(forecast.remedy)}", Tone.DIM),))
    return (_branch(forecast, variants), _pairs(forecast, variants))


def _branch(forecast: SpawnForecast, variants: int) -> Line:
    base: Line = (("  from ", Tone.DIM), (sanitise(forecast.base), Tone.PLAIN))
    if not forecast.branch:
        return base
    others = f" and {variants - 1} more" if variants > 1 else ""
    return (
        *base,
        (" to ", Tone.DIM),
        (sanitise(forecast.branch), Tone.ACCENT),
        (others, Tone.DIM),
    )


def _pairs(forecast: SpawnForecast, variants: int) -> Line:
    if not forecast.pairs:
        return (("  the kernel picks its pair of ports", Tone.DIM),)
    shown = ", ".join(f"{api} and {web}" for api, web in forecast.pairs[:PAIRS_SHOWN])
    more = len(forecast.pairs) - PAIRS_SHOWN
    line: Line = (
        ("  on ", Tone.DIM),
        (shown, Tone.ACCENT),
        (f" and {counted(more, 'more pair')}" if more > 0 else "", Tone.DIM),
    )
    waiting = variants - len(forecast.pairs)
    if waiting > 0:
        line += ((f"; {counted(waiting, 'variant')} must wait for ports", Tone.WARN),)
    return line
