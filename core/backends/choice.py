"""Which backend an agent runs, whether this host has it, and how it is started."""

import importlib.util
import os
import shutil
import string
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autocoder.core.agent_worker import CREDENTIALS
from autocoder.core.backends.programs import PROGRAMS
from autocoder.core.backends.reporting import secret_values
from autocoder.core.errors import RefusedError, UsageError
from autocoder.core.mcp_servers import ServedAgent, mcp_servers
from autocoder.core.settings import Settings

SCRIPTED, CLAUDE = "scripted", "claude"
CLAUDE_REMEDY = "pip install 'autocoder-tui[claude]'"

PRESET_MODELS: Mapping[str, str] = {
    "quality": "opus",
    "balanced": "sonnet",
    "economy": "sonnet",
    "cheap": "haiku",
    "experimental": "opus",
}
"""What claude uses where no model is named; other programs have a default of their own."""

PLACEHOLDERS = frozenset(
    {"prompt", "prompt_file", "worktree", "api_port", "web_port"}
    | {"model", "agent_id", "feature_id"}
)


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a backend can be run on this host."""

    usable: bool
    detail: str
    """Where it is, or what is missing."""
    remedy: str = ""


def availability(backend: str, settings: Settings) -> Availability:
    """Look for the backend's program; nothing is started."""
    if backend in settings.backends:
        program = settings.backends[backend].command[0]
        found = shutil.which(program)
        return Availability(
            found is not None,
            found or f"{program} is not installed",
            "" if found else f"Put {program} on PATH, or its path in [backends.{backend}].",
        )
    if backend == SCRIPTED:
        return Availability(True, "built in")
    if backend == CLAUDE:
        spec = importlib.util.find_spec("claude_agent_sdk")
        return Availability(
            spec is not None,
            "Claude Agent SDK" if spec else "the Claude Agent SDK is not installed",
            "" if spec else CLAUDE_REMEDY,
        )
    known = PROGRAMS.get(backend)
    if known is None:
        return Availability(False, "no such backend", f"Add [backends.{backend}].")
    found = shutil.which(known.executable)
    return Availability(
        found is not None,
        found or f"{known.executable} is not installed",
        "" if found else known.remedy,
    )


def settings_for(settings: Settings, backend: str, model: str = "") -> Settings:
    """As `settings`, for an agent that runs `backend`; a model named for the project's
    backend is not asked of another one."""
    if not model and backend == settings.backend:
        return settings
    origins = {**settings.origins, "backend": "its feature"}
    return replace(settings, backend=backend, model=model, origins=origins)


def model_of(settings: Settings) -> str:
    """The model an agent is to use; empty: the program's own default."""
    if settings.model or settings.backend != CLAUDE:
        return settings.model
    return PRESET_MODELS[settings.preset]


def check_backend(settings: Settings) -> None:
    """Raises `UsageError` where the chosen backend cannot be run on this host."""
    chosen = settings.backends.get(settings.backend)
    if chosen is None:
        state = availability(settings.backend, settings)
        if not state.usable:
            raise UsageError(
                f"{settings.origin('backend')}: backend {settings.backend!r} is not available: "
                f"{state.detail}",
                state.remedy,
            )
        return
    # An own command may be named from the worktree, which is not there yet.
    for part in chosen.command:
        try:
            names = {name for _, name, _, _ in string.Formatter().parse(part) if name is not None}
        except ValueError as error:
            raise UsageError(f"backends.{settings.backend}.command: {part!r}: {error}") from error
        unknown = names - PLACEHOLDERS
        if unknown:
            raise UsageError(
                f"backends.{settings.backend}.command: there is no placeholder {{{min(unknown)}}}",
                f"Known: {', '.join(sorted(PLACEHOLDERS))}.",
            )


def uses_prompt(settings: Settings) -> bool:
    """Whether the backend reads a prompt: every one but the scripted, and own commands
    that ask for none."""
    chosen = settings.backends.get(settings.backend)
    if chosen is not None:
        return any("{prompt" in part for part in chosen.command)
    return settings.backend != SCRIPTED


def backend_command(settings: Settings, run_file: Path, values: Mapping[str, str]) -> list[str]:
    """The argument list; every element stays one element whatever `values` hold."""
    chosen = settings.backends.get(settings.backend)
    if chosen is None and settings.backend == SCRIPTED:
        script = Path(__file__).with_name("scripted.py")
        return [sys.executable, "-I", "-S", str(script), str(run_file)]
    # -P keeps the worktree, where agents write, off the module search path.
    python = [sys.executable, "-P", "-m"]
    if chosen is None and settings.backend == CLAUDE:
        return [*python, "autocoder.core.backends.claude", str(run_file)]
    runner = [*python, "autocoder.core.backends.command"]
    if chosen is None:
        return [*runner, "--program", settings.backend, str(run_file)]
    own = [part.format_map(values) for part in chosen.command]
    if chosen.parser == "text" and not _sees_secrets(settings):
        return own  # nothing to read and nothing to conceal: no process of ours is needed
    # argparse takes all positional arguments at once, so the options come first.
    return [*runner, "--parser", chosen.parser, str(run_file), "--", *own]


def _sees_secrets(settings: Settings) -> bool:
    """Whether an own command finds credentials in its environment that its log must not show."""
    withheld = CREDENTIALS.keys() - set(settings.env.pass_) | set(settings.env.drop)
    seen = {name: value for name, value in os.environ.items() if name not in withheld}
    return bool(secret_values(seen))


def describe_tools(
    settings: Settings, agent: ServedAgent, *, resume_id: str = ""
) -> dict[str, Any]:
    """What a run description holds for backends with a model; nothing for the scripted one
    and for commands of the user's own, which are told all they get by their placeholders.

    Afterwards the browser's settings, if there is one, stand in the run folder.
    `resume_id` is of the conversation an earlier agent had in the same worktree.

    Raises:
        OSError: the run folder cannot be written.
    """
    if settings.backend == SCRIPTED or settings.backend in settings.backends:
        return {}
    return {
        "project_dir": str(agent.project_dir),
        "database": str(agent.database),
        "turns": settings.limits.turns,
        "budget_usd": settings.limits.budget_usd,
        "resume_id": resume_id,
        "mcp_servers": mcp_servers(agent, browser=not settings.yolo),
    }


def prompt_of(settings: Settings) -> str:
    """The template that tells an agent what to do."""
    return "coding_yolo" if settings.yolo else "coding"


def refuse_untellable(backend: str, settings: Settings) -> None:
    """Raises `RefusedError` where a running agent of this backend cannot be told anything."""
    known = PROGRAMS.get(backend)
    resumes = backend == CLAUDE or (known is not None and known.resumes)
    if resumes and backend not in settings.backends:
        return
    raise RefusedError(
        f"an agent that runs {backend} cannot be told anything while it works",
        "Stop it and change the feature, or recover it with a note in the description.",
    )
