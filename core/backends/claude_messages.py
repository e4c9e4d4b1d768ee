"""What the Claude Agent SDK says, as events; shared by agents and the assistant."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
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

from autocoder.core.events import (
    Event,
    Finished,
    Outcome,
    Retry,
    Text,
    ToolEnd,
    ToolStart,
    Usage,
    Warned,
)

USAGE_EVERY_S = 1.0


class MessageReader:
    """Turns the messages of one process into events; its usage is of the run so far."""

    def __init__(self, *, pieces: bool = False) -> None:
        """`pieces`: text comes as it is written, not when its block is whole."""
        self._pieces = pieces
        self._input = self._output = self._turns = 0
        self._settled_input = self._settled_output = self._settled_turns = 0
        self._cost = 0.0
        self._message_output = 0
        self._reported_at = 0.0

    def events(self, message: Message) -> Iterator[Event]:
        match message:
            # An error is repeated by the result, which also says its status.
            case AssistantMessage(error=None, content=blocks):
                for block in blocks:
                    match block:
                        case TextBlock(text=text) if text.strip() and not self._pieces:
                            yield Text(text)
                        case ToolUseBlock(id=id_, name=name, input=given):
                            yield ToolStart(id_, name, telling_argument(given))
            case UserMessage(content=list() as blocks):
                for block in blocks:
                    if isinstance(block, ToolResultBlock):
                        plain = _plain(block.content)
                        yield ToolEnd(block.tool_use_id, not block.is_error, plain)
            case StreamEvent(event=event, parent_tool_use_id=parent):
                yield from self._streamed(event, nested=parent is not None)
            case SystemMessage(subtype="api_retry", data=data):
                yield _retry(data)
            case SystemMessage(subtype="init", data=data):
                for server in data.get("mcp_servers", ()):
                    if server.get("status") == "failed":
                        yield Warned(f"the MCP server {server.get('name')} did not start")
            case RateLimitEvent() if message.rate_limit_info.status != "allowed":
                yield Warned(f"rate limit: {message.rate_limit_info.status}")
            case ResultMessage():
                yield self._settled(message)

    def _streamed(self, event: Mapping[str, Any], *, nested: bool) -> Iterator[Event]:
        match event.get("type"):
            case "content_block_delta" if self._pieces and not nested:
                text = (event.get("delta") or {}).get("text")
                if isinstance(text, str) and text:
                    yield Text(text)
                return
            case "message_start":
                self._input += _input_tokens(event.get("message", {}).get("usage") or {})
                self._turns += 1
                self._message_output = 0
            case "message_delta":
                written = int((event.get("usage") or {}).get("output_tokens") or 0)
                self._output += max(0, written - self._message_output)
                self._message_output = max(written, self._message_output)
            case _:
                return
        now = time.monotonic()
        if now - self._reported_at >= USAGE_EVERY_S:
            self._reported_at = now
            yield Usage(self._input, self._output, self._cost, self._turns)

    def _settled(self, result: ResultMessage) -> Usage:
        """Figures after a result; its cost is of the whole conversation already."""
        usage = result.usage or {}
        self._settled_input += _input_tokens(usage)
        self._settled_output += int(usage.get("output_tokens") or 0)
        self._settled_turns += result.num_turns
        self._input, self._output = self._settled_input, self._settled_output
        self._turns = self._settled_turns
        self._cost = max(self._cost, result.total_cost_usd or 0.0)
        return Usage(self._input, self._output, self._cost, self._turns)


def outcome_of(result: ResultMessage) -> Finished:
    """How it went: by `is_error` and `terminal_reason`, as the subtype of a failed login
    says "success" too."""
    reason = result.terminal_reason or ""
    if reason.startswith("aborted"):
        return Finished(Outcome.INTERRUPTED, "interrupted")
    if not result.is_error and reason in ("", "completed"):
        return Finished(Outcome.SUCCESS)
    said = (result.result or "; ".join(result.errors or ()) or reason or result.subtype).strip()
    status = f" ({result.api_error_status})" if result.api_error_status else ""
    return Finished(Outcome.FAILED, f"{said.splitlines()[0][:300]}{status}")


def telling_argument(given: Mapping[str, Any]) -> str:
    """The argument of a tool call that says most."""
    for name in ("command", "file_path", "notebook_path", "pattern", "url", "query", "prompt"):
        if isinstance(given.get(name), str):
            return str(given[name])
    return ", ".join(f"{name}={value}" for name, value in given.items())


def _retry(data: Mapping[str, Any]) -> Retry:
    status = data.get("error_status")
    reason = f"{data.get('error') or 'no answer'}" + (f" ({status})" if status else "")
    wait_s = float(data.get("retry_delay_ms") or 0) / 1000
    return Retry(reason, int(data.get("attempt") or 0), wait_s)


def _input_tokens(usage: Mapping[str, Any]) -> int:
    kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    return sum(int(usage.get(kind) or 0) for kind in kinds)


def _plain(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or f"({part.get('type')})") for part in content)
    return content or ""
