"""The agent programs that are known by name, and how each is started and gone on with.

Flags are those that let a program work alone in a terminal-less worktree. Sandboxes
of their own are switched off where they would forbid servers or git in a worktree:
ours are the fence and the worker.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autocoder.core.backends.run import Run

SERVER_START_S = 60
"""What an MCP server gets to start on a loaded host."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One start of a program."""

    command: tuple[str, ...]
    stdin: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside what the worker gives."""


@dataclass(frozen=True, slots=True)
class Program:
    executable: str
    parser: str
    start: Callable[[Run], Invocation]
    resume: Callable[[Run, str, str], Invocation] | None = None
    """From the run, the conversation's id and the new message."""
    remedy: str = ""
    """How to install it."""

    @property
    def resumes(self) -> bool:
        return self.resume is not None


def _codex(run: Run, conversation: str = "", message: str = "") -> Invocation:
    settings: dict[str, Any] = {"shell_environment_policy.inherit": "all"}
    for name, entry in run.mcp_servers.items():
        for key in ("command", "args", "env"):
            settings[f"mcp_servers.{name}.{key}"] = entry.get(key)
        # Without it the first turn begins before the tools are there.
        settings[f"mcp_servers.{name}.required"] = True
        settings[f"mcp_servers.{name}.startup_timeout_sec"] = SERVER_START_S
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={_toml(value)}")]
    return Invocation(
        (
            *("codex", "exec"),
            *(("resume", conversation) if conversation else ()),
            *("--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
            *(("-m", run.model) if run.model else ()),
            *options,
            "-",
        ),
        stdin=message or run.prompt,
    )


def _opencode(run: Run, conversation: str = "", message: str = "") -> Invocation:
    servers = {
        name: {
            "type": "local",
            "command": [entry["command"], *entry.get("args", ())],
            "environment": entry.get("env", {}),
            "enabled": True,
        }
        for name, entry in run.mcp_servers.items()
    }
    content = {"mcp": servers, "autoupdate": False, "share": "disabled"}
    return Invocation(
        (
            *("opencode", "run", "--format", "json", "--auto"),
            *(("-m", run.model) if run.model else ()),
            *(("--session", conversation) if conversation else ()),
        ),
        stdin=message or run.prompt,
        environment={"OPENCODE_CONFIG_CONTENT": json.dumps(content)},
    )


def _gemini(run: Run, conversation: str = "", message: str = "") -> Invocation:
    settings = run.folder / "gemini.json"
    settings.write_text(json.dumps({"mcpServers": run.mcp_servers}), "utf-8")
    return Invocation(
        (
            *("gemini", "--output-format", "stream-json", "--approval-mode", "yolo"),
            "--skip-trust",
            *(("--model", run.model) if run.model else ()),
            *(("--resume", conversation) if conversation else ()),
        ),
        stdin=message or run.prompt,
        environment={"GEMINI_CLI_SYSTEM_SETTINGS_PATH": str(settings)},
    )


def _aider(run: Run) -> Invocation:
    return Invocation(
        (
            *("aider", "--yes-always", "--no-pretty", "--no-stream", "--no-fancy-input"),
            *("--no-check-update", "--no-show-release-notes", "--no-suggest-shell-commands"),
            *("--no-gitignore", "--analytics-disable"),
            *(("--model", run.model) if run.model else ()),
            *("--message-file", str(run.prompt_file)),
        )
    )


def _mini(run: Run) -> Invocation:
    return Invocation(
        (
            *("mini", "--yolo", "--exit-immediately"),
            *(("--model", run.model) if run.model else ()),
            *("--output", str(run.folder / "trajectory.json")),
            *("--task", run.prompt),
        ),
        environment={"MSWEA_CONFIGURED": "true"},
    )


PROGRAMS: Mapping[str, Program] = {
    "codex": Program("codex", "codex", _codex, _codex, "npm install -g @openai/codex"),
    "opencode": Program("opencode", "opencode", _opencode, _opencode, "npm install -g opencode-ai"),
    "gemini": Program("gemini", "gemini", _gemini, _gemini, "npm install -g @google/gemini-cli"),
    "aider": Program("aider", "aider", _aider, remedy="pipx install aider-chat"),
    "mini-swe-agent": Program(
        "mini", "mini-swe-agent", _mini, remedy="pipx install mini-swe-agent"
    ),
}


def own_command(command: list[str]) -> Program:
    """The program of a `[backends.NAME]`, its placeholders filled in already."""
    return Program(Path(command[0]).name, "text", lambda _: Invocation(tuple(command)))


def _toml(value: Any) -> str:
    """As a TOML value; strings, lists and tables are written as JSON does, but for `=`."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
