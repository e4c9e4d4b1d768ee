"""Worktrees and branches, on real repositories."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autocoder.core.errors import GitError, ProjectError, RefusedError
from autocoder.core.worktrees import Repository, clean_up, open_repository, survey
from autocoder.core.worktrees.git import Git
from autocoder.core.worktrees.lock import RepositoryLock
from support.repositories import commit, git, make_repository, write
from support.waiting import wait_until
from support.workers import is_alive

ODD_NAMES = [
    "with spaces",
    "ünïcödé 日本 🙂",
    "--force",
    "-b",
    "quote'\"s",
    "$(touch pwned)`x`",
    "new\nline",
    "a;b&&c|d",
    "..dots..",
    "tab\tand\x7f",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "my project")


@pytest.fixture
def repository(project: Path) -> Repository:
    return open_repository(project)


def worktree(repository: Repository, name: str = "a-0001", branch: str = "feat/1-x") -> Path:
    return repository.add(name, branch, repository.base_commit())


def test_a_repository_with_a_branch_checked_out_is_a_project(project: Path) -> None:
    repository = open_repository(project)

    assert (repository.path, repository.base) == (project, "main")
    assert repository.worktrees_dir == project.parent / "my project-worktrees"
    assert repository.base_commit() == git(project, "rev-parse", "main")
    assert not repository.worktrees_dir.exists()


@pytest.mark.parametrize("name", [*ODD_NAMES, "trailing space "])
def test_a_project_may_have_any_name(tmp_path: Path, name: str) -> None:
    repository = open_repository(make_repository(tmp_path / name))
    path = worktree(repository)

    commit(path, {"new.txt": "1"})

    assert repository.commits_ahead("feat/1-x") == 1
    assert [(tree.path, tree.ours) for tree in repository.list()] == [
        (tmp_path / name, False),
        (tmp_path / f"{name}-worktrees" / "a-0001", True),
    ]
    repository.remove(path)
    assert not path.exists()


def no_repository(folder: Path) -> Path:
    folder.mkdir()
    return folder


def bare(folder: Path) -> Path:
    git(folder.parent, "init", "--quiet", "--bare", str(folder))
    return folder


def empty(folder: Path) -> Path:
    git(folder.parent, "init", "--quiet", "--initial-branch=main", str(folder))
    return folder


def detached(folder: Path) -> Path:
    make_repository(folder)
    git(folder, "checkout", "--quiet", "--detach")
    return folder


def subfolder(folder: Path) -> Path:
    make_repository(folder, {"src/a.py": ""})
    return folder / "src"


def missing(folder: Path) -> Path:
    return folder


def a_file(folder: Path) -> Path:
    folder.write_text("")
    return folder


def in_the_way(folder: Path) -> Path:
    make_repository(folder)
    folder.with_name(f"{folder.name}-worktrees").write_text("")
    return folder


def inside_git_dir(folder: Path) -> Path:
    return make_repository(folder) / ".git"


@pytest.mark.parametrize(
    ("make", "complaint", "remedy"),
    [
        (no_repository, "is not a git repository", "init"),
        (bare, "is a bare repository", "Clone it"),
        (empty, "has no commit yet", "commit -m"),
        (detached, "has a detached HEAD", "--base"),
        (subfolder, "is a subfolder of a project", "top level: .*/p$"),
        (missing, "is not a folder", "Name the folder"),
        (a_file, "is not a folder", "Name the folder"),
        (in_the_way, "p-worktrees is a file", "Move it away"),
        (inside_git_dir, "is a git directory", "Name the folder above"),
    ],
)
def test_a_folder_that_cannot_be_a_project_is_told_why(
    tmp_path: Path, make: Callable[[Path], Path], complaint: str, remedy: str
) -> None:
    folder = make(tmp_path / "p")

    with pytest.raises(ProjectError, match=complaint) as refusal:
        open_repository(folder)

    assert str(folder) in refusal.value.message
    assert re.search(remedy, refusal.value.hint)


def test_a_base_that_does_not_exist_is_named_with_those_that_do(project: Path) -> None:
    git(project, "branch", "release")

    with pytest.raises(ProjectError, match="no branch 'mian'") as refusal:
        open_repository(project, "mian")

    assert "main, release" in refusal.value.hint


def test_a_detached_head_serves_where_a_base_is_named(tmp_path: Path) -> None:
    repository = open_repository(detached(tmp_path / "p"), "main")

    assert repository.base == "main"


def test_a_base_is_a_branch_and_no_option(project: Path) -> None:
    for base in ("--all", "-h", "HEAD", "main~0", "refs/heads/main", "main..x", "x y"):
        with pytest.raises(ProjectError, match="has no branch"):
            open_repository(project, base)


def test_a_linked_worktree_can_be_a_project_too(project: Path, tmp_path: Path) -> None:
    git(project, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))

    repository = open_repository(tmp_path / "side")

    path = worktree(repository)
    assert path == tmp_path / "side-worktrees" / "a-0001"
    assert repository.base == "side"


def test_a_folder_that_may_not_be_written_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    somebody = 65534 if os.geteuid() == 0 else os.geteuid()
    with tempfile.TemporaryDirectory() as root:
        project = make_repository(Path(root) / "p")
        for path in (project, *project.rglob("*")):
            os.chown(path, somebody, -1)
        Path(root).chmod(0o555)
        me = os.geteuid()
        os.seteuid(somebody)
        try:
            with pytest.raises(ProjectError, match=f"{root} is not writable"):
                open_repository(project)
        finally:
            os.seteuid(me)
            Path(root).chmod(0o755)


def test_a_repository_of_somebody_else_is_refused_with_gits_remedy(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    for path in (project, project / ".git"):
        os.chown(path, 65534, 65534)

    with pytest.raises(ProjectError, match="dubious ownership") as refusal:
        open_repository(project)

    assert "safe.directory" in refusal.value.hint


@pytest.mark.parametrize(
    ("version", "complaint"),
    [("git version 2.37.9", "2.37.9 is too old"), ("git version 1.9.1", "1.9.1 is too old")],
)
def test_an_old_git_is_refused(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    complaint: str,
) -> None:
    old = tmp_path / "bin" / "git"
    old.parent.mkdir()
    old.write_text(f"#!/bin/sh\necho '{version}'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(old.parent))

    with pytest.raises(ProjectError, match=complaint):
        open_repository(project)


def test_a_missing_git_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(ProjectError, match="git is not installed"):
        open_repository(project)


def test_an_agent_gets_a_worktree_of_its_own_on_a_new_branch(
    repository: Repository, project: Path
) -> None:
    path = repository.add("a-0001", "feat/1-x", repository.base_commit())

    assert path == repository.worktrees_dir / "a-0001"
    assert (path / "README.md").read_text() == "a project\n"
    assert git(path, "branch", "--show-current") == "feat/1-x"
    assert git(project, "status", "--porcelain") == ""


def test_a_branch_that_exists_is_gone_on_with(repository: Repository) -> None:
    first = worktree(repository)
    kept = commit(first, {"work.txt": "1"})
    repository.remove(first)

    second = worktree(repository, "a-0002")

    assert git(second, "rev-parse", "HEAD") == kept


def test_a_branch_that_another_worktree_has_is_refused(repository: Repository) -> None:
    worktree(repository)

    with pytest.raises(GitError, match="already checked out"):
        worktree(repository, "a-0002")

    assert not (repository.worktrees_dir / "a-0002").exists()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_worktree_may_have_any_name(repository: Repository, name: str) -> None:
    path = worktree(repository, name)
    write(path, {"new.txt": "1"})

    assert repository.dirty_files(path) == 1
    repository.remove(path, force=True)
    assert not path.exists()
    assert len(repository.list()) == 1


@pytest.mark.parametrize("name", ["../outside", "a/b", "/tmp/x", "", ".", ".."])
def test_a_worktree_stays_where_worktrees_belong(repository: Repository, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a folder"):
        worktree(repository, name)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_name_of_a_feature_makes_a_branch(repository: Repository, name: str) -> None:
    branch = repository.branch_name(7, name)
    path = worktree(repository, branch=branch)

    assert branch.startswith("feat/7-")
    assert branch.isascii()
    assert git(path, "branch", "--show-current") == branch


def test_a_branch_that_is_taken_gets_a_number(repository: Repository, project: Path) -> None:
    for expected in ("feat/7-log-in", "feat/7-log-in-2", "feat/7-log-in-3"):
        name = repository.branch_name(7, "Log in!")
        assert name == expected
        git(project, "branch", name)
    assert repository.branch_name(17, "Log in!") == "feat/17-log-in"


def test_a_branch_called_feat_leaves_no_room_below_it(
    repository: Repository, project: Path
) -> None:
    git(project, "branch", "feat")

    assert worktree(repository, branch=repository.branch_name(7, "x")).is_dir()


@pytest.mark.parametrize("wanted", [20, pytest.param(100, marks=pytest.mark.soak)])
def test_many_worktrees_can_be_wanted_at_once(project: Path, wanted: int) -> None:
    repositories = [open_repository(project) for _ in range(2)]
    start = repositories[0].base_commit()

    def add(number: int) -> Path:
        return repositories[number % 2].add(f"a-{number}", f"feat/{number}", start)

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(add, range(wanted)))

    assert all((path / "README.md").exists() for path in paths)
    listed = {tree.path: tree.branch for tree in repositories[0].list() if tree.ours}
    assert listed == {path: f"feat/{number}" for number, path in enumerate(paths)}


def test_uncommitted_work_is_counted_and_never_removed(repository: Repository) -> None:
    path = worktree(repository)
    assert repository.dirty_files(path) == 0
    write(path, {"README.md": "changed\n", "new file.txt": "1", "folder/inner.txt": "2"})

    assert repository.dirty_files(path) == 3
    with pytest.raises(RefusedError, match="3 uncommitted files"):
        repository.remove(path)
    assert (path / "new file.txt").read_text() == "1"


def test_new_files_count_even_where_status_was_told_to_hide_them(
    repository: Repository, project: Path
) -> None:
    git(project, "config", "status.showUntrackedFiles", "no")
    path = worktree(repository)
    write(path, {"precious.txt": "1"})

    with pytest.raises(RefusedError, match="1 uncommitted file"):
        repository.remove(path)


def test_commits_on_no_branch_are_not_thrown_away(repository: Repository) -> None:
    path = worktree(repository)
    git(path, "checkout", "--quiet", "--detach")
    commit(path, {"drifting.txt": "1"})

    with pytest.raises(RefusedError, match="commits that are on no branch"):
        repository.remove(path)
    git(path, "branch", "saved")
    repository.remove(path)
    assert not path.exists()


def test_ignored_files_do_not_keep_a_worktree(repository: Repository, project: Path) -> None:
    commit(project, {".gitignore": "build/\n"})
    path = worktree(repository)
    write(path, {"build/out.o": "1"})

    assert repository.dirty_files(path) == 0
    repository.remove(path)
    assert not path.exists()


def test_a_worktree_of_the_user_is_never_removed(
    repository: Repository, project: Path, tmp_path: Path
) -> None:
    mine, beside = tmp_path / "mine", repository.worktrees_dir / "mine"
    for number, path in enumerate((mine, beside)):
        git(project, "worktree", "add", "--quiet", "-b", f"mine{number}", str(path))

    for path in (mine, beside, project, tmp_path, beside.parent / "..", Path("/")):
        with pytest.raises(RefusedError, match="not a worktree that autocoder made"):
            repository.remove(path, force=True)
    assert mine.is_dir()
    assert beside.is_dir()


def test_a_worktree_that_was_replaced_by_a_link_is_not_followed(
    repository: Repository, tmp_path: Path
) -> None:
    path = worktree(repository)
    path.rename(tmp_path / "moved")
    treasure = tmp_path / "treasure"
    write(treasure, {"gold.txt": "1"})
    path.symlink_to(treasure)

    with pytest.raises(RefusedError):
        repository.remove(path, force=True)
    assert (treasure / "gold.txt").exists()


def test_a_link_to_the_root_goes_without_what_it_points_at(
    repository: Repository, tmp_path: Path
) -> None:
    treasure = tmp_path / "treasure"
    write(treasure, {"gold.txt": "1"})
    path = worktree(repository)
    (path / "root").symlink_to("/")
    (path / "treasure").symlink_to(treasure)
    assert repository.dirty_files(path) == 2
    commit(path)

    repository.remove(path)

    assert not path.exists()
    assert (treasure / "gold.txt").exists()
    assert Path("/etc/passwd").exists()


@pytest.mark.parametrize("damage", ["deleted", "elsewhere", "link"])
def test_a_worktree_whose_git_file_was_tampered_with_is_still_itself(
    repository: Repository, tmp_path: Path, damage: str
) -> None:
    path = worktree(repository)
    other = make_repository(tmp_path / "other")
    link = path / ".git"
    link.unlink()
    if damage == "elsewhere":
        link.write_text(f"gitdir: {other / '.git'}\n")
    if damage == "link":
        link.symlink_to(other / "README.md")
    write(path, {"new.txt": "1"})

    assert repository.dirty_files(path) == 1
    (path / "new.txt").unlink()
    repository.remove(path)
    assert not path.exists()
    assert (other / "README.md").read_text() == "a project\n"


def test_a_repository_the_agent_made_in_its_worktree_is_not_deleted(
    repository: Repository,
) -> None:
    path = worktree(repository)
    (path / ".git").unlink()
    make_repository(path, {"new.txt": "1"})

    with pytest.raises(RefusedError):
        repository.remove(path)
    (path / "new.txt").unlink()
    with pytest.raises(RefusedError, match="a repository of its own"):
        repository.remove(path)
    assert (path / ".git" / "HEAD").exists()


def test_a_worktree_half_made_by_a_killed_git_can_be_removed(
    repository: Repository, project: Path
) -> None:
    path = worktree(repository)
    (project / ".git" / "worktrees" / "a-0001" / "locked").write_text("initializing")
    (project / ".git" / "worktrees" / "a-0001" / "index").unlink()

    repository.remove(path, force=True)

    assert not path.exists()
    assert len(repository.list()) == 1


def test_what_was_removed_is_no_longer_ours(repository: Repository) -> None:
    path = worktree(repository)
    repository.remove(path)
    path.mkdir()

    with pytest.raises(RefusedError, match="not a worktree that autocoder made"):
        repository.remove(path)
    assert path.is_dir()


def test_pruning_forgets_ours_that_are_gone_and_keeps_the_users(
    repository: Repository, project: Path, tmp_path: Path
) -> None:
    gone, kept, unmounted = worktree(repository), worktree(repository, "b", "b"), tmp_path / "usb"
    git(project, "worktree", "add", "--quiet", "-b", "usb", str(unmounted))
    for path in (gone, unmounted):
        path.rename(path.with_name(f"{path.name}-away"))

    assert repository.prune() == (gone,)
    assert {tree.path: tree.missing for tree in repository.list()} == {
        project: False,
        kept: False,
        unmounted: True,
    }


def test_the_index_lock_of_a_killed_git_blocks_nothing_of_ours(
    repository: Repository, project: Path
) -> None:
    path = worktree(repository)
    lock = project / ".git" / "worktrees" / "a-0001" / "index.lock"
    lock.write_text("")
    write(path, {"new.txt": "1"})

    assert repository.dirty_files(path) == 1
    repository.remove_stale_locks(path)
    commit(path)
    assert repository.commits_ahead("feat/1-x") == 1


def test_what_a_branch_changed_is_counted_listed_and_shown(repository: Repository) -> None:
    path = worktree(repository)
    commit(path, {"a b.txt": "one\n"})
    commit(path, {"ünï\n.txt": "two\n"})
    commit(repository.path, {"README.md": "moved on\n"})
    write(path, {"README.md": "not committed\n"})

    assert repository.commits_ahead("feat/1-x") == 2
    assert repository.commits_ahead("feat/1-x", since=git(path, "rev-parse", "HEAD~1")) == 1
    assert repository.changed_paths("feat/1-x") == ("a b.txt", "ünï\n.txt")
    assert "+one" in repository.diff("feat/1-x")
    assert "moved on" not in repository.diff("feat/1-x")
    assert "+not committed" in repository.diff_worktree(path)
    assert "+one" in repository.diff_worktree(path)


def test_a_branch_that_does_not_exist_has_no_commits(repository: Repository) -> None:
    assert repository.commits_ahead("feat/nothing") == 0


def test_a_huge_diff_is_cut(repository: Repository) -> None:
    path = worktree(repository)
    commit(path, {"huge.txt": "x" * 99 + "\n" + ("y" * 99 + "\n") * 40_000})

    text = repository.diff("feat/1-x")

    assert len(text) < 2_200_000
    assert text.endswith("[the rest of the diff is not shown]\n")


def test_only_a_merged_branch_is_deleted(repository: Repository, project: Path) -> None:
    path = worktree(repository)
    commit(path, {"new.txt": "1"})
    with pytest.raises(RefusedError, match="checked out at"):
        repository.delete_branch("feat/1-x")
    repository.remove(path)
    with pytest.raises(RefusedError, match="not merged into main"):
        repository.delete_branch("feat/1-x")

    repository.merge("feat/1-x")
    repository.delete_branch("feat/1-x")

    assert git(project, "branch", "--list", "feat/*") == ""


def test_patterns_are_excluded_once_and_no_tracked_file_changes(
    repository: Repository, project: Path
) -> None:
    exclude = project / ".git" / "info" / "exclude"
    exclude.parent.mkdir(exist_ok=True)
    exclude.write_text("*.mine")
    for _ in range(2):
        repository.ignore("agent_system.db*", "/.autocoder/")
    write(project, {"agent_system.db-journal": "", ".autocoder/x": "", "new.txt": ""})

    assert exclude.read_text() == "*.mine\nagent_system.db*\n/.autocoder/\n"
    assert git(project, "status", "--porcelain") == "?? new.txt"


def test_variables_that_point_git_elsewhere_are_not_passed_on(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_repository(tmp_path / "other", {"other.txt": "1"})
    for name in ("GIT_DIR", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"):
        monkeypatch.setenv(name, str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.bare=true'")

    repository = open_repository(project)

    path = worktree(repository)
    assert (path / "README.md").exists()
    assert not (path / "other.txt").exists()


def test_a_git_that_takes_too_long_is_ended_with_what_it_started(
    project: Path, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    git(project, "config", "alias.slow", f"!sleep 600 & echo $$ $! > '{pids}'; wait")

    with pytest.raises(GitError, match=r"git slow took longer than 1 s"):
        Git(project).run("slow", time_limit_s=1)

    started = [int(pid) for pid in pids.read_text().split()]
    wait_until(lambda: not any(map(is_alive, started)))


def test_a_lock_held_by_another_process_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    lock = RepositoryLock(file)
    with file.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(GitError, match="has held"), lock.held(wait_s=0.05):
            pytest.fail("held twice")
        entered = threading.Event()

        def wait_for_it() -> None:
            with lock.held(wait_s=10):
                entered.set()

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not entered.is_set()
    waiting.join(10)
    assert entered.is_set()


def test_a_killed_holder_leaves_the_lock_free(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    script = (
        "import fcntl, signal, sys; file = open(sys.argv[1], 'a'); "
        "fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); signal.pause()"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, file], stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
    with RepositoryLock(file).held(wait_s=5):
        pass


def test_a_survey_tells_what_would_be_lost_with_each_worktree(repository: Repository) -> None:
    clean, dirty, unmerged, lived_in = (
        worktree(repository, f"a-000{n}", f"feat/{n}-x") for n in range(1, 5)
    )
    write(dirty, {"new.txt": "1"})
    commit(unmerged, {"new.txt": "1"})

    found = {tree.agent_id: tree for tree in survey(repository, {str(lived_in)})}

    assert [tree.removable for tree in found.values()] == [True, False, False, False]
    assert found["a-0001"].path == str(clean)
    assert (found["a-0002"].dirty_files, found["a-0002"].merged) == (1, True)
    assert (found["a-0003"].dirty_files, found["a-0003"].merged) == (0, False)
    assert found["a-0003"].branch == "feat/3-x"
    assert found["a-0004"].in_use


def test_a_survey_measures_a_worktree_without_following_links_out_of_it(
    repository: Repository, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "large").write_bytes(bytes(1 << 22))
    inside = worktree(repository)
    (inside / "link").symlink_to(outside, target_is_directory=True)
    (inside / "deep").mkdir()
    (inside / "deep" / "file").write_bytes(bytes(1 << 18))

    (found,) = survey(repository, ())

    assert 1 << 18 <= found.bytes < 1 << 20


def test_a_survey_leaves_out_what_is_the_users_or_gone(
    repository: Repository, project: Path, tmp_path: Path
) -> None:
    git(project, "worktree", "add", "--quiet", str(tmp_path / "theirs"), "-b", "theirs")
    shutil.rmtree(worktree(repository))

    assert survey(repository, ()) == ()


def test_what_git_cannot_say_of_a_worktree_is_unknown_and_keeps_it(repository: Repository) -> None:
    path = worktree(repository)
    (repository.path / ".git" / "worktrees" / path.name / "index").write_bytes(b"damaged")

    (found,) = survey(repository, ())
    (kept,) = clean_up(repository, ["a-0001"], ())

    assert not found.removable
    assert "index" in found.unknown
    assert kept.kept == f"what it holds is not known: {found.unknown}"
    assert path.exists()


def test_a_branch_merged_elsewhere_is_measured_against_that_branch(repository: Repository) -> None:
    git(repository.path, "branch", "release")
    commit(worktree(repository), {"new.txt": "1"})
    repository.on("release").merge("feat/1-x")

    assert [tree.merged for tree in survey(repository, ())] == [False]
    assert [tree.merged for tree in survey(repository, (), {"feat/1-x": "release"})] == [True]


def test_another_base_shares_the_repository_and_leaves_it_as_it_was(
    repository: Repository,
) -> None:
    git(repository.path, "branch", "release")
    before = repository.base_commit()
    worktree(repository)
    commit(repository.worktrees_dir / "a-0001", {"new.txt": "1"})

    repository.on("release").merge("feat/1-x")

    assert git(repository.path, "rev-parse", "release") != before
    assert repository.base_commit() == before


def test_a_clean_up_removes_what_is_merged_and_says_why_the_rest_stays(
    repository: Repository,
) -> None:
    done, dirty, unmerged, lived_in = (
        worktree(repository, f"a-000{n}", f"feat/{n}-x") for n in range(1, 5)
    )
    commit(done, {"done.txt": "1"})
    repository.merge("feat/1-x")
    write(dirty, {"new.txt": "1"})
    commit(unmerged, {"new.txt": "1"})
    ids = ["a-0001", "a-0002", "a-0003", "a-0004", "nobody"]

    cleaned = clean_up(repository, ids, {str(lived_in)})

    assert {each.agent_id: each.kept for each in cleaned} == {
        "a-0001": "",
        "a-0002": "it has 1 uncommitted file",
        "a-0003": "main has not got all its commits",
        "a-0004": "an agent works in it",
        "nobody": "there is no worktree of that name",
    }
    assert [tree.exists() for tree in (done, dirty, unmerged, lived_in)] == [
        False,
        True,
        True,
        True,
    ]
    assert "feat/1-x" not in repository.branches()
    assert {"feat/2-x", "feat/3-x", "feat/4-x"} <= set(repository.branches())


def test_a_clean_up_never_touches_a_worktree_of_the_users(
    repository: Repository, project: Path
) -> None:
    theirs = repository.worktrees_dir / "theirs"
    git(project, "worktree", "add", "--quiet", str(theirs), "-b", "theirs")

    (cleaned,) = clean_up(repository, ["theirs"], ())

    assert cleaned.kept
    assert theirs.is_dir()
