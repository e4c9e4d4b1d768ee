"""What a worker is told about its run: `run.json`, and the prompt beside it.

Written once, before the worker starts; neither the worker nor its backend asks the
orchestrator for anything afterwards, so both outlive it.
"""

from pathlib import Path
from typing import Any

from autocoder.core.backends import backend_command, uses_prompt
from autocoder.core.launcher import run_folder
from autocoder.core.models import Feature, PoolStatus, PortPair
from autocoder.core.prompts import render_prompt
from autocoder.core.settings import Settings, ledger_path
from autocoder.core.store import AgentRecord

MAX_ITERATIONS = 5


def describe_run(
    *,
    project_dir: Path,
    settings: Settings,
    record: AgentRecord,
    feature: Feature,
    pair: PortPair,
    worktree: Path,
    base: str,
    start_commit: str,
    pools: tuple[PoolStatus, ...],
) -> dict[str, Any]:
    """The agent's run as its worker reads it; afterwards its prompt, if any, is in its file.

    Raises:
        OSError: the prompt cannot be written.
        UsageError: a prompt of the project's own cannot be filled.
    """
    folder = run_folder(project_dir, record.agent_id)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    prompt_file = folder / "prompt.md"
    values = {
        "agent_id": record.agent_id,
        "feature_id": str(feature.id),
        "worktree": str(worktree),
        "api_port": str(pair.api_port),
        "web_port": str(pair.web_port),
        "model": settings.model,
        "prompt_file": str(prompt_file),
    }
    if uses_prompt(settings):
        prompt = render_prompt(
            "coding",
            {
                **values,
                "feature_name": feature.name,
                "feature_description": feature.description,
                "feature_steps": "\n".join(f"- {step}" for step in feature.steps),
                "last_error": feature.last_error,
                "base": base,
            },
            project_dir,
        )
        prompt_file.write_text(prompt, "utf-8")
        values["prompt"] = prompt
    limits = settings.limits
    return {
        "agent_id": record.agent_id,
        "backend": record.backend,
        "command": backend_command(settings, folder / "run.json", values),
        "worktree": str(worktree),
        "branch": record.branch,
        "base": base,
        "start_commit": start_commit,
        "prompt_file": str(prompt_file),
        "model": settings.model,
        "max_iterations": MAX_ITERATIONS,
        "feature": {
            "id": feature.id,
            "name": feature.name,
            "description": feature.description,
            "steps": list(feature.steps),
            "category": feature.category,
            "attempt": feature.attempts + 1,
            "last_error": feature.last_error,
        },
        "options": {
            "step_s": settings.scripted.step_s,
            "misbehave": settings.scripted.misbehave,
        },
        "env": {"pass": list(settings.env.pass_), "drop": list(settings.env.drop)},
        "fence": {
            "mode": settings.fence,
            "pools": [(span.start, span.end) for pool in pools for span in pool.ranges],
            "ledger": str(ledger_path(settings)),
        },
        "limits": {
            "wall_limit_s": limits.agent_minutes * 60,
            "idle_limit_s": limits.idle_minutes * 60,
            "stop_grace_s": limits.stop_grace_s,
            "log_bytes": limits.log_mib << 20,
        },
    }
