"""The JSON shapes scripts rely on: keys may be added, never renamed. Times are Unix seconds."""

from typing import Any

from autocoder.core.models import Agent, Feature, Lease


def agent_json(agent: Agent) -> dict[str, Any]:
    return {
        "agent_id": agent.agent_id,
        "state": agent.state.value,
        "feature_id": agent.feature_id,
        "feature": agent.feature,
        "backend": agent.backend,
        "pid": agent.pid,
        "api_port": agent.api_port,
        "web_port": agent.web_port,
        "api_listener": agent.api_listener.value,
        "web_listener": agent.web_listener.value,
        "worktree_path": agent.worktree_path,
        "branch": agent.branch,
        "started_at": agent.started_at,
        "last_ping": agent.last_ping,
        "exit_code": agent.exit_code,
        "ended_at": agent.ended_at,
        "reason": agent.reason,
        "problem": agent.problem,
        "held": agent.held,
        "model": agent.model,
        "iteration": agent.iteration,
        "last_tool": agent.last_tool,
        "tokens": agent.tokens,
        "cost_usd": agent.cost_usd,
        "retrying": agent.retrying,
    }


def feature_json(feature: Feature) -> dict[str, Any]:
    return {
        "id": feature.id,
        "name": feature.name,
        "status": feature.status.value,
        "priority": feature.priority,
        "attempts": feature.attempts,
        "depends_on": list(feature.depends_on),
        "branch_name": feature.branch_name,
        "last_error": feature.last_error,
        "description": feature.description,
        "steps": list(feature.steps),
        "category": feature.category,
        "enabled": feature.enabled,
        "agent_id": feature.agent_id,
        "review_status": feature.review_status,
        "backend": feature.backend,
        "model": feature.model,
        "base": feature.base,
        "variant_of": feature.variant_of,
    }


def lease_json(lease: Lease) -> dict[str, Any]:
    return {
        "port": lease.port,
        "role": lease.role.value,
        "state": lease.state.value,
        "holder": lease.holder,
        "project": lease.project,
        "pid": lease.pid,
        "epoch": lease.epoch,
        "leased_at": lease.leased_at,
        "changed_at": lease.changed_at,
        "due_at": lease.due_at,
        "listener_pid": lease.listener_pid,
        "listener": lease.listener,
    }
