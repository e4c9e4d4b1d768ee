"""Makes `screenshots/` anew: the real panel on a real, busy demo with scripted agents.

Usage: make_screenshots.py [NAME ...]; every picture is an SVG of what a terminal shows.
"""

import asyncio
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from autocoder.core.commands import StopAll
from autocoder.core.composition import make_demo, open_engine, open_questions
from autocoder.core.models import AgentState, Listener, Snapshot
from autocoder.core.settings import load_settings
from autocoder.tui.app import Departure, Panel
from autocoder.tui.render_agents import problems
from autocoder.tui.screens.main import MainScreen

FOLDER = Path(__file__).resolve().parent.parent / "screenshots"
WIDE, PHONE = (140, 40), (60, 32)
PICTURES: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "problems": (WIDE, ("exclamation_mark",)),
    "recover": ((120, 34), ("R",)),
    "overview": (WIDE, ()),
    "ports": ((130, 30), ("P",)),
    "wall": ((160, 44), ("v",)),
    "kill": ((120, 34), ("X",)),
    "phone": (PHONE, ()),
}
"""Size and keys of each, the cursor first being on an agent that serves."""


def busy(snapshot: Snapshot | None) -> bool:
    """Worth a picture: most agents serve, something went wrong, something is done."""
    if snapshot is None:
        return False
    serving = sum(agent.api_listener is Listener.OWN for agent in snapshot.agents)
    states = {agent.state for agent in snapshot.agents}
    wrong = states & {AgentState.CRASHED, AgentState.FAILED}
    return serving >= 3 and bool(wrong) and snapshot.features.done >= 1


def troubled(snapshot: Snapshot | None) -> bool:
    """Several agents need a human, for the few seconds before the demo tries again."""
    return snapshot is not None and len(problems(snapshot)) >= 2


def recoverable(snapshot: Snapshot | None) -> bool:
    """An agent has crashed, and nobody has gone on with its work yet."""
    return snapshot is not None and bool(snapshot.recovery)


WORTH = {"problems": troubled, "recover": recoverable}


async def until(pilot: Pilot[Departure], condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await pilot.pause(0.1)
    return True


async def take(name: str) -> None:
    """On a demo of its own: one that has gone on too far shows nothing of the kind any more."""
    with tempfile.TemporaryDirectory(prefix="autocoder-screenshots-") as home:
        os.environ["AUTOCODER_LEDGER_URL"] = f"sqlite:///{home}/ledger.db"
        project = make_demo(Path(home))
        cli = {"parallel": 6, "scripted.step_s": 0.8, "limits.retry_s": 8}
        settings = load_settings(project, environ=os.environ, cli=cli)
        panel = Panel(
            lambda: open_engine(project, settings),
            project.name,
            open_questions=lambda: open_questions(project, settings),
        )
        try:
            async with panel.run_test(size=PICTURES[name][0]) as pilot:
                try:
                    await take_one(panel, pilot, name)
                finally:
                    panel.submit(StopAll())
                    await until(pilot, lambda: not any_live(panel.snapshot), 60)
        finally:
            panel.stop_engine()


async def take_one(panel: Panel, pilot: Pilot[Departure], name: str) -> None:
    wanted = WORTH.get(name, busy)
    if not await until(pilot, lambda: wanted(panel.snapshot), 60):
        sys.exit(f"the demo had nothing to show for {name} within a minute")
    go_to_one_that_serves(panel)
    await pilot.press(*PICTURES[name][1])
    await pilot.pause(0.7)
    (FOLDER / f"{name}.svg").write_text(picture(panel), "utf-8")
    sys.stderr.write(f"screenshots/{name}.svg\n")
    await pilot.press("escape")


def go_to_one_that_serves(panel: Panel) -> None:
    screen, agents = panel.screen, panel.snapshot.agents if panel.snapshot else ()
    serving = (agent.agent_id for agent in agents if agent.api_listener is Listener.OWN)
    if isinstance(screen, MainScreen) and (found := next(serving, None)):
        screen.grid.go_to(found)


def any_live(snapshot: Snapshot | None) -> bool:
    return snapshot is not None and any(agent.live for agent in snapshot.agents)


def picture(panel: Panel) -> str:
    """The screen as SVG, in whatever monospaced font the viewer has."""
    svg = panel.export_screenshot(title="autocoder-tui")
    svg = re.sub(r"@font-face\s*{[^}]*}\s*", "", svg)
    return svg.replace("<svg ", '<svg xml:space="preserve" ', 1)


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - PICTURES.keys()
    if unknown:
        sys.exit(f"no such picture: {', '.join(sorted(unknown))}; known: {', '.join(PICTURES)}")
    FOLDER.mkdir(exist_ok=True)
    for wanted in sys.argv[1:] or PICTURES:
        asyncio.run(take(wanted))
