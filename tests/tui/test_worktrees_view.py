"""Claims about the clean-up of worktrees: nothing is removed that would lose something."""

from dataclasses import replace

from autocoder.core.commands import RemoveWorktrees
from autocoder.core.models import WorktreeStatus
from autocoder.tui.screens.worktrees import WorktreesScreen
from support.answers import Answers
from support.attacks import ATTACKS, FORBIDDEN
from support.panel import Driven, driven
from support.snapshots import a_snapshot, an_agent

MIB = 1024 * 1024


def a_worktree(name: str, **changes: object) -> WorktreeStatus:
    tree = WorktreeStatus(
        name, f"/w/{name}", f"feat/{name}", 12 * MIB, dirty_files=0, merged=True, in_use=False
    )
    return replace(tree, **changes)  # type: ignore[arg-type]


TREES = (
    a_worktree("a-1"),
    a_worktree("a-2", dirty_files=3),
    a_worktree("a-3", merged=False),
    a_worktree("a-4", in_use=True),
    a_worktree("a-5", bytes=30 * MIB),
)
FLEET = a_snapshot(an_agent(1))


def ticked(run: Driven) -> frozenset[str]:
    screen = run.panel.screen
    assert isinstance(screen, WorktreesScreen)
    return screen.table.marks


async def test_only_what_loses_nothing_is_ticked_and_can_be() -> None:
    async with driven(FLEET, questions=Answers(*TREES)) as run:
        await run.press("W")
        await run.shows("2 ticked, 42M")
        assert ticked(run) == {"a-1", "a-5"}
        for why in ("3 uncommitted files", "commits that base has not", "stays: in use"):
            assert why in run.screen
        await run.press("j", "space")
        await run.shows("a-2 stays: 3 uncommitted files")
        assert ticked(run) == {"a-1", "a-5"}
        await run.press("g", "space")
        assert ticked(run) == {"a-5"}
        await run.press("asterisk")
        assert ticked(run) == {"a-1", "a-5"}


async def test_what_git_could_not_say_is_said_to_be_unknown_and_never_ticked() -> None:
    broken = a_worktree("a-1", merged=False, unknown="git status: bad index")
    async with driven(FLEET, questions=Answers(broken)) as run:
        await run.press("W")
        await run.shows("stays: not known: git status: b")
        assert "commits that base has not" not in run.screen
        await run.press("space")
        await run.shows("a-1 stays: not known: git status: bad index")
        assert ticked(run) == frozenset()


async def test_removing_asks_first_and_names_every_target() -> None:
    async with driven(FLEET, questions=Answers(*TREES)) as run:
        await run.press("W")
        await run.shows("2 ticked")
        await run.press("X")
        await run.shows("Remove 2 worktrees?")
        assert "feat/a-1" in run.screen
        assert "feat/a-5" in run.screen
        await run.press("enter", "escape")
        assert run.asked == []
        await run.press("X", "X")
        assert run.asked == [RemoveWorktrees(("a-1", "a-5"))]


async def test_what_was_removed_goes_once_a_snapshot_says_so() -> None:
    answers = Answers(*TREES)
    async with driven(FLEET, questions=answers) as run:
        await run.press("W")
        await run.shows("30M")
        answers.trees = TREES[:4]
        await run.publish(a_snapshot(an_agent(1, worktree_path="")))
        await run.until(lambda: "30M" not in run.screen)
        assert ticked(run) == {"a-1"}


async def test_a_worktree_of_a_hostile_name_is_only_text() -> None:
    trees = [a_worktree(bad, branch=bad, in_use=True) for bad in ATTACKS.values()]
    async with driven(FLEET, questions=Answers(*trees), size=(160, 60)) as run:
        await run.press("W")
        await run.shows("stays: in use")
        await run.press("space")
        assert not [sequence for sequence in FORBIDDEN if sequence in run.screen]


async def test_a_read_only_panel_looks_at_worktrees_and_removes_none() -> None:
    async with driven(FLEET, questions=Answers(*TREES), read_only=True) as run:
        await run.press("W")
        await run.shows("2 ticked")
        await run.press("X", "X", "y")
        assert run.asked == []
