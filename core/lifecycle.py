"""What follows from what was seen of an agent. Pure: no clock, no file, no kernel.

The table below is the whole life of an agent. A heartbeat appears nowhere in it:
only the worker's process and its `exit.json` decide, and what is not known
(`Liveness.UNKNOWN`) changes nothing.
"""

import random
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autocoder.core.logs import sanitise
from autocoder.core.models import LIVE_STATES, AgentState
from autocoder.core.probe import Liveness

TRANSITIONS: Mapping[AgentState, frozenset[AgentState]] = {
    # Spawned, or given up before its worker ran.
    AgentState.STARTING: frozenset(
        {AgentState.ACTIVE, AgentState.STOPPING, AgentState.FAILED, AgentState.CRASHED}
        | {AgentState.KILLED}
    ),
    # Its worker ended, or somebody asked it to end.
    AgentState.ACTIVE: frozenset(
        {AgentState.STOPPING, AgentState.COMPLETED, AgentState.FAILED, AgentState.CRASHED}
        | {AgentState.KILLED}
    ),
    # On its way out: being stopped, or finished and being merged.
    AgentState.STOPPING: frozenset(
        {AgentState.COMPLETED, AgentState.FAILED, AgentState.CRASHED, AgentState.KILLED}
    ),
    AgentState.COMPLETED: frozenset(),
    AgentState.FAILED: frozenset(),
    AgentState.CRASHED: frozenset(),
    AgentState.KILLED: frozenset(),
}
"""Where an agent may go from where it is; a final state leads nowhere."""

LONGEST_RETRY_S = 600.0
RETRY_SPREAD = 0.3

MISSES_BEFORE_DEAD = 2
"""Looks that must agree before a process without a pidfd counts as gone."""


@dataclass(frozen=True, slots=True)
class ExitFacts:
    """What a worker left in `exit.json`."""

    ending: str
    """exited, stopped, killed, wall_limit, idle_limit, not_started or ports_taken."""
    exit_code: int | None
    """The backend's; negative for the signal that ended it; None if it never started."""
    error: str
    started_at: float
    ended_at: float
    processes_ended: int
    left_behind: tuple[str, ...]
    ports_free: tuple[int, ...]
    eaddrinuse: int
    foreign_ports: tuple[int, ...]
    last_lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an agent ended."""

    state: AgentState
    reason: str
    error_key: str = ""
    """Equal for ends of the same kind; empty for a completed agent."""
    counted: bool = True
    """Whether it costs the feature an attempt."""


def parse_exit(value: Any) -> ExitFacts | None:
    """The facts in a decoded `exit.json`; None where it is not one."""
    if not isinstance(value, dict) or not isinstance(value.get("ending"), str):
        return None

    def number(key: str, default: float = 0.0) -> float:
        found = value.get(key)
        return found if isinstance(found, int | float) else default

    def texts(key: str) -> tuple[str, ...]:
        found = value.get(key)
        return tuple(sanitise(str(text)) for text in found) if isinstance(found, list) else ()

    def ports(key: str) -> tuple[int, ...]:
        found = value.get(key)
        return tuple(p for p in found if isinstance(p, int)) if isinstance(found, list) else ()

    code = value.get("exit_code")
    return ExitFacts(
        ending=value["ending"],
        exit_code=code if isinstance(code, int) else None,
        error=sanitise(str(value.get("error") or "")),
        started_at=number("started_at"),
        ended_at=number("ended_at"),
        processes_ended=int(number("processes_ended")),
        left_behind=texts("left_behind"),
        ports_free=ports("ports_free"),
        eaddrinuse=int(number("eaddrinuse")),
        foreign_ports=ports("foreign_ports"),
        last_lines=texts("last_lines"),
    )


def may_become(old: AgentState, new: AgentState) -> bool:
    return new in TRANSITIONS[old]


def next_live_state(
    state: AgentState, *, worker_reported: bool, ending_asked: bool, worker: Liveness
) -> AgentState:
    """The state of an agent whose worker has not been seen to end."""
    if state not in LIVE_STATES:
        return state
    if ending_asked:
        return AgentState.STOPPING
    if state is AgentState.STARTING and worker_reported and worker is Liveness.ALIVE:
        return AgentState.ACTIVE
    return state


def verdict(
    facts: ExitFacts | None,
    *,
    ran_s: float,
    commits: int | None,
    asked: AgentState | None = None,
    last_line: str = "",
    not_its_fault: str = "",
) -> Verdict:
    """Why an agent whose worker is gone has ended.

    `facts` None: the worker itself was killed and could tell nothing. `commits`
    None: not counted, which only an agent that did not finish may leave so.
    `asked` KILLED: a human wanted it. `not_its_fault`: the host or this program
    ended the worker, in words; it costs no attempt.
    """
    after = f" after {spoken_duration(ran_s)}"
    if facts is None:
        if asked is AgentState.KILLED:
            return Verdict(AgentState.KILLED, f"killed on request{after}", "killed", counted=False)
        if not_its_fault:
            return Verdict(AgentState.CRASHED, not_its_fault, "infrastructure", counted=False)
        return Verdict(
            AgentState.CRASHED, f"worker killed{after}{_quoted(last_line)}", "worker killed"
        )
    said = facts.last_lines[-1] if facts.last_lines else ""
    match facts.ending:
        case "stopped":
            return Verdict(
                AgentState.KILLED, f"stopped on request{after}", "stopped", counted=False
            )
        case "killed":
            return Verdict(AgentState.KILLED, f"killed on request{after}", "killed", counted=False)
        case "wall_limit":
            return Verdict(
                AgentState.FAILED, f"stopped{after}: limits.agent_minutes reached", "wall limit"
            )
        case "idle_limit":
            return Verdict(
                AgentState.FAILED,
                f"stopped{after}: no output for longer than limits.idle_minutes{_quoted(said)}",
                "idle limit",
            )
        case "not_started":
            return Verdict(AgentState.FAILED, facts.error, "not started")
        case "ports_taken" if asked is AgentState.KILLED:
            said = "stopped before it started"
            return Verdict(AgentState.KILLED, said, "stopped", counted=False)
        case "ports_taken":
            said = f"not started: {facts.error}"
            return Verdict(AgentState.FAILED, said, "infrastructure", counted=False)
    code = facts.exit_code
    if code == 0 and commits:
        return Verdict(AgentState.COMPLETED, f"{plural(commits, 'commit')}{after}")
    left = f"; left behind and ended: {facts.left_behind[0]}" if facts.left_behind else ""
    if code == 0:
        return Verdict(AgentState.FAILED, f"finished{after} without a commit{left}", "no commit")
    if code is None or code < 0:
        number = -(code or 0)
        return Verdict(
            AgentState.CRASHED,
            f"killed by {signal_name(number)}{after}{_quoted(said)}{left}",
            f"signal {number}",
        )
    return Verdict(
        AgentState.FAILED,
        f"exit code {code}{after}{_quoted(said)}{left}",
        f"exit {code}: {_kind(said)}",
    )


def receipt(facts: ExitFacts) -> str:
    """What ending the tree achieved, for the human."""
    return (
        f"{plural(facts.processes_ended, 'process', 'processes')} ended, "
        f"{plural(len(facts.ports_free), 'port')} free"
    )


def retry_delay(attempts: int, first_s: float, rng: random.Random) -> float:
    """Seconds before attempt `attempts` + 1: doubling, at most 600, spread by 30 % both ways,
    so that agents that failed together do not come back together."""
    delay = min(first_s * 2.0 ** max(attempts - 1, 0), LONGEST_RETRY_S)
    return delay * rng.uniform(1 - RETRY_SPREAD, 1 + RETRY_SPREAD)


def spoken_duration(seconds: float) -> str:
    """4m12s, 2h03m, 12s; sub-second ones in tenths."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def plural(count: int, noun: str, several: str = "") -> str:
    return f"{count} {noun if count == 1 else several or noun + 's'}"


def _kind(text: str) -> str:
    """The same for two failures that differ in numbers only: ports, pids, times, addresses."""
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)*", "#", text)


def _quoted(line: str) -> str:
    return f', last output: "{line[:200]}"' if line else ""
