"""The claude backend: one conversation of the Claude Agent SDK, on one feature.

A process of its own under the worker, which ends everything it leaves. Every shell
command and every path of a file tool passes the policy before it is used.
"""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from claude_agent_sdk import (
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    HookContext,
    HookInput,
    HookJSONOutput,
    HookMatcher,
    ResultMessage,
    SystemMessage,
)

from autocoder.core import telling
from autocoder.core.backends.claude_messages import MessageReader, outcome_of
from autocoder.core.backends.in_process import sdk_feature_server
from autocoder.core.backends.reporting import Reporter
from autocoder.core.backends.run import Run, read_run
from autocoder.core.errors import AutocoderError
from autocoder.core.events import (
    Event,
    Finished,
    Iteration,
    Outcome,
    Retry,
    Started,
    Told,
    Warned,
)
from autocoder.core.mcp_server import Caller
from autocoder.core.mcp_servers import FEATURES
from autocoder.core.models import PortRange
from autocoder.core.policy import Scope, refusal, refuse_path
from autocoder.core.probe import descendants, local_kernel
from autocoder.core.store import ProjectStore

TOOLS = (
    *("Bash", "BashOutput", "KillShell", "TaskStop", "Monitor"),
    *("Read", "Write", "Edit", "NotebookEdit", "Glob", "Grep"),
    *("TodoWrite", "Task", "Agent", "Skill", "WebFetch", "WebSearch"),
)
"""The built-in tools an agent has; those that ask a human or leave the worktree are not."""

LARGEST_MESSAGE = 32 << 20
"""Bytes; a tool may return a screenshot or a long file."""
INTERRUPT_GRACE_S = 3.0
TELL_POLL_S = 0.25
EXIT_CODES = {Outcome.SUCCESS: 0, Outcome.FAILED: 1, Outcome.INTERRUPTED: 130}
HOPELESS = (401, 403)
"""What the model's service answers to a wrong credential; trying for minutes mends none."""


class Conversation:
    """One client, from its first prompt to the outcome."""

    def __init__(self, run: Run, reporter: Reporter) -> None:
        self._run = run
        self._report = reporter.report
        self._session = run.resume_id or str(uuid.uuid4())
        self._stopping = asyncio.Event()
        self._reader = MessageReader()
        self._hopeless = ""
        self._client: ClaudeSDKClient

    async def hold(self) -> Finished:
        """Work until the feature is committed, the iterations are used up, or it fails."""
        run = self._run
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        prompt = run.prompt
        await self._connect()
        for iteration in range(1, run.max_iterations + 1):
            self._report(Iteration(iteration, run.max_iterations))
            finished = await self._exchange(prompt)
            if finished.outcome is not Outcome.SUCCESS:
                return finished
            missing = uncommitted_work(run)
            if not missing:
                return finished
            prompt = (
                f"You have ended, but {missing}. Only what is committed on your branch counts. "
                "Finish the feature, run its tests and commit; or say in one line what keeps "
                "you from it."
            )
        return Finished(Outcome.SUCCESS)

    async def _connect(self) -> None:
        run = self._run
        store = ProjectStore(run.database) if run.database is not None else None
        if run.resume_id:
            self._client = ClaudeSDKClient(await self._options(store, resume=True))
            try:
                await self._client.connect()
            except ClaudeSDKError as error:
                self._report(Warned(f"begins anew, as the earlier conversation is gone: {error}"))
                self._session = str(uuid.uuid4())
            else:
                self._report(Started("claude", run.model, self._session, resumed=True))
                return
        # Written before anything is asked, so that even a crash at once can be resumed.
        self._report(Started("claude", run.model, self._session))
        self._client = ClaudeSDKClient(await self._options(store, resume=False))
        await self._client.connect()

    async def _exchange(self, prompt: str) -> Finished:
        """One prompt and its answer, with whatever a human tells meanwhile."""
        await self._client.query(prompt)
        while True:
            watcher = asyncio.create_task(self._watch())
            try:
                result = await self._answer()
            except ClaudeSDKError:
                # A signal to the process group ends the program before us.
                if not self._stopping.is_set():
                    raise
                return Finished(Outcome.INTERRUPTED, "interrupted")
            finally:
                watcher.cancel()
            if self._stopping.is_set():
                return Finished(Outcome.INTERRUPTED, "interrupted")
            if self._hopeless:
                return Finished(Outcome.FAILED, self._hopeless)
            messages = telling.take(self._run.folder)
            if messages:
                for text in messages:
                    self._report(Told(text))
                await self._client.query(_from_human(messages))
                continue
            return outcome_of(result)

    async def _watch(self) -> None:
        """Interrupt the model once: when asked to stop, or when there is something to tell."""
        while not (self._stopping.is_set() or telling.waits(self._run.folder)):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), TELL_POLL_S)
        with contextlib.suppress(ClaudeSDKError):
            await self._client.interrupt()
        if self._stopping.is_set():
            # The client may have ended by the same signal; nobody would answer then.
            await asyncio.sleep(INTERRUPT_GRACE_S)
            leave(Finished(Outcome.INTERRUPTED, "interrupted"), self._report)

    async def _answer(self) -> ResultMessage:
        async for message in self._client.receive_response():
            for event in self._reader.events(message):
                self._report(event)
                if isinstance(event, Retry) and isinstance(message, SystemMessage):
                    await self._despair(event, message.data.get("error_status"))
            if isinstance(message, ResultMessage):
                return message
        raise ClaudeSDKError("the claude program ended without a result")

    async def _despair(self, again: Retry, status: object) -> None:
        if status in HOPELESS and again.attempt > 1 and not self._hopeless:
            self._hopeless = f"the model's service refuses the credential: {again.reason}"
            await self._client.interrupt()

    # -- what the client may do

    async def _options(self, store: ProjectStore | None, *, resume: bool) -> ClaudeAgentOptions:
        run = self._run
        servers: dict[str, Any] = {
            name: {"type": "stdio", **entry} for name, entry in run.mcp_servers.items()
        }
        if store is not None:
            caller = Caller.from_environment(os.environ, run.worktree)
            caller = replace(caller, start_commit=run.start_commit)
            servers[FEATURES] = await sdk_feature_server(store, caller, run.project_dir)
        return ClaudeAgentOptions(
            cwd=run.worktree,
            tools=list(TOOLS),
            allowed_tools=[*TOOLS, *(f"mcp__{name}" for name in servers)],
            # Denies what is not listed, works as root, and never waits for a human.
            permission_mode="dontAsk",
            hooks={
                "PreToolUse": [HookMatcher(hooks=[self._before_tool], on_failure="block")],
            },
            system_prompt={"type": "preset", "preset": "claude_code"},
            setting_sources=["user", "project"],
            mcp_servers=servers,
            strict_mcp_config=True,
            model=run.model or None,
            max_turns=run.max_turns,
            max_budget_usd=run.budget_usd,
            session_id=None if resume else self._session,
            resume=self._session if resume else None,
            include_partial_messages=True,
            max_buffer_size=LARGEST_MESSAGE,
            # A feature may quote "@/path" or begin with a slash: it is text, not an order.
            verbatim_prompts=True,
            stderr=lambda line: self._report(Warned(line)),
            env={"CLAUDE_CODE_TMPDIR": os.environ.get("TMPDIR", ""), "DISABLE_AUTOUPDATER": "1"},
        )

    async def _before_tool(
        self, given: HookInput, _id: str | None, _context: HookContext
    ) -> HookJSONOutput:
        if given["hook_event_name"] != "PreToolUse":
            return {}
        why = self._refusal(given["tool_name"], given["tool_input"])
        if why is None:
            return {}
        self._report(Warned(f"refused: {why}"))
        return {
            "hookSpecificOutput": {
                "hookEventName": "PreToolUse",
                "permissionDecision": "deny",
                "permissionDecisionReason": why,
            }
        }

    def _refusal(self, tool: str, given: Mapping[str, Any]) -> str | None:
        if tool in ("Bash", "Monitor"):
            return refusal(str(given.get("command") or ""), scope_of(self._run))
        for argument in ("file_path", "notebook_path", "path"):
            if isinstance(given.get(argument), str) and not tool.startswith("mcp__"):
                return refuse_path(given[argument], scope_of(self._run))
        return None


def scope_of(run: Run) -> Scope:
    """What is this agent's own at this moment."""
    kernel = local_kernel()

    @functools.cache
    def own() -> frozenset[int]:
        # The worker is our parent; whatever lives below it is this agent's, but for us.
        ours = {os.getpid(), os.getppid()}
        return frozenset(descendants(kernel.processes(), os.getppid()) - ours)

    worktrees = run.worktree.parent
    return Scope(
        api_port=run.api_port,
        web_port=run.web_port,
        pools=tuple(PortRange(*span) for span in run.pools),
        worktree=run.worktree,
        project_dir=run.project_dir,
        worktrees=worktrees if worktrees.name == f"{run.project_dir.name}-worktrees" else None,
        base=run.base,
        own_folders=(
            Path(os.environ.get("TMPDIR") or run.folder / "tmp"),
            run.folder / "browser",
        ),
        variables={
            name: os.environ[name] for name in ("HOME", "TMPDIR", "USER") if name in os.environ
        },
        is_own_process=lambda pid: pid in own(),
        listener_pids=lambda port: [found.pid for found in kernel.listeners().get(port, ())],
    )


def uncommitted_work(run: Run) -> str:
    """What the agent has not committed, for a sentence; empty where all is as it should be."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=run.worktree,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    if git("status", "--porcelain"):
        return "there are changes that are not committed"
    if run.start_commit and git("rev-list", "--count", f"{run.start_commit}..HEAD") == "0":
        return "there is no commit on your branch"
    return ""


def _from_human(messages: list[str]) -> str:
    told = "\n\n".join(messages)
    return f"The person who runs you says:\n\n{told}\n\nTake it into account and go on."


def leave(finished: Finished, report: Callable[[Event], None]) -> NoReturn:
    """End this process at once: its worker ends what it started, and waits for none of it."""
    report(finished)
    os._exit(EXIT_CODES[finished.outcome])


async def held(run: Run, reporter: Reporter) -> NoReturn:
    try:
        finished = await Conversation(run, reporter).hold()
    except ClaudeSDKError as error:
        finished = Finished(Outcome.FAILED, str(error).splitlines()[0])
    except AutocoderError as error:
        finished = Finished(Outcome.FAILED, error.message)
    # From within the loop: closing the client would wait for servers the agent left running.
    leave(finished, reporter.report)


def main(arguments: list[str]) -> NoReturn:
    run_file = Path(arguments[0])
    reporter = Reporter(run_file.parent)
    try:
        run = read_run(run_file, os.environ)
    except AutocoderError as error:
        leave(Finished(Outcome.FAILED, error.message), reporter.report)
    asyncio.run(held(run, reporter))
    raise AssertionError("held never returns")


if __name__ == "__main__":
    main(sys.argv[1:])
