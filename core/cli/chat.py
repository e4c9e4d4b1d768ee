"""`autocoder chat`: the assistant in a terminal, line by line."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocoder.core.cli.options import ProjectOption, opened
from autocoder.core.cli.output import guarded
from autocoder.core.logs import sanitise

if TYPE_CHECKING:
    from autocoder.core.assistant import Assistant
    from autocoder.core.models import Agent
    from autocoder.core.settings import Settings


def chat(
    message: Annotated[
        str | None, typer.Argument(help="Ask this and end; without it, a conversation.")
    ] = None,
    project_dir: ProjectOption = Path(),
    agent: Annotated[
        str | None, typer.Option("--agent", help="The agent the questions are about.")
    ] = None,
    new: Annotated[bool, typer.Option("--new", help="Leave the earlier conversation.")] = False,
) -> None:
    """Talk about the project with an assistant that knows the backlog and an agent's ports.

    It reads files and changes none. An empty line or Ctrl-D ends it; Ctrl-C ends an answer.

    \b
    Examples:
      autocoder chat
      autocoder chat --agent a-0f32 "Why does its page not load?"
    """
    with guarded():
        # SQL costs most of a second: not for --help.
        from autocoder.core.assistant import Assistant

        folder, settings = opened(project_dir)
        about = _agent(folder, settings, agent) if agent else None
        assistant = Assistant(folder, settings, about, new=new)
        failed = asyncio.run(_talk(assistant, message))
    if failed:
        raise typer.Exit(1)


def _agent(project_dir: Path, settings: "Settings", agent_id: str) -> "Agent":
    """The agent of that id, live or ended. Raises `UsageError` where there never was one."""
    from autocoder.core.models import Agent
    from autocoder.core.settings import database_path
    from autocoder.core.store import ProjectStore

    store = ProjectStore(database_path(settings, project_dir))
    try:
        record = store.agent(agent_id)
    finally:
        store.close()
    return Agent(
        agent_id=record.agent_id,
        state=record.state,
        feature_id=record.feature_id or 0,
        feature=record.feature,
        backend=record.backend,
        worktree_path=record.worktree_path,
        branch=record.branch,
        api_port=record.api_port,
        web_port=record.web_port,
    )


async def _talk(assistant: "Assistant", message: str | None) -> bool:
    """Whether the last answer failed."""
    failed = False
    try:
        if message is not None:
            return await _answer(assistant, message)
        while (question := await asyncio.to_thread(_question)) is not None:
            failed = await _answer(assistant, question)
    finally:
        await assistant.close()
    return failed


def _question() -> str | None:
    """The next line of the human, None at the end; all of the input where it is no terminal."""
    if not sys.stdin.isatty():
        return sys.stdin.read().strip() or None
    try:
        return input("> ").strip() or None
    except EOFError:
        return None


async def _answer(assistant: "Assistant", question: str) -> bool:
    from autocoder.core.events import Finished, Outcome, Retry, Text, ToolStart, Warned

    failed = False
    write = _Writer(sys.stdout.write)
    with _interruptible(assistant):
        async for event in assistant.ask(question):
            match event:
                case Text(text):
                    write.text(text)
                case ToolStart():
                    write.line(f"  [{event.tool}] {event.detail}")
                case Retry() | Warned():
                    write.line(f"  {event.reason if isinstance(event, Retry) else event.text}")
                case Finished(outcome, reason):
                    failed = outcome is Outcome.FAILED
                    if outcome is not Outcome.SUCCESS:
                        write.line(f"  {reason}")
    write.line("")
    if sys.stdout.isatty():
        write.line(f"  (${assistant.cost_usd:.2f} so far)")
    return failed


class _Writer:
    """Prints what comes in pieces, each line sanitised: a model repeats what files say."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._held = ""

    def text(self, piece: str) -> None:
        *lines, self._held = (self._held + piece).split("\n")
        for line in lines:
            self._print(line)

    def line(self, text: str) -> None:
        if self._held:
            self._print(self._held)
            self._held = ""
        for part in text.splitlines():
            self._print(part)

    def _print(self, line: str) -> None:
        self._write(sanitise(line) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def _interruptible(assistant: "Assistant") -> Iterator[None]:
    """Ctrl-C ends the answer, not the conversation."""
    loop = asyncio.get_running_loop()
    asked: set[asyncio.Task[None]] = set()

    def interrupt() -> None:
        asked.add(loop.create_task(assistant.interrupt()))

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
