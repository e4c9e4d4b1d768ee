"""Features that say what they run and where they go, and worktrees that are asked to go."""

from dataclasses import replace
from pathlib import Path

import pytest

from autocoder.core.commands import (
    EnableFeature,
    MergeFeature,
    PrioritiseFeature,
    RemoveWorktrees,
    SpawnAgent,
    StopAgent,
)
from support.fleets import WAITS, Project, running
from support.repositories import commit, git, write


@pytest.fixture
def project(tmp_path: Path, ports: range) -> Project:
    """Nothing starts by itself."""
    return Project(tmp_path, ports[:20], parallel=0)


def test_variants_of_a_task_are_merged_only_when_asked_for_and_the_others_are_kept(
    project: Project,
) -> None:
    with running(project) as run:
        run.submit(SpawnAgent(task="Try it", variants=3))
        run.wait(lambda s: s.features.ready_to_merge == 3)
        assert project.commits() == {"Begin"}
        run.submit(MergeFeature(2))
        run.notice("merged", "2 other variants not chosen, kept on feat/1-try-it, feat/3-try-it")
        run.wait(lambda s: s.features.ready_to_merge == 0)
        assert not {"Do feature 1", "Do feature 3"} & project.commits()
        run.submit(MergeFeature(3))
        run.wait(lambda s: s.backlog[2].review_status == "VERIFIED")

    assert run.feature(1).review_status == "NOT_CHOSEN"
    assert git(project.dir, "branch", "--list", "feat/1-try-it")
    assert {run.feature(n).variant_of for n in (1, 2, 3)} == {1}
    assert "Do feature 2" in project.commits()
    assert "Do feature 1" not in project.commits()


def test_a_feature_starts_from_its_own_base_and_lands_there(project: Project) -> None:
    git(project.dir, "branch", "release")
    commit(project.dir, {"only-on-main": ""})
    main = git(project.dir, "rev-parse", "main")
    (feature_id,) = project.add("commit('new', str(__import__('os').listdir('.')))")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id, base="release"))
        run.wait(lambda s: s.features.done == 1 and not s.agents[0].worktree_path)

    assert run.feature(feature_id).review_status == "VERIFIED"
    assert "only-on-main" not in git(project.dir, "show", "release:new")
    assert git(project.dir, "rev-parse", "main") == main
    assert "merged 1 commit into release" in run.told()
    assert not git(project.dir, "branch", "--list", "feat/*")


def test_a_feature_keeps_its_backend_and_model_for_later_attempts(project: Project) -> None:
    test = project.settings.backends["test"]
    project.settings = replace(project.settings, backends={"test": test, "x": test})
    (feature_id,) = project.add("raise SystemExit(3)")
    with running(project) as run:
        run.submit(SpawnAgent(feature_id, backend="x", model="large"))
        first = run.agent_of(feature_id, "FAILED")
        project.write_program(feature_id, WAITS)
        run.submit(SpawnAgent(feature_id))
        second = run.agent_of(feature_id)

    assert (first.backend, second.backend) == ("x", "x")
    assert '"model": "large"' in (project.run_folder(second.agent_id) / "run.json").read_text()
    feature = run.feature(feature_id)
    assert (feature.backend, feature.model) == ("x", "large")


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (SpawnAgent(task="t", backend="nonsense"), ("nonsense", "Add [backends.nonsense]")),
        (SpawnAgent(task="t", base="nowhere"), ("no branch 'nowhere'", "main")),
        (SpawnAgent(task="t", base="--all"), ("no branch '--all'", "main")),
        (SpawnAgent(task="t", variants=0), ("0 variants", "1 to 9")),
        (SpawnAgent(task="t", variants=10), ("10 variants", "1 to 9")),
        (SpawnAgent(variants=2), ("typed task",)),
    ],
    ids=lambda value: (
        value.backend or value.base or str(value.variants) if isinstance(value, SpawnAgent) else ""
    ),
)
def test_a_wish_that_cannot_be_fulfilled_is_refused_with_its_remedy(
    project: Project, wish: SpawnAgent, said: tuple[str, ...]
) -> None:
    with running(project) as run:
        run.submit(wish)
        run.notice(*said)

    assert run.snapshot is not None
    assert not run.snapshot.backlog
    assert not run.snapshot.agents


def test_priority_and_claimability_decide_what_is_claimed_next(project: Project) -> None:
    project.settings = replace(project.settings, parallel=1)
    first, low, high, off = project.add(WAITS, WAITS, WAITS, WAITS)
    with running(project) as run:
        held = run.agent_of(first)
        run.submit(PrioritiseFeature(high, 5))
        run.submit(PrioritiseFeature(off, 9))
        run.submit(EnableFeature(off, enabled=False))
        run.wait(lambda s: [f.id for f in s.backlog if f.enabled] == [high, first, low])
        run.submit(StopAgent(held.agent_id))
        run.agent_of(high)


def test_worktrees_are_removed_where_nothing_would_be_lost(project: Project) -> None:
    project.settings = replace(project.settings, merge="manual")
    done, dirty, unmerged, lived_in = project.add("", "", "", WAITS)
    with running(project) as run:
        for feature_id in (done, dirty, unmerged, lived_in):
            run.submit(SpawnAgent(feature_id))
        run.wait(lambda s: s.features.ready_to_merge == 3)
        live = run.agent_of(lived_in)
        agents = {a.feature_id: a for a in run.snapshot.agents} if run.snapshot else {}
        write(Path(agents[dirty].worktree_path), {"new": ""})
        # By hand: what the orchestrator merges it tidies up by itself.
        git(project.dir, "merge", "--quiet", "--no-edit", agents[done].branch)
        run.submit(RemoveWorktrees(tuple(a.agent_id for a in agents.values())))
        run.notice(agents[dirty].agent_id, "kept", "1 uncommitted file")
        run.notice(agents[unmerged].agent_id, "kept", "main has not got")
        run.notice(live.agent_id, "kept", "an agent works in it")
        run.notice("1 worktree removed")
        run.wait(lambda s: [a.feature_id for a in s.agents if not a.worktree_path] == [done])

    assert [Path(agents[n].worktree_path).exists() for n in (done, dirty, unmerged, lived_in)] == [
        False,
        True,
        True,
        True,
    ]


def test_a_backlog_file_is_read_again_whenever_it_changes(project: Project) -> None:
    file = project.dir / "backlog.yaml"
    file.write_text("- name: One\n")
    project.settings = replace(project.settings, backlog="backlog.yaml")
    with running(project) as run:
        run.wait(lambda s: [f.name for f in s.backlog] == ["One"])
        file.write_text("- name: One\n- nam: Two\n")
        run.notice("backlog", "backlog.yaml:2")
        file.write_text("- name: One\n- name: Two\n  depends_on: [One]\n")
        run.wait(lambda s: [f.name for f in s.backlog] == ["One", "Two"])
        run.notice("1 feature from backlog.yaml: Two")
        file.unlink()
        run.notice("backlog.yaml cannot be read")

    assert run.feature(2).depends_on == (1,)
