"""A project in which everything that comes from agents and repositories is an attack."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autocoder.core.assistant import Said
from autocoder.core.commands import SpawnAgent
from autocoder.core.events import Event, Retry, Text, ToolEnd, ToolStart, Warned
from autocoder.core.models import (
    Agent,
    Feature,
    Notice,
    PoolStatus,
    PortRange,
    RecoveryPlan,
    Role,
    Severity,
    Snapshot,
    WorktreeStatus,
)
from autocoder.core.questions import (
    BackendChoice,
    Details,
    Growth,
    PastEvent,
    ProcessLine,
    SettingValue,
    SpawnForecast,
)
from support.assistance import ScriptedAssistance
from support.attacks import ATTACKS
from support.snapshots import NOW, a_snapshot, an_agent, the_leases

BAD = tuple(ATTACKS.values())
ALL = "".join(BAD)
LAST_WORDS = "that was all"


def hostile_agents(logs: Path) -> tuple[Agent, ...]:
    """One agent for each attack, in every field; all of them in their log."""
    log = logs / "log"
    with log.open("wb") as file:
        for name, bad in ATTACKS.items():
            for line in (f"attack: {name}", bad, f"\x1b[31m{bad}\x1b[0m"):
                file.write(line.encode("utf-8", "surrogatepass") + b"\n")
            file.write(b"raw: \x9b2J\x9d0;title\x9c\xff\xfe\x00 end\n")
    agents = []
    for number, bad in enumerate(BAD, 1):
        fields = ("feature", "branch", "backend", "model", "last_line", "reason", "last_tool")
        hostile = dict.fromkeys(fields, bad)
        agent = replace(an_agent(number), **hostile)  # type: ignore[arg-type]
        agents.append(
            replace(
                agent,
                worktree_path=f"/w/{bad}",
                problem=bad if number % 2 else "",
                retrying="" if number % 3 else bad,
                log_path=str(log),
            )
        )
    return tuple(agents)


def hostile_snapshot(agents: tuple[Agent, ...]) -> Snapshot:
    leases = (
        replace(lease, listener=bad, holder=lease.holder if number % 2 else bad, project=bad)
        for number, (lease, bad) in enumerate(zip(the_leases(agents), BAD * 2, strict=False))
    )
    snapshot = a_snapshot(*agents, project="p\x1b]0;owned\x07", base="b\x9b2J")
    return replace(
        snapshot,
        base_commit=ALL,
        notices=tuple(
            Notice(number, NOW, Severity.WARNING, bad, bad) for number, bad in enumerate(BAD, 1)
        ),
        backlog=tuple(
            Feature(number, bad, bad, (bad,), bad, last_error=bad, branch_name=bad, base=bad)
            for number, bad in enumerate(BAD, 1)
        ),
        leases=tuple(leases),
        recovery=RecoveryPlan(BAD, BAD, (5000,), (1, 2, 3)),
    )


class HostileAnswers:
    """Every answer is made of attacks."""

    def details(self, agent: Agent) -> Details:
        return Details(
            processes=tuple(ProcessLine(1, 1, bad, "S", 1, 0.1) for bad in BAD),
            environment=tuple((bad, bad) for bad in BAD),
            facts=tuple((bad, bad) for bad in BAD),
            changed_paths=BAD,
            prompt="\n".join(BAD),
        )

    def diff(self, agent: Agent) -> str:
        return "\n".join(f"{sign}{bad}" for bad in BAD for sign in ("", "+", "-", "diff "))

    def events(self, limit: int) -> tuple[PastEvent, ...]:
        return tuple(PastEvent(NOW, Severity.INFO, bad, bad, bad, None) for bad in BAD)

    def growth(
        self, pools: Sequence[PoolStatus], roles: Sequence[Role], amount: int
    ) -> tuple[Growth, ...]:
        taken = tuple((6000 + number, bad) for number, bad in enumerate(BAD))
        return tuple(Growth(role, PortRange(6000, 6100), 50, taken) for role in roles)

    def settings(self) -> tuple[SettingValue, ...]:
        return tuple(SettingValue(bad, bad, bad, bad) for bad in BAD)

    def worktrees(self) -> tuple[WorktreeStatus, ...]:
        return tuple(
            WorktreeStatus(f"{number}{bad}{unknown}", bad, bad, number, 0, True, False, unknown)
            for number, bad in enumerate(BAD)
            for unknown in ("", bad)
        )

    def forecast(self, wish: SpawnAgent, snapshot: Snapshot) -> SpawnForecast:
        choices = tuple(BackendChoice(bad, False, bad, bad) for bad in BAD)
        return SpawnForecast(choices, ALL, ALL, ALL, ALL, refusal=ALL, remedy=ALL)


def hostile_assistance() -> ScriptedAssistance:
    events: list[Event] = []
    for bad in BAD:
        events += [Text(bad), ToolStart("1", bad, bad), ToolEnd("1", False, bad)]
        events += [Retry(bad), Warned(bad)]
    said = tuple(Said(NOW, "assistant", bad, bad) for bad in BAD)
    return ScriptedAssistance(*events, Text(LAST_WORDS), said=said)
