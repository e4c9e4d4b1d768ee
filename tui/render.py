"""What the screen says, as text: models in, lines out.

Pure: the time is passed in, nothing is looked up. Names, notices and log lines
come from agents and repositories, so every one of them is sanitised here.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Generic, TypeVar

from autocoder.core.logs import sanitise
from autocoder.core.models import (
    LIVE_STATES,
    Agent,
    AgentState,
    FeatureStatus,
    Listener,
    Notice,
    PoolStatus,
    Role,
    Severity,
    Snapshot,
)
from autocoder.tui.palette import (
    BLOCKED,
    LISTENER,
    NOTHING,
    PROBLEM,
    SEVERITY,
    STATE_GLYPH,
    STATE_TONE,
    STATE_WORD,
    WAITING,
    Tone,
    state_of,
)
from autocoder.tui.query import Query
from autocoder.tui.spans import Line, Span, clock, counted, duration, joined, size, spread, width_of

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
    right: bool = False
    natural: bool = False
    """As wide as its widest cell, between `least` and `most`, instead of what is left over."""
    order: Callable[[Row], object] | None = None
    """What rows are sorted by; None is what the cell says. A missing value sorts last."""


def columns_for(
    columns: Sequence[Column[Row]], room: int, gap: int
) -> list[tuple[Column[Row], int]]:
    """The columns that fit into `room` cells, each with its width.

    Room that is left over goes to the columns that can use it, in their order,
    half of it at a time, and what remains to the last.
    """
    shown = list(columns)
    while sum(column.least + gap for column in shown) - gap > room:
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


# -- agents


def _state(agent: Agent, _now: float) -> Line:
    glyph, word, tone = state_of(agent)
    return ((f"{glyph} ", tone), (word, STATE_TONE[agent.state]))


def _port(port: int | None, listener: Listener) -> Line:
    if port is None:
        return NO_VALUE
    glyph, tone, _ = LISTENER[listener]
    return ((f"{port} ", Tone.PLAIN), (glyph, tone))


def _worktree(agent: Agent, _now: float) -> Line:
    if not agent.worktree_path:
        return NO_VALUE
    path = ("…/" + sanitise(PurePath(agent.worktree_path).name), Tone.PLAIN)
    return (path, (f" ±{agent.dirty_files}", Tone.WARN)) if agent.dirty_files else (path,)


def _since(agent: Agent) -> float:
    return agent.started_at if agent.live else agent.ended_at or 0.0


def _age(agent: Agent, now: float) -> Line:
    since = _since(agent)
    return ((duration(now - since), Tone.DIM),) if since else NO_VALUE


def _gravity(agent: Agent) -> int:
    """What needs a human first, then what is at work, then what is over."""
    if agent.live and agent.problem:
        return 0
    order = (
        AgentState.CRASHED,
        AgentState.FAILED,
        AgentState.STOPPING,
        AgentState.STARTING,
        AgentState.ACTIVE,
        AgentState.KILLED,
        AgentState.COMPLETED,
    )
    return 1 + order.index(agent.state)


def _beat(agent: Agent, now: float) -> Line:
    if not agent.live or agent.last_ping is None:
        return NO_VALUE
    silent = now - agent.last_ping
    return ((duration(silent), Tone.WARN if silent > 30 else Tone.DIM),)


def _last_line(agent: Agent, _now: float) -> Line:
    if agent.problem:
        return ((sanitise(agent.problem), Tone.WARN),)
    if not agent.live and agent.reason:
        bad = agent.state in (AgentState.CRASHED, AgentState.FAILED)
        return ((sanitise(agent.reason), Tone.PLAIN if bad else Tone.DIM),)
    return ((sanitise(agent.last_line), Tone.DIM),)


def _text(value: Callable[[Agent], str]) -> Callable[[Agent, float], Line]:
    return lambda agent, _now: ((sanitise(value(agent)) or NOTHING, Tone.PLAIN),)


AGENT_COLUMNS: tuple[Column[Agent], ...] = (
    Column("state", "state", _state, 10, order=_gravity),
    Column("agent", "agent", _text(lambda agent: agent.agent_id), 6, 12, natural=True),
    Column("feature", "feature", _text(lambda agent: agent.feature), 10, 30),
    Column("backend", "backend", _text(lambda agent: agent.backend), 8, worth=2),
    Column("worktree", "worktree", _worktree, 8, 18, natural=True),
    Column(
        "pid",
        "pid",
        lambda agent, _: ((str(agent.pid), Tone.PLAIN),) if agent.pid else NO_VALUE,
        7,
        right=True,
        order=lambda agent: agent.pid,
    ),
    Column(
        "api",
        "api",
        lambda agent, _: _port(agent.api_port, agent.api_listener),
        7,
        order=lambda agent: agent.api_port,
    ),
    Column(
        "web",
        "web",
        lambda agent, _: _port(agent.web_port, agent.web_listener),
        7,
        order=lambda agent: agent.web_port,
    ),
    Column(
        "cpu",
        "cpu",
        lambda agent, _: ((f"{agent.cpu_percent:.0f}%", Tone.PLAIN),) if agent.pid else NO_VALUE,
        4,
        worth=6,
        right=True,
        order=lambda agent: -agent.cpu_percent if agent.pid else None,
    ),
    Column(
        "mem",
        "mem",
        lambda agent, _: ((size(agent.memory_bytes), Tone.PLAIN),) if agent.pid else NO_VALUE,
        5,
        worth=5,
        right=True,
        order=lambda agent: -agent.memory_bytes if agent.pid else None,
    ),
    Column("age", "age", _age, 5, worth=7, right=True, order=lambda agent: -_since(agent)),
    Column("beat", "beat", _beat, 5, worth=4, right=True, order=lambda agent: agent.last_ping),
    Column("last", "last line", _last_line, 28, 400, worth=3),
)


def problems(snapshot: Snapshot) -> tuple[Agent, ...]:
    """Agents that need a human: live with a problem, or ended badly with nobody at work on it."""
    settled = {feature.id for feature in snapshot.backlog if feature.status is FeatureStatus.DONE}
    ended: list[Agent] = []
    found: list[Agent] = []
    for agent in snapshot.agents:
        if agent.state not in LIVE_STATES:
            ended.append(agent)
            continue
        settled.add(agent.feature_id)
        if agent.problem:
            found.append(agent)
    for agent in ended:
        # The latest attempt comes first, and speaks for those before it.
        if agent.feature_id not in settled:
            settled.add(agent.feature_id)
            if agent.state in (AgentState.CRASHED, AgentState.FAILED):
                found.append(agent)
    return tuple(found)


# -- the header


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
        (f"{clock(now)} ", Tone.DIM),
    )
    counts = _counts(snapshot, trouble)
    short = [count[:2] for count in counts]
    variants: tuple[tuple[Line, str, list[Line]], ...] = (
        ((*name, *base), "   ", counts),
        ((*name, *base), "  ", counts),
        (name, "  ", counts),
        ((*name, *base), " ", short),
        (name, " ", short),
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
    counts.append(_count(WAITING, Tone.DIM, features.pending, "waiting"))
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


# -- the log pane's title, notices


def log_title(agent: Agent | None, width: int) -> Line:
    """What a person copies from an agent: URLs first, then branch, with what it works on."""
    if agent is None:
        return ((" no agent selected", Tone.DIM),)
    name: Line = ((f" {sanitise(agent.agent_id)}", Tone.STRONG),)
    feature: Line = ((sanitise(agent.feature), Tone.PLAIN),)
    branch: Line = ((sanitise(agent.branch), Tone.DIM),) if agent.branch else ()
    urls = [
        ((f"{role.value} ", Tone.DIM), (f"http://localhost:{port}", Tone.ACCENT))
        for role, port in ((Role.API, agent.api_port), (Role.WEB, agent.web_port))
        if port is not None
    ]
    ended: Line = ()
    if not agent.live and agent.reason:
        ended = ((sanitise(agent.reason), STATE_TONE[agent.state]),)
    everything = (name, feature, branch, *urls, ended, ((sanitise(agent.backend), Tone.DIM),))
    line = joined(filter(None, everything), "   ")
    if width_of(line) > width:
        line = joined(filter(None, (name, *urls, feature, ended, branch)), "   ")
    return line


def notice_line(notice: Notice, now: float) -> Line:
    glyph, tone = SEVERITY[notice.severity]
    spans: list[Span] = [(f" {glyph} ", tone)]
    if notice.subject:
        spans.append((f"{sanitise(notice.subject)}  ", Tone.STRONG))
    body = Tone.PLAIN if notice.severity is not Severity.INFO else Tone.DIM
    spans.append((sanitise(notice.text), body))
    spans.append((f"  {duration(now - notice.at)} ago", Tone.FAINT))
    return tuple(spans)


def waiting_line(project: str, now: float, width: int) -> Line:
    left: Line = (
        (" autocoder", Tone.ACCENT),
        ("  ", Tone.PLAIN),
        (sanitise(project), Tone.STRONG),
    )
    return spread(left, ((f"{clock(now)} ", Tone.DIM),), width)


EMPTY_GRID: tuple[Line, ...] = (
    (),
    (("   No agents.", Tone.PLAIN),),
    (),
    (("   n", Tone.ACCENT), ("  spawns one on the next feature of the backlog.", Tone.DIM)),
)
EMPTY_BACKLOG: tuple[Line, ...] = (
    (),
    (("   The backlog is empty.", Tone.PLAIN),),
    (("   A backlog is the list of features agents work through, one agent each.", Tone.DIM),),
    (),
    (("   autocoder features add", Tone.ACCENT), ("  adds one", Tone.DIM)),
    (
        ("   autocoder features import FILE", Tone.ACCENT),
        ("  takes a JSON or YAML list", Tone.DIM),
    ),
    (
        ("   N", Tone.ACCENT),
        ("  here: type what is to be done, and an agent starts on it", Tone.DIM),
    ),
)
EVERYTHING_DONE: tuple[Line, ...] = (
    (),
    (("   All features are done.", Tone.GOOD),),
    (),
    (("   autocoder features add", Tone.ACCENT), ("  adds another", Tone.DIM)),
)
NO_PROBLEMS: tuple[Line, ...] = (
    (),
    (("   No problems.", Tone.GOOD),),
    (),
    (("   !", Tone.ACCENT), ("  shows all agents again.", Tone.DIM)),
)
NOTHING_MATCHES: tuple[Line, ...] = (
    (),
    (("   No agent matches the filter.", Tone.PLAIN),),
    (),
    (("   esc", Tone.ACCENT), ("  clears it.", Tone.DIM)),
)


def empty_grid(snapshot: Snapshot, *, filtered: bool) -> tuple[Line, ...]:
    """What stands where the agents would: why there are none, and what would bring some."""
    if filtered and snapshot.agents:
        return NOTHING_MATCHES
    if not snapshot.features.total:
        return EMPTY_BACKLOG
    if snapshot.features.done == snapshot.features.total:
        return EVERYTHING_DONE
    return EMPTY_GRID


# -- words of the main screen


def grid_word(query: Query, shown: int, total: int, *, problems: bool, marked: int) -> Line:
    """What narrows the grid and what is marked in it, for the rule above it."""
    word: list[Span] = []
    if problems:
        word.append((" problems only ", Tone.WARN))
    if query.terms:
        word += [(" filter ", Tone.DIM), (sanitise(query.text), Tone.ACCENT), (" ", Tone.PLAIN)]
    if problems or query.terms:
        word.append((f" {shown} of {total} ", Tone.DIM))
    if query.unknown:
        word.append((f" no field {sanitise(query.unknown[0])} ", Tone.WARN))
    if marked:
        word.append((f" {marked} marked ", Tone.ACCENT))
    return tuple(word)


def target_lines(agents: Sequence[Agent]) -> tuple[Line, ...]:
    """Whom a question is about, and what becomes of uncommitted work."""
    wide = max((len(agent.agent_id) for agent in agents), default=0)
    lines: list[Line] = []
    for agent in agents:
        name = sanitise(agent.agent_id).ljust(wide)
        lines.append(((f"    {name}  ", Tone.STRONG), (sanitise(agent.feature), Tone.PLAIN)))
        if agent.dirty_files:
            stays = counted(agent.dirty_files, "uncommitted file")
            verb = "stays" if agent.dirty_files == 1 else "stay"
            lines.append(
                ((" " * (wide + 6), Tone.PLAIN), (f"{stays} {verb} in the worktree", Tone.WARN))
            )
    return tuple(lines)


def notices_page(notices: Sequence[Notice]) -> tuple[Line, ...]:
    """All notices, the newest first."""
    if not notices:
        return ((), (("  Nothing has happened yet that needs saying.", Tone.DIM),))
    lines: list[Line] = [()]
    for notice in reversed(notices):
        glyph, tone = SEVERITY[notice.severity]
        lines.append(
            (
                (f"  {clock(notice.at)}  ", Tone.DIM),
                (f"{glyph} ", tone),
                (f"{sanitise(notice.subject):<10}  " if notice.subject else "", Tone.STRONG),
                (sanitise(notice.text), Tone.PLAIN),
            )
        )
    return tuple(lines)


def recovery_lines(snapshot: Snapshot) -> tuple[Line, ...]:
    """The four lists of what recovering everything would do, each with its meaning."""
    plan = snapshot.recovery
    names = {agent.agent_id: agent.feature for agent in snapshot.agents}
    features = {feature.id: feature.name for feature in snapshot.backlog}

    def agents(ids: Sequence[str]) -> list[tuple[str, str]]:
        return [(agent_id, names.get(agent_id, "")) for agent_id in ids]

    lists = (
        ("adopt", "running workers that nobody watches", agents(plan.adopt)),
        ("go on with", "crashed agents, each in its worktree", agents(plan.crashed)),
        ("release", "ports of agents that are no more", [(str(port), "") for port in plan.release]),
        (
            "requeue",
            "features in progress that nobody works on",
            [(f"feature {number}", features.get(number, "")) for number in plan.requeue],
        ),
    )
    lines: list[Line] = []
    for title, meaning, entries in lists:
        if lines:
            lines.append(())
        tone = Tone.STRONG if entries else Tone.DIM
        lines.append(
            ((f"    {title:<11}", tone), (f"{meaning}: {len(entries) or 'none'}", Tone.DIM))
        )
        for name, words in entries[:RECOVERY_SHOWN]:
            said = ((f"      {sanitise(name)}  ", Tone.PLAIN), (sanitise(words), Tone.DIM))
            lines.append(said)
        if len(entries) > RECOVERY_SHOWN:
            lines.append(((f"      … {len(entries) - RECOVERY_SHOWN} more", Tone.DIM),))
    return tuple(lines)


RECOVERY_SHOWN = 3


def urls_page(agents: Sequence[Agent]) -> tuple[Line, ...]:
    """Plain lines to select with the mouse."""
    lines: list[Line] = []
    for agent in agents:
        lines += [
            (),
            ((f"  {sanitise(agent.agent_id)}  {sanitise(agent.feature)}", Tone.STRONG),),
        ]
        for name, port in (("web", agent.web_port), ("api", agent.api_port)):
            if port is not None:
                lines.append(
                    ((f"    {name:<10}", Tone.DIM), (f"http://localhost:{port}", Tone.ACCENT))
                )
        for name, value in (
            ("branch", agent.branch),
            ("worktree", agent.worktree_path),
            ("log", agent.log_path),
        ):
            if value:
                lines.append(((f"    {name:<10}", Tone.DIM), (sanitise(value), Tone.PLAIN)))
    return tuple(lines)
