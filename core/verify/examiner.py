"""A candidate put to the test: base's commands in the agent's worktree, below a worker.

The worktree is the agent's again afterwards, without what the commands changed and
left in it; an exam that was cut off is recognised and cleaned up by the next one.
"""

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from autocoder.core.detection import Exam
from autocoder.core.errors import GitError, StaleLease
from autocoder.core.launcher import Launcher, WorkerProcess, WorkerSpec, run_folder
from autocoder.core.lifecycle import ExitFacts, spoken_duration
from autocoder.core.models import Holder, PortPair
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel
from autocoder.core.settings import Settings
from autocoder.core.verify.verdicts import Broken, Finish, Passed, Verification
from autocoder.core.worktrees import Candidate, Repository

PART = "verify"
"""Name of the run folder below the agent's own: log, status and exit of its verification."""

POLL_S = 0.2
SHOWN_PATHS = 5


class Examiner:
    """Runs exams, several at once in threads of the caller's."""

    def __init__(
        self,
        *,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        launcher: Launcher,
        allocator: PortAllocator,
        kernel: Kernel,
        say: Callable[[Finish, str], None],
    ) -> None:
        """`say` is told which step an exam has come to."""
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._launcher = launcher
        self._allocator = allocator
        self._kernel = kernel
        self._say = say

    def examine(
        self, finish: Finish, candidate: Candidate, exam: Exam, keep_on: Callable[[], None]
    ) -> Verification:
        """What the exam says of the candidate; nothing of it lives when this returns or raises.

        `keep_on` is called several times a second, and may raise to end it.
        """
        path, repository = finish.worktree, self._repository
        if not path.is_dir():
            repository.add(path.name, finish.branch, finish.branch)
        under_way = run_folder(self._project_dir, finish.agent_id, PART) / "under_way"
        cut_off = under_way.exists()
        if cut_off:
            self._end_earlier(finish)
        changed, unknown = repository.changes(path)
        if changed and not cut_off:
            named = _named(changed)
            return Broken(f"changed and not committed: {named}. Commit or restore them")
        if changed:
            # Most likely what the exam did; but somebody may have been here since.
            repository.keep_changes(path, finish.agent_id)
        under_way.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        under_way.touch()
        try:
            repository.check_out(path, candidate.commit, discard=cut_off)
        except GitError as error:
            under_way.unlink()
            return Broken(f"what is not committed is in the way: {error.message}")
        with self._pair(finish) as pair:
            try:
                return self._run_all(finish, pair, exam, keep_on)
            finally:
                self._restore(finish, unknown)
                under_way.unlink()

    def _run_all(
        self, finish: Finish, pair: PortPair, exam: Exam, keep_on: Callable[[], None]
    ) -> Verification:
        began = time.monotonic()
        for command in exam.commands:
            left = exam.timeout_s - (time.monotonic() - began)
            broken = self._run(finish, pair, command, max(left, 1.0), keep_on)
            if broken is not None:
                return broken
        return Passed(exam.commands, time.monotonic() - began)

    def _run(
        self,
        finish: Finish,
        pair: PortPair,
        command: str,
        limit_s: float,
        keep_on: Callable[[], None],
    ) -> Broken | None:
        """Run one command to its end, and its whole tree with it."""
        self._say(finish, f"verifying: {command}")
        worker = self._launcher.start(self._spec(finish, pair, command, limit_s))
        try:
            self._allocator.confirm(self._holder(finish, worker.pid, worker.start), pair.epoch)
            self._await(worker, keep_on)
        finally:
            self._end(finish, worker)
            self._allocator.confirm(self._holder(finish), pair.epoch)
        facts = self._launcher.facts(finish.agent_id, PART)
        if facts is None:
            return Broken(f"`{command}` was killed from outside")
        if facts.ending == "wall_limit":
            said = f"`{command}` had not ended after {spoken_duration(limit_s)}"
            return Broken(said, facts.last_lines)
        if facts.exit_code == 0:
            return None
        return Broken(f"`{command}` {_how(facts)}", facts.last_lines)

    def _spec(self, finish: Finish, pair: PortPair, command: str, limit_s: float) -> WorkerSpec:
        settings = self._settings
        return WorkerSpec(
            agent_id=finish.agent_id,
            feature_id=finish.feature_id,
            backend=PART,
            worktree=finish.worktree,
            pair=pair,
            model="",
            max_iterations=1,
            part=PART,
            run={
                "agent_id": finish.agent_id,
                "backend": PART,
                "command": ["/bin/sh", "-c", command],
                "worktree": str(finish.worktree),
                "env": {"pass": list(settings.env.pass_), "drop": list(settings.env.drop)},
                "fence": {"mode": settings.fence, "pools": _spans(settings)},
                "limits": {
                    "wall_limit_s": limit_s,
                    "stop_grace_s": settings.limits.stop_grace_s,
                    "log_bytes": settings.limits.log_mib << 20,
                },
            },
        )

    def _await(self, worker: WorkerProcess, keep_on: Callable[[], None]) -> None:
        poller = select.poll()
        if worker.pidfd is not None:
            poller.register(worker.pidfd, select.POLLIN)
        while not self._launcher.has_ended(worker):
            keep_on()
            poller.poll(POLL_S * 1000)

    def _end(self, finish: Finish, worker: WorkerProcess) -> None:
        """Nothing of the exam lives when this returns."""
        deadline = time.monotonic() + self._settings.limits.stop_grace_s + 10
        if not self._launcher.has_ended(worker):
            self._launcher.kill(worker)
            while not self._launcher.has_ended(worker) and time.monotonic() < deadline:
                select.poll().poll(10)
            if not self._launcher.has_ended(worker):
                self._launcher.destroy(worker)
        if self._launcher.facts(finish.agent_id, PART) is None:
            self._launcher.end_leftovers(finish.agent_id, finish.worktree, worker, part=PART)
        self._launcher.close(worker)

    def _end_earlier(self, finish: Finish) -> None:
        """End the exam that an orchestrator which is gone had under way."""
        running = self._launcher.running().get(finish.agent_id)
        worker = None
        if running is not None:
            boot_id = self._kernel.identity.boot_id
            _, worker = self._launcher.adopt(finish.agent_id, *running, boot_id)
        if worker is not None:
            self._end(finish, worker)
        elif self._launcher.facts(finish.agent_id, PART) is None:
            self._launcher.end_leftovers(finish.agent_id, finish.worktree, None, part=PART)

    @contextlib.contextmanager
    def _pair(self, finish: Finish) -> Iterator[PortPair]:
        """The agent's pair, held by this process; where it has none any more, one for the exam.

        Its lease may have ended between its worker's death and our look: orchestrators of
        other projects give back what the dead hold.
        """
        if finish.pair is not None and self._is_kept(finish, finish.pair):
            yield finish.pair
            return
        pair = self._allocator.lease(self._holder(finish), preferred=finish.pair)
        try:
            yield pair
        finally:
            self._allocator.release(finish.agent_id, str(self._project_dir), epoch=pair.epoch)

    def _is_kept(self, finish: Finish, pair: PortPair) -> bool:
        """Whether the agent still has that pair; then this process holds it from now on."""
        try:
            self._allocator.confirm(self._holder(finish), pair.epoch)
        except StaleLease:
            return False
        return True

    def _holder(self, finish: Finish, pid: int | None = None, start: int | None = None) -> Holder:
        if pid is None:
            pid = os.getpid()
            start = self._kernel.start_ticks(pid)
        return Holder(finish.agent_id, str(self._project_dir), pid, start)

    def _restore(self, finish: Finish, unknown_before: frozenset[str]) -> None:
        """Put the worktree back on its branch, without what the exam changed and left in it."""
        repository, path = self._repository, finish.worktree
        for name in repository.changes(path)[1] - unknown_before:
            with contextlib.suppress(OSError):
                (path / name).unlink()
        repository.check_out(path, finish.branch, discard=True)


def _spans(settings: Settings) -> Sequence[tuple[int, int]]:
    return [(span.start, span.end) for span in (*settings.ports.api, *settings.ports.web)]


def _named(paths: frozenset[str]) -> str:
    shown = ", ".join(sorted(paths)[:SHOWN_PATHS])
    return shown if len(paths) <= SHOWN_PATHS else f"{shown} and {len(paths) - SHOWN_PATHS} more"


def _how(facts: ExitFacts) -> str:
    if facts.ending == "not_started":
        return f"could not be started: {facts.error}"
    if facts.exit_code is None:
        return f"ended: {facts.ending}"
    if facts.exit_code < 0:
        return f"was ended by signal {-facts.exit_code}"
    return f"exited with {facts.exit_code}"
