"""The leases of this project's agents: taken before an agent is, given back after it.

A lease that cannot be given back now, because its ledger is locked or full, is owed
and given back later: an agent's end never waits for the ledger.
"""

import os
import time
from collections.abc import Collection

from autocoder.core.errors import DatabaseError, RefusedError
from autocoder.core.launcher import WorkerProcess
from autocoder.core.live_agents import LiveAgents
from autocoder.core.models import Holder, LeaseState, PortPair, Severity
from autocoder.core.notices import Notices
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel


class AgentLeases:
    def __init__(
        self,
        project: str,
        *,
        allocator: PortAllocator,
        kernel: Kernel,
        notices: Notices,
        agents: LiveAgents,
    ) -> None:
        self._project = project
        self._allocator = allocator
        self._kernel = kernel
        self._notices = notices
        self._agents = agents
        self._tally = agents.tally
        self._owed: dict[str, int] = {}
        """Leases still to be given back: agent id and epoch."""

    @property
    def owed(self) -> bool:
        return bool(self._owed)

    def grant(self, agent_id: str, preferred: PortPair | None = None) -> PortPair:
        """A pair for an agent that is about to be; the preferred one if it is to be had.

        Raises:
            PoolExhausted: no pair is free.
            RefusedError: the only free ones are named by agents that are about to end.
            DatabaseError: nothing has changed.
        """
        pair = self._allocator.lease(self._this_process(agent_id), preferred=preferred)
        self._tally.leases_granted += 1
        return self._named_by_no_other(agent_id, pair)

    def replace(self, agent_id: str, epoch: int) -> PortPair:
        """Another pair than that of `epoch`, which others use; a notice will say who.

        Raises:
            PoolExhausted: no pair is free; the agent has none any more.
            RefusedError: as with `grant`; the agent has none any more.
            StaleLease: the agent had none of that epoch.
            DatabaseError: nothing has changed.
        """
        return self._named_by_no_other(agent_id, self._another(agent_id, epoch))

    def confirm(self, worker: WorkerProcess, epoch: int) -> None:
        """From now on the lease stands and falls with the worker.

        Raises:
            DatabaseError: it does not yet; ask again.
        """
        try:
            holder = Holder(worker.agent_id, self._project, worker.pid, worker.start)
            self._allocator.confirm(holder, epoch)
        except DatabaseError:
            raise
        except RefusedError as error:
            # A ledger that was lost: it is told of live workers again by its repair.
            self._notices.say(Severity.WARNING, worker.agent_id, error.message)

    def epoch_of(self, agent_id: str) -> int:
        """0 where it holds no lease."""
        leases = self._allocator.leases()
        return max((lease.epoch for lease in leases if lease.holder == agent_id), default=0)

    def release(self, agent_id: str, epoch: int) -> None:
        """Give the pair back with the next `give_back`."""
        self._owed[agent_id] = epoch

    def give_back(self, until: float = float("inf")) -> None:
        """Give back what is owed; `until` is monotonic: the one under way then is the last.

        Raises:
            DatabaseError: it stays owed.
        """
        for number, (agent_id, epoch) in enumerate(tuple(self._owed.items())):
            if number and time.monotonic() >= until:
                return
            try:
                self._allocator.release(agent_id, self._project, epoch=epoch)
            except DatabaseError:
                raise
            except RefusedError as error:
                # Granted anew meanwhile, so no longer this agent's to give back.
                self._notices.say(Severity.WARNING, agent_id, error.message)
            del self._owed[agent_id]
            self._tally.leases_released += 1

    def release_unheld(self, held: Collection[str]) -> None:
        """Give back what an orchestrator leased and did not live to give to an agent."""
        for lease in self._allocator.leases():
            ours = lease.project == self._project and lease.state is LeaseState.LEASED
            if ours and lease.holder not in held:
                self._allocator.release(lease.holder, self._project, epoch=lease.epoch)

    def _named_by_no_other(self, agent_id: str, pair: PortPair) -> PortPair:
        """The pair, or the first after it that no row of another live agent names.

        The lease of an agent whose worker died without an orchestrator is ended by those
        of other projects; its row says for a moment longer that it has the pair.
        """
        others = [live for live in self._agents if live.agent_id != agent_id]
        named = {port for live in others for port in (live.pair.api_port, live.pair.web_port)}
        try:
            for _ in others:
                if named.isdisjoint((pair.api_port, pair.web_port)):
                    return pair
                pair = self._another(agent_id, pair.epoch)
        except DatabaseError:
            self.release(agent_id, pair.epoch)
            raise
        if not named.isdisjoint((pair.api_port, pair.web_port)):
            self.release(agent_id, pair.epoch)
            raise RefusedError(
                f"ports {pair.api_port} and {pair.web_port} are free, but named by an agent "
                "that is about to end"
            )
        return pair

    def _another(self, agent_id: str, epoch: int) -> PortPair:
        pair = self._allocator.replace(self._this_process(agent_id), epoch)
        self._tally.leases_granted += 1
        self._tally.leases_released += 1
        return pair

    def _this_process(self, agent_id: str) -> Holder:
        """Until its worker runs, an agent's lease stands and falls with this process."""
        pid = os.getpid()
        return Holder(agent_id, self._project, pid, self._kernel.start_ticks(pid))
