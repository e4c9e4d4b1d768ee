"""A uvicorn server that nobody's asking leaves asleep: its own loop wakes ten times a second."""

import asyncio
import contextlib

import uvicorn

DATE_S = 1.0
"""How often the time that answers tell is renewed."""


class QuietServer(uvicorn.Server):
    """Serves until `ending` is set; `should_exit` it sees within a second."""

    def __init__(self, config: uvicorn.Config, ending: asyncio.Event) -> None:
        super().__init__(config)
        self._ending = ending

    async def main_loop(self) -> None:
        # A tick of number 0 is one that renews the date.
        while not (await self.on_tick(0) or self._ending.is_set()):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DATE_S):
                    await self._ending.wait()
