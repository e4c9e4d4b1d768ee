"""What a worker runs for one feature; each backend is a process of its own.

A backend is an argument list. It gets the environment and the run description of
its agent, prints a log, and ends its feature by exiting with 0 and a commit.
"""

import string
import sys
from collections.abc import Mapping
from pathlib import Path

from autocoder.core.errors import UsageError
from autocoder.core.settings import Settings

PLACEHOLDERS = frozenset(
    {"prompt", "prompt_file", "worktree", "api_port", "web_port"}
    | {"model", "agent_id", "feature_id"}
)


def check_backend(settings: Settings) -> None:
    """Raises `UsageError` where the chosen backend cannot be run by this version."""
    if settings.backend == "scripted":
        return
    chosen = settings.backends.get(settings.backend)
    where = settings.origin("backend")
    if chosen is None:
        raise UsageError(
            f"{where}: backend {settings.backend!r} is not available",
            f"Use scripted, or name its command in [backends.{settings.backend}].",
        )
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
    chosen = settings.backends.get(settings.backend)
    return chosen is not None and any("{prompt" in part for part in chosen.command)


def backend_command(settings: Settings, run_file: Path, values: Mapping[str, str]) -> list[str]:
    """The argument list; every element stays one element whatever `values` hold."""
    if settings.backend == "scripted":
        script = Path(__file__).with_name("scripted.py")
        return [sys.executable, "-I", "-S", str(script), str(run_file)]
    return [part.format_map(values) for part in settings.backends[settings.backend].command]
