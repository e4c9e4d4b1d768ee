"""The assistant: a conversation about the project, with the feature tools and one agent's ports.

It reads files and never changes them. The conversation is kept per project and gone on
with the next time; what was said stands in `assistant.jsonl`, so that a front end can
show it without asking the model's service.
"""

import contextlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autocoder.core.backends.choice import CLAUDE, CLAUDE_REMEDY, availability
from autocoder.core.errors import AutocoderError, RefusedError
from autocoder.core.events import Event, Outcome, Text, Usage
from autocoder.core.mcp_servers import ServedAgent, mcp_servers
from autocoder.core.models import Agent
from autocoder.core.port_config import DEFAULT_API_PORT, DEFAULT_WEB_PORT
from autocoder.core.prompts import render_prompt
from autocoder.core.settings import Settings, database_path

FOLDER = Path(".autocoder", "assistant")
HISTORY_FILE = "history.jsonl"
TOOLS = ("Read", "Glob", "Grep")
LARGEST_MESSAGE = 32 << 20
MOST_REMEMBERED = 500


class AssistantError(AutocoderError):
    """The model's service or its program does not answer; the conversation is unchanged."""


@dataclass(frozen=True, slots=True)
class Said:
    """One side's part of the conversation."""

    at: float
    by: str
    """human or assistant."""
    text: str
    about: str = ""
    """The agent that was selected."""
    conversation: str = ""
    cost_usd: float = 0.0
    """Of the conversation so far."""


def history(project_dir: Path) -> tuple[Said, ...]:
    """What was said in this project, oldest first, at most the latest 500 parts."""
    said: list[Said] = []
    with contextlib.suppress(OSError):
        for line in (project_dir / FOLDER / HISTORY_FILE).read_bytes().splitlines():
            # A line that was cut short by a full disk is one that was not said.
            with contextlib.suppress(ValueError, TypeError):
                said.append(Said(**json.loads(line)))
    return tuple(said[-MOST_REMEMBERED:])


class Assistant:
    """One front end's end of the conversation; used from one asyncio task at a time."""

    def __init__(
        self,
        project_dir: Path,
        settings: Settings,
        agent: Agent | None = None,
        *,
        new: bool = False,
    ) -> None:
        """About `agent`, or the project alone; `new` leaves the earlier conversation behind.

        Raises:
            RefusedError: the Claude Agent SDK is not installed; the hint says how to get it.
        """
        if not availability(CLAUDE, settings).usable:
            raise RefusedError("the assistant needs the Claude Agent SDK", CLAUDE_REMEDY)
        self._project_dir = project_dir
        self._settings = settings
        self._agent = agent
        self._folder = project_dir / FOLDER
        self._folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        earlier = () if new else history(project_dir)
        self._conversation = earlier[-1].conversation if earlier else ""
        self._client: Any = None
        self._reader: Any = None
        self.cost_usd = 0.0
        """Of the conversation so far, what earlier front ends spent included."""

    async def ask(self, text: str) -> AsyncIterator[Event]:
        """Events of the answer as it comes, `Text` in pieces; the last is `Finished`.

        Raises:
            AssistantError: the program ended or could not be started.
            UsageError: the prompt of the project's own cannot be filled.
        """
        # The SDK takes a second to import, and most runs never ask anything.
        from claude_agent_sdk import ClaudeSDKError, ResultMessage

        from autocoder.core.backends.claude_messages import outcome_of

        answer: list[str] = []
        try:
            if self._client is None:
                await self._connect()
            self._remember(Said(time.time(), "human", text, self._about, self._conversation))
            await self._client.query(text)
            async for message in self._client.receive_response():
                for event in self._reader.events(message):
                    if isinstance(event, Text):
                        answer.append(event.text)
                    elif isinstance(event, Usage):
                        self.cost_usd = max(self.cost_usd, event.cost_usd)
                    yield event
                if isinstance(message, ResultMessage):
                    finished = outcome_of(message)
        except ClaudeSDKError as error:
            await self.close()
            raise AssistantError(f"the assistant does not answer: {error}") from error
        reply = "".join(answer)
        if finished.outcome is Outcome.FAILED:
            reply = reply or finished.reason
        self._remember(
            Said(time.time(), "assistant", reply, self._about, self._conversation, self.cost_usd)
        )
        yield finished

    async def interrupt(self) -> None:
        """Let the answer under way end early."""
        if self._client is not None:
            await self._client.interrupt()

    async def close(self) -> None:
        """End the program; the conversation can be gone on with."""
        client, self._client = self._client, None
        if client is not None:
            await client.disconnect()

    @property
    def _about(self) -> str:
        return self._agent.agent_id if self._agent else ""

    async def _connect(self) -> None:
        from claude_agent_sdk import ClaudeSDKClient, ClaudeSDKError

        from autocoder.core.backends.claude_messages import MessageReader

        self._reader = MessageReader(pieces=True)
        if self._conversation:
            self._client = ClaudeSDKClient(self._options(resume=True))
            try:
                await self._client.connect()
            except ClaudeSDKError:
                # Its memory was cleared meanwhile; what was said is still in the history.
                self._client = None
            else:
                return
        self._conversation = str(uuid.uuid4())
        client = ClaudeSDKClient(self._options(resume=False))
        await client.connect()
        self._client = client

    def _options(self, *, resume: bool) -> Any:
        from claude_agent_sdk import ClaudeAgentOptions

        agent = self._agent
        served = ServedAgent(
            project_dir=self._project_dir,
            database=database_path(self._settings, self._project_dir),
            run_folder=self._folder,
            agent_id="",
            feature_id=None,
            api_port=(agent and agent.api_port) or DEFAULT_API_PORT,
            web_port=(agent and agent.web_port) or DEFAULT_WEB_PORT,
            about=self._about,
        )
        servers: dict[str, Any] = {
            name: {"type": "stdio", **entry}
            for name, entry in mcp_servers(served, browser=False).items()
        }
        worktree = agent.worktree_path if agent else ""
        return ClaudeAgentOptions(
            cwd=self._project_dir,
            add_dirs=[worktree] if worktree else [],
            tools=list(TOOLS),
            allowed_tools=[*TOOLS, *(f"mcp__{name}" for name in servers)],
            permission_mode="dontAsk",
            system_prompt=self._prompt(),
            setting_sources=["user", "project"],
            mcp_servers=servers,
            strict_mcp_config=True,
            model=self._settings.model or None,
            session_id=None if resume else self._conversation,
            resume=self._conversation if resume else None,
            include_partial_messages=True,
            max_buffer_size=LARGEST_MESSAGE,
            verbatim_prompts=True,
            stderr=lambda _: None,
            env={"DISABLE_AUTOUPDATER": "1"},
        )

    def _prompt(self) -> str:
        agent = self._agent
        values = {
            "project": self._project_dir.name,
            "agent_id": self._about,
            "feature_id": agent.feature_id if agent else "",
            "feature_name": agent.feature if agent else "",
            "worktree": agent.worktree_path if agent else "",
            "api_port": (agent and agent.api_port) or "",
            "web_port": (agent and agent.web_port) or "",
        }
        return render_prompt("assistant", values, self._project_dir)

    def _remember(self, said: Said) -> None:
        # The newline before it ends a line that a full disk once cut short.
        line = "\n" + json.dumps(asdict(said)) + "\n"
        with contextlib.suppress(OSError):  # a full disk ends no conversation
            path = self._folder / HISTORY_FILE
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with open(fd, "wb", buffering=0) as file:
                file.write(line.encode("utf-8", "replace"))
