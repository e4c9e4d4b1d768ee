"""An assistant that says what a test wants it to say."""

import asyncio
from collections.abc import AsyncIterator

from autocoder.core.assistant import Said
from autocoder.core.errors import RefusedError
from autocoder.core.events import Event, Finished, Outcome
from autocoder.core.models import Agent


class ScriptedAssistance:
    """Every answer is the same events; without any it has no program to talk to."""

    def __init__(self, *events: Event, said: tuple[Said, ...] = (), ends: bool = True) -> None:
        self.asked: list[str] = []
        self.about: list[str] = []
        self.closed = 0
        self.cost_usd = 0.42
        self._events = events
        self._said = said
        self._ends = ends
        self._interrupted = asyncio.Event()

    def history(self) -> tuple[Said, ...]:
        return self._said

    def converse(self, agent: Agent | None) -> "ScriptedAssistance":
        if not self._events:
            raise RefusedError("the assistant needs the Claude Agent SDK", "pip install it")
        self.about.append(agent.agent_id if agent else "")
        return self

    async def ask(self, text: str) -> AsyncIterator[Event]:
        self.asked.append(text)
        for event in self._events:
            yield event
        if self._ends:
            yield Finished(Outcome.SUCCESS)
        else:
            await self._interrupted.wait()
            yield Finished(Outcome.INTERRUPTED, "interrupted")

    async def interrupt(self) -> None:
        self._interrupted.set()

    async def close(self) -> None:
        self.closed += 1
        await asyncio.sleep(0)  # as a program that takes its time to end
