"""When the live agents are looked at, and where what was seen of them goes."""

import time
from collections.abc import Mapping
from pathlib import Path

from autocoder.core.fleet import Fleet
from autocoder.core.live_agents import Stage
from autocoder.core.models import Listener, PoolStatus, PortRange, Severity
from autocoder.core.notices import Notices
from autocoder.core.observer import Observation, Observer, Watched
from autocoder.core.ports import REMEDIES, Kind
from autocoder.core.store import ProjectStore
from autocoder.core.upkeep import Upkeep

SHORTEST_LOOK_S = 0.1
"""However often the loop is woken, the kernel is asked no more often than this."""

LOOK_SHARE, LONGEST_LOOK_S = 0.015, 2.0
"""Looking may take this share of a core: a large fleet is looked at more rarely."""

BEAT_S = 2.0
"""How often heartbeats are copied into the database."""


class Watching:
    def __init__(
        self,
        fleet: Fleet,
        *,
        observer: Observer,
        store: ProjectStore,
        notices: Notices,
        upkeep: Upkeep,
    ) -> None:
        self._fleet = fleet
        self._observer = observer
        self._store = store
        self._notices = notices
        self._upkeep = upkeep
        self._look_after = self._beat_at = float("-inf")
        self._spans: list[PortRange] = []
        self._ports: frozenset[int] = frozenset()
        self.observations: Mapping[str, Observation] = {}
        """What was last seen of each agent, by id."""

    def look(self, pools: tuple[PoolStatus, ...]) -> None:
        """Look if it is time to; touches no database."""
        now = time.monotonic()
        if now < self._look_after:
            return
        watched = [
            Watched(
                live.agent_id,
                live.worker.pid if live.worker else None,
                live.pair.api_port,
                live.pair.web_port,
                live.log,
            )
            for live in self._fleet
        ]
        spans = [span for pool in pools for span in pool.ranges]
        if spans != self._spans:
            self._spans = spans
            self._ports = frozenset(n for span in spans for n in range(span.start, span.end))
        self.observations = self._observer.look(watched, self._ports, now)
        for live in self._fleet:
            seen = self.observations[live.agent_id]
            if live.worker is not None and seen.tree:
                live.seen_tree = seen.tree
            live.served |= Listener.OWN in (seen.api_listener, seen.web_listener)
            if seen.rogue:
                said = seen.rogue + REMEDIES[Kind.ROGUE_BIND]
                self._notices.stand(Severity.WARNING, live.agent_id, said)
        took = time.monotonic() - now
        self._look_after = now + min(max(SHORTEST_LOOK_S, took / LOOK_SHARE), LONGEST_LOOK_S)

    def write_beats(self) -> None:
        """Copy the heartbeats into the database if it is time to.

        Raises:
            DatabaseError: they are written a beat later.
        """
        now = time.monotonic()
        if now - self._beat_at < BEAT_S:
            return
        self._beat_at = now
        beats = {live.agent_id: live.last_beat for live in self._fleet if live.last_beat}
        self._store.beat(beats)
        self._upkeep.look(
            [
                (live.agent_id, Path(live.record.worktree_path))
                for live in self._fleet
                if live.stage is Stage.RUNNING and live.worker
            ]
        )
