"""A branch into base without a checkout: trees and commits are made in the object database.

Where base is checked out, that checkout is fast-forwarded by git, which touches
nothing that is not clean; else only the reference moves, from the value seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from autocoder.core.errors import GitError
from autocoder.core.worktrees.git import Git

ATTEMPTS = 3
"""How often base may move under a merge before it is left to a later one."""

_NEUTRAL_IDENTITY = {"user.name": "autocoder", "user.email": "autocoder@localhost"}


@dataclass(frozen=True, slots=True)
class Merged:
    commit: str
    """Base as it is now."""
    count: int
    """Commits of the branch that base did not have before; 0: it had them all."""


@dataclass(frozen=True, slots=True)
class ReadyToMerge:
    """Nothing has changed; the merge is possible once `reason` is gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing has changed; both sides changed `paths`."""

    paths: tuple[str, ...]


MergeResult = Merged | ReadyToMerge | Conflict


@dataclass(frozen=True, slots=True)
class Candidate:
    """What base would become; a commit that no branch knows yet, unless it is the branch's own."""

    onto: str
    """Where base is, or is expected to be, before."""
    tip: str
    """Where the branch was."""
    commit: str
    count: int
    """Commits of the branch that `onto` has not."""


def prepare(git: Git, base: str, branch: str, onto: str = "") -> Candidate | Conflict:
    """What `base`, or the commit `onto` in its place, becomes with `branch` in it.

    Raises:
        GitError: a branch is missing, or git refused.
    """
    old, tip = _tips(git, base, branch)
    old = onto or old
    counts = git.run("rev-list", "--count", "--left-right", f"{old}...{tip}").line()
    behind, ahead = (int(count) for count in counts.split())
    if not ahead:
        return Candidate(old, tip, old, 0)
    if not behind:
        return Candidate(old, tip, tip, ahead)
    made = _merge_commit(git, old, tip, f"Merge branch '{branch}' into {base}")
    return made if isinstance(made, Conflict) else Candidate(old, tip, made, ahead)


def land(
    git: Git, checkouts: Sequence[Git], base: str, branch: str, candidate: Candidate
) -> Merged | ReadyToMerge | None:
    """Make base the candidate; None, and nothing has changed, where base or branch have moved.

    `checkouts` are the worktrees that have base checked out.
    """
    base_ref = f"refs/heads/{base}"
    if _tips(git, base, branch) != (candidate.onto, candidate.tip):
        return None
    if not candidate.count:
        return Merged(candidate.commit, 0)
    if len(checkouts) > 1:
        both = " and at ".join(str(checkout.folder) for checkout in checkouts)
        return ReadyToMerge(f"{base} is checked out at {both}")
    if checkouts:
        obstacle = _fast_forward(checkouts[0], base, candidate.commit)
    else:
        arguments = ("-m", f"merge {branch}", base_ref, candidate.commit, candidate.onto)
        obstacle = _refusal(git, "update-ref", *arguments)
    if obstacle is None:
        return Merged(candidate.commit, candidate.count)
    return ReadyToMerge(obstacle) if _commit(git, base_ref) == candidate.onto else None


def merge(git: Git, checkouts: Sequence[Git], base: str, branch: str) -> MergeResult:
    """Bring `branch` into `base`; `checkouts` are the worktrees that have base checked out.

    Raises:
        GitError: a branch is missing, or git refused; nothing has changed.
    """
    for _ in range(ATTEMPTS):
        candidate = prepare(git, base, branch)
        if isinstance(candidate, Conflict):
            return candidate
        landed = land(git, checkouts, base, branch, candidate)
        if landed is not None:
            return landed
    return ReadyToMerge(f"{base} keeps moving")


def _tips(git: Git, base: str, branch: str) -> tuple[str, str]:
    """What both branches point at, asked in one go."""
    references = [f"refs/heads/{name}" for name in (base, branch)]
    both = git.run("rev-parse", *(f"{each}^{{commit}}" for each in references), ok=(0, 128))
    if both.code:
        return _commit(git, references[0]), _commit(git, references[1])
    old, tip = both.line().splitlines()
    return old, tip


def _commit(git: Git, reference: str) -> str:
    found = git.run("rev-parse", "--verify", "--quiet", f"{reference}^{{commit}}", ok=(0, 1))
    if found.code:
        raise GitError(f"there is no branch {reference.removeprefix('refs/heads/')}")
    return found.line()


def _merge_commit(git: Git, old: str, tip: str, message: str) -> str | Conflict:
    """The id of a commit that merges both, which no branch knows yet."""
    options = ("--write-tree", "-z", "--name-only", "--no-messages")
    merged = git.run("merge-tree", *options, old, tip, ok=(0, 1))
    tree, *conflicts = merged.fields()
    if merged.code:
        return Conflict(tuple(dict.fromkeys(conflicts)))
    arguments = ("commit-tree", tree, "-p", old, "-p", tip, "-m", message)
    # Without this git makes an address up from the host's name.
    made = git.run(*arguments, settings={"user.useConfigOnly": "true"}, ok=(0, 128))
    if made.code:
        made = git.run(*arguments, settings=_NEUTRAL_IDENTITY)
    return made.line()


def _fast_forward(checkout: Git, base: str, new: str) -> str | None:
    """Move a checkout of base to `new`; why not, where it is not clean."""
    place = checkout.folder
    if checkout.git_dir and (checkout.git_dir / "index.lock").exists():
        return f"another git works in {place}, or left its index.lock behind"
    dirty = checkout.run("status", "--porcelain", "-z", "--untracked-files=no").fields()
    if dirty:
        noun = "change" if len(dirty) == 1 else "changes"
        return f"the checkout of {base} at {place} has {len(dirty)} uncommitted {noun}"
    options = ("--ff-only", "--no-squash", "--no-autostash", "--no-verify-signatures", "--no-stat")
    # Ignored files are the user's too: git would overwrite them unasked.
    return _refusal(checkout, "merge", "--quiet", *options, "--no-overwrite-ignore", new)


def _refusal(git: Git, *arguments: str) -> str | None:
    """Run a git that may say no; its words where it did."""
    try:
        git.run(*arguments)
    except GitError as error:
        return error.message
    return None
