"""What a backend process is asked to do: the run description its worker was given."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocoder.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Run:
    """`run.json` of the run folder, checked; ports and names come from the environment."""

    folder: Path
    agent_id: str
    backend: str
    worktree: Path
    project_dir: Path
    database: Path | None
    base: str
    start_commit: str
    prompt_file: Path
    model: str
    max_iterations: int
    max_turns: int | None
    budget_usd: float | None
    resume_id: str
    """Of an earlier agent's conversation in the same worktree; empty: a new one."""
    pools: tuple[tuple[int, int], ...]
    """Start and end, exclusive, of every range."""
    mcp_servers: Mapping[str, Mapping[str, Any]]
    api_port: int
    web_port: int
    feature_id: int | None

    @property
    def prompt(self) -> str:
        """Raises `UsageError` where it cannot be read."""
        try:
            return self.prompt_file.read_text("utf-8", "replace")
        except OSError as error:
            raise UsageError(f"{self.prompt_file}: {error.strerror}") from error


def read_run(path: Path, environ: Mapping[str, str]) -> Run:
    """Raises `UsageError` where the file or the environment is not what a worker makes."""
    try:
        described = json.loads(path.read_bytes())
        worktree = Path(described["worktree"])
        project_dir = described.get("project_dir") or path.resolve().parents[3]
        fence = described.get("fence") or {}
        feature = described.get("feature") or {}
        return Run(
            folder=path.parent,
            agent_id=str(described["agent_id"]),
            backend=str(described["backend"]),
            worktree=worktree,
            project_dir=Path(project_dir),
            database=Path(described["database"]) if described.get("database") else None,
            base=str(described.get("base") or "main"),
            start_commit=str(described.get("start_commit") or ""),
            prompt_file=Path(described.get("prompt_file") or path.with_name("prompt.md")),
            model=str(described.get("model") or ""),
            max_iterations=max(1, int(described.get("max_iterations") or 1)),
            max_turns=int(described.get("turns") or 0) or None,
            budget_usd=float(described.get("budget_usd") or 0) or None,
            resume_id=str(described.get("resume_id") or ""),
            pools=tuple((int(start), int(end)) for start, end in fence.get("pools") or ()),
            mcp_servers=described.get("mcp_servers") or {},
            api_port=int(environ["AUTOCODER_API_PORT"]),
            web_port=int(environ["AUTOCODER_WEB_PORT"]),
            feature_id=int(feature["id"]) if feature.get("id") is not None else None,
        )
    except OSError as error:
        raise UsageError(f"the run description {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise UsageError(f"the run description {path}: {type(error).__name__} {error}") from error
