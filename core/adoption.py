"""How an orchestrator takes over agents it has not started: those of one that is gone.

A row names the worker by pid, start and boot; where it does not, because its writer
was killed in between, the process table is asked which worker runs for the agent.
"""

from collections.abc import Mapping
from pathlib import Path

from autocoder.core import lifecycle
from autocoder.core.agent_leases import AgentLeases
from autocoder.core.errors import RefusedError
from autocoder.core.launcher import Launcher, read_run
from autocoder.core.leftovers import ProcessKey
from autocoder.core.live_agents import LiveAgent, LiveAgents, Stage
from autocoder.core.logs import log_path
from autocoder.core.models import Feature, Severity
from autocoder.core.notices import Notices
from autocoder.core.ports import LiveWorker, live_workers
from autocoder.core.probe import Kernel, Liveness
from autocoder.core.store import NewAgent, ProjectStore


class Adoption:
    def __init__(
        self,
        agents: LiveAgents,
        leases: AgentLeases,
        *,
        project_dir: Path,
        store: ProjectStore,
        launcher: Launcher,
        kernel: Kernel,
        notices: Notices,
    ) -> None:
        self._agents = agents
        self._leases = leases
        self._project_dir = project_dir
        self._store = store
        self._launcher = launcher
        self._kernel = kernel
        self._notices = notices
        self.strays: frozenset[str] = frozenset()
        """Agents of the project whose worker runs although they are not known to live."""

    def adopt_all(self) -> None:
        """Take over the live agents of an orchestrator that is gone, at the start.

        Raises:
            DatabaseError: nothing was taken over; agents go on as they are.
        """
        self._store.reconcile(lambda _: None)
        features = {feature.id: feature for feature in self._store.features()}
        running = self._launcher.running()
        for record in self._store.live_agents():
            feature = features.get(record.feature_id or 0, Feature(record.feature_id or 0, "?"))
            live = LiveAgent(record, feature, Stage.RUNNING)
            self._agents.add(live)
            self._agents.tally.adopted += 1
            self.find_worker(live, running)
        found = [live.agent_id for live in self._agents if live.worker is not None]
        if found:
            names = ", ".join(found[:10]) + (f" and {len(found) - 10} more" if found[10:] else "")
            text = f"adopted {lifecycle.plural(len(found), 'live agent')}: {names}"
            self._notices.say(Severity.INFO, "", text)
        self.strays = frozenset(running) - self._agents.ids()
        for agent_id in self.strays:
            text = f"its worker runs as pid {running[agent_id][0]}, but is not known to live"
            self._notices.say(Severity.WARNING, agent_id, text)
        self._leases.release_unheld(self._agents.ids() | running.keys())

    def adopt_stray(self, agent_id: str) -> None:
        """Take over a worker that the database does not know as live, its feature with it.

        Raises:
            RefusedError: it has ended, or its feature is not free for it.
        """
        project = str(self._project_dir)
        found = {w.agent_id: w for w in live_workers(self._kernel) if w.project == project}
        worker, run = found.get(agent_id), read_run(self._project_dir, agent_id)
        feature_id = run.get("feature", {}).get("id") if run else None
        self.strays -= {agent_id}
        if worker is None or run is None or not isinstance(feature_id, int):
            raise RefusedError(f"{agent_id} cannot be adopted: it has ended, or left no trace")
        claimed = self._store.claim(
            feature_id,
            NewAgent(
                agent_id=agent_id,
                api_port=worker.api_port,
                web_port=worker.web_port,
                epoch=self._leases.epoch_of(agent_id),
                branch=str(run.get("branch", "")),
                backend=str(run.get("backend", "")),
                worktree_path=str(run.get("worktree", "")),
                log_path=str(log_path(self._project_dir, agent_id)),
            ),
            requested=True,
        )
        if not claimed:
            raise RefusedError(
                f"{agent_id} cannot be adopted: feature {feature_id} is done, or another's"
            )
        live = LiveAgent(
            self._store.agent(agent_id), self._store.feature(feature_id), Stage.RUNNING
        )
        self._agents.add(live)
        self._agents.tally.adopted += 1
        self.find_worker(live, {agent_id: (worker.pid, worker.pid_start)})

    def end_stray(self, worker: LiveWorker, reason: str) -> None:
        """Ask a worker that the database does not know as live to end its tree at once."""
        boot_id = self._kernel.identity.boot_id
        _, found = self._launcher.adopt(worker.agent_id, worker.pid, worker.pid_start, boot_id)
        if found is not None:
            self._launcher.kill(found)
            self._launcher.close(found)
            self._notices.say(Severity.WARNING, worker.agent_id, reason)

    def find_worker(self, live: LiveAgent, running: Mapping[str, ProcessKey]) -> Liveness:
        """Take its worker over if it lives; whether the one its row names does.

        `running`: the workers that live, by agent.
        """
        record, liveness = live.record, Liveness.DEAD
        if record.pid is not None:
            liveness, live.worker = self._launcher.adopt(
                record.agent_id, record.pid, record.pid_start, record.boot_id
            )
        elif record.agent_id in running:
            # It was started, and its orchestrator ended before it could write that down.
            liveness, live.worker = self._launcher.adopt(
                record.agent_id, *running[record.agent_id], self._kernel.identity.boot_id
            )
        if live.worker is not None:
            live.recorded = live.worker.start == record.pid_start
        return liveness
