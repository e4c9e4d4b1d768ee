"""What the main screen says besides its grid and header, as text: models in, lines out.

Pure, like every `render_*` module: the time is passed in, nothing is looked up. Names,
notices and log lines come from agents and repositories, so each is sanitised there.
"""

from collections.abc import Sequence

from autocoder.core.logs import sanitise
from autocoder.core.models import Agent, Notice, Role, Severity, Snapshot
from autocoder.tui.palette import GO_ON, HELD_WORD, SEVERITY, STATE_TONE, Tone
from autocoder.tui.query import Query
from autocoder.tui.spans import Line, Span, age, amount, clock, counted, fit, joined, width_of


def log_title(agent: Agent | None, width: int) -> Line:
    """What a person copies from an agent: URLs first, then branch, with what it works on."""
    if agent is None:
        return ((" no agent selected", Tone.DIM),)
    name: Line = ((f" {sanitise(agent.agent_id)}", Tone.STRONG),)
    feature: Line = ((sanitise(agent.feature), Tone.PLAIN),)
    branch: Line = ((sanitise(agent.branch), Tone.DIM),) if agent.branch else ()
    ports = [
        ((f"{role.value} ", Tone.DIM), port)
        for role, port in ((Role.API, agent.api_port), (Role.WEB, agent.web_port))
        if port is not None
    ]
    urls = [(role, (f"http://localhost:{port}", Tone.ACCENT)) for role, port in ports]
    hosts = [(role, (f"localhost:{port}", Tone.ACCENT)) for role, port in ports]
    backend: Line = ((sanitise(f"{agent.backend} {agent.model}".strip()), Tone.DIM),)
    doing = progress(agent)
    if not agent.live and agent.reason:
        ended: Line = ((sanitise(agent.reason), STATE_TONE[agent.state]),)
        if agent.held:
            ended = ((f"{HELD_WORD}, {GO_ON}: ", Tone.ACCENT), *ended)
        # A reason may be a long sentence: it is cut, and what names the agent is not.
        return _first_that_fits(
            width,
            (name, feature, branch, ended, backend, *doing),
            (name, feature, ended, *doing),
            (name, feature, branch, ended),
            (name, feature, ended),
        )
    # What is worth least falls away first: its branch and model, then its feature.
    line = _first_that_fits(
        width,
        (name, feature, branch, *urls, backend, *doing),
        (name, feature, *urls, *doing),
        (name, *urls, *doing),
        (name, *urls, *doing[-2:]),
        (name, *urls),
        (name, *hosts),
    )
    room = width - width_of(line) - len(BETWEEN)
    if feature[0] in line or room < LEAST_FEATURE:
        return line
    return joined((name, fit(feature, room), line[len(name) + 1 :]), BETWEEN)


BETWEEN = "   "
LEAST_FEATURE = 8
"""Cells of a feature's name that are still worth reading."""


def _first_that_fits(width: int, *variants: Sequence[Line]) -> Line:
    """The first of them that is not too wide, joined; else the last."""
    lines = (joined(filter(None, pieces), BETWEEN) for pieces in variants)
    line: Line = ()
    for line in lines:
        if width_of(line) <= width:
            break
    return line


def progress(agent: Agent) -> tuple[Line, ...]:
    """How far it is and what it has used, as far as its backend says."""
    pieces: list[Line] = []
    if agent.retrying and agent.live:
        pieces.append(((f"retrying: {sanitise(agent.retrying)}", Tone.WARN),))
    if agent.iteration:
        pieces.append(((f"iteration {agent.iteration}", Tone.PLAIN),))
    if agent.last_tool:
        pieces.append((("tool ", Tone.DIM), (sanitise(agent.last_tool), Tone.PLAIN)))
    if agent.tokens:
        pieces.append(((f"{amount(agent.tokens)} tok", Tone.PLAIN),))
    if agent.cost_usd:
        pieces.append(((f"${agent.cost_usd:.2f}", Tone.PLAIN),))
    return tuple(pieces)


def notice_line(notice: Notice, now: float) -> Line:
    glyph, tone = SEVERITY[notice.severity]
    spans: list[Span] = [(f" {glyph} ", tone)]
    if notice.subject:
        spans.append((f"{sanitise(notice.subject)}  ", Tone.STRONG))
    body = Tone.PLAIN if notice.severity is not Severity.INFO else Tone.DIM
    spans.append((sanitise(notice.text), body))
    since = age(notice.at, now) if now - notice.at >= 60 else "under a minute"
    spans.append((f"  {since} ago", Tone.FAINT))
    return tuple(spans)


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

READ_ONLY: Line = ((" read-only ", Tone.WARN),)


def grid_word(
    query: Query, shown: int, total: int, *, problems: bool, marked: int, marked_hidden: int
) -> Line:
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
    if marked_hidden:
        word.append((f" {marked_hidden} marked but hidden: left alone ", Tone.DIM))
    return tuple(word)


def typing_hint(enter: str, escape: str) -> Line:
    """What the two keys do that end typing into the bar."""
    return (
        ("  ⏎", Tone.ACCENT),
        (f" {enter}  ", Tone.DIM),
        ("esc", Tone.ACCENT),
        (f" {escape}", Tone.DIM),
    )


def name_lines(agents: Sequence[Agent]) -> tuple[Line, ...]:
    """Ids and features, one agent a line."""
    wide = max((len(agent.agent_id) for agent in agents), default=0)
    return tuple(
        (
            (f"    {sanitise(agent.agent_id).ljust(wide)}  ", Tone.STRONG),
            (sanitise(agent.feature), Tone.PLAIN),
        )
        for agent in agents
    )


def target_lines(agents: Sequence[Agent]) -> tuple[Line, ...]:
    """Whom a question is about, and what becomes of uncommitted work."""
    wide = max((len(agent.agent_id) for agent in agents), default=0)
    lines: list[Line] = []
    for agent, name in zip(agents, name_lines(agents), strict=True):
        lines.append(name)
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
                (f"{sanitise(notice.subject):<11} ", Tone.STRONG),
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
