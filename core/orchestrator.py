"""The loop: drain commands, look, let every agent take its step, start new ones, publish.

One thread owns database, git and processes. It sleeps until a worker ends, a
command arrives, git has finished something, or `tick_s` has passed.
"""

import os
import queue
import random
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path

from autocoder.core.admission import Admission
from autocoder.core.commands import Command
from autocoder.core.errors import AutocoderError
from autocoder.core.feature_choice import draft_check
from autocoder.core.filling import Filling
from autocoder.core.fleet import Fleet
from autocoder.core.git_threads import GitThreads
from autocoder.core.launcher import Launcher
from autocoder.core.models import RunReport, Severity, Snapshot
from autocoder.core.notices import Notices
from autocoder.core.observer import Observer
from autocoder.core.orders import Orders
from autocoder.core.past_progress import PastProgress
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel
from autocoder.core.project_lock import ProjectLock
from autocoder.core.settings import Settings
from autocoder.core.snapshots import Snapshots
from autocoder.core.store import ProjectStore
from autocoder.core.upkeep import Upkeep
from autocoder.core.verify import Verifier
from autocoder.core.watched_backlog import WatchedBacklog
from autocoder.core.watching import Watching
from autocoder.core.worktrees import Repository

MEND_S = 2.0
"""How often leases are compared with what lives."""

STEPS_S = 0.05
"""After so long no further command is obeyed in this pass, and after as long again no agent takes
a step or is started: the next pass follows at once."""

WAVE, WAVE_S = 4, 0.1
"""While git has so many worktrees to make, what it makes in this time is gone on with together."""

REPORT_S = 0.02
"""A worker's first report wakes nobody, so it is looked for this often."""


class Orchestrator:
    """Runs one project's agents; an `Engine`."""

    def __init__(
        self,
        *,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        store: ProjectStore,
        allocator: PortAllocator,
        launcher: Launcher,
        kernel: Kernel,
        lock: ProjectLock,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._project = str(project_dir)
        self._settings = settings
        self._store = store
        self._allocator = allocator
        self._lock = lock
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._at_once = threading.Event()
        """Set where the next pass is not to wait for the rest of a wave."""
        self._stopping = False
        self._finished = False
        self._mended_at = float("-inf")
        self._notices = Notices(store, now)
        self._git = GitThreads(self._wake)
        admission = Admission(project_dir, settings.limits)
        # Spreading retries needs no secrecy.
        rng = random.Random()  # noqa: S311
        self._verifier = Verifier(
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            launcher=launcher,
            allocator=allocator,
            kernel=kernel,
            wake=self._wake,
        )
        self._upkeep = Upkeep(
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            store=store,
            notices=self._notices,
            git=self._git,
            verifier=self._verifier,
            rng=rng,
            now=now,
        )
        self._fleet = Fleet(
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            store=store,
            allocator=allocator,
            launcher=launcher,
            kernel=kernel,
            notices=self._notices,
            admission=admission,
            upkeep=self._upkeep,
            git=self._git,
            verifier=self._verifier,
            rng=rng,
            now=now,
        )
        self._filling = Filling(
            self._fleet,
            settings=settings,
            store=store,
            allocator=allocator,
            notices=self._notices,
            admission=admission,
        )
        self._backlog = (
            WatchedBacklog(
                project_dir / settings.backlog,
                store,
                self._notices,
                draft_check(settings, repository.branches),
            )
            if settings.backlog
            else None
        )
        observer = Observer()
        self._watching = Watching(
            self._fleet,
            kernel=kernel,
            observer=observer,
            store=store,
            notices=self._notices,
            upkeep=self._upkeep,
        )
        self._snapshots = Snapshots(
            self._fleet,
            observer=observer,
            past=PastProgress(project_dir, self._git),
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            store=store,
            allocator=allocator,
            notices=self._notices,
            upkeep=self._upkeep,
            verifier=self._verifier,
            now=now,
        )
        self._orders = Orders(
            self._fleet,
            self._filling,
            self._snapshots,
            settings=settings,
            repository=repository,
            store=store,
            allocator=allocator,
            notices=self._notices,
            admission=admission,
            upkeep=self._upkeep,
        )

    # ------------------------------------------------------------------ Engine

    def submit(self, command: Command) -> None:
        self._commands.put(command)
        self._wake_at_once()

    def stop(self) -> None:
        self._stopping = True
        self._wake_at_once()

    def run(self, publish: Callable[[Snapshot], None]) -> None:
        """Ends after `stop`, or, with `stop_when_done`, once nothing is left to do."""
        self.run_to_report(publish)

    def run_to_report(self, publish: Callable[[Snapshot], None]) -> RunReport:
        """As `run`, then say what was done."""
        published: Snapshot | None = None
        try:
            self._fleet.adopt()
            while not self._stopping:
                try:
                    self.tick()
                    self._notices.settled("orchestrator")
                except AutocoderError as error:
                    # Nothing was lost: what the tick left undone, the next one does.
                    self._notices.stand(Severity.ERROR, "orchestrator", error.said)
                snapshot = self._see()
                if snapshot != published:
                    publish(snapshot)
                    published = snapshot
                if self._finished and self._settings.stop_when_done:
                    break
                self._wait()
            return self._snapshots.report()
        finally:
            self.close()

    def close(self) -> None:
        """Let go of everything. Agents go on; whoever opens the project next adopts them."""
        self._verifier.close()
        self._git.close()
        self._fleet.close()
        self._store.close()
        self._allocator.close()
        self._lock.release()

    # ------------------------------------------------------------------ the loop

    def tick(self) -> None:
        """One pass.

        A database that cannot be used ends it, so that it waits for one lock at most;
        what sees workers end and what a human has asked for at once comes before.

        Raises:
            AutocoderError: what was left undone is done by the next one.
        """
        self._at_once.clear()
        self._fleet.watch()
        while not self._commands.empty():
            self._orders.take(self._commands.get_nowait())
        unfinished = self._orders.obey(time.monotonic() + STEPS_S)
        until = time.monotonic() + STEPS_S
        unfinished |= self._fleet.advance(until)
        self._upkeep.merge_waiting()
        if self._backlog is not None:
            self._backlog.look()
        if self._filling.fill(until) or unfinished:
            self._wake_at_once()
        self._mend_ledger()
        self._watching.write_beats()
        self._watching.visit_worktrees()
        self._finished = self._is_finished()
        self._notices.keep()
        self._snapshots.read()

    def _see(self) -> Snapshot:
        """What is true now; touches no database."""
        self._watching.look(self._snapshots.pools)
        return self._snapshots.take(
            self._watching.observations,
            self._watching.listeners,
            paused=self._filling.paused,
            finished=self._finished,
        )

    def _wait(self) -> None:
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        for pidfd in self._fleet.pidfds():
            poller.register(pidfd, select.POLLIN)
        until = time.monotonic() + self._settings.tick_s
        if self._fleet.preparing >= WAVE:
            self._at_once.wait(WAVE_S)
        starting = self._fleet.starting
        while (left_s := until - time.monotonic()) > 0 and not self._fleet.has_first_report():
            if poller.poll(1000 * (min(left_s, REPORT_S) if starting else left_s)):
                break
        try:
            while os.read(self._wake_read, 4096):
                pass
        except BlockingIOError:
            return

    def _wake_at_once(self) -> None:
        self._at_once.set()
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._wake_write, b"\0")
        except BlockingIOError:
            return  # a full pipe wakes as well

    def _mend_ledger(self) -> None:
        """Let ports move on, and end agents of ours that share a port with an older one."""
        now = time.monotonic()
        if now - self._mended_at >= MEND_S:
            self._mended_at = now
            workers, view = self._fleet.workers(), self._watching.view()
            report = self._allocator.repair(workers, view=view, told_to=self._project)
            for worker in report.stop:
                if worker.project == self._project:
                    self._fleet.displace(worker, f"stopped: {report.why_stop(worker)}")
        self._notices.relay(self._allocator.settle())

    def _is_finished(self) -> bool:
        if self._fleet.busy or self._orders.waiting or not self._commands.empty():
            return False
        if self._filling.paused:
            return self._settings.stop_when_done
        if self._store.awaits_work(self._fleet.held_back):
            return False
        for stuck in self._store.stuck_features():
            self._notices.stand(
                Severity.WARNING,
                f"feature {stuck.feature.id}",
                f"{stuck.feature.name} cannot run: {stuck.why}",
            )
        return True
