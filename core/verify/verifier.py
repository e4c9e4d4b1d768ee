"""`Verifier`: a finished branch is tested on top of what it will stand on, then landed."""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from autocoder.core.detection import find_exam
from autocoder.core.errors import AutocoderError, GitError
from autocoder.core.launcher import Launcher
from autocoder.core.port_lint import lint_diff
from autocoder.core.ports import PortAllocator
from autocoder.core.probe import Kernel
from autocoder.core.settings import PROJECT_FILE, Settings
from autocoder.core.stacks import completion_message
from autocoder.core.verify.examiner import SHOWN_PATHS, Examiner
from autocoder.core.verify.train import Car, Train
from autocoder.core.verify.verdicts import (
    Broken,
    Cancelled,
    Closed,
    Finish,
    Unverified,
    Verification,
)
from autocoder.core.worktrees import (
    Candidate,
    Conflict,
    Merged,
    MergeResult,
    ReadyToMerge,
    Repository,
)

ROUNDS = 20
"""How often a branch may have to be tested anew because base moved under it."""

MOST_AT_ONCE = 64


class _Superseded(Exception):
    """What is being tested can no longer be what lands."""


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
        self._settings = settings
        self._repository = repository
        self._wake = wake
        self._examiner = Examiner(
            project_dir=project_dir,
            settings=settings,
            repository=repository,
            launcher=launcher,
            allocator=allocator,
            kernel=kernel,
            say=self._say,
        )
        self._trains: dict[str, Train] = {}
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
        self._say(finish, "looking at its commits")
        repository = self._repository.on(finish.base)
        commits = repository.commits_ahead(finish.branch, finish.start_commit)
        if not commits and not late:
            return Closed(0, None)
        warnings = _warnings(finish, repository)
        why_not = "" if asked else self._waits_to_be_asked(finish)
        if why_not:
            result, verification = self._test_only(finish, repository, why_not)
        else:
            train = self._trains.setdefault(repository.base, Train())
            with train.riding(finish.branch) as car:
                untested = asked or not self._settings.verify.required
                result, verification = self._land(
                    finish, repository, train, car, merges_untested=untested
                )
        branch = repository.base if isinstance(result, Merged) else finish.branch
        return Closed(commits, result, verification, warnings, _app(finish, branch))

    def _waits_to_be_asked(self, finish: Finish) -> str:
        if finish.on_request:
            return "one of several variants, merged when asked for"
        return "merge = manual" if self._settings.merge == "manual" else ""

    def _test_only(
        self, finish: Finish, repository: Repository, why_not: str
    ) -> tuple[MergeResult | None, Verification | None]:
        candidate = repository.prepare_merge(finish.branch)
        if isinstance(candidate, Conflict):
            return candidate, None
        verification = self._verdict(finish, repository, candidate, lambda: self._check(finish))
        result = None if isinstance(verification, Broken) else ReadyToMerge(why_not)
        return result, verification

    def _land(
        self,
        finish: Finish,
        repository: Repository,
        train: Train,
        car: Car,
        *,
        merges_untested: bool,
    ) -> tuple[MergeResult | None, Verification | None]:
        def keep_on() -> None:
            self._check(finish)

        def still_counts() -> None:
            self._check(finish)
            if car.stale:
                raise _Superseded

        for _ in range(ROUNDS):
            with train.coupling(car, keep_on) as ahead:
                candidate = repository.prepare_merge(finish.branch, ahead)
                if isinstance(candidate, Conflict):
                    car.aside = True
                else:
                    car.commit = candidate.commit
            if isinstance(candidate, Conflict):
                if not ahead:
                    return candidate, None
                # With a branch that may yet fail its own exam.
                train.wait_until_first(car, keep_on)
                continue
            try:
                verification = self._verdict(finish, repository, candidate, still_counts)
                self._say(finish, "waiting for branches ahead of it")
                train.wait_until_first(car, still_counts)
            except _Superseded:
                continue
            if repository.base_commit() != candidate.onto:
                continue
            if isinstance(verification, Broken):
                return None, verification
            if isinstance(verification, Unverified) and candidate.count and not merges_untested:
                return ReadyToMerge("verify.required, and nothing has tested it"), verification
            self._say(finish, f"merging into {repository.base}")
            landed = repository.land(finish.branch, candidate)
            if landed is not None:
                car.landed = isinstance(landed, Merged)
                return landed, verification
        return ReadyToMerge(f"{repository.base} keeps moving"), None

    def _verdict(
        self,
        finish: Finish,
        repository: Repository,
        candidate: Candidate,
        keep_on: Callable[[], None],
    ) -> Verification:
        """Test the candidate, unless that very commit has been tested on that very base."""
        if not candidate.count:
            return Unverified(f"{repository.base} has it already")
        known = self._tested.get(finish.branch)
        if known is not None and known[0] == candidate:
            return known[1]
        exam = find_exam(repository, self._settings)
        if not exam.commands:
            return Unverified(exam.source)
        verification = self._examiner.examine(finish, candidate, exam, keep_on)
        self._tested[finish.branch] = (candidate, verification)
        return verification

    def _say(self, finish: Finish, step: str) -> None:
        self._steps[finish.agent_id] = step

    def _check(self, finish: Finish) -> None:
        if finish.cancelled.is_set() or self._closing.is_set():
            raise Cancelled


def _app(finish: Finish, branch: str) -> str:
    if finish.pair is None or not finish.worktree.is_dir():
        return ""
    return completion_message(
        finish.worktree,
        branch=branch,
        api_port=finish.pair.api_port,
        web_port=finish.pair.web_port,
        served=finish.served,
    )


def _warnings(finish: Finish, repository: Repository) -> tuple[str, ...]:
    said = []
    if PROJECT_FILE in repository.changed_paths(finish.branch):
        said.append(f"it changes {PROJECT_FILE}, which decides how later branches are verified")
    if finish.worktree.is_dir():
        with contextlib.suppress(AutocoderError):
            ports = list(lint_diff(finish.worktree, f"refs/heads/{repository.base}"))
            said += [f"hard-coded port: {found}" for found in ports[:SHOWN_PATHS]]
    return tuple(said)
