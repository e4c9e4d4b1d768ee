"""The latest snapshot, handed from the engine's thread to whoever waits in the API's loop.

Only the latest: a slow reader skips what it missed, and costs the engine nothing.
"""

import asyncio
from collections.abc import AsyncIterator

from autocoder.core.models import Snapshot

SHORTEST_PAUSE_S = 0.1
"""A reader is told no more often than this."""


class Feed:
    def __init__(self) -> None:
        self._latest: Snapshot | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        self.ended = False
        """No more will come; streams end."""

    @property
    def latest(self) -> Snapshot | None:
        return self._latest

    def publish(self, snapshot: Snapshot) -> None:
        """Safe from any thread; never waits."""
        self._latest = snapshot
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._tell)

    def attach(self) -> None:
        """Let readers of the running event loop be told from now on."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def end(self) -> None:
        """End every stream; called in the loop."""
        self.ended = True
        self._tell()

    async def next_after(
        self, seen: Snapshot | None, timeout_s: float | None = None
    ) -> Snapshot | None:
        """The latest snapshot once it is another than `seen`; None where none came in time."""
        assert self._changed is not None
        try:
            async with asyncio.timeout(timeout_s):
                while not self.ended and (self._latest is None or self._latest is seen):
                    await self._changed.wait()
        except TimeoutError:
            return None
        return None if self.ended else self._latest

    async def stream(self, heartbeat_s: float) -> AsyncIterator[Snapshot | None]:
        """Every new snapshot there is time for; None where `heartbeat_s` passed without one."""
        seen: Snapshot | None = None
        while True:
            snapshot = await self.next_after(seen, heartbeat_s)
            if self.ended:
                return
            yield snapshot
            if snapshot is not None:
                seen = snapshot
                await asyncio.sleep(SHORTEST_PAUSE_S)

    def _tell(self) -> None:
        # Wakes everybody who waits, and is unset again for those who come later.
        assert self._changed is not None
        self._changed.set()
        self._changed = asyncio.Event()
