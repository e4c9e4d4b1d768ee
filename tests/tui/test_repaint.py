"""Claims about what is repainted: no line on the screen is older than what it tells of."""

import random
from dataclasses import replace

import pytest

from autocoder.core.models import Agent, AgentState, Listener, Snapshot
from support.panel import driven
from support.snapshots import a_busy_project, a_snapshot

KEYS = (
    *("j", "k", "G", "g", "space", "asterisk", "s", "S", "exclamation_mark", "w", "z", "pagedown"),
    *("T", "enter", "escape", "P", "v", "F", "tab", "f", "l", "t", "slash", "x", "ctrl+l"),
)
STEPS = 20


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_was_repainted_bit_by_bit_is_what_a_whole_repaint_shows(seed: int) -> None:
    chosen = random.Random(seed)
    busy = a_busy_project()
    done: list[str] = []
    async with driven(busy, size=(140, 36)) as run:
        for _ in range(STEPS):
            done.append(chosen.choice(KEYS))
            await run.press(done[-1])
            if chosen.random() < 0.7:
                await run.publish(a_changed(busy, chosen))
            shown = run.screen
            for widget in run.panel.screen.walk_children():
                widget.refresh()
            await run.pilot.pause()
            assert shown == run.screen, f"after {done}"


def a_changed(busy: Snapshot, chosen: random.Random) -> Snapshot:
    """The same project a while later: some agents are gone, others in another state."""
    kept = [an_altered(agent, chosen) for agent in busy.agents if chosen.random() < 0.8]
    notices = busy.notices[: chosen.randrange(len(busy.notices) + 1)]
    commit = f"{chosen.getrandbits(28):07x}"
    return a_snapshot(*kept, base_commit=commit, backlog=busy.backlog, notices=notices)


def an_altered(agent: Agent, chosen: random.Random) -> Agent:
    if not agent.live:
        return agent
    return replace(
        agent,
        state=chosen.choice((AgentState.ACTIVE, AgentState.STOPPING)),
        cpu_percent=float(chosen.randrange(400)),
        dirty_files=chosen.randrange(3),
        web_listener=chosen.choice(tuple(Listener)),
        problem=chosen.choice(("", "", "web is not its own")),
        last_line=f"line {chosen.randrange(1000)}",
    )
