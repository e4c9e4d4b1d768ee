"""Branches into base, with the user's checkout left as it is."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autocoder.core.errors import GitError
from autocoder.core.worktrees import (
    Candidate,
    Conflict,
    Merged,
    ReadyToMerge,
    Repository,
    open_repository,
)
from support.repositories import commit, git, make_repository, write


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "p", {"README.md": "one\ntwo\nthree\n", "other.txt": "1\n"})


@pytest.fixture
def repository(project: Path) -> Repository:
    return open_repository(project)


def branch_with(repository: Repository, files: dict[str, str], name: str = "a") -> str:
    """A branch of an agent with one commit, its worktree removed."""
    branch = f"feat/{name}"
    path = repository.add(name, branch, repository.base_commit())
    commit(path, files, f"Work on {name}")
    repository.remove(path)
    return branch


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file of a checkout, git's own apart."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def test_a_clean_checkout_of_base_moves_with_it(repository: Repository, project: Path) -> None:
    branch = branch_with(repository, {"new.txt": "1"})

    result = repository.merge(branch)

    assert result == Merged(git(project, "rev-parse", "main"), 1)
    assert git(project, "rev-parse", "HEAD") == git(project, "rev-parse", branch)
    assert (project / "new.txt").read_text() == "1"
    assert git(project, "status", "--porcelain") == ""


def test_a_base_that_has_moved_on_gets_a_merge_commit(
    repository: Repository, project: Path
) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    mine = commit(project, {"mine.txt": "2"})

    result = repository.merge(branch)

    assert isinstance(result, Merged)
    assert result.count == 1
    assert git(project, "rev-parse", "main^1") == mine
    assert git(project, "rev-parse", "main^2") == git(project, "rev-parse", branch)
    assert git(project, "log", "-1", "--format=%s %an") == "Merge branch 'feat/a' into main Test"
    assert {"new.txt", "mine.txt"} <= bytes_of(project).keys()
    assert git(project, "status", "--porcelain") == ""


def test_merging_again_changes_nothing(repository: Repository, project: Path) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    repository.merge(branch)
    before = git(project, "rev-parse", "main")

    assert repository.merge(branch) == Merged(before, 0)


@pytest.mark.parametrize("staged", [False, True])
def test_a_dirty_checkout_of_base_stays_byte_for_byte(
    repository: Repository, project: Path, staged: bool
) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    write(project, {"other.txt": "my work\n", "untracked.txt": "mine\n"})
    if staged:
        git(project, "add", "other.txt")
    before = bytes_of(project), git(project, "status", "--porcelain"), repository.base_commit()

    result = repository.merge(branch)

    assert result == ReadyToMerge(f"the checkout of main at {project} has 1 uncommitted change")
    after = bytes_of(project), git(project, "status", "--porcelain"), repository.base_commit()
    assert after == before


def test_untracked_files_keep_nobody_from_merging(repository: Repository, project: Path) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    write(project, {"notes.txt": "mine\n"})

    assert isinstance(repository.merge(branch), Merged)
    assert (project / "notes.txt").read_text() == "mine\n"


@pytest.mark.parametrize("ignored", [False, True])
def test_a_file_of_the_user_is_never_overwritten(
    repository: Repository, project: Path, ignored: bool
) -> None:
    branch = branch_with(repository, {".env": "theirs"})
    write(project, {".env": "mine"})
    if ignored:
        repository.ignore(".env")
    before = repository.base_commit()

    result = repository.merge(branch)

    assert isinstance(result, ReadyToMerge)
    assert ".env" in result.reason
    assert (project / ".env").read_text() == "mine"
    assert repository.base_commit() == before


def test_a_checkout_of_another_branch_is_not_touched(repository: Repository, project: Path) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    commit(project, {"moved.txt": "1"})
    git(project, "checkout", "--quiet", "-b", "mine", "HEAD~1")
    write(project, {"other.txt": "my work\n"})
    before = bytes_of(project), git(project, "status", "--porcelain")

    result = repository.merge(branch)

    assert isinstance(result, Merged)
    assert git(project, "rev-parse", "main") == result.commit
    assert git(project, "branch", "--show-current") == "mine"
    assert (bytes_of(project), git(project, "status", "--porcelain")) == before


def test_a_base_checked_out_in_another_worktree_moves_there(
    repository: Repository, project: Path, tmp_path: Path
) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    git(project, "checkout", "--quiet", "-b", "mine")
    git(project, "worktree", "add", "--quiet", str(tmp_path / "main"), "main")

    assert isinstance(repository.merge(branch), Merged)
    assert (tmp_path / "main" / "new.txt").exists()
    assert git(tmp_path / "main", "status", "--porcelain") == ""
    assert not (project / "new.txt").exists()


def test_a_base_checked_out_twice_is_left_to_the_user(
    repository: Repository, project: Path, tmp_path: Path
) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    twin = tmp_path / "twin"
    git(project, "worktree", "add", "--quiet", "--force", str(twin), "main")

    result = repository.merge(branch)

    assert result == ReadyToMerge(f"main is checked out at {project} and at {twin}")


def test_what_lands_is_what_was_prepared(repository: Repository, project: Path) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    commit(project, {"mine.txt": "2"})
    prepared = repository.prepare_merge(branch)
    assert isinstance(prepared, Candidate)
    assert not (project / "new.txt").exists()

    assert repository.land(branch, prepared) == Merged(prepared.commit, 1)
    assert git(project, "rev-parse", "main") == prepared.commit


@pytest.mark.parametrize("moved", ["base", "branch"])
def test_what_was_prepared_does_not_land_once_a_side_has_moved(
    repository: Repository, project: Path, moved: str
) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    prepared = repository.prepare_merge(branch)
    assert isinstance(prepared, Candidate)
    if moved == "base":
        commit(project, {"mine.txt": "2"})
    else:
        commit(repository.add("b", branch, ""), {"more.txt": "2"})
    before = repository.base_commit()

    assert repository.land(branch, prepared) is None
    assert repository.base_commit() == before


def test_a_conflict_names_the_files_and_changes_nothing(
    repository: Repository, project: Path
) -> None:
    branch = branch_with(
        repository, {"README.md": "theirs\n", "sub dir/ü\n.txt": "1", "fine.txt": "2"}
    )
    commit(project, {"README.md": "mine\n", "sub dir/ü\n.txt": "3"})
    before = bytes_of(project), repository.base_commit()

    result = repository.merge(branch)

    assert result == Conflict(("README.md", "sub dir/ü\n.txt"))
    assert (bytes_of(project), repository.base_commit()) == before
    assert git(project, "status", "--porcelain") == ""


def test_a_merge_the_user_has_begun_is_left_to_them(repository: Repository, project: Path) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    git(project, "checkout", "--quiet", "-b", "side")
    commit(project, {"side.txt": "1"})
    git(project, "checkout", "--quiet", "main")
    commit(project, {"main.txt": "1"})
    git(project, "merge", "--quiet", "--no-commit", "side")

    assert isinstance(repository.merge(branch), ReadyToMerge)
    assert (project / ".git" / "MERGE_HEAD").exists()


def test_a_git_at_work_in_the_checkout_is_not_disturbed(
    repository: Repository, project: Path
) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    lock = project / ".git" / "index.lock"
    lock.write_text("")

    result = repository.merge(branch)

    assert isinstance(result, ReadyToMerge)
    assert "index.lock" in result.reason
    assert lock.exists()
    lock.unlink()
    assert isinstance(repository.merge(branch), Merged)


@pytest.fixture
def no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL"):
        monkeypatch.delenv(f"GIT_{name}", raising=False)
    monkeypatch.delenv("EMAIL", raising=False)


@pytest.mark.usefixtures("no_identity")
def test_without_an_identity_a_neutral_one_signs(repository: Repository, project: Path) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    commit(project, {"mine.txt": "2"})

    assert isinstance(repository.merge(branch), Merged)
    assert git(project, "log", "-1", "--format=%an <%ae>") == "autocoder <autocoder@localhost>"


@pytest.mark.usefixtures("no_identity")
def test_the_identity_of_the_user_signs_where_there_is_one(
    repository: Repository, project: Path
) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    commit(project, {"mine.txt": "2"})
    git(project, "config", "user.name", "Ada")
    git(project, "config", "user.email", "ada@example.invalid")

    assert isinstance(repository.merge(branch), Merged)
    assert git(project, "log", "-1", "--format=%an <%ae>") == "Ada <ada@example.invalid>"


def test_settings_of_the_user_about_merging_change_nothing(
    repository: Repository, project: Path
) -> None:
    branch = branch_with(repository, {"new.txt": "1"})
    for name, value in {
        "merge.ff": "false",
        "merge.autoStash": "true",
        "merge.verifySignatures": "true",
        "branch.main.mergeOptions": "--squash",
        "commit.gpgSign": "true",
        "merge.stat": "true",
    }.items():
        git(project, "config", name, value)

    assert isinstance(repository.merge(branch), Merged)
    assert git(project, "status", "--porcelain") == ""


def test_a_missing_branch_is_named(repository: Repository) -> None:
    with pytest.raises(GitError, match="no branch feat/nothing"):
        repository.merge("feat/nothing")


def test_branches_that_finish_together_are_merged_one_after_the_other(project: Path) -> None:
    repositories = [open_repository(project) for _ in range(2)]
    branches = [branch_with(repositories[0], {f"f{n}.txt": "1"}, f"a{n}") for n in range(8)]

    with ThreadPoolExecutor(4) as pool:
        results = list(
            pool.map(lambda n: repositories[n % 2].merge(branches[n]), range(len(branches)))
        )

    assert all(isinstance(result, Merged) and result.count == 1 for result in results)
    assert {f"f{n}.txt" for n in range(8)} <= bytes_of(project).keys()
    assert git(project, "status", "--porcelain") == ""
    assert git(project, "fsck", "--strict", "--no-dangling") == ""
