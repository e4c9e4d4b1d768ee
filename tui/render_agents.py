"""What the grid says of each agent, and which of them need a human."""

from collections.abc import Callable
from pathlib import PurePath

from autocoder.core.logs import sanitise
from autocoder.core.models import LIVE_STATES, Agent, AgentState, FeatureStatus, Listener, Snapshot
from autocoder.tui.columns import NO_VALUE, Column
from autocoder.tui.palette import GO_ON, LISTENER, NOTHING, STATE_TONE, Tone, state_of
from autocoder.tui.spans import Line, age, duration, size

QUIET_S = 15.0
"""A worker that was heard of since is not worth a number that changes all the time."""


def _state(agent: Agent, _now: float) -> Line:
    glyph, word, tone = state_of(agent)
    return ((f"{glyph} ", tone), (word, tone if agent.held else STATE_TONE[agent.state]))


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
    return ((age(since, now), Tone.DIM),) if since else NO_VALUE


GRAVITY = ("crashed", "failed", "held", "stopping", "starting", "active", "killed", "done")


def _gravity(agent: Agent) -> int:
    """What needs a human first, then what is at work, then what is over."""
    if agent.live and agent.problem:
        return 0
    return 1 + GRAVITY.index(state_of(agent)[1])


def _beat(agent: Agent, now: float) -> Line:
    if not agent.live or agent.last_ping is None:
        return NO_VALUE
    silent = now - agent.last_ping
    if silent < QUIET_S:
        return (("ok", Tone.DIM),)
    return ((duration(silent), Tone.WARN if silent > 2 * QUIET_S else Tone.DIM),)


def _last_line(agent: Agent, _now: float) -> Line:
    if agent.problem:
        return ((sanitise(agent.problem), Tone.WARN),)
    if agent.held:
        return ((GO_ON, Tone.ACCENT), (f"; {sanitise(agent.reason)}", Tone.DIM))
    if not agent.live and agent.reason:
        bad = agent.state in (AgentState.CRASHED, AgentState.FAILED)
        return ((sanitise(agent.reason), Tone.PLAIN if bad else Tone.DIM),)
    if agent.live and agent.retrying:
        return ((f"retrying: {sanitise(agent.retrying)}", Tone.WARN),)
    return ((sanitise(agent.last_line), Tone.DIM),)


def _seen(agent: Agent) -> bool:
    """Whether its processes have been looked at: whatever lives has some memory."""
    return agent.pid is not None and agent.memory_bytes > 0


def _text(value: Callable[[Agent], str]) -> Callable[[Agent, float], Line]:
    return lambda agent, _now: ((sanitise(value(agent)) or NOTHING, Tone.PLAIN),)


AGENT_COLUMNS: tuple[Column[Agent], ...] = (
    Column("state", "state", _state, 10, order=_gravity),
    Column("agent", "agent", _text(lambda agent: agent.agent_id), 6, 12, natural=True),
    Column("feature", "feature", _text(lambda agent: agent.feature), 10, 30, worth=8),
    Column("backend", "backend", _text(lambda agent: agent.backend), 8, worth=2, beside=14),
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
        lambda agent, _: ((f"{agent.cpu_percent:.0f}%", Tone.PLAIN),) if _seen(agent) else NO_VALUE,
        4,
        worth=6,
        right=True,
        order=lambda agent: -agent.cpu_percent if _seen(agent) else None,
    ),
    Column(
        "mem",
        "mem",
        lambda agent, _: ((size(agent.memory_bytes), Tone.PLAIN),) if _seen(agent) else NO_VALUE,
        5,
        worth=5,
        right=True,
        order=lambda agent: -agent.memory_bytes if _seen(agent) else None,
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
            if agent.state in (AgentState.CRASHED, AgentState.FAILED) and not agent.held:
                found.append(agent)
    return tuple(found)


def problems_first(snapshot: Snapshot) -> tuple[Agent, ...]:
    """All agents: those that need a human, then the others as the snapshot has them."""
    wrong = problems(snapshot)
    ids = {agent.agent_id for agent in wrong}
    return (*wrong, *(agent for agent in snapshot.agents if agent.agent_id not in ids))
