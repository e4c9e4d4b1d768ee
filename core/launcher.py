"""Starts workers, finds them again, and ends what they leave.

The only module besides `probe` that assumes an agent's processes run on this
host: everything else speaks to a `Launcher`. A worker is known by pid and start
ticks, and held by a pidfd, so that no signal ever meets a recycled pid.
"""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from autocoder.core import agent_worker
from autocoder.core.errors import RefusedError
from autocoder.core.leftovers import Evidence, ProcessKey, end, is_over, open_pidfd
from autocoder.core.lifecycle import ExitFacts, parse_exit
from autocoder.core.models import PortPair
from autocoder.core.ports import live_workers
from autocoder.core.probe import Kernel, Liveness
from autocoder.core.settings import Settings

SWEEP_LIMIT_S = 2.0

RUN_AS_MODULE = (
    "import sys; sys.path.append(sys.argv[1].rpartition('/')[0]); "
    "from agent_worker import main; sys.exit(main(sys.argv[2:]))"
)
"""Does what the script named next does, from its kept bytecode: a script is compiled at every
start, which takes as long as Python's own start."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One worker to start; its run description is `run.json` of the run folder."""

    agent_id: str
    feature_id: int
    backend: str
    worktree: Path
    pair: PortPair
    model: str
    max_iterations: int
    run: dict[str, Any]
    part: str = ""
    """Name of a run folder below the agent's: what is run beside or after its backend."""


@dataclass(slots=True)
class WorkerProcess:
    """A worker that was alive when this was made."""

    agent_id: str
    pid: int
    start: int
    pidfd: int | None
    """Readable once the worker has ended; None where the kernel would not give one."""
    child: bool
    """Ours to reap: started by this process, if by an earlier engine of it."""
    status: int | None = None
    """Of a child that has been reaped: its exit code, negative for a signal."""


class Launcher(Protocol):
    """Where agents run."""

    def start(self, spec: WorkerSpec) -> WorkerProcess:
        """The worker runs when this returns. Raises `RefusedError` where none could be started."""

    def running(self) -> Mapping[str, ProcessKey]:
        """Every live worker of the project by agent, whoever started it, as its arguments say."""

    def adopt(
        self, agent_id: str, pid: int, start: int | None, boot_id: str
    ) -> tuple[Liveness, WorkerProcess | None]:
        """Take over a worker started by an earlier orchestrator, if it is that one and lives."""

    def has_ended(self, worker: WorkerProcess) -> bool:
        """Whether the worker is gone; a child is reaped by the asking. False when unknown."""

    def stop(self, worker: WorkerProcess) -> None:
        """Ask the worker to end its tree within its grace, then itself."""

    def kill(self, worker: WorkerProcess) -> None:
        """Ask the worker to end its tree at once, then itself."""

    def destroy(self, worker: WorkerProcess) -> None:
        """End a worker that does not react; `end_leftovers` then ends its tree."""

    def heartbeat(self, agent_id: str) -> float | None:
        """When the worker last reported; None before it first did."""

    def facts(self, agent_id: str, part: str = "") -> ExitFacts | None:
        """What the worker left when it ended; None when it was killed before it could."""

    def end_leftovers(
        self,
        agent_id: str,
        worktree: Path,
        worker: WorkerProcess | None,
        tree: frozenset[ProcessKey] = frozenset(),
        part: str = "",
    ) -> int:
        """End what lives of an agent whose worker is gone; the number of processes ended.

        `tree` is what was last seen below the worker.
        """

    def close(self, worker: WorkerProcess) -> None:
        """Let go of the worker; it is not signalled."""


def run_folder(project_dir: Path, agent_id: str, part: str = "") -> Path:
    return project_dir / ".autocoder" / "agents" / agent_id / part


def read_run(project_dir: Path, agent_id: str) -> dict[str, Any] | None:
    """What the agent's worker was told; None where it was never told anything."""
    try:
        run = json.loads((run_folder(project_dir, agent_id) / "run.json").read_text())
    except (OSError, ValueError):
        return None
    return run if isinstance(run, dict) else None


class LocalLauncher:
    """Workers as processes of this host."""

    def __init__(self, project_dir: Path, settings: Settings, kernel: Kernel) -> None:
        self._project_dir = project_dir
        self._settings = settings
        self._kernel = kernel
        self._workers: dict[int, WorkerProcess] = {}
        self._agents = str(project_dir / ".autocoder" / "agents")
        if sys.platform == "linux":
            agent_worker.become_subreaper()

    def start(self, spec: WorkerSpec) -> WorkerProcess:
        folder = run_folder(self._project_dir, spec.agent_id, spec.part)
        try:
            folder.mkdir(parents=True, mode=0o700, exist_ok=True)
            (folder / "exit.json").unlink(missing_ok=True)
            agent_worker.write_json(str(folder / "run.json"), spec.run)
            pid = os.posix_spawn(
                sys.executable,
                self._command(spec),
                self._environment(spec, folder),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    # Before the worker has its log, what it says about itself goes there too.
                    (
                        os.POSIX_SPAWN_OPEN,
                        1,
                        str(folder / "log"),
                        os.O_WRONLY | os.O_APPEND | os.O_CREAT,
                        0o600,
                    ),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                # Signals wait until the worker can deal with them, however early they come.
                setsigmask=[signal.SIGTERM, signal.SIGINT, signal.SIGUSR1],
            )
        except OSError as error:
            raise RefusedError(
                f"no worker could be started for {spec.agent_id}: {error.strerror}"
                + (f" ({error.filename})" if error.filename else ""),
                "Check free disk, memory and `ulimit -u`.",
            ) from error
        # Our own unreaped child: it has a start time even if it has ended already.
        start = self._kernel.start_ticks(pid) or 0
        worker = WorkerProcess(spec.agent_id, pid, start, open_pidfd(pid), child=True)
        self._workers[pid] = worker
        return worker

    def running(self) -> Mapping[str, ProcessKey]:
        project = str(self._project_dir)
        return {
            worker.agent_id: (worker.pid, worker.pid_start)
            for worker in live_workers(self._kernel)
            if worker.project == project
        }

    def adopt(
        self, agent_id: str, pid: int, start: int | None, boot_id: str
    ) -> tuple[Liveness, WorkerProcess | None]:
        # The pidfd first: whatever is found out afterwards is true of what it pins.
        pidfd = open_pidfd(pid)
        found = start if start is not None else self._kernel.start_ticks(pid)
        liveness = self._kernel.liveness(pid, found, boot_id)
        if liveness is Liveness.ALIVE:
            liveness = self._is_worker_of(agent_id, pid)
        if liveness is not Liveness.ALIVE or found is None:
            if pidfd is not None:
                os.close(pidfd)
            return liveness, None
        worker = WorkerProcess(agent_id, pid, found, pidfd, child=_is_child(pid))
        self._workers[pid] = worker
        return liveness, worker

    def has_ended(self, worker: WorkerProcess) -> bool:
        if worker.child:
            if worker.status is None:
                try:
                    pid, status = os.waitpid(worker.pid, os.WNOHANG)
                except ChildProcessError:
                    return True
                if pid == worker.pid:
                    worker.status = os.waitstatus_to_exitcode(status)
            return worker.status is not None
        if worker.pidfd is not None:
            return is_over(worker.pidfd)
        boot_id = self._kernel.identity.boot_id
        return self._kernel.liveness(worker.pid, worker.start, boot_id) is Liveness.DEAD

    def stop(self, worker: WorkerProcess) -> None:
        self._signal(worker, signal.SIGTERM)

    def kill(self, worker: WorkerProcess) -> None:
        self._signal(worker, signal.SIGUSR1)

    def destroy(self, worker: WorkerProcess) -> None:
        self._signal(worker, signal.SIGKILL)

    def heartbeat(self, agent_id: str) -> float | None:
        try:
            # During a wave asked fifty times a second; pathlib costs more than the call.
            return os.stat(f"{self._agents}/{agent_id}/status.json").st_mtime  # noqa: PTH116
        except OSError:
            return None

    def facts(self, agent_id: str, part: str = "") -> ExitFacts | None:
        path = run_folder(self._project_dir, agent_id, part) / "exit.json"
        try:
            return parse_exit(json.loads(path.read_text("utf-8", "replace")))
        except (OSError, ValueError):
            return None

    def end_leftovers(
        self,
        agent_id: str,
        worktree: Path,
        worker: WorkerProcess | None,
        tree: frozenset[ProcessKey] = frozenset(),
        part: str = "",
    ) -> int:
        folder = run_folder(self._project_dir, agent_id, part)
        evidence = Evidence(
            folder,
            worktree,
            since=worker.start if worker is not None else 0,
            tree=tree,
            reaper=worker is not None and worker.child,
        )
        ended: set[ProcessKey] = set()
        deadline = time.monotonic() + SWEEP_LIMIT_S
        while time.monotonic() < deadline:
            left = evidence.leftovers(self._kernel.processes(), self._workers.keys())
            if not left:
                break
            for process in left:
                end(process, deadline)
                ended.add((process.pid, process.start))
        agent_worker.remove_temporary_folder(str(folder))
        return len(ended)

    def close(self, worker: WorkerProcess) -> None:
        self._workers.pop(worker.pid, None)
        if worker.pidfd is not None:
            os.close(worker.pidfd)
            worker.pidfd = None

    def _command(self, spec: WorkerSpec) -> list[str]:
        return [
            *(sys.executable, "-I", "-S", "-c", RUN_AS_MODULE, agent_worker.__file__),
            *("--project-dir", str(self._project_dir)),
            *("--agent-id", spec.agent_id),
            *("--feature-id", str(spec.feature_id)),
            *("--worktree-path", str(spec.worktree)),
            *("--model", spec.model),
            *("--max-iterations", str(spec.max_iterations)),
            *("--api-port", str(spec.pair.api_port)),
            *("--web-port", str(spec.pair.web_port)),
            *("--backend", spec.backend),
            *(("--part", spec.part) if spec.part else ()),
        ]

    def _environment(self, spec: WorkerSpec, folder: Path) -> dict[str, str]:
        return agent_worker.agent_environment(
            os.environ,
            agent_id=spec.agent_id,
            feature_id=spec.feature_id,
            backend=spec.backend,
            api_port=spec.pair.api_port,
            web_port=spec.pair.web_port,
            run_folder=str(folder),
            tmp_dir=agent_worker.temporary_folder(str(folder)),
            keep=self._settings.env.pass_,
            drop=self._settings.env.drop,
        )

    def _signal(self, worker: WorkerProcess, number: signal.Signals) -> None:
        # A worker that somebody has stopped (SIGSTOP) hears nothing before it is continued.
        for wanted in (number, signal.SIGCONT):
            if worker.pidfd is None:
                agent_worker.send(worker.pid, wanted, worker.start)
                continue
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(worker.pidfd, wanted)

    def _is_worker_of(self, agent_id: str, pid: int) -> Liveness:
        arguments = self._kernel.command_line(pid)
        if not arguments:
            return Liveness.UNKNOWN  # so it is in the middle of exec
        script = any(argument.endswith("agent_worker.py") for argument in arguments)
        return Liveness.ALIVE if script and agent_id in arguments else Liveness.DEAD


def _is_child(pid: int) -> bool:
    """Whether this process must reap it: an earlier engine of this process has started it."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
