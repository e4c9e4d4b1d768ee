"""A stand-in for the model services, on loopback: real programs talk to it, no model answers.

It keeps no conversation: which script a request follows is told by the last
`[script:NAME]` in its text, and which step it is at by the model's turns after that.
So programs may retry, resume and run side by side as they like.
"""

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@dataclass(frozen=True)
class Say:
    text: str


@dataclass(frozen=True)
class Shell:
    """Have the program's own shell tool run this."""

    command: str
    background: bool = False


@dataclass(frozen=True)
class Mcp:
    """Call a tool of an MCP server, by the name the server gave it."""

    tool: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fail:
    """Answer with this status."""

    status: int
    kind: str
    times: int = 1000
    """After as many requests at this step the next step is taken instead."""


@dataclass(frozen=True)
class Hang:
    """Begin to answer, and go on without an end."""


Step = Say | Shell | Mcp | Fail | Hang
MARK = re.compile(r"\[script:([\w-]+)\]")


@dataclass(frozen=True)
class Asked:
    """One request for an answer."""

    script: str
    step: int
    api: str
    body: dict[str, Any]
    text: str


class ModelStub:
    """Serves until it is closed; `asked` is what came, in order."""

    def __init__(self, scripts: Mapping[str, Sequence[Step]]) -> None:
        self.scripts = scripts
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def steps(self, script: str) -> list[int]:
        return [asked.step for asked in self.asked if asked.script == script]

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_step(self, api: str, body: dict[str, Any]) -> Step:
        text = json.dumps(body, ensure_ascii=False)
        script, done = "", 0
        # Titles, summaries and the like are asked for without tools.
        for turn in _TURNS[api](body) if body.get("tools") else ():
            if turn.get("role") in ("assistant", "model") or turn.get("type") == "function_call":
                done += 1
            elif marks := MARK.findall(json.dumps(turn)):
                script, done = marks[-1], 0
        self.asked.append(Asked(script, done, api, body, text))
        if not script:
            return Say("ok")
        steps = list(self.scripts[script])
        while steps[done:] and isinstance(step := steps[done], Fail):
            if sum(asked.step == done and asked.script == script for asked in self.asked) > (
                step.times
            ):
                del steps[done]
            else:
                return step
        return steps[done] if done < len(steps) else Say("Done.")


@contextlib.contextmanager
def model_stub(**scripts: Sequence[Step]) -> Iterator[ModelStub]:
    stub = ModelStub(scripts)
    try:
        yield stub
    finally:
        stub.close()


_TURNS: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "messages": lambda body: body["messages"],
    "chat": lambda body: body["messages"],
    "responses": lambda body: [item for item in body["input"] if isinstance(item, dict)],
    "gemini": lambda body: body["contents"],
}

_SHELLS = ("Bash", "bash", "shell_command", "exec_command", "shell", "run_shell_command")


def _tool_names(body: dict[str, Any]) -> list[str]:
    names: list[str] = []
    for tool in body.get("tools", ()):
        declared = tool.get("functionDeclarations") or [tool.get("function") or tool]
        names += [entry["name"] for entry in declared if "name" in entry]
        # Namespaced tools of the Responses API.
        names += [f"{tool['name']}{e['name']}" for e in tool.get("tools", ()) if "name" in e]
    return names


def _call(step: Shell | Mcp, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Which tool of those offered does this, and with what arguments."""
    names = _tool_names(body)
    if isinstance(step, Mcp):
        found = [name for name in names if name.endswith(step.tool)]
        return (found[0] if found else step.tool), dict(step.arguments)
    name = next((name for name in _SHELLS if name in names), "Bash")
    if name == "exec_command":
        return name, {"cmd": step.command}
    if name == "shell":
        return name, {"command": ["bash", "-lc", step.command]}
    arguments: dict[str, Any] = {"command": step.command}
    if name in ("Bash", "bash"):
        arguments["description"] = "do it"
    if step.background and name == "Bash":
        arguments["run_in_background"] = True
    return name, arguments


# -------------------------------------------------------------------------- answers


class _Handler(BaseHTTPRequestHandler):
    stub: ClassVar[ModelStub]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._json(200, {})

    def do_GET(self) -> None:
        self._json(200, {"data": [], "object": "list", "models": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        path = self.path.partition("?")[0]
        if path.endswith("/messages"):
            self._answer("messages", body)
        elif path.endswith("/chat/completions"):
            self._answer("chat", body)
        elif path.endswith("/responses"):
            self._answer("responses", body)
        elif "enerateContent" in path:
            self._answer("gemini", body)
        elif "ount" in path:  # count_tokens, countTokens
            self._json(200, {"input_tokens": 10, "totalTokens": 10})
        else:
            self._json(404, {"error": {"message": f"no {path}"}})

    def _answer(self, api: str, body: dict[str, Any]) -> None:
        step = self.stub.next_step(api, body)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if isinstance(step, Fail):
                error = {"type": step.kind, "message": f"stub says {step.kind}", "code": step.kind}
                self._json(
                    step.status,
                    {"type": "error", "error": error | {"status": step.kind.upper()}},
                )
                return
            streams = body.get("stream") or "streamGenerate" in self.path
            if isinstance(step, Hang):
                self._hang(api)
            elif not streams:
                self._json(200, _WHOLE[api](step, body))
            else:
                self._stream(_EVENTS[api](step, body))

    def _json(self, status: int, document: object) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, events: Iterator[tuple[str, object]]) -> None:
        self._begin_stream()
        for name, data in events:
            text = data if isinstance(data, str) else json.dumps(data)
            self._chunk((f"event: {name}\n" if name else "") + f"data: {text}\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _hang(self, api: str) -> None:
        self._begin_stream()
        if api == "messages":
            name, data = next(_anthropic_events(Say(""), {}))
            self._chunk(f"event: {name}\ndata: {json.dumps(data)}\n\n")
        while not self.stub.closing.wait(0.1):
            self._chunk('event: ping\ndata: {"type": "ping"}\n\n' if api == "messages" else ":\n\n")
        self.close_connection = True

    def _begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


def _id(prefix: str) -> str:
    return f"{prefix}_{time.monotonic_ns():x}"


def _anthropic_message(step: Step, body: dict[str, Any]) -> dict[str, Any]:
    if isinstance(step, Shell | Mcp):
        name, arguments = _call(step, body)
        content = {"type": "tool_use", "id": _id("toolu"), "name": name, "input": arguments}
    else:
        content = {"type": "text", "text": step.text if isinstance(step, Say) else ""}
    return {
        "id": _id("msg"),
        "type": "message",
        "role": "assistant",
        "model": body.get("model", "stub"),
        "content": [content],
        "stop_reason": "tool_use" if content["type"] == "tool_use" else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 20},
    }


def _anthropic_events(step: Step, body: dict[str, Any]) -> Iterator[tuple[str, object]]:
    message = _anthropic_message(step, body)
    (block,) = message["content"]
    empty = message | {"content": [], "stop_reason": None}
    empty["usage"] = {"input_tokens": 100, "output_tokens": 1}
    yield "message_start", {"type": "message_start", "message": empty}
    if block["type"] == "text":
        begun, delta = block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
    else:
        begun = block | {"input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    yield (
        "content_block_start",
        {"type": "content_block_start", "index": 0, "content_block": begun},
    )
    yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    stopped = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    usage = {"output_tokens": 20}
    yield "message_delta", {"type": "message_delta", "delta": stopped, "usage": usage}
    yield "message_stop", {"type": "message_stop"}


def _chat_message(step: Step, body: dict[str, Any]) -> dict[str, Any]:
    if isinstance(step, Shell | Mcp):
        name, arguments = _call(step, body)
        function = {"name": name, "arguments": json.dumps(arguments)}
        calls = [{"index": 0, "id": _id("call"), "type": "function", "function": function}]
        return {"role": "assistant", "content": None, "tool_calls": calls}
    return {"role": "assistant", "content": step.text if isinstance(step, Say) else ""}


_CHAT_USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


def _chat_whole(step: Step, body: dict[str, Any]) -> dict[str, Any]:
    message = _chat_message(step, body)
    reason = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {
        "id": _id("chatcmpl"),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body.get("model", "stub"),
        "choices": [choice],
        "usage": _CHAT_USAGE,
    }


def _chat_events(step: Step, body: dict[str, Any]) -> Iterator[tuple[str, object]]:
    whole = _chat_whole(step, body)
    (choice,) = whole.pop("choices")
    common = whole | {"object": "chat.completion.chunk", "usage": None}
    delta = {"index": 0, "delta": choice["message"], "finish_reason": None}
    yield "", common | {"choices": [delta]}
    end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    yield "", common | {"choices": [end]}
    yield "", common | {"choices": [], "usage": _CHAT_USAGE}
    yield "", "[DONE]"


def _responses_whole(step: Step, body: dict[str, Any]) -> dict[str, Any]:
    item: dict[str, Any]
    if isinstance(step, Shell | Mcp):
        name, arguments = _call(step, body)
        item = {
            "type": "function_call",
            "id": _id("fc"),
            "call_id": _id("call"),
            "name": name,
            "arguments": json.dumps(arguments),
            "status": "completed",
        }
        for tool in body.get("tools", ()):
            namespace = tool.get("name", "")
            if tool.get("tools") and name.startswith(namespace):
                item |= {"name": name.removeprefix(namespace), "namespace": namespace}
    else:
        text = step.text if isinstance(step, Say) else ""
        item = {
            "type": "message",
            "id": _id("msg"),
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }
    return {
        "id": _id("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "completed",
        "model": body.get("model", "stub"),
        "output": [item],
        "usage": {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 20,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 120,
        },
    }


def _responses_events(step: Step, body: dict[str, Any]) -> Iterator[tuple[str, object]]:
    whole = _responses_whole(step, body)
    begun = whole | {"status": "in_progress", "output": []}
    item = whole["output"][0]
    yield "response.created", {"type": "response.created", "response": begun}
    for kind in ("added", "done"):
        name = f"response.output_item.{kind}"
        yield name, {"type": name, "output_index": 0, "item": item}
    yield "response.completed", {"type": "response.completed", "response": whole}


def _gemini_whole(step: Step, body: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any]
    if isinstance(step, Shell | Mcp):
        name, arguments = _call(step, body)
        part = {"functionCall": {"name": name, "args": arguments}}
    else:
        part = {"text": step.text if isinstance(step, Say) else ""}
    return {
        "candidates": [
            {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {
            "promptTokenCount": 100,
            "candidatesTokenCount": 20,
            "totalTokenCount": 120,
        },
        "modelVersion": "stub",
    }


def _gemini_events(step: Step, body: dict[str, Any]) -> Iterator[tuple[str, object]]:
    yield "", _gemini_whole(step, body)


_WHOLE = {
    "messages": _anthropic_message,
    "chat": _chat_whole,
    "responses": _responses_whole,
    "gemini": _gemini_whole,
}
_EVENTS = {
    "messages": _anthropic_events,
    "chat": _chat_events,
    "responses": _responses_events,
    "gemini": _gemini_events,
}
