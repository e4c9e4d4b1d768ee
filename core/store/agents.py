"""Agents in the database: a row of `agent_heartbeats` while they live, then one of history."""

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sqlalchemy import Connection, Select, Table, insert, select, text, update

from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.models import LIVE_STATES, AgentState, Feature, FeatureStatus, PortPair
from autocoder.core.store.archive import archive, release_orphans
from autocoder.core.store.dependencies import has_unmet, is_due, is_pending
from autocoder.core.store.journal import read_setting, write_setting
from autocoder.core.store.opened import OpenedDatabase
from autocoder.core.store.outcomes import settle
from autocoder.core.store.records import AgentRecord, FeatureOutcome, NewAgent
from autocoder.core.store.rows import (
    FEATURES,
    HISTORY,
    LIVE,
    as_agent,
    clean,
    find_feature,
    time_text,
)

AGENT_COUNTER = "agent_counter"
HISTORY_SEARCHED = 1000
"""Ended agents that are looked through for one that is to be gone on with."""

_BEAT = text(
    "UPDATE agent_heartbeats SET last_ping = beat.value "
    "FROM json_each(:pings) AS beat WHERE beat.key = agent_heartbeats.agent_id"
)


class AgentTables(OpenedDatabase):
    """Agents, live and ended. State is written here before the deed."""

    def free_agent_id(self, is_taken: Callable[[str], bool] = lambda _: False) -> str:
        """An id this project has never used; it counts as used once a `claim` has named it.

        Those for which `is_taken` holds are skipped: a lost database leaves run
        folders and branches behind.
        """
        with self._reading() as connection:
            number = _last_number(connection)
        while True:
            number += 1
            agent_id = f"a-{number:04x}"
            if not is_taken(agent_id):
                return agent_id

    def claim(self, feature_id: int, agent: NewAgent, *, requested: bool = False) -> bool:
        """Give a pending feature to a new agent, which is STARTING from now on.

        False, and nothing changed, when the feature is not claimable any more. One
        that a human `requested` need be neither enabled nor due, but its
        dependencies must be met.
        """
        now = self._time()
        conditions = [FEATURES.c.id == feature_id, is_pending(), ~has_unmet()]
        if not requested:
            conditions += [FEATURES.c.enabled, is_due(self._now())]
        with self._changing_features() as connection:
            claimed = connection.execute(
                update(FEATURES)
                .where(*conditions)
                .values(
                    status=FeatureStatus.IN_PROGRESS.value,
                    assigned_agent_id=agent.agent_id,
                    assigned_at=now,
                    branch_name=agent.branch,
                    updated_at=now,
                )
            )
            if not claimed.rowcount:
                return False
            connection.execute(
                insert(LIVE).values(
                    agent_id=agent.agent_id,
                    status=AgentState.STARTING.value,
                    feature_id=feature_id,
                    api_port=agent.api_port,
                    web_port=agent.web_port,
                    epoch=agent.epoch,
                    branch_name=agent.branch,
                    backend=agent.backend,
                    worktree_path=agent.worktree_path,
                    log_file_path=agent.log_path,
                    started_at=now,
                )
            )
            self._count_agent(connection, agent.agent_id)
        return True

    def set_worker(
        self, agent_id: str, *, pid: int, pid_start: int, boot_id: str, create_time: float
    ) -> None:
        """Note which process is the agent's worker.

        Raises:
            RefusedError: the agent is not live.
        """
        self._update_live(
            agent_id, pid=pid, pid_start=pid_start, boot_id=boot_id, proc_create_time=create_time
        )

    def set_pair(self, agent_id: str, pair: PortPair) -> None:
        """Note that a live agent, which has no worker now, was given another pair.

        Raises:
            RefusedError: the agent is not live.
        """
        self._update_live(
            agent_id,
            api_port=pair.api_port,
            web_port=pair.web_port,
            epoch=pair.epoch,
            pid=None,
            pid_start=None,
        )

    def set_state(self, agent_id: str, state: AgentState) -> None:
        """Move a live agent among `LIVE_STATES`; `end_agent` ends one.

        Raises:
            RefusedError: the agent is not live.
        """
        if state not in LIVE_STATES:
            raise ValueError(f"{state} ends an agent")
        self._update_live(agent_id, status=state.value)

    def set_states(self, states: Mapping[str, AgentState]) -> None:
        """Move live agents among `LIVE_STATES`, all at once; ended ones stay as they are."""
        if not LIVE_STATES.issuperset(states.values()):
            raise ValueError(f"{states} ends an agent")
        with self._writing() as connection:
            for agent_id, state in states.items():
                connection.execute(
                    update(LIVE).where(LIVE.c.agent_id == agent_id).values(status=state.value)
                )

    def clear_worktrees(self, agent_ids: Collection[str]) -> None:
        """Note that the worktrees of these live or ended agents are removed or handed on."""
        with self._writing() as connection:
            for table in (LIVE, HISTORY):
                connection.execute(
                    update(table).where(table.c.agent_id.in_(agent_ids)).values(worktree_path="")
                )

    def worktrees_in_use(self) -> frozenset[str]:
        """Paths of the worktrees that live agents work in, and of those that crashed agents
        left whose features wait to be gone on with."""
        with self._reading() as connection:
            waiting = set(connection.scalars(select(FEATURES.c.id).where(is_pending())))
        used = {record.worktree_path for record in self.live_agents()}
        for record in self.history(HISTORY_SEARCHED):
            if record.feature_id in waiting:
                waiting.discard(record.feature_id)
                if record.state is AgentState.CRASHED:
                    used.add(record.worktree_path)
        return frozenset(used - {""})

    def forget_worktree(self, path: str) -> None:
        """Note that the worktree at `path` is removed, whichever agents had it."""
        with self._writing() as connection:
            for table in (LIVE, HISTORY):
                connection.execute(
                    update(table).where(table.c.worktree_path == path).values(worktree_path="")
                )

    def beat(self, pings: Mapping[str, float]) -> None:
        """Note when live agents were last heard of; never changes a state, nor an ended agent."""
        if not pings:
            return
        texts = {agent_id: time_text(at) for agent_id, at in pings.items()}
        with self._writing() as connection:
            connection.execute(_BEAT, {"pings": json.dumps(texts)})

    def end_agent(
        self,
        agent_id: str,
        *,
        state: AgentState,
        exit_code: int | None,
        reason: str,
        outcome: FeatureOutcome,
        eaddrinuse: int = 0,
    ) -> Feature | None:
        """Move the agent to the history and settle its feature, in one transaction.

        The feature as it is afterwards; None where it is gone. One that was given
        to another agent meanwhile stays as it is.

        Raises:
            RefusedError: the agent is not live.
        """
        if state in LIVE_STATES:
            raise ValueError(f"{state} does not end an agent")
        with self._changing_features() as connection:
            feature_id = connection.execute(
                select(LIVE.c.feature_id).where(LIVE.c.agent_id == agent_id)
            ).first()
            if feature_id is None:
                raise RefusedError(f"agent {agent_id} is not live")
            archive(
                connection,
                LIVE.c.agent_id == agent_id,
                state=state.value,
                reason=clean(reason),
                ended_at=self._time(),
                exit_code=exit_code,
                eaddrinuse=eaddrinuse,
            )
            if feature_id[0] is None:
                return None
            feature = find_feature(connection, feature_id[0])
            if feature.agent_id == agent_id:
                settle(connection, feature.id, outcome, self._time())
                feature = find_feature(connection, feature.id)
        return feature

    def live_agents(self) -> tuple[AgentRecord, ...]:
        """Those that have not ended, oldest first."""
        return self._agents(_select_agents(LIVE).order_by(LIVE.c.id))

    def history(self, limit: int) -> tuple[AgentRecord, ...]:
        """The `limit` that ended last, latest first."""
        return self._agents(_select_agents(HISTORY).order_by(HISTORY.c.id.desc()).limit(limit))

    def agent(self, agent_id: str) -> AgentRecord:
        """The agent of that id, live or ended.

        Raises:
            UsageError: there never was one.
        """
        for table in (LIVE, HISTORY):
            query = _select_agents(table).where(table.c.agent_id == agent_id)
            found = self._agents(query.order_by(table.c.id.desc()).limit(1))
            if found:
                return found[0]
        raise UsageError(
            f"there is no agent {agent_id!r}", "`autocoder agents list` shows those there are."
        )

    def reconcile(self, is_alive: Callable[[AgentRecord], bool | None]) -> tuple[AgentRecord, ...]:
        """Move live agents whose worker is dead to the history, as CRASHED; return them.

        Their features, and all that are in progress with no agent, go back to the
        backlog uncounted. Where `is_alive` says None the agent stays.
        """
        dead = tuple(agent for agent in self.live_agents() if is_alive(agent) is False)
        with self._changing_features() as connection:
            archive(
                connection,
                LIVE.c.agent_id.in_([agent.agent_id for agent in dead]),
                state=AgentState.CRASHED.value,
                reason="its worker was no longer running",
                ended_at=self._time(),
            )
            release_orphans(connection)
        return dead

    def _update_live(self, agent_id: str, **values: object) -> None:
        with self._writing() as connection:
            changed = connection.execute(
                update(LIVE).where(LIVE.c.agent_id == agent_id).values(**values)
            )
        if not changed.rowcount:
            raise RefusedError(f"agent {agent_id} is not live")

    def _count_agent(self, connection: Connection, agent_id: str) -> None:
        """Never give this id, nor a lower one, to another agent."""
        used = int(agent_id[2:], 16) if re.fullmatch("a-[0-9a-f]{4,8}", agent_id) else 0
        if used > _last_number(connection):
            write_setting(connection, AGENT_COUNTER, used, self._time())

    def _agents(self, query: Select[Any]) -> tuple[AgentRecord, ...]:
        with self._reading() as connection:
            return tuple(as_agent(row) for row in connection.execute(query).mappings())


def _last_number(connection: Connection) -> int:
    number = read_setting(connection, AGENT_COUNTER)
    return number if isinstance(number, int) else 0


def _select_agents(table: Table) -> Select[Any]:
    """Rows that `as_agent` understands."""
    named = table.outerjoin(FEATURES, FEATURES.c.id == table.c.feature_id)
    return select(table, FEATURES.c.name.label("feature")).select_from(named)
