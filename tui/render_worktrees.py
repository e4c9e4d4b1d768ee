"""What the clean-up of worktrees says: what each holds, and whether anything would be lost."""

from collections.abc import Collection, Sequence

from autocoder.core.logs import sanitise
from autocoder.core.models import WorktreeStatus
from autocoder.tui.columns import NO_VALUE, Column
from autocoder.tui.palette import Tone
from autocoder.tui.spans import Line, counted, size


def worktree_key(worktree: WorktreeStatus) -> str:
    return worktree.agent_id


def why_it_stays(worktree: WorktreeStatus) -> str:
    """What keeps it; empty when nothing would be lost."""
    if worktree.in_use:
        return "in use"
    if worktree.unknown:
        return f"not known: {sanitise(worktree.unknown)}"
    if worktree.dirty_files:
        return counted(worktree.dirty_files, "uncommitted file")
    return "" if worktree.merged else "commits that base has not"


def _stays(worktree: WorktreeStatus, _now: float) -> Line:
    why = why_it_stays(worktree)
    return ((f"stays: {why}", Tone.DIM),) if why else (("can go", Tone.GOOD),)


UNKNOWN: Line = (("?", Tone.WARN),)
"""Git could not be asked."""

WORKTREE_COLUMNS: tuple[Column[WorktreeStatus], ...] = (
    Column(
        "agent",
        "agent",
        lambda worktree, _: ((sanitise(worktree.agent_id), Tone.STRONG),),
        7,
        16,
        natural=True,
    ),
    Column(
        "size",
        "size",
        lambda worktree, _: ((size(worktree.bytes), Tone.PLAIN),),
        5,
        right=True,
        order=lambda worktree: -worktree.bytes,
    ),
    Column(
        "dirty",
        "uncommitted",
        lambda worktree, _: (
            UNKNOWN
            if worktree.unknown
            else ((f"±{worktree.dirty_files}", Tone.WARN),)
            if worktree.dirty_files
            else NO_VALUE
        ),
        11,
        right=True,
        order=lambda worktree: -worktree.dirty_files,
    ),
    Column(
        "merged",
        "merged",
        lambda worktree, _: (
            UNKNOWN
            if worktree.unknown
            else (("✓ yes", Tone.PLAIN),)
            if worktree.merged
            else (("no", Tone.WARN),)
        ),
        6,
    ),
    Column(
        "use",
        "in use",
        lambda worktree, _: (("● yes", Tone.GOOD),) if worktree.in_use else NO_VALUE,
        6,
    ),
    Column("stays", "", _stays, 22, 32),
    Column(
        "branch",
        "branch",
        lambda worktree, _: (
            ((sanitise(worktree.branch), Tone.DIM),) if worktree.branch else NO_VALUE
        ),
        12,
        200,
        worth=5,
    ),
)
LOOKING: tuple[Line, ...] = ((), (("   looking at the disk …", Tone.DIM),))
NO_WORKTREES: tuple[Line, ...] = (
    (),
    (("   No worktree of ours is on disk.", Tone.PLAIN),),
    (("   An agent that starts gets one of its own.", Tone.DIM),),
)


def worktrees_title(worktrees: Sequence[WorktreeStatus], ticked: Collection[str]) -> Line:
    """How many there are and how large, and what removing the ticked ones would give back."""
    gained = sum(each.bytes for each in worktrees if each.agent_id in ticked)
    return (
        (" worktrees ", Tone.STRONG),
        (f"   {len(worktrees)}, {size(sum(each.bytes for each in worktrees))}B", Tone.DIM),
        (f"    {len(ticked)} ticked, {size(gained)}B", Tone.ACCENT if ticked else Tone.DIM),
    )


def removal_lines(worktrees: Sequence[WorktreeStatus]) -> tuple[Line, ...]:
    """What is about to be removed, and that nothing is lost with it."""
    wide = max((len(each.agent_id) for each in worktrees), default=0)
    lines: list[Line] = [
        (
            (f"    {sanitise(each.agent_id).ljust(wide)}  ", Tone.STRONG),
            (f"{size(each.bytes):>5}  ", Tone.DIM),
            (sanitise(each.branch), Tone.PLAIN),
        )
        for each in worktrees
    ]
    return (*lines, (), (("    Base has every commit of theirs.", Tone.DIM),))
