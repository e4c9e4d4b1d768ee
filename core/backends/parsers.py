"""What agent programs print, turned into events; one small reader per program.

A reader never fails: a line it does not know is the human's alone. Whether the run
went well is what the program's own last word says, `finished`; it stays None where a
program has no such word, and its exit code decides.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from autocoder.core.events import (
    Event,
    Finished,
    Outcome,
    Retry,
    Started,
    Text,
    ToolEnd,
    ToolStart,
    Usage,
    Warned,
)

_LONGEST_REASON = 300


class Parser:
    """Reads lines of plain text: no events, no last word."""

    shows_lines = True
    """Whether the human sees the lines themselves, not what was made of them."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.finished: Finished | None = None
        self.conversation = ""
        """By which the program can be started again; empty while unknown."""

    def read(self, line: str) -> Iterable[Event] | None:  # noqa: ARG002
        """The events of one line; None where it means nothing to this reader."""
        return None

    def close(self) -> Iterable[Event]:
        """Events of what was held back when the output ended."""
        return ()


class JsonLines(Parser):
    """A program that prints one JSON object a line; other lines are shown as they are."""

    shows_lines = False

    def read(self, line: str) -> Iterable[Event] | None:
        try:
            message = json.loads(line)
            if not isinstance(message, dict) or not isinstance(message.get("type"), str):
                return None
            return list(self.events(message["type"], message))
        except (ValueError, RecursionError):
            return None
        except (KeyError, TypeError, AttributeError, IndexError):
            # A message of another version of the program; what follows may be known again.
            return ()

    def events(self, kind: str, message: Mapping[str, Any]) -> Iterator[Event]:
        raise NotImplementedError

    def fail(self, reason: str) -> None:
        self.finished = Finished(Outcome.FAILED, _first_line(reason))

    def succeed(self) -> None:
        self.finished = Finished(Outcome.SUCCESS)

    def started(self, conversation: str, model: str = "") -> Iterator[Event]:
        if conversation and conversation != self.conversation:
            self.conversation = conversation
            yield Started(self.backend, model, conversation)


class Codex(JsonLines):
    """`codex exec --json`; its usage is of the whole conversation."""

    _RETRY = re.compile(r"Reconnecting\.\.\. (\d+)/\d+ \((.*)\)\s*\Z", re.DOTALL)

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self._turns = 0

    def events(self, kind: str, message: Mapping[str, Any]) -> Iterator[Event]:
        match kind:
            case "thread.started":
                yield from self.started(message["thread_id"])
            case "item.started" | "item.completed":
                yield from self._item(message["item"], begins=kind == "item.started")
            case "turn.completed":
                self._turns += 1
                usage = message["usage"]
                yield Usage(usage["input_tokens"], usage["output_tokens"], 0.0, self._turns)
                self.succeed()
            case "turn.failed":
                self.fail(message["error"]["message"])
            case "error":
                said = message["message"]
                if (again := self._RETRY.match(said)) is not None:
                    yield Retry(_first_line(again[2]), int(again[1]))
                else:
                    yield Warned(said)

    def _item(self, item: Mapping[str, Any], *, begins: bool) -> Iterator[Event]:
        id_, kind = item["id"], item["type"]
        match kind:
            case "agent_message" if not begins:
                yield Text(item["text"])
            case "error" if not begins:
                yield Warned(item["message"])
            case "command_execution":
                if begins:
                    yield ToolStart(id_, "shell", item["command"])
                else:
                    yield ToolEnd(id_, item["exit_code"] == 0, item["aggregated_output"])
            case "mcp_tool_call":
                if begins:
                    tool = f"{item['server']}.{item['tool']}"
                    yield ToolStart(id_, tool, json.dumps(item.get("arguments") or {}))
                else:
                    ok = item.get("status") != "failed" and not item.get("error")
                    yield ToolEnd(id_, ok, _mcp_text(item.get("result") or item.get("error")))
            case "file_change" if not begins:
                paths = ", ".join(change["path"] for change in item["changes"])
                yield ToolStart(id_, "edit", paths)
                yield ToolEnd(id_, item.get("status") != "failed")


class OpenCode(JsonLines):
    """`opencode run --format json`; its usage is of one step."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self._usage = Usage()

    def events(self, kind: str, message: Mapping[str, Any]) -> Iterator[Event]:
        yield from self.started(message.get("sessionID") or "")
        part = message.get("part") or {}
        match kind:
            case "text":
                yield Text(part["text"])
            case "tool_use":
                state = part["state"]
                detail = state.get("title") or json.dumps(state.get("input") or {})
                yield ToolStart(part["callID"], part["tool"], detail)
                ok = state["status"] == "completed" and (state.get("metadata") or {}).get(
                    "exit"
                ) in (
                    None,
                    0,
                )
                yield ToolEnd(part["callID"], ok, state.get("output") or state.get("error") or "")
            case "step_finish":
                tokens, cache = part["tokens"], part["tokens"].get("cache") or {}
                self._usage = Usage(
                    self._usage.input_tokens
                    + tokens["input"]
                    + cache.get("read", 0)
                    + cache.get("write", 0),
                    self._usage.output_tokens + tokens["output"] + tokens.get("reasoning", 0),
                    self._usage.cost_usd + part.get("cost", 0),
                    self._usage.turns + 1,
                )
                yield self._usage
                if part.get("reason") != "tool-calls":
                    self.succeed()
            case "error":
                error = message["error"]
                data = error.get("data") or {}
                status = f" ({data['statusCode']})" if data.get("statusCode") else ""
                self.fail(f"{data.get('message') or error.get('name')}{status}")


class Gemini(JsonLines):
    """`gemini --output-format stream-json`; text comes in pieces."""

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self._text = ""

    def events(self, kind: str, message: Mapping[str, Any]) -> Iterator[Event]:
        if kind == "message" and message.get("role") == "assistant":
            self._text += message["content"]
            if not message.get("delta"):
                yield from self.close()
            return
        yield from self.close()
        match kind:
            case "init":
                yield from self.started(message["session_id"], message.get("model") or "")
            case "tool_use":
                given = message.get("parameters") or {}
                detail = given.get("command") or given.get("file_path") or json.dumps(given)
                yield ToolStart(message["tool_id"], message["tool_name"], str(detail))
            case "tool_result":
                ok = message.get("status") == "success"
                error = (message.get("error") or {}).get("message")
                yield ToolEnd(message["tool_id"], ok, message.get("output") or error or "")
            case "error":
                yield Warned(message["message"])
            case "result":
                stats = message.get("stats") or {}
                yield Usage(
                    stats.get("input_tokens", 0), stats.get("output_tokens", 0), 0.0, turns=1
                )
                if message["status"] == "success":
                    self.succeed()
                else:
                    self.fail(_api_error(message.get("error", {}).get("message") or "failed"))

    def close(self) -> Iterator[Event]:
        if self._text.strip():
            yield Text(self._text)
        self._text = ""


class ClaudeStream(JsonLines):
    """`claude -p --output-format stream-json --verbose`."""

    def events(self, kind: str, message: Mapping[str, Any]) -> Iterator[Event]:
        match kind:
            case "system" if message.get("subtype") == "init":
                yield from self.started(message["session_id"], message.get("model") or "")
            case "system" if message.get("subtype") == "api_retry":
                yield Retry(
                    f"{message.get('error')} ({message.get('error_status')})",
                    message["attempt"],
                    message["retry_delay_ms"] / 1000,
                )
            case "assistant" | "user":
                content = message["message"]["content"]
                for block in content if isinstance(content, list) else ():
                    yield from self._block(block, kind)
            case "result":
                usage = message.get("usage") or {}
                yield Usage(
                    usage.get("input_tokens", 0)
                    + usage.get("cache_read_input_tokens", 0)
                    + usage.get("cache_creation_input_tokens", 0),
                    usage.get("output_tokens", 0),
                    message.get("total_cost_usd") or 0.0,
                    message.get("num_turns") or 0,
                )
                if message.get("is_error"):
                    self.fail(message.get("result") or message["subtype"])
                else:
                    self.succeed()

    def _block(self, block: Mapping[str, Any], kind: str) -> Iterator[Event]:
        match block.get("type"):
            case "text" if kind == "assistant":
                yield Text(block["text"])
            case "tool_use":
                given = block.get("input") or {}
                detail = given.get("command") or given.get("file_path") or json.dumps(given)
                yield ToolStart(block["id"], block["name"], str(detail))
            case "tool_result":
                yield ToolEnd(
                    block["tool_use_id"], not block.get("is_error"), _plain(block.get("content"))
                )


class Aider(Parser):
    """aider talks to a human: it ends with 0 whatever happened."""

    _TOKENS = re.compile(
        r"Tokens: ([\d.]+k?) sent,.*?([\d.]+k?) received\."
        r"(?: Cost: \$[\d.]+ message, \$([\d.]+) session\.)?"
    )
    _EDIT = re.compile(r"Applied edit to (.+)")
    _RETRY = re.compile(r"Retrying in ([\d.]+) seconds")
    _ERROR = re.compile(r"litellm\.(\w+): ")
    _HOPELESS = re.compile(r"Authentication|PermissionDenied|NotFound|BadRequest|ContextWindow")
    _NO_KEY = re.compile(r"(?:Unable to|cannot) authenticate|No API key")

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self._sent = self._received = self._turns = 0
        self._error: list[str] = []
        """The lines of the error it says now; it breaks long ones."""

    def read(self, line: str) -> Iterable[Event] | None:
        if (error := self._ERROR.match(line)) is not None or self._NO_KEY.search(line):
            self._error = [line.strip()]
            if error is None or self._HOPELESS.search(error[1]):
                self._fail()
            return ()
        if (again := self._RETRY.match(line)) is not None:
            said, self._error = self._error, []
            reason = " ".join(said) or "the model's service did not answer"
            return (Retry(reason[:_LONGEST_REASON], wait_s=_number(again[1])),)
        if (edit := self._EDIT.match(line)) is not None:
            return (ToolStart("", "edit", edit[1]), ToolEnd("", ok=True))
        if (tokens := self._TOKENS.search(line)) is not None:
            self._sent += _count(tokens[1])
            self._received += _count(tokens[2])
            self._turns += 1
            self.finished = None  # it got an answer after all
            return (Usage(self._sent, self._received, _number(tokens[3] or "0"), self._turns),)
        if line.strip() and len(self._error) == 1:
            self._error.append(line.strip())
            if self.finished is not None:
                self._fail()
        return None

    def _fail(self) -> None:
        self.finished = Finished(Outcome.FAILED, " ".join(self._error)[:_LONGEST_REASON])


class MiniSweAgent(Parser):
    """mini-swe-agent prints headings and what belongs to each below it.

    What stands below "Exit:" is the agent's last word or the name of an error; its
    exit code is 0 for some of these.
    """

    _STEP = re.compile(r"mini-swe-agent \(step (\d+), \$([\d.]+)\)")
    _RETRY = re.compile(r"Retrying .* in ([\d.]+) seconds? as it raised (.*)")
    _ERROR = re.compile(r"[\w.]*(?:Error|Exceeded|Exception)(?::|\Z)")

    def __init__(self, backend: str) -> None:
        super().__init__(backend)
        self._below = ""
        """The heading, or the mark below it, that the next lines belong to."""
        self._held: list[str] = []

    def read(self, line: str) -> Iterable[Event] | None:
        if (step := self._STEP.match(line)) is not None:
            self._below, self.finished = "step", None
            return (Usage(cost_usd=_number(step[2]), turns=int(step[1][:9])),)
        if (again := self._RETRY.match(line)) is not None:
            return (Retry(_first_line(again[2]), wait_s=_number(again[1])),)
        below, text = self._below, line.strip()
        match text, below:
            case "Exit:", _:
                self._below, self._held = "exit", []
                self.finished = Finished(Outcome.SUCCESS)
            case "```", "step":
                self._below, self._held = "command", []
            case "```", "command":
                self._below = ""
                return (ToolStart("", "bash", "\n".join(self._held)),)
            case "<returncode>", _:
                self._below = "code"
            case _, "command":
                self._held.append(line)
            case _, "code":
                self._below = ""
                return (ToolEnd("", ok=text == "0"),)
            case _, "exit":
                self._exit(text)
            case _:
                return None
        return ()

    def _exit(self, text: str) -> None:
        if not text or text.startswith(("╭", "Saved trajectory")):
            self._below = ""
            return
        self._held.append(text)
        if self._ERROR.match(self._held[0]):
            self.finished = Finished(Outcome.FAILED, " ".join(self._held)[:_LONGEST_REASON])


PARSERS: Mapping[str, Callable[[str], Parser]] = {
    "text": Parser,
    "claude": ClaudeStream,
    "codex": Codex,
    "opencode": OpenCode,
    "gemini": Gemini,
    "aider": Aider,
    "mini-swe-agent": MiniSweAgent,
}


def _first_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:_LONGEST_REASON] if lines else ""


def _plain(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text") or "") for part in content)
    return str(content or "")


def _mcp_text(result: Any) -> str:
    if isinstance(result, dict):
        return _plain(result.get("content")) or str(result.get("message") or "")
    return str(result or "")


def _api_error(said: str) -> str:
    """The sentence within `[API Error: {...}]`, where there is one."""
    found = re.search(r'\\?"message\\?":\s*\\?"([^"\\]+)', said)
    return f"API error: {found[1]}" if found else said.strip("[]")


def _number(text: str) -> float:
    """Of digits and dots; 0 where there are too many of either."""
    try:
        return float(text[:20])
    except ValueError:
        return 0.0


def _count(text: str) -> int:
    return round(_number(text.removesuffix("k")) * (1000 if text.endswith("k") else 1))
