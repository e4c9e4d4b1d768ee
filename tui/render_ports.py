"""What the ports view says: each row of the ledger, with who really listens."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePath

from autocoder.core.logs import sanitise
from autocoder.core.models import Agent, Lease, LeaseState, Listener, Role, Snapshot
from autocoder.tui.columns import NO_VALUE, Column
from autocoder.tui.palette import LISTENER, LISTENER_WORD, PROBLEM, Tone
from autocoder.tui.spans import Line, age, duration, joined, width_of

LEASE_TONE = {
    LeaseState.LEASED: Tone.PLAIN,
    LeaseState.RELEASING: Tone.WARN,
    LeaseState.COOLING: Tone.DIM,
    LeaseState.QUARANTINED: Tone.WARN,
}

BLOCKS = " ▁▂▃▄▅▆▇█"
NOT_ITS_OWN = (Listener.FOREIGN, Listener.SWAPPED)


def lease_key(lease: Lease) -> str:
    return str(lease.port)


def lease_columns(
    agent_of: Callable[[Lease], Agent | None], orphaned: Callable[[Lease], bool]
) -> tuple[Column[Lease], ...]:
    """The columns; `agent_of` finds the live agent of this project that holds a lease.

    `orphaned` leases are this project's, and no agent of it holds them.
    """

    def listener_mark(lease: Lease) -> Listener | None:
        agent = agent_of(lease)
        if agent is not None:
            return agent.api_listener if lease.role is Role.API else agent.web_listener
        return Listener.FOREIGN if lease.state is LeaseState.QUARANTINED else None

    def is_wrong(lease: Lease) -> bool:
        return lease.state is LeaseState.LEASED and listener_mark(lease) in NOT_ITS_OWN

    def port(lease: Lease, _now: float) -> Line:
        return (
            (f"{PROBLEM} " if is_wrong(lease) else "  ", Tone.WARN),
            (str(lease.port), Tone.STRONG),
        )

    def state(lease: Lease, now: float) -> Line:
        word: Line = ((lease.state.value, LEASE_TONE[lease.state]),)
        if lease.state is LeaseState.COOLING and lease.due_at is not None:
            word += ((f" {duration(lease.due_at - now)}", Tone.DIM),)
        return word

    def holder(lease: Lease, _now: float) -> Line:
        if not lease.holder:
            return NO_VALUE
        name = PurePath(lease.project).name if lease.project else "external"
        return ((f"{sanitise(lease.holder)} ", Tone.PLAIN), (sanitise(name), Tone.DIM))

    def listener(lease: Lease, _now: float) -> Line:
        mark = listener_mark(lease)
        who = f"{lease.listener_pid or ''} {_brief(sanitise(lease.listener))}".strip()
        if mark is None:
            return ((who, Tone.PLAIN),) if who else NO_VALUE
        glyph, tone, _ = LISTENER[mark]
        said = f"{glyph} {LISTENER_WORD[mark]}"
        return ((said, tone), (f"  {who}" if who else "", Tone.PLAIN))

    def since(lease: Lease, now: float) -> Line:
        return ((age(lease.leased_at or lease.changed_at, now), Tone.DIM),)

    def remedy(lease: Lease, now: float) -> Line:
        if lease.state is LeaseState.QUARANTINED and lease.due_at is not None:
            return ((f"probed in {duration(lease.due_at - now)}; c probes now", Tone.DIM),)
        if lease.state is LeaseState.RELEASING:
            return (("free once nothing listens; c probes now", Tone.DIM),)
        if lease.state is LeaseState.LEASED and orphaned(lease):
            return (("its holder is gone; R releases", Tone.WARN),)
        if is_wrong(lease):
            return (("⏎, then r: another pair", Tone.WARN),)
        return ()

    return (
        Column("port", "  port", port, 7, order=lambda lease: lease.port),
        Column("role", "role", lambda lease, _: ((lease.role.value, Tone.DIM),), 4, worth=5),
        Column("state", "state", state, 15),
        Column(
            "holder",
            "holder",
            holder,
            12,
            30,
            natural=True,
            order=lambda lease: lease.holder or None,
        ),
        Column("listener", "listener", listener, 16, 44),
        Column(
            "since", "since", since, 5, worth=6, right=True, order=lambda lease: lease.changed_at
        ),
        Column(
            "epoch",
            "epoch",
            lambda lease, _: ((str(lease.epoch), Tone.DIM),),
            5,
            worth=3,
            right=True,
            order=lambda lease: lease.epoch,
        ),
        Column("remedy", "", remedy, 20, 60, worth=4),
    )


def _brief(command: str) -> str:
    """The command with its program's folder left out."""
    program, space, rest = command.partition(" ")
    return program.rpartition("/")[2] + space + rest


def release_lines(lease: Lease, *, held: bool) -> tuple[Line, ...]:
    """What becomes of a port that is to be released."""
    who = sanitise(lease.holder) or "nobody"
    lines: list[Line] = [
        ((f"    {lease.role.value} port, {lease.state.value}, held by {who}", Tone.PLAIN),)
    ]
    if lease.listener:
        said = f"{lease.listener_pid or ''} {_brief(sanitise(lease.listener))}".strip()
        lines.append(((f"    {said} listens on it", Tone.WARN),))
    if held:
        lines.append((("    Its agent lives: this will be refused.", Tone.BAD),))
    lines.append((("    It rests, and is leased again once it is seen free.", Tone.DIM),))
    return tuple(lines)


def ports_title(snapshot: Snapshot, host: str, width: int) -> Line:
    """Whose ports these are, the ranges of each pool, and the counts."""
    ranges: list[Line] = [
        ((f"{pool.role.value} ", Tone.DIM), (", ".join(map(str, pool.ranges)), Tone.PLAIN))
        for pool in snapshot.pools
    ]
    states = Counter(lease.state for lease in snapshot.leases)
    said = " · ".join(f"{states[state]} {state.value}" for state in LeaseState if states[state])
    counts: Line = ((said or "no leases", Tone.DIM),)
    name: Line = ((sanitise(host), Tone.STRONG),)
    whose: Line = ((" ports of ", Tone.DIM), *name)
    for who, gap in ((whose, "    "), (whose, "  "), (((" ", Tone.DIM), *name), "  ")):
        line = joined((who, *ranges, counts), gap)
        if width_of(line) <= width:
            return line
    # The ranges of a pool that was extended often say less than the counts.
    return joined((whose, counts), "  ")


def history_line(roles: Sequence[tuple[Role, Sequence[int]]], step_s: float) -> Line:
    """How full each pool has been: a block for each step, the latest at the right."""
    pieces: list[Line] = []
    for role, percents in roles:
        blocks = "".join(BLOCKS[-(-percent * (len(BLOCKS) - 1) // 100)] for percent in percents)
        worst = max(percents, default=0)
        pieces.append(
            (
                (f" {role.value} ", Tone.DIM),
                (blocks, Tone.ACCENT),
                (f" {percents[-1] if percents else 0}%", Tone.STRONG),
                (f", at most {worst}%", Tone.DIM),
            )
        )
    minutes = -(-step_s * max((len(percents) for _, percents in roles), default=0) // 60)
    return (*joined(pieces, "  "), (f"   in the last {minutes:.0f} min", Tone.DIM))


def lease_matches(lease: Lease, words: str) -> bool:
    """Whether every word is somewhere in what the row says."""
    where = f"{lease.port} {lease.role} {lease.state} {lease.holder} {lease.project}"
    said = f"{where} {lease.listener_pid} {lease.listener}".casefold()
    return all(word in said for word in words.casefold().split())


def no_agent(lease: Lease) -> str:
    """Why the row leads to no agent."""
    if not lease.holder:
        return f"nobody holds port {lease.port}"
    who, project = sanitise(lease.holder), sanitise(PurePath(lease.project).name)
    return f"port {lease.port} is held by {who}{f' of {project}' if project else ''}: no agent here"


NONE_MATCHES: tuple[Line, ...] = (
    (),
    (("   No port matches the filter.", Tone.PLAIN),),
    (),
    (("   esc", Tone.ACCENT), ("  clears it.", Tone.DIM)),
)
NO_LEASES: tuple[Line, ...] = (
    (),
    (("   No port of this host is leased, cooling or quarantined.", Tone.PLAIN),),
    (("   An agent that starts leases one of each pool.", Tone.DIM),),
)
