"""Giving the running orchestrator a command, and waiting for what it brings.

A command is answered by snapshots, not by a return value: so whoever asks says what
it is that must be seen, and a warning about the same subject is taken for a refusal.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from autocoder.core.commands import Command
    from autocoder.core.models import Agent, Feature, Snapshot

T = TypeVar("T")

EFFECT_LIMIT_S = 30.0
"""How long a command that was given may take to show."""


def newcomer(before: "Snapshot", now: "Snapshot") -> "Agent | None":
    return next(iter(_newcomers(before, now)), None)


def newcomers(count: int) -> "Callable[[Snapshot, Snapshot], list[Agent] | None]":
    def all_there(before: "Snapshot", now: "Snapshot") -> "list[Agent] | None":
        found = _newcomers(before, now)
        return found if len(found) >= count else None

    return all_there


def _newcomers(before: "Snapshot", now: "Snapshot") -> "list[Agent]":
    known = {agent.agent_id for agent in before.agents}
    return [agent for agent in now.agents if agent.agent_id not in known]


def once_ended(agent_id: str) -> "Callable[[Snapshot, Snapshot], Agent | None]":
    def ended(_before: "Snapshot", now: "Snapshot") -> "Agent | None":
        found = (agent for agent in now.agents if agent.agent_id == agent_id and not agent.live)
        return next(found, None)

    return ended


def once_told(agent_id: str) -> "Callable[[Snapshot, Snapshot], Agent | None]":
    def told(before: "Snapshot", now: "Snapshot") -> "Agent | None":
        known = {notice.id for notice in before.notices}
        heard = any(
            notice.subject == agent_id and notice.text.startswith("told: ")
            for notice in now.notices
            if notice.id not in known
        )
        return next((a for a in now.agents if heard and a.agent_id == agent_id), None)

    return told


def once_merged(feature_id: int) -> "Callable[[Snapshot, Snapshot], Feature | None]":
    def merged(_before: "Snapshot", now: "Snapshot") -> "Feature | None":
        found = (feature for feature in now.backlog if feature.id == feature_id)
        return next((feature for feature in found if feature.review_status == "VERIFIED"), None)

    return merged


def once_cleaned(paths: "Mapping[str, Path]") -> "Callable[[Snapshot, Snapshot], list[str] | None]":
    """Why each stays that does, once all of these agents' worktrees are gone or kept."""

    def cleaned(before: "Snapshot", now: "Snapshot") -> "list[str] | None":
        told = before.notices[-1].id if before.notices else 0
        kept = {
            notice.subject: f"{notice.subject}: {notice.text}"
            for notice in now.notices
            if notice.id > told and notice.subject in paths
        }
        known = {agent.agent_id for agent in now.agents if agent.worktree_path}
        left = [each for each in paths if each not in kept]
        if any(paths[each].exists() or each in known for each in left):
            return None
        return list(kept.values())

    return cleaned


def require_live(folder: Path, agent_id: str) -> None:
    """Raises `RefusedError` or `UsageError` where there is no such live agent."""
    from autocoder.core.client import Client
    from autocoder.core.errors import RefusedError, UsageError

    states = {
        agent["agent_id"]: agent for agent in Client(folder).ask("GET", "/api/agents?all=true")
    }
    if agent_id not in states:
        raise UsageError(
            f"there is no agent {agent_id!r}", "`autocoder agents list` shows those there are."
        )
    if states[agent_id]["ended_at"] is not None:
        raise RefusedError(
            f"agent {agent_id} is not running", "`autocoder agents list` shows those that are."
        )


def ask(
    folder: Path,
    command: "Command",
    done: "Callable[[Snapshot, Snapshot], T | None]",
    *,
    subject: str = "",
    limit_s: float = EFFECT_LIMIT_S,
) -> T:
    """Give the command to the running orchestrator and wait for what it brings.

    A warning about `subject`, or about nothing in particular, is taken for a refusal.

    Raises:
        NoOrchestrator: there is none.
        RefusedError: the orchestrator could not do it, or has not yet.
    """
    from autocoder.core.client import Client
    from autocoder.core.errors import RefusedError
    from autocoder.core.models import Severity
    from autocoder.core.wire import SnapshotReader, command_to_json

    client, reader = Client(folder), SnapshotReader()
    before: Snapshot | None = None
    deadline = time.monotonic() + limit_s
    with client.lines("/api/snapshots", EFFECT_LIMIT_S) as lines:
        for line in lines:
            if time.monotonic() > deadline:
                break
            if not line:
                continue
            now = reader.read(line)
            if before is None:
                before = now
                client.ask("POST", "/api/commands", command_to_json(command))
            found = done(before, now)
            if found is not None:
                return found
            told = before.notices[-1].id if before.notices else 0
            subjects = ("", subject, getattr(command, "agent_id", ""))
            for notice in now.notices:
                refusal = notice.severity is Severity.WARNING and notice.subject in subjects
                if notice.id > told and refusal:
                    raise RefusedError(notice.text)
    raise RefusedError(
        f"nothing came of it within {limit_s:g} s",
        "`autocoder agents list` shows the state.",
    )
