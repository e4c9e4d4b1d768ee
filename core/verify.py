"""From a finished branch to base: tested on top of what it will stand on, then landed.

Branches form a train: each is tested on top of the one before it, all at once, and
lands only when base is exactly what it was tested on. A verdict reached on anything
else counts for nothing, neither for nor against the branch.

The commands are those of base, never of the branch: an agent cannot loosen its own
exam. They run in the agent's worktree, on its ports, below a worker of their own.
"""

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from autocoder.core.detection import Exam, find_exam
from autocoder.core.errors import AutocoderError, GitError
from autocoder.core.launcher import Launcher, WorkerProcess, WorkerSpec
from autocoder.core.lifecycle import ExitFacts, spoken_duration
from autocoder.core.models import PortPair
from autocoder.core.port_lint import lint_diff
from autocoder.core.settings import Settings
from autocoder.core.worktrees import Candidate, Conflict, MergeResult, ReadyToMerge, Repository

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
    pair: PortPair
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


@dataclass(eq=False, slots=True)
class _Car:
    branch: str
    commit: str = ""
    """What base becomes with it; empty until it is known."""


class _Train:
    """Branches under test in the order in which they will land."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._cars: list[_Car] = []

    @contextlib.contextmanager
    def riding(self, branch: str) -> Iterator[_Car]:
        car = _Car(branch)
        with self._changed:
            self._cars.append(car)
        try:
            yield car
        finally:
            with self._changed:
                self._cars.remove(car)
                self._changed.notify_all()

    @contextlib.contextmanager
    def coupling(self, car: _Car) -> Iterator[str]:
        """While held nobody else couples; gives the commit to build on, empty for base itself."""
        with self._changed:
            ahead = [other.commit for other in self._cars[: self._cars.index(car)] if other.commit]
            yield ahead[-1] if ahead else ""

    def wait_until_first(self, car: _Car, keep_on: Callable[[], None]) -> None:
        """Return when all cars ahead have landed or given up; `keep_on` may raise."""
        with self._changed:
            while self._cars[0] is not car:
                keep_on()
                self._changed.wait(POLL_S)


class Verifier:
    """Tests and lands finished branches, each in a thread of its own."""

    def __init__(
        self,
        *,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        launcher: Launcher,
        held_by: Callable[[Finish, WorkerProcess | None], None],
        wake: Callable[[], None],
    ) -> None:
        """`held_by` notes in the ledger which process holds the pair, None being this one."""
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._launcher = launcher
        self._held_by = held_by
        self._wake = wake
        self._train = _Train()
        self._tested: dict[str, tuple[Candidate, Verification]] = {}
        self._steps: dict[str, str] = {}
        self._closing = threading.Event()
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="verify")

    def submit(self, finish: Finish, *, asked: bool = False) -> "Future[Closed]":
        """Count, test and land the agent's commits; `asked` lands even with `merge = manual`.

        The future raises `Cancelled`, or an `AutocoderError` where git or the worker
        failed: then nothing has landed.
        """
        future = self._threads.submit(self._close, finish, asked=asked)
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

    def _close(self, finish: Finish, *, asked: bool) -> Closed:
        try:
            return self._closed(finish, asked=asked)
        finally:
            self._steps.pop(finish.agent_id, None)

    def _closed(self, finish: Finish, *, asked: bool) -> Closed:
        self._steps[finish.agent_id] = "looking at its commits"
        commits = self._repository.commits_ahead(finish.branch, finish.start_commit)
        if not commits:
            return Closed(0, None)
        warnings = self._warnings(finish)
        if self._settings.merge == "manual" and not asked:
            result, verification = self._test_only(finish)
        else:
            with self._train.riding(finish.branch) as car:
                result, verification = self._land(finish, car)
        return Closed(commits, result, verification, warnings)

    def _test_only(self, finish: Finish) -> tuple[MergeResult | None, Verification | None]:
        candidate = self._repository.prepare_merge(finish.branch)
        if isinstance(candidate, Conflict):
            return candidate, None
        verification = self._verdict(finish, candidate)
        result = None if isinstance(verification, Broken) else ReadyToMerge("merge = manual")
        return result, verification

    def _land(self, finish: Finish, car: _Car) -> tuple[MergeResult | None, Verification | None]:
        def keep_on() -> None:
            self._check(finish)

        for _ in range(ROUNDS):
            with self._train.coupling(car) as ahead:
                candidate = self._repository.prepare_merge(finish.branch, ahead)
                car.commit = "" if isinstance(candidate, Conflict) else candidate.commit
            if isinstance(candidate, Conflict):
                if not ahead:
                    return candidate, None
                # With a branch that may yet fail its own exam.
                self._train.wait_until_first(car, keep_on)
                continue
            verification = self._verdict(finish, candidate)
            self._steps[finish.agent_id] = "waiting for branches ahead of it"
            self._train.wait_until_first(car, keep_on)
            if self._repository.base_commit() != candidate.onto:
                continue
            if isinstance(verification, Broken):
                return None, verification
            self._steps[finish.agent_id] = f"merging into {self._repository.base}"
            landed = self._repository.land(finish.branch, candidate)
            if landed is not None:
                return landed, verification
        return ReadyToMerge(f"{self._repository.base} keeps moving"), None

    def _verdict(self, finish: Finish, candidate: Candidate) -> Verification:
        """Test the candidate, unless that very commit has been tested on that very base."""
        known = self._tested.get(finish.branch)
        if known is not None and known[0] == candidate:
            return known[1]
        exam = find_exam(self._repository, self._settings)
        if not exam.commands:
            return Unverified(exam.source)
        verification = self._examine(finish, candidate, exam)
        self._tested[finish.branch] = (candidate, verification)
        return verification

    # ------------------------------------------------------------------ the exam

    def _examine(self, finish: Finish, candidate: Candidate, exam: Exam) -> Verification:
        path, repository = finish.worktree, self._repository
        if not path.is_dir():
            repository.add(finish.agent_id, finish.branch, finish.branch)
        # What an exam that was cut off has left is nobody's work.
        cut_off = (self._project_dir / ".autocoder" / "agents" / finish.agent_id / PART).exists()
        changed, unknown = repository.changes(path)
        if changed and not cut_off:
            return Broken(
                f"changed and not committed: {_named(changed)}. Commit or restore what git knows"
            )
        try:
            repository.check_out(path, candidate.commit, discard=cut_off)
        except GitError as error:
            return Broken(f"what is not committed is in the way: {error.message}")
        began = time.monotonic()
        try:
            for command in exam.commands:
                left = exam.timeout_s - (time.monotonic() - began)
                broken = self._run(finish, command, max(left, 1.0))
                if broken is not None:
                    return broken
        finally:
            self._held_by(finish, None)
            self._restore(finish, unknown)
        return Passed(exam.commands, time.monotonic() - began)

    def _run(self, finish: Finish, command: str, limit_s: float) -> Broken | None:
        """Run one command to its end, and its whole tree with it."""
        self._steps[finish.agent_id] = f"verifying: {command}"
        worker = self._launcher.start(self._spec(finish, command, limit_s))
        try:
            self._held_by(finish, worker)
            self._await(finish, worker)
        finally:
            self._end(finish, worker)
        facts = self._launcher.facts(finish.agent_id, PART)
        if facts is None:
            return Broken(f"`{command}` was killed from outside")
        if facts.ending == "wall_limit":
            said = f"`{command}` had not ended after {spoken_duration(limit_s)}"
            return Broken(said, facts.last_lines)
        if facts.exit_code == 0:
            return None
        return Broken(f"`{command}` {_how(facts)}", facts.last_lines)

    def _spec(self, finish: Finish, command: str, limit_s: float) -> WorkerSpec:
        settings = self._settings
        return WorkerSpec(
            agent_id=finish.agent_id,
            feature_id=finish.feature_id,
            backend=PART,
            worktree=finish.worktree,
            pair=finish.pair,
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

    def _await(self, finish: Finish, worker: WorkerProcess) -> None:
        poller = select.poll()
        if worker.pidfd is not None:
            poller.register(worker.pidfd, select.POLLIN)
        while not self._launcher.has_ended(worker):
            self._check(finish)
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
