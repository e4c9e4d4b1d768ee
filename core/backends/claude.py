"""The claude backend: one conversation of the Claude Agent SDK, on one feature.

A process of its own under the worker, which ends everything it leaves. What decides
how it went is the result's `is_error` and `terminal_reason`: the subtype says
"success" for a failed login too. Every shell command passes the policy first.
"""

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ClaudeSDKError,
    ContentBlock,
    HookContext,
    HookInput,
    HookJSONOutput,
    HookMatcher,
    Message,
    RateLimitEvent,
    ResultMessage,
    StreamEvent,
    SystemMessage,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    UserMessage,
)

from autocoder.core import telling
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
    Text,
    Told,
    ToolEnd,
    ToolStart,
    Usage,
    Warned,
)
from autocoder.core.mcp_server import Caller
from autocoder.core.mcp_servers import FEATURES
from autocoder.core.policy import Scope, refusal, refuse_path
from autocoder.core.probe import descendants, local_kernel
from autocoder.core.store import ProjectStore

TOOLS = (
    *("Bash", "BashOutput", "KillShell", "TaskStop", "Monitor"),
    *("Read", "Write", "Edit", "NotebookEdit", "Glob", "Grep"),
    *("TodoWrite", "Task", "Agent", "Skill", "WebFetch", "WebSearch"),
)
"""The built-in tools an agent has; those that ask a human or leave the worktree are not."""

PRESET_MODELS: Mapping[str, str] = {
    "quality": "opus",
    "balanced": "sonnet",
    "economy": "sonnet",
    "cheap": "haiku",
    "experimental": "opus",
}

LARGEST_MESSAGE = 32 << 20
"""Bytes; a tool may return a screenshot or a long file."""
INTERRUPT_GRACE_S = 3.0
TELL_POLL_S = 0.25
USAGE_EVERY_S = 1.0
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
        self._usage = _LiveUsage()
        self._tools: dict[str, str] = {}
        self._hopeless = ""
        self._client: ClaudeSDKClient

    async def hold(self) -> Finished:
        """Work until the feature is committed, the iterations are used up, or it fails."""
        run = self._run
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stopping.set)
        # Written before anything is asked, so that even a crash at once can be resumed.
        self._report(Started("claude", run.model, self._session, resumed=bool(run.resume_id)))
        prompt = run.prompt
        store = ProjectStore(run.database) if run.database is not None else None
        self._client = ClaudeSDKClient(await self._options(store, resume=bool(run.resume_id)))
        await self._client.connect()
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
            return _outcome(result)

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
            if isinstance(message, ResultMessage):
                self._report(self._usage.settled(message))
                return message
            await self._show(message)
        raise ClaudeSDKError("the claude program ended without a result")

    async def _show(self, message: Message) -> None:
        match message:
            case AssistantMessage(error=None):
                for block in message.content:
                    self._show_block(block)
            case UserMessage(content=list() as blocks):
                for block in blocks:
                    if isinstance(block, ToolResultBlock):
                        self._show_block(block)
            case StreamEvent():
                if (usage := self._usage.live(message.event)) is not None:
                    self._report(usage)
            case SystemMessage(subtype="api_retry", data=data):
                await self._retry(data)
            case SystemMessage(subtype="init", data=data):
                for server in data.get("mcp_servers", ()):
                    if server.get("status") == "failed":
                        self._report(Warned(f"the MCP server {server.get('name')} did not start"))
            case RateLimitEvent() if message.rate_limit_info.status != "allowed":
                self._report(Warned(f"rate limit: {message.rate_limit_info.status}"))

    def _show_block(self, block: ContentBlock) -> None:
        match block:
            case TextBlock(text=text) if text.strip():
                self._report(Text(text))
            case ToolUseBlock(id=id_, name=name, input=given):
                self._report(ToolStart(id_, name, _telling_argument(given)))
            case ToolResultBlock(tool_use_id=id_, content=content, is_error=is_error):
                self._report(ToolEnd(id_, not is_error, _plain(content)))

    async def _retry(self, data: Mapping[str, Any]) -> None:
        status, attempt = data.get("error_status"), int(data.get("attempt") or 0)
        reason = f"{data.get('error') or 'no answer'}" + (f" ({status})" if status else "")
        self._report(Retry(reason, attempt, float(data.get("retry_delay_ms") or 0) / 1000))
        if status in HOPELESS and attempt > 1 and not self._hopeless:
            self._hopeless = f"the model's service refuses the credential: {reason}"
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
        pools=run.pools,
        worktree=run.worktree,
        project_dir=run.project_dir,
        worktrees=worktrees if worktrees.name == f"{run.project_dir.name}-worktrees" else None,
        base=run.base,
        own_folders=(run.folder / "tmp", run.folder / "browser"),
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


class _LiveUsage:
    """Tokens of the run so far: what results have settled, and what streams meanwhile."""

    def __init__(self) -> None:
        self._input = self._output = self._turns = 0
        self._settled_input = self._settled_output = self._settled_turns = 0
        self._cost = 0.0
        self._message_output = 0
        self._reported_at = 0.0

    def live(self, event: Mapping[str, Any]) -> Usage | None:
        """The figures after a stream event, at most once a second."""
        match event.get("type"):
            case "message_start":
                usage = event.get("message", {}).get("usage") or {}
                self._input += _input_tokens(usage)
                self._turns += 1
                self._message_output = 0
            case "message_delta":
                written = int((event.get("usage") or {}).get("output_tokens") or 0)
                self._output += max(0, written - self._message_output)
                self._message_output = max(written, self._message_output)
            case _:
                return None
        now = time.monotonic()
        if now - self._reported_at < USAGE_EVERY_S:
            return None
        self._reported_at = now
        return Usage(self._input, self._output, self._cost, self._turns)

    def settled(self, result: ResultMessage) -> Usage:
        """The figures after a result; its cost is of the whole conversation already."""
        usage = result.usage or {}
        self._settled_input += _input_tokens(usage)
        self._settled_output += int(usage.get("output_tokens") or 0)
        self._settled_turns += result.num_turns
        self._input, self._output = self._settled_input, self._settled_output
        self._turns = self._settled_turns
        self._cost = max(self._cost, result.total_cost_usd or 0.0)
        return Usage(self._input, self._output, self._cost, self._turns)


def _input_tokens(usage: Mapping[str, Any]) -> int:
    kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(int(usage.get(kind) or 0) for kind in kinds)


def _outcome(result: ResultMessage) -> Finished:
    reason = result.terminal_reason or ""
    if reason.startswith("aborted"):
        return Finished(Outcome.INTERRUPTED, "interrupted")
    if not result.is_error and reason in ("", "completed"):
        return Finished(Outcome.SUCCESS)
    said = (result.result or "; ".join(result.errors or ()) or reason or result.subtype).strip()
    status = f" ({result.api_error_status})" if result.api_error_status else ""
    return Finished(Outcome.FAILED, f"{said.splitlines()[0][:300]}{status}")


def _from_human(messages: list[str]) -> str:
    told = "\n\n".join(messages)
    return f"The person who runs you says:\n\n{told}\n\nTake it into account and go on."


def _telling_argument(given: Mapping[str, Any]) -> str:
    for name in ("command", "file_path", "notebook_path", "pattern", "url", "query", "prompt"):
        if isinstance(given.get(name), str):
            return str(given[name])
    return ", ".join(f"{name}={value}" for name, value in given.items())


def _plain(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or f"({part.get('type')})") for part in content)
    return content or ""


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
