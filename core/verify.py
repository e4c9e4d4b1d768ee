"""From a finished branch to base: tested on top of what it will stand on, then landed.

Branches form a train: each is tested on top of the one before it, all at once, and
lands only when base is exactly what it was tested on. A verdict reached on anything
else counts for nothing, neither for nor against the branch.

The commands are those of base, never of the branch: an agent cannot loosen its own
exam. They run in the agent's worktree, on its ports, below a worker of their own.
"""

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from autocoder.core.detection import Exam, find_exam
from autocoder.core.errors import AutocoderError, GitError
from autocoder.core.launcher import Launcher, WorkerProcess, WorkerSpec, run_folder
from autocoder.core.lifecycle import ExitFacts, spoken_duration
from autocoder.core.models import Holder, PortPair
from autocoder.core.port_lint import lint_diff
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel
from autocoder.core.settings import Settings
from autocoder.core.worktrees import (
    Candidate,
    Conflict,
    Merged,
    MergeResult,
    ReadyToMerge,
    Repository,
)

PART = "verify"
"""Name of the run folder below the agent's own: log, status and exit of its verification."""

ROUNDS = 20
"""How often a branch may have to be tested anew because base moved under it."""

POLL_S = 0.2
MOST_AT_ONCE = 64
SHOWN_PATHS = 5


@dataclass(frozen=True, slots=True)
class Finish:
    """An agent whose backend has finished, or the branch of one that could not land then."""

    agent_id: str
    feature_id: int
    branch: str
    start_commit: str
    """The commits after it are the agent's."""
    worktree: Path
    pair: PortPair | None
    """None: it has ended and holds none; one is leased for the exam."""
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set it, and the verification ends soon, without a verdict."""


@dataclass(frozen=True, slots=True)
class Passed:
    commands: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"verified by {', '.join(self.commands)} in {spoken_duration(self.seconds)}"


@dataclass(frozen=True, slots=True)
class Unverified:
    """Nothing was tested."""

    why: str

    def __str__(self) -> str:
        return f"unverified: {self.why}"


@dataclass(frozen=True, slots=True)
class Broken:
    """The branch does not stand the exam; it has not landed."""

    reason: str
    last_lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"verification failed: {self.reason}"


Verification = Passed | Unverified | Broken


class Cancelled(Exception):
    """The verification was ended before it had a verdict."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What became of a finished agent's branch."""

    commits: int
    merge: MergeResult | None
    """None: nothing to merge, or not fit to be."""
    verification: Verification | None = None
    warnings: tuple[str, ...] = ()
    """What a human should look at, though it keeps nothing from landing."""


class _Superseded(Exception):
    """What is being tested can no longer be what lands."""


@dataclass(eq=False, slots=True)
class _Car:
    branch: str
    commit: str = ""
    """What base becomes with it; empty until known, and again when what is ahead has changed."""
    stale: bool = False
    """What it was built on will not land."""
    aside: bool = False
    """It conflicts with a car ahead; those behind need not wait for it."""
    landed: bool = False


class _Train:
    """Branches under test in the order in which they will land."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._cars: list[_Car] = []

    @contextlib.contextmanager
    def riding(self, branch: str) -> Iterator[_Car]:
        """A place in the train, from the first coupling until the block ends."""
        car = _Car(branch)
        try:
            yield car
        finally:
            with self._changed:
                if car in self._cars:
                    if not car.landed:
                        self._uncouple_behind(car)
                    self._cars.remove(car)
                self._changed.notify_all()

    @contextlib.contextmanager
    def coupling(self, car: _Car, keep_on: Callable[[], None]) -> Iterator[str]:
        """The commit to build on, empty for base itself; nobody else couples in the block.

        `keep_on` is called while waiting for the car ahead, and may raise.
        """
        with self._changed:
            if car in self._cars:
                self._uncouple_behind(car)
            else:
                self._cars.append(car)
            car.commit, car.stale, car.aside = "", False, False
            while (ahead := self._ahead(car)) is not None and not ahead.commit:
                self._changed.wait(POLL_S)
                keep_on()
            yield ahead.commit if ahead is not None else ""
            self._changed.notify_all()

    def wait_until_first(self, car: _Car, keep_on: Callable[[], None]) -> None:
        """Return when all cars ahead have landed or given up; `keep_on` may raise."""
        with self._changed:
            while self._cars[0] is not car:
                self._changed.wait(POLL_S)
                keep_on()

    def _ahead(self, car: _Car) -> _Car | None:
        ahead = self._cars[: self._cars.index(car)]
        return next((other for other in reversed(ahead) if not other.aside), None)

    def _uncouple_behind(self, car: _Car) -> None:
        for behind in self._cars[self._cars.index(car) + 1 :]:
            behind.commit, behind.stale = "", True


class Verifier:
    """Tests and lands finished branches, each in a thread of its own."""

    def __init__(
        self,
        *,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        launcher: Launcher,
        allocator: PortAllocator,
        kernel: Kernel,
        wake: Callable[[], None],
    ) -> None:
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._launcher = launcher
        self._allocator = allocator
        self._kernel = kernel
        self._wake = wake
        self._train = _Train()
        self._tested: dict[str, tuple[Candidate, Verification]] = {}
        self._steps: dict[str, str] = {}
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="verify")

    def submit(
        self, finish: Finish, *, late: bool = False, asked: bool = False
    ) -> "Future[Closed]":
        """Count, test and land the agent's commits, or, `late`, those of one that has ended.

        What a human `asked` for lands even with `merge = manual` or untested.

        The future raises `Cancelled`, or an `AutocoderError` where git or the worker
        failed: then nothing has landed.
        """
        future = self._threads.submit(self._close, finish, late=late, asked=asked)
        future.add_done_callback(lambda _: self._wake())
        return future

    def step(self, agent_id: str) -> str:
        """What is being done with the agent's branch now; empty when nothing is."""
        return self._steps.get(agent_id, "")

    def close(self) -> None:
        """Cancel what is under way and wait for it, some seconds at most."""
        self._closing.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    # ------------------------------------------------------------------ one branch

    def _close(self, finish: Finish, *, late: bool, asked: bool) -> Closed:
        try:
            return self._closed(finish, late=late, asked=asked)
        except OSError as error:
            said = f"{error.filename or 'system call'}: {error.strerror or error}"
            raise GitError(said) from error
        finally:
            self._steps.pop(finish.agent_id, None)

    def _closed(self, finish: Finish, *, late: bool, asked: bool) -> Closed:
        self._steps[finish.agent_id] = "looking at its commits"
        commits = self._repository.commits_ahead(finish.branch, finish.start_commit)
        if not commits and not late:
            return Closed(0, None)
        warnings = self._warnings(finish)
        if self._settings.merge == "manual" and not asked:
            result, verification = self._test_only(finish)
        else:
            with self._train.riding(finish.branch) as car:
                untested = asked or not self._settings.verify.required
                result, verification = self._land(finish, car, merges_untested=untested)
        return Closed(commits, result, verification, warnings)

    def _test_only(self, finish: Finish) -> tuple[MergeResult | None, Verification | None]:
        candidate = self._repository.prepare_merge(finish.branch)
        if isinstance(candidate, Conflict):
            return candidate, None
        verification = self._verdict(finish, candidate, lambda: self._check(finish))
        result = None if isinstance(verification, Broken) else ReadyToMerge("merge = manual")
        return result, verification

    def _land(
        self, finish: Finish, car: _Car, *, merges_untested: bool
    ) -> tuple[MergeResult | None, Verification | None]:
        def keep_on() -> None:
            self._check(finish)

        def still_counts() -> None:
            self._check(finish)
            if car.stale:
                raise _Superseded

        for _ in range(ROUNDS):
            with self._train.coupling(car, keep_on) as ahead:
                candidate = self._repository.prepare_merge(finish.branch, ahead)
                if isinstance(candidate, Conflict):
                    car.aside = True
                else:
                    car.commit = candidate.commit
            if isinstance(candidate, Conflict):
                if not ahead:
                    return candidate, None
                # With a branch that may yet fail its own exam.
                self._train.wait_until_first(car, keep_on)
                continue
            try:
                verification = self._verdict(finish, candidate, still_counts)
                self._steps[finish.agent_id] = "waiting for branches ahead of it"
                self._train.wait_until_first(car, still_counts)
            except _Superseded:
                continue
            if self._repository.base_commit() != candidate.onto:
                continue
            if isinstance(verification, Broken):
                return None, verification
            if isinstance(verification, Unverified) and candidate.count and not merges_untested:
                return ReadyToMerge("verify.required, and nothing has tested it"), verification
            self._steps[finish.agent_id] = f"merging into {self._repository.base}"
            landed = self._repository.land(finish.branch, candidate)
            if landed is not None:
                car.landed = isinstance(landed, Merged)
                return landed, verification
        return ReadyToMerge(f"{self._repository.base} keeps moving"), None

    def _verdict(
        self, finish: Finish, candidate: Candidate, keep_on: Callable[[], None]
    ) -> Verification:
        """Test the candidate, unless that very commit has been tested on that very base."""
        if not candidate.count:
            return Unverified(f"{self._repository.base} has it already")
        known = self._tested.get(finish.branch)
        if known is not None and known[0] == candidate:
            return known[1]
        exam = find_exam(self._repository, self._settings)
        if not exam.commands:
            return Unverified(exam.source)
        verification = self._examine(finish, candidate, exam, keep_on)
        self._tested[finish.branch] = (candidate, verification)
        return verification

    # ------------------------------------------------------------------ the exam

    def _examine(
        self, finish: Finish, candidate: Candidate, exam: Exam, keep_on: Callable[[], None]
    ) -> Verification:
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
        self._steps[finish.agent_id] = f"verifying: {command}"
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
        """The agent's pair, held by this process; where it has none any more, one for the exam."""
        if finish.pair is not None:
            self._allocator.confirm(self._holder(finish), finish.pair.epoch)
            yield finish.pair
            return
        pair = self._allocator.lease(self._holder(finish))
        try:
            yield pair
        finally:
            self._allocator.release(finish.agent_id, str(self._project_dir), epoch=pair.epoch)

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

    def _check(self, finish: Finish) -> None:
        if finish.cancelled.is_set() or self._closing.is_set():
            raise Cancelled

    def _warnings(self, finish: Finish) -> tuple[str, ...]:
        said = []
        if "autocoder.toml" in self._repository.changed_paths(finish.branch):
            said.append("it changes autocoder.toml, which decides how later branches are verified")
        if finish.worktree.is_dir():
            base = self._repository.base
            with contextlib.suppress(AutocoderError):
                ports = list(lint_diff(finish.worktree, f"refs/heads/{base}"))
                said += [f"hard-coded port: {found}" for found in ports[:SHOWN_PATHS]]
        return tuple(said)


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
