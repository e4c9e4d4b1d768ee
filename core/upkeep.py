"""What is done for the repository while agents come and go, always by git's threads.

Worktrees that hold nothing the repository has not are removed, finished branches
that could not be merged are tried again, base and uncommitted files are looked at.
All of it may fail or be cut off at any time: what is left undone is found again.
"""

import random
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

from autocoder.core import lifecycle
from autocoder.core.endings import closed_verdict, told_next
from autocoder.core.errors import AutocoderError, RefusedError
from autocoder.core.git_threads import GitThreads, take_done
from autocoder.core.launcher import run_folder
from autocoder.core.models import Feature, Severity
from autocoder.core.notices import Notices
from autocoder.core.settings import Settings
from autocoder.core.store import AgentRecord, Failed, ProjectStore
from autocoder.core.verify import Cancelled, Closed, Finish, Verifier
from autocoder.core.worktrees import Cleaned, Merged, ReadyToMerge, Repository, clean_up

ENDED_SEARCHED = 500
"""How far back ended agents are looked through for worktrees."""

TIDIED_AT_START = 50

READY_MERGE_S = 5.0
"""How often a finished branch that could not be merged is tried again."""

BASE_TURNS = 2
"""So many looks in a row ask for no commit of base; the first after an end or a merge does."""


class Upkeep:
    """The chores of one project; called from the orchestrator's thread."""

    def __init__(
        self,
        *,
        project_dir: Path,
        settings: Settings,
        repository: Repository,
        store: ProjectStore,
        notices: Notices,
        git: GitThreads,
        verifier: Verifier,
        rng: random.Random,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._project_dir = project_dir
        self._settings = settings
        self._repository = repository
        self._store = store
        self._notices = notices
        self._git = git
        self._verifier = verifier
        self._rng = rng
        self._now = now
        self._tidying: dict[str, Future[bool]] = {}
        self._cleaning: dict[frozenset[str], Future[tuple[Cleaned, ...]]] = {}
        self._merging: dict[int, Future[Closed]] = {}
        self._asked: set[int] = set()
        """Features whose merge a human waits for."""
        self._dirty: tuple[str, bool, Future[int]] | None = None
        """Whose uncommitted files git counts, and whether it has ended."""
        self._merged_at = float("-inf")
        self._turn = 0
        self._base: Future[str] | None = None
        self._base_in = 0
        """After so many more looks base is asked for its commit."""
        self.base_commit = ""
        """Abbreviated; empty before the first look."""
        self.dirty_files: dict[str, int] = {}
        """Uncommitted files of each agent looked at so far."""
        self.left_files: dict[str, int] = {}
        """Uncommitted files that ended agents left, as far as they are counted."""
        self._to_count: dict[str, Path] = {}
        self._ended_next = False
        self.tidied = 0
        """Worktrees removed."""

    @property
    def busy(self) -> bool:
        """Whether a removal or a merge is still under way."""
        return bool(self._tidying or self._cleaning or self._merging)

    # ------------------------------------------------------------------ worktrees

    def is_tidying(self, agent_id: str) -> bool:
        """Whether the agent's worktree may be gone in a moment."""
        return agent_id in self._tidying

    def tidy(self, record: AgentRecord, *, merged: bool = False) -> None:
        """Remove an ended agent's worktree if nothing in it would be lost, some ticks later."""
        folder = run_folder(self._project_dir, record.agent_id)
        path = Path(record.worktree_path) if record.worktree_path else None
        # Where no worker ever ran, half a checkout is all there can be.
        unused = record.pid is None and not (folder / "log").exists()
        forced = unused and path == self._repository.worktrees_dir / record.agent_id
        features = self._store.features()
        base = next((each.base for each in features if each.id == record.feature_id), "")
        repository = self._repository.on(base)
        others = self._removals({record.agent_id})

        def discard() -> bool:
            wait(others)
            return _discard(
                repository, folder / "tmp", path, record.branch, merged=merged, forced=forced
            )

        self._tidying[record.agent_id] = self._git.submit(discard)

    def tidy_ended(self, in_use: Collection[str]) -> None:
        """Remove what an orchestrator that is gone did not come to; never a path `in_use`."""
        left = [record for record in self._store.history(ENDED_SEARCHED) if record.worktree_path]
        for record in left[:TIDIED_AT_START]:
            if record.worktree_path not in in_use:
                self.tidy(record)

    def clean_up(self, agent_ids: Collection[str], in_use: Collection[str]) -> None:
        """Remove these worktrees where nothing would be lost; notices say what became of each.

        `in_use` are paths of worktrees that are lived in, or about to be.
        """
        names, bases = frozenset(agent_ids), self._store.branch_bases()
        others = self._removals(names)

        def clean() -> tuple[Cleaned, ...]:
            wait(others)
            return clean_up(self._repository, sorted(names), in_use, bases)

        self._cleaning[names] = self._git.submit(clean)

    def is_removing(self, worktree: str) -> bool:
        """Whether somebody has asked for its removal, which is under way."""
        return any(Path(worktree).name in names for names in self._cleaning)

    def _removals(self, agent_ids: Collection[str]) -> list[Future[Any]]:
        """What may be removing one of these worktrees: half a removal looks like changed files.

        Who waits for them waits in git's threads, which take work in the order it came.
        """
        tidying = [self._tidying[each] for each in agent_ids if each in self._tidying]
        return [*tidying, *(f for names, f in self._cleaning.items() if names & set(agent_ids))]

    def _cleaned(self, names: Collection[str], cleaning: Future[tuple[Cleaned, ...]]) -> None:
        failure = cleaning.exception()
        if isinstance(failure, AutocoderError):
            for agent_id in sorted(names):
                self._say_kept(agent_id, failure.message)
            return
        gone = [each for each in cleaning.result() if not each.kept]
        for each in cleaning.result():
            if each.kept:
                self._say_kept(each.agent_id, each.kept)
            else:
                self.tidied += 1
                self._store.forget_worktree(each.path)
        if gone:
            removed = lifecycle.plural(len(gone), "worktree")
            mib = sum(each.bytes for each in gone) / (1 << 20)
            self._notices.say(Severity.INFO, "", f"{removed} removed, {mib:.1f} MiB freed")

    def _say_kept(self, agent_id: str, why: str) -> None:
        self._notices.say(Severity.WARNING, agent_id, f"its worktree was kept: {why}")

    # ------------------------------------------------------------------ merging late

    def merge_waiting(self) -> None:
        """Try a finished branch again that could not be merged, one at a time.

        Raises:
            AutocoderError: the next is tried a while later.
        """
        now = time.monotonic()
        if self._settings.merge != "auto" or now - self._merged_at < READY_MERGE_S:
            return
        self._merged_at = now
        for feature in self._store.features():
            if feature.awaits_merge and feature.variant_of is None:
                self.merge(feature, asked=False)
                return

    def merge(self, feature: Feature, *, asked: bool) -> None:
        """Try again to merge a finished feature's branch; the outcome comes as a notice.

        What a human `asked` for is merged even untested.

        Raises:
            RefusedError: the feature has no branch that is ready to merge.
        """
        if not feature.mergeable:
            raise RefusedError(f"feature {feature.id} has no branch that is ready to merge")
        if asked:
            self._asked.add(feature.id)
        if feature.id not in self._merging:
            agent_id = self._agent_of(feature)
            finish = Finish(
                agent_id=agent_id,
                feature_id=feature.id,
                branch=feature.branch_name,
                start_commit="",
                worktree=self._repository.worktrees_dir / agent_id,
                pair=None,
                base=feature.base,
                on_request=feature.variant_of is not None,
            )
            self._merging[feature.id] = self._verifier.submit(finish, late=True, asked=asked)

    def _agent_of(self, feature: Feature) -> str:
        """Whose branch it is; a name for the occasion where nobody knows any more."""
        records = self._store.history(ENDED_SEARCHED)
        owners = (record.agent_id for record in records if record.branch == feature.branch_name)
        return next(owners, f"merge-{feature.id}")

    def _merged(self, feature: Feature, merging: Future[Closed]) -> None:
        subject = f"feature {feature.id}"
        # Who asked is told every time; attempts made by itself go on until they succeed.
        report = self._notices.say if feature.id in self._asked else self._notices.stand
        self._asked.discard(feature.id)
        failure = merging.exception()
        if isinstance(failure, AutocoderError | Cancelled):
            said = failure.message if isinstance(failure, AutocoderError) else "cancelled"
            report(Severity.WARNING, subject, f"not merged: {said}")
            return
        closed = merging.result()
        result = closed.merge
        base = feature.base or self._repository.base
        if isinstance(result, Merged):
            self._base_in = 0
            not_chosen = self._store.set_merged(feature.id)
            self._notices.settled(subject)
            commits = lifecycle.plural(result.count, "commit")
            text = f"merged: {feature.name}: {commits} into {base}, {closed.verification}"
            if not_chosen:
                variants = lifecycle.plural(len(not_chosen), "other variant")
                text += f"; {variants} not chosen, kept on {', '.join(not_chosen)}"
            self._notices.say(Severity.INFO, subject, text, feature_id=feature.id)
            for record in self._store.history(ENDED_SEARCHED):
                if record.branch == feature.branch_name and record.worktree_path:
                    self.tidy(record, merged=True)
        elif isinstance(result, ReadyToMerge):
            report(Severity.WARNING, subject, f"ready to merge: {result.reason}")
        else:
            verdict = closed_verdict(closed, None, ran_s=0, base=base)
            limits = self._settings.limits
            delay = lifecycle.retry_delay(feature.attempts + 1, limits.retry_s, self._rng)
            told = told_next(verdict, closed, base)
            failed = Failed(told, verdict.error_key, self._now() + delay, limits.attempts)
            self._store.settle_feature(feature.id, failed)
            self._notices.settled(subject)
            self._notices.say(Severity.WARNING, subject, f"{feature.name}: {verdict.reason}")

    # ------------------------------------------------------------------ looking

    def look(self, running: Sequence[tuple[str, str]]) -> None:
        """Ask for base's commit and for one agent's uncommitted files; each agent in its turn."""
        self._base_in -= 1
        if self._base is None and self._base_in < 0:
            self._base, self._base_in = self._git.submit(self._repository.base_commit), BASE_TURNS
        if self._dirty is not None or not (running or self._to_count):
            return
        self._ended_next = bool(self._to_count) and not (self._ended_next and running)
        if self._ended_next:
            agent_id = next(iter(self._to_count))
            path = self._to_count.pop(agent_id)
        else:
            self._turn += 1
            agent_id, worktree = running[self._turn % len(running)]
            path = Path(worktree)
        counting = self._git.submit(lambda: self._repository.dirty_files(path))
        self._dirty = agent_id, self._ended_next, counting

    def count_left(self, worktrees: Mapping[str, Path]) -> None:
        """Count what these ended agents left uncommitted, once each; forget all other counts."""
        self.left_files = {each: n for each, n in self.left_files.items() if each in worktrees}
        self._to_count = {
            each: path for each, path in worktrees.items() if each not in self.left_files
        }

    def forget(self, agent_id: str) -> None:
        """An agent has ended: nobody asks for its files any more."""
        self.dirty_files.pop(agent_id, None)
        self._base_in = 0

    def collect(self, live: Collection[str]) -> None:
        """Take in what git's threads have done since. `live`: agents that still are.

        Raises:
            DatabaseError: what was not noted is found again at the next start.
        """
        if self._base is not None and self._base.done():
            if self._base.exception() is None:
                self.base_commit = self._base.result()[:7]
            self._base = None
        if self._dirty is not None and self._dirty[2].done():
            agent_id, ended, count = self._dirty
            # A worktree that is just being removed cannot be counted, and need not be.
            if count.exception() is None and (ended or agent_id in live):
                counts = self.left_files if ended else self.dirty_files
                counts[agent_id] = count.result()
            self._dirty = None
        removed = []
        for agent_id, tidying in take_done(self._tidying):
            failure = tidying.exception()
            if isinstance(failure, AutocoderError):
                self._say_kept(agent_id, failure.message)
            elif tidying.result():
                removed.append(agent_id)
        if removed:
            self.tidied += len(removed)
            self._store.clear_worktrees(removed)
        for names, cleaning in take_done(self._cleaning):
            self._cleaned(names, cleaning)
        for feature_id, merging in take_done(self._merging):
            self._merged(self._store.feature(feature_id), merging)


def _discard(
    repository: Repository,
    scratch: Path,
    path: Path | None,
    branch: str,
    *,
    merged: bool,
    forced: bool,
) -> bool:
    """In a git thread: whether the worktree is gone, with its branch if that held nothing."""
    shutil.rmtree(scratch, ignore_errors=True)
    if path is None:
        return False
    ahead = not merged and repository.commits_ahead(branch)
    if not path.exists():
        repository.prune()
    elif forced:
        repository.remove(path, force=True)
    elif repository.dirty_files(path) or ahead:
        return False
    else:
        repository.remove(path)
    if not ahead:
        repository.delete_branch(branch)
    return True
