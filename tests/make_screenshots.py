"""Draws screenshots/ from the real panel, on a demo project with its agents at work."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from autocoder.core.composition import make_demo, open_engine
from autocoder.core.models import Listener, Snapshot
from autocoder.core.settings import load_settings
from autocoder.tui.app import Departure, Panel

OUT = Path(__file__).parents[1] / "screenshots"
PATIENCE_S = 120
SIZE = (140, 40)


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="autocoder-screenshots-") as folder:
        project = make_demo(Path(folder))
        environ = os.environ | {"AUTOCODER_LEDGER_URL": f"sqlite:///{folder}/ledger.db"}
        chosen: dict[str, object] = {"parallel": 6, "scripted.step_s": 1.5}
        settings = load_settings(project, environ=environ, cli=chosen)
        panel = Panel(lambda: open_engine(project, settings), project.name)
        try:
            async with panel.run_test(size=SIZE) as pilot:
                await draw_all(panel, pilot)
        finally:
            panel.stop_engine()


async def draw_all(panel: Panel, pilot: Pilot[Departure]) -> None:
    await until(panel, pilot, is_busy)
    await pilot.press("g")
    await pilot.pause(1)
    draw(panel, "overview")
    await pilot.press("Q", "Q")
    await until(panel, pilot, lambda seen: not any(agent.live for agent in seen.agents))


def is_busy(seen: Snapshot) -> bool:
    """Done, failed, serving and waiting agents, all at once."""
    serving = [agent for agent in seen.agents if agent.web_listener is Listener.OWN]
    return seen.features.done >= 2 and len(serving) >= 2 and bool(seen.features.pending)


async def until(
    panel: Panel, pilot: Pilot[Departure], condition: Callable[[Snapshot], bool]
) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while panel.snapshot is None or not condition(panel.snapshot):
        if time.monotonic() > deadline:
            raise SystemExit("the demo never became what the screenshot is to show")
        await pilot.pause(0.05)
    await pilot.pause()


def draw(panel: Panel, name: str) -> None:
    OUT.mkdir(exist_ok=True)
    (OUT / f"{name}.svg").write_text(panel.export_screenshot(title="autocoder-tui"), "utf-8")


if __name__ == "__main__":
    # Textual's test harness ignores signals a terminal would send.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asyncio.run(main())
