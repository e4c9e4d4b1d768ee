"""When the live agents are looked at, and where what was seen of them goes.

What only changes figures is seen by the next look that is due; a socket that begins or
ceases to listen on a port of ours calls for a look at once.
"""

import time
from collections.abc import Callable, Mapping

from autocoder.core.fleet import Fleet
from autocoder.core.live_agents import Stage
from autocoder.core.models import Listener, PoolStatus, PortRange, Severity
from autocoder.core.notices import Notices
from autocoder.core.observer import Observation, Observer, Watched
from autocoder.core.ports import REMEDIES, Kind, Listeners
from autocoder.core.probe import HostView, Kernel
from autocoder.core.store import ProjectStore
from autocoder.core.upkeep import Upkeep

SHORTEST_LOOK_S = 0.1
"""However often the loop is woken, the kernel is asked no more often than this."""

LOOK_SHARE, LONGEST_LOOK_S = 0.005, 2.0
"""Looking may take this share of a core: a large fleet is looked at more rarely."""

HASTE = 3
"""So many times that share while sockets come and go."""

BEAT_S = 5.0
"""How often heartbeats are read and copied into the database, those of all agents at once: a
silent fleet is an equal snapshot in between."""

WORKTREES_S = 2.0
"""How often git is asked about one more worktree."""


class Watching:
    def __init__(
        self,
        fleet: Fleet,
        *,
        kernel: Kernel,
        observer: Observer,
        store: ProjectStore,
        notices: Notices,
        upkeep: Upkeep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._kernel = kernel
        self._observer = observer
        self._store = store
        self._notices = notices
        self._upkeep = upkeep
        self._monotonic = monotonic
        self._view: HostView | None = None
        self._took = 0.0
        self._look_after = self._haste_after = float("-inf")
        self._beat_at = self._worktrees_at = float("-inf")
        self._spans: list[PortRange] = []
        self._ports: frozenset[int] = frozenset()
        self._sockets: frozenset[tuple[int, int]] = frozenset()
        self.observations: Mapping[str, Observation] = {}
        """What was last seen of each agent, by id."""
        self.listeners: Listeners = {}
        """Who was last seen to listen, by port."""

    def view(self) -> HostView:
        """The host as it is in this pass: the kernel is asked once, however many want to know."""
        if self._view is None:
            began = self._monotonic()
            # Before the view: what changes between the two calls for a look again.
            self._sockets = self._our_sockets()
            self._view = HostView.of(self._kernel)
            self._took = self._monotonic() - began
        return self._view

    def look(self, pools: tuple[PoolStatus, ...]) -> None:
        """Look if it is time to, or the pass has a view already; ends what the pass knows.

        Touches no database.
        """
        now = self._monotonic()
        spans = [span for pool in pools for span in pool.ranges]
        if spans != self._spans:
            self._spans = spans
            self._ports = frozenset(n for span in spans for n in range(span.start, span.end))
        if self._view is None and not self._is_due(now):
            return
        view, self._view = self.view(), None
        seen_at = self._monotonic()
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
        self.observations = self._observer.look(watched, view, self._ports, seen_at)
        self.listeners = view.listeners
        for live in self._fleet:
            seen = self.observations[live.agent_id]
            if live.worker is not None and seen.tree:
                live.seen_tree = seen.tree
            live.served |= Listener.OWN in (seen.api_listener, seen.web_listener)
            if seen.rogue:
                said = seen.rogue + REMEDIES[Kind.ROGUE_BIND]
                self._notices.stand(Severity.WARNING, live.agent_id, said)
        took = self._took + self._monotonic() - seen_at
        self._look_after = now + _pause(took, LOOK_SHARE)
        self._haste_after = now + _pause(took, LOOK_SHARE * HASTE)

    def write_beats(self) -> None:
        """Read the heartbeats and copy them into the database if it is time to.

        Raises:
            DatabaseError: they are written a beat later.
        """
        now = self._monotonic()
        if now - self._beat_at < BEAT_S:
            return
        self._beat_at = now
        self._fleet.read_beats()
        self._store.beat({live.agent_id: live.last_beat for live in self._fleet if live.last_beat})

    def visit_worktrees(self) -> None:
        """Let git look at the next worktree if it is time to."""
        now = self._monotonic()
        if now - self._worktrees_at < WORKTREES_S:
            return
        self._worktrees_at = now
        self._upkeep.look(
            [
                (live.agent_id, live.record.worktree_path)
                for live in self._fleet
                if live.stage is Stage.RUNNING and live.worker
            ]
        )

    def _is_due(self, now: float) -> bool:
        if now >= self._look_after:
            return True
        return now >= self._haste_after and self._our_sockets() != self._sockets

    def _our_sockets(self) -> frozenset[tuple[int, int]]:
        """Those that listen on ports of the pools or of an agent."""
        records = [live.record for live in self._fleet]
        own = {port for record in records for port in (record.api_port, record.web_port)}
        listening = self._kernel.listening_sockets()
        return frozenset(each for each in listening if each[0] in self._ports or each[0] in own)


def _pause(took: float, share: float) -> float:
    """Seconds until the next look, so that looks that long take that share of a core."""
    return min(max(SHORTEST_LOOK_S, took / share), LONGEST_LOOK_S)
