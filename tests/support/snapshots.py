"""Hand-made snapshots: what an engine would publish at a frozen moment."""

from dataclasses import replace
from pathlib import Path

from autocoder.core.models import (
    Agent,
    AgentState,
    Feature,
    FeatureCounts,
    FeatureStatus,
    Lease,
    LeaseState,
    Listener,
    Notice,
    PoolStatus,
    PortRange,
    Role,
    Severity,
    Snapshot,
)

NOW = 1_790_000_000.0
"""2026-09-21 14:13:20 UTC."""


def an_agent(number: int = 1, **changes: object) -> Agent:
    """An active agent with everything in order; `number` sets id, feature and ports."""
    name = f"a-{0xF30 + number:04x}"
    agent = Agent(
        agent_id=name,
        state=AgentState.ACTIVE,
        feature_id=number,
        feature=FEATURES[(number - 1) % len(FEATURES)],
        backend="scripted",
        worktree_path=f"/home/dev/todo-app-worktrees/{name}",
        branch=f"feat/{number}-{FEATURES[(number - 1) % len(FEATURES)].lower().replace(' ', '-')}",
        pid=48200 + 11 * number,
        pid_start=1_000 + number,
        api_port=4999 + number,
        web_port=5172 + number,
        api_listener=Listener.OWN,
        web_listener=Listener.OWN,
        cpu_percent=float(3 * number % 40),
        memory_bytes=(180 + 7 * number) * 1024 * 1024,
        processes=4,
        started_at=NOW - 30 - 22 * number,
        last_ping=NOW - 1,
        last_line=LINES[number % len(LINES)],
    )
    return replace(agent, **changes)  # type: ignore[arg-type]


def a_pool(role: Role, *, leased: int = 0, cooling: int = 0, quarantined: int = 0) -> PoolStatus:
    span, usable = (PortRange(5000, 5100), 98) if role is Role.API else (PortRange(5173, 5273), 100)
    return PoolStatus(
        role=role,
        ranges=(span,),
        total=100,
        usable=usable,
        leased=leased,
        cooling=cooling,
        quarantined=quarantined,
        available=usable - leased - cooling - quarantined,
    )


def a_snapshot(*agents: Agent, **changes: object) -> Snapshot:
    """A project whose pools and counts fit the agents."""
    live = sum(agent.live for agent in agents)
    done = sum(agent.state is AgentState.COMPLETED for agent in agents)
    snapshot = Snapshot(
        taken_at=NOW,
        project="todo-app",
        project_dir="/home/dev/todo-app",
        base="main",
        base_commit="4f2c1e9",
        parallel=3,
        features=FeatureCounts(total=12, done=done, in_progress=live, pending=12 - live - done),
        agents=agents,
        pools=(a_pool(Role.API, leased=live), a_pool(Role.WEB, leased=live)),
    )
    return replace(snapshot, **changes)  # type: ignore[arg-type]


def an_empty_project() -> Snapshot:
    return a_snapshot(features=FeatureCounts())


def a_busy_project(logs: Path | None = None) -> Snapshot:
    """Eleven agents at work, some in trouble, some ended: the picture of a normal afternoon."""

    def log(agent: Agent) -> Agent:
        return replace(agent, log_path=str(logs / agent.agent_id / "log")) if logs else agent

    working = [an_agent(number, dirty_files=number % 4) for number in range(1, 9)]
    working[1] = replace(working[1], web_listener=Listener.NONE)
    working[2] = replace(
        working[2],
        web_listener=Listener.FOREIGN,
        problem='web 5175: listener is pid 31870 "node" of user 1002',
    )
    starting = an_agent(
        9,
        state=AgentState.STARTING,
        pid=None,
        worktree_path="",
        branch="",
        api_listener=Listener.NONE,
        web_listener=Listener.NONE,
        started_at=NOW,
        last_ping=None,
        last_line="git worktree add",
    )
    stopping = an_agent(10, state=AgentState.STOPPING, reason="asked to stop", last_line="^C")
    crashed = an_ended(11, AgentState.CRASHED, "killed by signal 9 after 4m12s", 62, dirty_files=5)
    done = [
        an_ended(
            number,
            AgentState.COMPLETED,
            "merged 3 commits into main",
            100 * number,
            worktree_path="",
        )
        for number in (12, 13, 14)
    ]
    agents = tuple(log(agent) for agent in (*working, starting, stopping, crashed, *done))
    return a_snapshot(
        *agents,
        features=FeatureCounts(total=48, done=31, in_progress=10, pending=6, blocked=1),
        backlog=tuple(
            Feature(
                id=number,
                name=FEATURES[(number - 1) % len(FEATURES)],
                status=FeatureStatus.PENDING,
                priority=60 - number,
                attempts=number % 3,
                depends_on=(number - 1,) if number % 5 == 0 else (),
            )
            for number in range(15, 22)
        ),
        pools=(
            a_pool(Role.API, leased=10, cooling=1, quarantined=1),
            a_pool(Role.WEB, leased=10, cooling=1),
        ),
        leases=the_leases(agents),
        notices=(
            Notice(1, NOW - 90, Severity.INFO, "a-0f3c", "merged 3 commits into main"),
            Notice(
                2,
                NOW - 62,
                Severity.WARNING,
                "a-0f3b",
                "killed by signal 9 after 4m12s; r recovers it",
            ),
            Notice(
                3,
                NOW - 8,
                Severity.WARNING,
                "a-0f33",
                'web 5175: listener is pid 31870 "node" of user 1002, not this agent',
            ),
        ),
    )


def an_ended(number: int, state: AgentState, reason: str, ago: float, **changes: object) -> Agent:
    """An agent of the history."""
    return replace(
        an_agent(number),
        state=state,
        pid=None,
        pid_start=None,
        api_port=None,
        web_port=None,
        api_listener=Listener.NONE,
        web_listener=Listener.NONE,
        ended_at=NOW - ago,
        reason=reason,
        **changes,  # type: ignore[arg-type]
    )


def the_leases(agents: tuple[Agent, ...]) -> tuple[Lease, ...]:
    """The ledger that fits these agents, with one cooling and one quarantined port."""
    leases = []
    for agent in agents:
        for role, port, listener in (
            (Role.API, agent.api_port, agent.api_listener),
            (Role.WEB, agent.web_port, agent.web_listener),
        ):
            if port is None:
                continue
            words = {
                Listener.OWN: ((agent.pid or 0) + 2, f"python -m {role.value}"),
                Listener.NONE: (None, ""),
                Listener.FOREIGN: (31870, "node (uid 1002)"),
            }
            pid, command = words[listener]
            leases.append(
                Lease(
                    port=port,
                    role=role,
                    state=LeaseState.LEASED,
                    holder=agent.agent_id,
                    project="/home/dev/todo-app",
                    pid=agent.pid,
                    epoch=port % 40,
                    leased_at=agent.started_at,
                    changed_at=agent.started_at,
                    listener_pid=pid,
                    listener=command,
                )
            )
    leases.append(
        Lease(5012, Role.API, LeaseState.COOLING, "", "", None, 31, None, NOW - 18, due_at=NOW + 12)
    )
    leases.append(
        Lease(
            5013,
            Role.API,
            LeaseState.QUARANTINED,
            "",
            "",
            None,
            3,
            None,
            NOW - 7200,
            due_at=NOW + 8,
            listener_pid=812,
            listener="postgres",
        )
    )
    return tuple(sorted(leases, key=lambda lease: lease.port))


FEATURES = (
    "Search todos by tag",
    "Due dates and reminders",
    "Export to CSV",
    "Undo delete",
    "Filter by owner",
    "Bulk complete",
    "Dark mode",
    "Import from JSON",
    "Keyboard shortcuts",
    "Recurring todos",
    "Share a list",
    "Sort by priority",
    "Archive done todos",
    "Rate limit the API",
)
LINES = (
    "edit api/search.py",
    "pytest -q … 14 passed in 1.02s",
    "vite v8 ready in 310 ms",
    "git commit -m 'Add due dates'",
    "reading web/app.js",
)
