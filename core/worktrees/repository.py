"""`Repository`: the worktrees and branches of one project.

A note in the git directory, written before a worktree is made, says that it is
ours; a worktree without one is the user's and is never removed.
"""

import contextlib
import copy
import os
import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autocoder.core.errors import GitError, RefusedError
from autocoder.core.worktrees import merging
from autocoder.core.worktrees.git import Git, Output
from autocoder.core.worktrees.lock import RepositoryLock
from autocoder.core.worktrees.merging import (
    Candidate,
    Conflict,
    Merged,
    MergeResult,
    ReadyToMerge,
)

CHECKOUT_LIMIT_S = 600.0
DIFF_LIMIT = 2 * 1024 * 1024
SLUG_LIMIT = 40

_DIFF = ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=none")


@dataclass(frozen=True, slots=True)
class Worktree:
    path: Path
    branch: str
    """Empty where HEAD is detached."""
    commit: str
    ours: bool
    """Made by `Repository.add`."""
    missing: bool
    """Its folder is gone."""


class Repository:
    """Safe from any thread; what changes the list of worktrees or branches is serialised.

    Raises:
        GitError: from any method: git refused or took too long.
    """

    def __init__(
        self, path: Path, base: str, git_dir: Path, common_dir: Path, worktrees_dir: Path
    ) -> None:
        """`open_repository` makes these, after having looked."""
        self.path = path
        self.base = base
        self.worktrees_dir = worktrees_dir
        self._common_dir = common_dir
        self._git = Git(path, git_dir, common_dir)
        self._notes = common_dir / "autocoder" / "worktrees"
        self._notes.mkdir(parents=True, exist_ok=True)
        self._lock = RepositoryLock(common_dir / "autocoder" / "lock")

    def on(self, base: str) -> "Repository":
        """The same repository with another branch as its base; empty: with this one."""
        if base in ("", self.base):
            return self
        other = copy.copy(self)
        other.base = base
        return other

    def base_commit(self) -> str:
        """Full id of the commit base is at."""
        return self._git.run("rev-parse", "--verify", f"refs/heads/{self.base}^{{commit}}").line()

    def feature_branches(self) -> frozenset[str]:
        """The branches that leave a feature's no room: those below `feat`, and `feat` itself."""
        listing = self._git.run("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads/feat")
        return frozenset(listing.line().split("\n"))

    def branch_name(self, feature_id: int, name: str) -> str:
        """A branch for a feature that no branch has yet."""
        return free_branch_name(feature_id, name, self.feature_branches())

    def commits_ahead(self, branch: str, since: str = "") -> int:
        """How many commits `branch` has that base, or the commit `since`, has not.

        None of a branch that does not exist.
        """
        reference = f"refs/heads/{branch}"
        span = f"{since or f'refs/heads/{self.base}'}..{reference}"
        counted = self._git.run("rev-list", "--count", "--end-of-options", span, ok=(0, 128))
        if not counted.code:
            return int(counted.line())
        # Asked only now: a branch may be deleted at any time, between two questions as well.
        if self._git.run("show-ref", "--verify", "--quiet", reference, ok=(0, 1)).code:
            return 0
        raise GitError(f"the commits of {branch} cannot be counted: {counted.stderr.strip()}")

    def has_commit(self, commit: str) -> bool:
        """Whether base contains it."""
        base = f"refs/heads/{self.base}"
        return not self._git.run("merge-base", "--is-ancestor", commit, base, ok=(0, 1)).code

    def branches(self) -> tuple[str, ...]:
        """The repository's own branches, by name."""
        listing = self._git.run("for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads")
        return tuple(listing.line().split("\n"))

    def changed_paths(self, branch: str) -> tuple[str, ...]:
        """Files that `branch` has changed since it left base."""
        span = f"refs/heads/{self.base}...refs/heads/{branch}"
        listing = self._git.run("diff", *_DIFF, "--name-only", "-z", "--end-of-options", span)
        return tuple(listing.fields())

    def diff(self, branch: str) -> str:
        """What `branch` has changed since it left base, at most `DIFF_LIMIT` bytes of it."""
        span = f"refs/heads/{self.base}...refs/heads/{branch}"
        return _diff_text(self._git, "--end-of-options", span)

    def merge(self, branch: str) -> MergeResult:
        """Bring `branch` into base; the user's checkout is fast-forwarded or left alone."""
        with self._changing():
            return merging.merge(self._git, self._checkouts(), self.base, branch)

    def prepare_merge(self, branch: str, onto: str = "") -> Candidate | Conflict:
        """What base, or `onto` in its place, becomes with `branch` in it; nothing is changed."""
        return merging.prepare(self._git, self.base, branch, onto)

    def land(self, branch: str, candidate: Candidate) -> Merged | ReadyToMerge | None:
        """Make base the candidate; None where base or branch have moved since it was prepared."""
        with self._changing():
            return merging.land(self._git, self._checkouts(), self.base, branch, candidate)

    def base_names(self) -> tuple[str, ...]:
        """Every file of base, by its path from the top."""
        listing = self._git.run("ls-tree", "-r", "-z", "--name-only", f"refs/heads/{self.base}")
        return tuple(listing.fields())

    def base_file(self, name: str) -> str | None:
        """A file as base has it; None where base has none of that name."""
        found = self._git.run("cat-file", "blob", f"refs/heads/{self.base}:{name}", ok=(0, 128))
        return None if found.code else found.stdout.decode("utf-8", "replace")

    def delete_branch(self, branch: str) -> None:
        """Delete a branch that base contains and no worktree has checked out.

        Nothing happens where there is no such branch.

        Raises:
            RefusedError: base does not contain it, or it is checked out.
        """
        reference = f"refs/heads/{branch}"
        with self._changing():
            # A pattern also names what is below it, but no branch is below a branch.
            facts = "%(refname)%00%(objectname)%00%(worktreepath)%00"
            listing = self._git.run("for-each-ref", f"--format={facts}", reference).stdout
            found = os.fsdecode(listing).split("\0")
            if found[0] != reference:
                return
            tip, checkout = found[1:3]
            if checkout:
                raise RefusedError(f"{branch} is checked out at {checkout}")
            if not self.has_commit(tip):
                raise RefusedError(f"{branch} is not merged into {self.base}")
            self._git.run("update-ref", "-d", reference, tip)

    def add(self, agent_id: str, branch: str, start_point: str) -> Path:
        """Make the worktree of an agent, on `branch`: a new one at `start_point`, or as it is."""
        path = self.worktrees_dir / agent_id
        if not self._is_place(path):
            raise ValueError(f"{agent_id!r} cannot be the name of a folder")
        with self._changing():
            self.worktrees_dir.mkdir(exist_ok=True)
            self._note(path).write_text(str(path), "utf-8")
            new = ("--no-track", "-b", branch, "--end-of-options", str(path), start_point)
            made = self._add(*new)
            if "a branch named" in made.stderr:
                made = self._add("--end-of-options", str(path), branch)
            if made.code:
                if not path.exists():
                    self._note(path).unlink()
                raise GitError(f"no worktree for {agent_id}: {made.complaint()}")
        return path

    def remove(self, path: Path, *, force: bool = False) -> None:
        """Remove a worktree we made; its branch stays. One whose folder is gone is forgotten.

        Raises:
            RefusedError: it is not ours; or, unless `force`, something in it is in
                no commit, or in commits that no branch has. It is unchanged.
        """
        if path.is_symlink() or not self._is_ours(path):
            raise RefusedError(f"{path} is not a worktree that autocoder made")
        with self._changing():
            git_dir = self._git_dir(path)
            if git_dir is None and path.exists():
                raise RefusedError(
                    f"{path} is no worktree of this repository any more",
                    "See what is in it, then delete the folder.",
                )
            if git_dir is not None:
                if not force and path.exists():
                    self._require_nothing_lost(path, git_dir)
                self._restore_link(path, git_dir)
                # Twice: also where an interrupted `add` has left it locked.
                self._git.run(
                    *("worktree", "remove", "--force", "--force", "--end-of-options", str(path)),
                    time_limit_s=CHECKOUT_LIMIT_S,
                )
            self._note(path).unlink(missing_ok=True)

    def prune(self) -> tuple[Path, ...]:
        """Forget our worktrees whose folders are gone; return these."""
        gone = tuple(
            worktree.path for worktree in self.list() if worktree.ours and worktree.missing
        )
        for path in gone:
            self.remove(path)
        return gone

    def list(self) -> tuple[Worktree, ...]:
        """All worktrees of the repository, the user's included."""
        listing = self._git.run("worktree", "list", "--porcelain", "-z").stdout
        return tuple(
            self._worktree(record.decode("utf-8", "surrogateescape").split("\0"))
            for record in listing.split(b"\0\0")
            if record
        )

    def dirty_files(self, path: Path) -> int:
        """Files in the worktree that differ from its commit, new ones included."""
        return len(self._status(path, self._require_git_dir(path)))

    def changes(self, path: Path) -> tuple[frozenset[str], frozenset[str]]:
        """Files of the worktree that git knows and that differ; and those it does not know."""
        git_dir = self._require_git_dir(path)
        options = ("--porcelain", "-z", "--no-renames", "--untracked-files=all")
        listing = self._git.at(path, git_dir).run("status", *options).fields()
        unknown = {entry[3:] for entry in listing if entry.startswith("??")}
        return frozenset(entry[3:] for entry in listing if entry[3:] not in unknown), frozenset(
            unknown
        )

    def check_out(self, path: Path, target: str, *, discard: bool = False) -> None:
        """Put our worktree at `target`, a branch or a commit; its unknown files stay.

        `discard` drops what differs from its commit first.

        Raises:
            GitError: something uncommitted is in the way; it is unchanged.
        """
        if not self._is_ours(path):
            raise RefusedError(f"{path} is not a worktree that autocoder made")
        git = self._git.at(path, self._require_git_dir(path))
        if discard:
            git.run("reset", "--quiet", "--hard", time_limit_s=CHECKOUT_LIMIT_S)
        kind = () if target in self.branches() else ("--detach",)
        options = ("--quiet", "--no-overwrite-ignore", "--no-recurse-submodules", *kind)
        git.run("checkout", *options, target, "--", time_limit_s=CHECKOUT_LIMIT_S)

    def keep_changes(self, path: Path, name: str) -> None:
        """Keep what differs from its commit as refs/autocoder/kept/`name`; nothing changes."""
        git = self._git.at(path, self._require_git_dir(path))
        identity = {"user.name": "autocoder", "user.email": "autocoder@localhost"}
        commit = git.run("stash", "create", "kept by autocoder", settings=identity).line()
        if commit:
            git.run("update-ref", f"refs/autocoder/kept/{name}", commit)

    def diff_worktree(self, path: Path) -> str:
        """What the worktree has changed since it left base, committed or not.

        At most `DIFF_LIMIT` bytes; new files that git does not know are not in it.
        """
        git = self._git.at(path, self._require_git_dir(path))
        return _diff_text(git, "--merge-base", f"refs/heads/{self.base}")

    def remove_stale_locks(self, path: Path) -> None:
        """Take away the lock files a killed git left in a worktree; nothing may run there."""
        for lock in self._require_git_dir(path).glob("*.lock"):
            lock.unlink(missing_ok=True)

    def ignore(self, *patterns: str) -> None:
        """Keep files out of everybody's `git status`, by `.git/info/exclude`."""
        exclude = self._common_dir / "info" / "exclude"
        with self._changing():
            exclude.parent.mkdir(exist_ok=True)
            text = exclude.read_text("utf-8", "surrogateescape") if exclude.exists() else ""
            missing = [pattern for pattern in patterns if pattern not in text.splitlines()]
            if missing:
                start = "\n" if text and not text.endswith("\n") else ""
                with exclude.open("a", encoding="utf-8") as file:
                    file.write(start + "".join(f"{pattern}\n" for pattern in missing))

    def _checkouts(self) -> Sequence[Git]:
        """git in each worktree that has base checked out."""
        return [
            self._git.at(tree.path, self._git_dir(tree.path) or self._common_dir)
            for tree in self.list()
            if tree.branch == self.base and not tree.missing
        ]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        try:
            with self._lock.held():
                yield
        except OSError as error:
            raise GitError(f"{error.filename or self.path}: {error.strerror}") from error

    def _add(self, *arguments: str) -> Output:
        command = ("worktree", "add", "--quiet", *arguments)
        return self._git.run(*command, ok=(0, 128, 255), time_limit_s=CHECKOUT_LIMIT_S)

    def _note(self, path: Path) -> Path:
        return self._notes / path.name

    def _is_place(self, path: Path) -> bool:
        return path.parent == self.worktrees_dir and path.name != ".."

    def _is_ours(self, path: Path) -> bool:
        try:
            return self._is_place(path) and self._note(path).read_text("utf-8") == str(path)
        except FileNotFoundError:
            return False

    def _git_dir(self, path: Path) -> Path | None:
        """Where git keeps the state of the worktree; found without asking the worktree itself,
        whose `.git` file the agent can write."""
        below = self._common_dir / "worktrees"
        for git_dir in (below / path.name, *below.glob("*")):
            try:
                if (git_dir / "gitdir").read_text().strip() == str(path / ".git"):
                    return git_dir
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def _restore_link(self, path: Path, git_dir: Path) -> None:
        """Make git recognise a worktree whose `.git` file the agent deleted or changed."""
        link, content = path / ".git", f"gitdir: {git_dir}\n"
        if path.exists() and (
            link.is_symlink() or not link.is_file() or link.read_text() != content
        ):
            if link.is_dir() and not link.is_symlink():
                raise RefusedError(
                    f"{path} holds a repository of its own",
                    "See what is in it, then delete the folder.",
                )
            link.unlink(missing_ok=True)
            link.write_text(content, "utf-8")

    def _require_git_dir(self, path: Path) -> Path:
        git_dir = self._git_dir(path)
        if git_dir is None:
            raise GitError(f"{path} is no worktree of {self.path}")
        return git_dir

    def _status(self, path: Path, git_dir: Path) -> tuple[str, ...]:
        options = ("--porcelain", "-z", "--no-renames", "--ignore-submodules=none")
        return tuple(self._git.at(path, git_dir).run("status", *options).fields())

    def _require_nothing_lost(self, path: Path, git_dir: Path) -> None:
        changes = len(self._status(path, git_dir))
        if changes:
            noun = "file" if changes == 1 else "files"
            raise RefusedError(
                f"{path} has {changes} uncommitted {noun}", "Commit or discard them first."
            )
        head = (git_dir / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            holders = self._git.run(
                "for-each-ref", "--count=1", f"--contains={head}", "refs/heads", "refs/tags"
            )
            if not holders.line():
                raise RefusedError(
                    f"{path} has commits that are on no branch",
                    f"Keep them: git branch NAME {head[:12]}",
                )

    def _worktree(self, lines: Sequence[str]) -> Worktree:
        facts = {name: value for name, _, value in (line.partition(" ") for line in lines)}
        path = Path(facts["worktree"])
        return Worktree(
            path=path,
            branch=facts.get("branch", "").removeprefix("refs/heads/"),
            commit=facts.get("HEAD", ""),
            ours=self._is_ours(path),
            missing=not path.is_dir(),
        )


def free_branch_name(feature_id: int, name: str, taken: Collection[str]) -> str:
    """A branch for a feature that is none of `taken`: `feat/<id>-<slug>`, or with -2, -3 ..."""
    # A branch `feat` leaves no room for branches below it.
    prefix = "feat-" if "feat" in taken else "feat/"
    wanted = f"{prefix}{feature_id}-{_slug(name)}"
    number, free = 1, wanted
    while free in taken:
        number += 1
        free = f"{wanted}-{number}"
    return free


def _diff_text(git: Git, *arguments: str) -> str:
    output = git.run("diff", *_DIFF, *arguments, output_limit=DIFF_LIMIT)
    text = output.stdout.decode("utf-8", "replace")
    return f"{text}\n[the rest of the diff is not shown]\n" if output.truncated else text


def _slug(name: str) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = "-".join(re.findall(r"[a-z0-9]+", plain))[:SLUG_LIMIT].strip("-")
    return slug or "feature"
