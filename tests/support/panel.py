"""The panel under a pilot, with a recording engine and a frozen clock."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from textual.pilot import Pilot

from autocoder.core.commands import Command
from autocoder.core.models import Snapshot
from autocoder.core.questions import Questions
from autocoder.tui.app import Departure, Panel
from autocoder.tui.assistant_thread import Assistance
from autocoder.tui.live_settings import LiveSettings
from support.fake_engine import RecordingEngine
from support.snapshots import NOW


@dataclass(slots=True)
class Driven:
    panel: Panel
    engine: RecordingEngine
    pilot: Pilot[Departure]

    @property
    def screen(self) -> str:
        """The text of the topmost screen."""
        strips = self.panel.screen._compositor.render_strips(self.panel.size)
        return "\n".join(strip.text.rstrip() for strip in strips)

    @property
    def asked(self) -> list[Command]:
        return self.engine.asked

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    async def type(self, text: str) -> None:
        await self.press(*("space" if char == " " else char for char in text))

    async def until(
        self, condition: Callable[[], object], what: str = "", *, seconds: float = 10
    ) -> None:
        """Let the panel work until `condition` is true; fails once `seconds` have passed."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"never: {what or condition}\n{self.screen}")
            await self.pilot.pause(0.01)
        await self.pilot.pause()

    async def shows(self, text: str, *, seconds: float = 10) -> None:
        await self.until(lambda: text in self.screen, f"{text!r} on the screen", seconds=seconds)

    async def publish(self, snapshot: Snapshot) -> None:
        """Publish, and return once it is what the panel shows."""
        self.engine.publish(snapshot)
        await self.until(lambda: self.panel.snapshot is snapshot, "the snapshot is taken")


@asynccontextmanager
async def driven(
    *snapshots: Snapshot,
    size: tuple[int, int] = (120, 36),
    clock: Callable[[], float] = lambda: NOW,
    read_only: bool = False,
    questions: Questions | None = None,
    assistance: Assistance | None = None,
    preferences: Path | None = None,
    settings: LiveSettings | None = None,
    settings_files: Sequence[Path] = (),
    error: Exception | None = None,
) -> AsyncIterator[Driven]:
    """A running panel that has taken the last of `snapshots`."""
    engine = RecordingEngine(*snapshots, error=error)
    panel = Panel(
        lambda: engine,
        "todo-app",
        open_questions=(lambda: questions) if questions else None,
        assistance=assistance,
        clock=clock,
        read_only=read_only,
        preferences=preferences,
        settings=settings,
        settings_files=settings_files,
    )
    try:
        async with panel.run_test(size=size) as pilot:
            run = Driven(panel, engine, pilot)
            if snapshots:
                await run.until(lambda: panel.snapshot is snapshots[-1], "the first snapshot")
            yield run
    finally:
        panel.stop_engine()
