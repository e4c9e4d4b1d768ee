"""A conversation with the assistant, in a thread and an asyncio loop of its own.

Its program is started, fed and ended there, so that nothing of it holds up a key.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

from autocoder.core.models import Agent

if TYPE_CHECKING:
    from autocoder.core.assistant import Said
    from autocoder.core.events import Event

END_S = 5.0


class Conversation(Protocol):
    @property
    def cost_usd(self) -> float:
        """Of the conversation so far."""

    def ask(self, text: str) -> "AsyncIterator[Event]": ...

    async def interrupt(self) -> None: ...

    async def close(self) -> None: ...


class Assistance(Protocol):
    """Where conversations about one project come from; asked in the thread."""

    def history(self) -> "tuple[Said, ...]":
        """What was said before, oldest first."""

    def converse(self, agent: Agent | None) -> Conversation:
        """Go on with the conversation. Raises `RefusedError` where there is no assistant."""


class AssistantThread:
    def __init__(self, assistance: Assistance, agent: Agent | None) -> None:
        self._assistance = assistance
        self._agent = agent
        self._conversation: Conversation | None = None
        self._asking: asyncio.Task[object] | None = None
        self._stopping = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="assistant", daemon=True)
        self._thread.start()

    def open(self, opened: "Callable[[Future[tuple[Said, ...]]], None]") -> None:
        """`opened` is called from the thread with what was said before, or why there is nobody."""
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).add_done_callback(opened)

    def ask(
        self,
        text: str,
        heard: "Callable[[Event], None]",
        ended: Callable[[Future[float]], None],
    ) -> None:
        """`heard` gets each event, `ended` the cost so far or what went wrong, from the thread."""
        answer = self._answer(text, heard)
        asyncio.run_coroutine_threadsafe(answer, self._loop).add_done_callback(ended)

    def interrupt(self) -> None:
        """Let the answer under way end early."""
        if self._conversation is not None:
            asyncio.run_coroutine_threadsafe(self._conversation.interrupt(), self._loop)

    def stop(self) -> None:
        """End the conversation's program and then the thread; does not wait for either.

        Once stopped, nothing more can be asked of it but to `join` it or to stop again.
        """
        if not self._stopping:
            self._stopping = True
            asyncio.run_coroutine_threadsafe(self._close(), self._loop)

    def join(self) -> None:
        """Wait for the end, as long as a program may take that is asked to end."""
        self._thread.join(END_S)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _open(self) -> "tuple[Said, ...]":
        said = self._assistance.history()
        self._conversation = self._assistance.converse(self._agent)
        return said

    async def _answer(self, text: str, heard: "Callable[[Event], None]") -> float:
        if self._conversation is None:
            self._conversation = self._assistance.converse(self._agent)
        self._asking = asyncio.current_task()
        async for event in self._conversation.ask(text):
            heard(event)
        return self._conversation.cost_usd

    async def _close(self) -> None:
        # Only the answer is cut short: the conversation ends the tasks that are its own.
        await _cancelled([self._asking] if self._asking else [])
        try:
            if self._conversation is not None:
                await self._conversation.close()
        finally:
            ours = asyncio.current_task()
            await _cancelled([each for each in asyncio.all_tasks() if each is not ours])
            self._loop.stop()


async def _cancelled(tasks: "Sequence[asyncio.Task[object]]") -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
