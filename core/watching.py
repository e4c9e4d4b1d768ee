"""When the live agents are looked at, and where what was seen of them goes."""

import time
from collections.abc import Mapping
from pathlib import Path

from autocoder.core.fleet import Fleet
from autocoder.core.live_agents import Stage
from autocoder.core.models import Severity
from autocoder.core.notices import Notices
from autocoder.core.observer import Observation, Observer, Watched
from autocoder.core.ports import PortAllocator
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
        allocator: PortAllocator,
        notices: Notices,
        upkeep: Upkeep,
    ) -> None:
        self._fleet = fleet
        self._observer = observer
        self._store = store
        self._allocator = allocator
        self._notices = notices
        self._upkeep = upkeep
        self._look_after = self._beat_at = float("-inf")
        self.observations: Mapping[str, Observation] = {}
        """What was last seen of each agent, by id."""

    def look(self) -> None:
        """Look if it is time to.

        Raises:
            DatabaseError: heartbeats are written a beat later.
        """
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
        pools = self._allocator.status().pools
        pool_ports = frozenset(
            port for pool in pools for span in pool.ranges for port in range(span.start, span.end)
        )
        self.observations = self._observer.look(watched, pool_ports, now)
        for live in self._fleet:
            seen = self.observations[live.agent_id]
            if live.worker is not None and seen.tree:
                live.seen_tree = seen.tree
            if seen.rogue:
                self._notices.stand(Severity.WARNING, live.agent_id, seen.rogue)
        took = time.monotonic() - now
        self._look_after = now + min(max(SHORTEST_LOOK_S, took / LOOK_SHARE), LONGEST_LOOK_S)
        if now - self._beat_at >= BEAT_S:
            self._beat_at = now
            self._write_beats()

    def _write_beats(self) -> None:
        beats = {live.agent_id: live.last_beat for live in self._fleet if live.last_beat}
        self._store.beat(beats)
        self._upkeep.look(
            [
                (live.agent_id, Path(live.record.worktree_path))
                for live in self._fleet
                if live.stage is Stage.RUNNING and live.worker
            ]
        )
