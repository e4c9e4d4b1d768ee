"""What a worker is told about its run: `run.json`, and the prompt beside it.

Written once, before the worker starts; neither the worker nor its backend asks the
orchestrator for anything afterwards, so both outlive it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autocoder.core.backends.choice import (
    backend_command,
    check_backend,
    describe_tools,
    model_of,
    prompt_of,
    settings_for,
    uses_prompt,
)
from autocoder.core.events import last_progress
from autocoder.core.launcher import run_folder
from autocoder.core.mcp_servers import ServedAgent
from autocoder.core.models import Feature, PoolStatus, PortPair
from autocoder.core.prompts import render_prompt
from autocoder.core.settings import Settings, database_path, ledger_path
from autocoder.core.store import AgentRecord, NewAgent

_CONVERSATION = re.compile(r"\w[\w.:-]{0,199}", re.ASCII)


def describe_run(
    *,
    project_dir: Path,
    settings: Settings,
    record: AgentRecord | NewAgent,
    feature: Feature,
    pair: PortPair,
    worktree: Path,
    base: str,
    start_commit: str,
    pools: tuple[PoolStatus, ...],
    goes_on_with: AgentRecord | NewAgent | None = None,
    template: str = "",
    more: Mapping[str, object] = MappingProxyType({}),
) -> dict[str, Any]:
    """The agent's run as its worker reads it; afterwards its prompt, if any, is in its file.

    It runs the backend its record names, with its feature's own model if it has one.
    `goes_on_with` is an ended agent whose worktree it has taken over; with the same
    backend its conversation is gone on with too. `template` with `more` values stands
    in for what agents are told.

    Raises:
        OSError: the prompt cannot be written.
        UsageError: its backend cannot be run on this host, or a prompt of the
            project's own cannot be filled.
    """
    settings = settings_for(settings, record.backend, feature.model)
    check_backend(settings)
    folder = run_folder(project_dir, record.agent_id)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    prompt_file = folder / "prompt.md"
    values = {
        "agent_id": record.agent_id,
        "feature_id": str(feature.id),
        "worktree": str(worktree),
        "api_port": str(pair.api_port),
        "web_port": str(pair.web_port),
        "model": model_of(settings),
        "prompt_file": str(prompt_file),
    }
    if uses_prompt(settings):
        prompt = render_prompt(
            template or prompt_of(settings),
            {
                **values,
                "feature_name": feature.name,
                "feature_description": feature.description,
                "feature_steps": "\n".join(f"- {step}" for step in feature.steps),
                "last_error": feature.last_error,
                "base": base,
                **more,
            },
            project_dir,
        )
        prompt_file.write_text(prompt, "utf-8")
        values["prompt"] = prompt
    limits = settings.limits
    served = ServedAgent(
        project_dir=project_dir,
        database=database_path(settings, project_dir),
        run_folder=folder,
        agent_id=record.agent_id,
        feature_id=feature.id,
        api_port=pair.api_port,
        web_port=pair.web_port,
        start_commit=start_commit,
    )
    resume_id = ""
    if goes_on_with is not None and goes_on_with.backend == record.backend:
        said = last_progress(run_folder(project_dir, goes_on_with.agent_id)).resume_id
        # The agent can write there too, and this becomes an argument of its program.
        resume_id = said if _CONVERSATION.fullmatch(said) else ""
    return {
        "agent_id": record.agent_id,
        "backend": record.backend,
        "command": backend_command(settings, folder / "run.json", values),
        "worktree": str(worktree),
        "branch": record.branch,
        "base": base,
        "start_commit": start_commit,
        "prompt_file": str(prompt_file),
        "model": model_of(settings),
        "max_iterations": limits.iterations,
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
        **describe_tools(settings, served, resume_id=resume_id),
    }
