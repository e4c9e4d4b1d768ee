"""What the header says: what the agents do, whether anything is wrong, what the pools have left."""

from collections import Counter
from collections.abc import Sequence

from autocoder.core.logs import sanitise
from autocoder.core.models import Agent, AgentState, PoolStatus, Snapshot
from autocoder.tui.palette import (
    BLOCKED,
    HELD,
    HELD_WORD,
    PROBLEM,
    STATE_GLYPH,
    STATE_TONE,
    STATE_WORD,
    WAITING,
    Tone,
)
from autocoder.tui.render_agents import problems
from autocoder.tui.spans import Line, counted, hour_and_minute, joined, spread, width_of


def title_line(snapshot: Snapshot, now: float, width: int) -> Line:
    """Who we are, what the agents do, whether anything is wrong, the time."""
    name: Line = (
        (" autocoder", Tone.ACCENT),
        ("  ", Tone.PLAIN),
        (sanitise(snapshot.project), Tone.STRONG),
    )
    base: Line = (
        (f"  {sanitise(snapshot.base)}", Tone.PLAIN),
        (f" {sanitise(snapshot.base_commit)}", Tone.DIM),
    )
    trouble = problems(snapshot)
    wrong = len(trouble)
    right: Line = (
        (f"{PROBLEM} {wrong}   " if wrong else "", Tone.WARN),
        (f"{hour_and_minute(now)} ", Tone.DIM),
    )
    counts = _counts(snapshot, trouble)
    short = [count[:2] for count in counts]
    variants: tuple[tuple[Line, str, list[Line]], ...] = (
        ((*name, *base), "   ", counts),
        ((*name, *base), "  ", counts),
        (name, "  ", counts),
        # What a count means is worth more than our name.
        (((" ", Tone.PLAIN), name[2]), "  ", counts),
        ((*name, *base), " ", short),
        (name, " ", short),
        (((" ", Tone.PLAIN), name[2]), " ", short),
    )
    for who, gap, said in variants:
        line = (*who, (" " * (len(gap) + 1), Tone.PLAIN), *joined(said, gap))
        if width_of(line) + width_of(right) + 1 <= width:
            break
    return spread(line, right, width)


def _counts(snapshot: Snapshot, trouble: Sequence[Agent]) -> list[Line]:
    states = Counter(agent.state for agent in snapshot.agents)
    wrong = Counter(agent.state for agent in trouble if not agent.live)
    features = snapshot.features
    counts: list[Line] = []
    if snapshot.paused:
        counts.append((("‖ paused", Tone.WARN),))
    for state in (AgentState.ACTIVE, AgentState.STARTING, AgentState.STOPPING):
        if states[state] or state is AgentState.ACTIVE:
            tone = STATE_TONE[state] if states[state] else Tone.DIM
            counts.append(_count(STATE_GLYPH[state], tone, states[state], STATE_WORD[state]))
    done = STATE_GLYPH[AgentState.COMPLETED]
    counts.append(_count(done, Tone.DIM, features.done, "done"))
    for state in (AgentState.CRASHED, AgentState.FAILED):
        if wrong[state]:
            counts.append(_count(STATE_GLYPH[state], Tone.BAD, wrong[state], STATE_WORD[state]))
    if features.blocked:
        counts.append(_count(BLOCKED, Tone.BAD, features.blocked, "blocked"))
    counts.append(_count(WAITING, Tone.DIM, features.pending - features.held, "waiting"))
    if features.held:
        counts.append(_count(HELD, Tone.ACCENT, features.held, HELD_WORD))
    if features.ready_to_merge:
        counts.append(_count("⇡", Tone.ACCENT, features.ready_to_merge, "to merge"))
    return counts


def _count(glyph: str, tone: Tone, number: int, word: str) -> Line:
    return (
        (f"{glyph} ", tone),
        (f"{number} ", Tone.STRONG if number else Tone.DIM),
        (word, Tone.DIM),
    )


def pools_line(snapshot: Snapshot, width: int) -> Line:
    """A gauge of each pool, and how many pairs can still be granted."""
    pools = snapshot.pools
    if not pools:
        return (("", Tone.PLAIN),)
    left = min(pool.available for pool in pools)
    usable = min(pool.usable for pool in pools)
    tone = Tone.BAD if not left else Tone.WARN if left * 10 < usable else Tone.PLAIN
    kept = [
        (f"{count} {word}", Tone.DIM)
        for word, count in (
            ("cooling", sum(pool.cooling for pool in pools)),
            ("quarantined", sum(pool.quarantined for pool in pools)),
        )
        if count
    ]
    tail: Line = ((f"{counted(left, 'pair')} left", tone),)
    long_tail = joined((tail, *((piece,) for piece in kept)), " · ")
    for bar, ending in ((20, long_tail), (12, long_tail), (12, tail), (6, tail)):
        gauges = joined((_gauge(pool, bar) for pool in pools), "   ")
        line = ((" ", Tone.PLAIN), *gauges, ("   ", Tone.PLAIN), *ending)
        if width_of(line) <= width:
            break
    return line


def _gauge(pool: PoolStatus, cells: int) -> Line:
    def share(count: int) -> int:
        return -(-count * cells // pool.usable) if pool.usable else 0

    used = min(share(pool.leased), cells)
    cooling = min(share(pool.cooling), cells - used)
    barred = min(share(pool.quarantined), cells - used - cooling)
    full = (
        Tone.BAD
        if not pool.available
        else Tone.WARN
        if pool.capacity_percent >= 90
        else Tone.ACCENT
    )
    return (
        (f"{pool.role.value} ", Tone.DIM),
        ("━" * used, full),
        ("╍" * cooling, Tone.DIM),
        ("╍" * barred, Tone.WARN),
        ("─" * (cells - used - cooling - barred), Tone.FAINT),
        (f" {pool.leased}", Tone.STRONG),
        (f"/{pool.usable}", Tone.DIM),
    )


def waiting_line(project: str, now: float, width: int) -> Line:
    left: Line = (
        (" autocoder", Tone.ACCENT),
        ("  ", Tone.PLAIN),
        (sanitise(project), Tone.STRONG),
    )
    return spread(left, ((f"{hour_and_minute(now)} ", Tone.DIM),), width)
