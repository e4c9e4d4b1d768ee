"""Agents, and what may be wished of them."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import StreamingResponse

from autocoder.core.api import described, log_stream
from autocoder.core.api.bodies import (
    LARGEST_ID,
    AgentId,
    Body,
    IdempotencyKey,
    Spawn,
    Tell,
    Worktrees,
)
from autocoder.core.api.log_stream import Position
from autocoder.core.api.problems import Json, Refusal
from autocoder.core.api.service import Service
from autocoder.core.commands import (
    KillAgent,
    RecoverAgent,
    RemoveWorktrees,
    SpawnAgent,
    StopAgent,
    TellAgent,
)
from autocoder.core.logs import log_path
from autocoder.core.models import Agent
from autocoder.core.shapes import agent_json


def add_agent_routes(app: FastAPI, service: Service) -> None:
    async def find(agent_id: str) -> Agent:
        for agent in (await service.snapshot()).agents:
            if agent.agent_id == agent_id:
                return agent
        raise Refusal(404, f"there is no agent {agent_id}", "GET /api/agents?all=true lists them.")

    @app.get(
        "/api/agents", responses=described.example([described.AGENT]) | described.refusals(422)
    )
    async def agents(
        everything: Annotated[
            bool, Query(alias="all", description="The latest 500 ended ones as well.")
        ] = False,
    ) -> Json:
        """Live agents by start, then, if asked for, those that ended."""
        found = (await service.snapshot()).agents
        return Json([agent_json(agent) for agent in found if everything or agent.live])

    @app.post(
        "/api/agents",
        status_code=202,
        responses=described.example(described.ACCEPTED, 202, "Heard")
        | described.refusals(404, *described.BODY),
    )
    async def spawn(body: Spawn, key: IdempotencyKey = "") -> Json:
        """Start an agent now, even beyond `parallel`."""
        backlog = (await service.snapshot()).backlog
        if body.feature_id is not None and body.feature_id not in {f.id for f in backlog}:
            raise Refusal(404, f"there is no feature {body.feature_id}")

        async def answer() -> dict[str, Any]:
            return service.wish(SpawnAgent(**body.model_dump()))

        return Json(await service.once(key, ("spawn", body.model_dump_json()), answer), 202)

    def wish(verb: str, kind: type[StopAgent | KillAgent | RecoverAgent], says: str) -> None:
        @app.post(
            f"/api/agents/{{agent_id}}/{verb}",
            status_code=202,
            name=f"{verb} agent",
            description=says,
            responses=described.example(described.ACCEPTED, 202, "Heard")
            | described.refusals(404, 409, *described.BODY),
        )
        async def ask(agent_id: AgentId, _body: Body | None = None) -> Json:
            agent = await find(agent_id)
            if not agent.live and kind is not RecoverAgent:
                raise Refusal(409, f"agent {agent_id} has ended")
            return Json(service.wish(kind(agent_id), agent_id=agent_id), 202)

    wish("stop", StopAgent, "Ask it to end, then force it; its feature goes back uncounted.")
    wish("kill", KillAgent, "Force its whole tree down at once.")
    wish("recover", RecoverAgent, "Go on with its work in a new agent, in its worktree.")

    @app.post(
        "/api/agents/{agent_id}/tell",
        status_code=202,
        responses=described.example(described.ACCEPTED, 202, "Heard")
        | described.refusals(404, 409, *described.BODY),
    )
    async def tell(agent_id: AgentId, body: Tell) -> Json:
        """Send it a message, which it reads at its next turn; a notice says where it cannot."""
        agent = await find(agent_id)
        if not agent.live:
            raise Refusal(409, f"agent {agent_id} has ended")
        return Json(service.wish(TellAgent(agent_id, body.text), agent_id=agent_id), 202)

    @app.post(
        "/api/worktrees/remove",
        status_code=202,
        responses=described.example(described.ACCEPTED, 202, "Heard")
        | described.refusals(*described.BODY),
    )
    async def remove_worktrees(body: Worktrees) -> Json:
        """Remove these agents' worktrees; a notice says why one stays that would lose something."""
        agent_ids = tuple(body.agent_ids)
        return Json(service.wish(RemoveWorktrees(agent_ids), agent_ids=agent_ids), 202)

    @app.get(
        "/api/agents/{agent_id}/log",
        response_class=StreamingResponse,
        responses=described.stream(
            "text/event-stream", "Events `log` with offset and text, then `end`"
        )
        | described.refusals(404, 422),
    )
    async def log(
        request: Request,
        agent_id: AgentId,
        offset: Annotated[
            int, Query(ge=-LARGEST_ID, le=LARGEST_ID, description="Negative: from the end.")
        ] = 0,
        follow: Annotated[bool, Query(description="Go on until the agent has ended.")] = True,
    ) -> StreamingResponse:
        """The log as server-sent events, from `offset` or after the `Last-Event-ID`."""
        await find(agent_id)
        resumed = log_stream.parse_position(request.headers.get("last-event-id", ""))

        def ended() -> bool:
            latest = service.feed.latest
            return latest is None or not any(
                agent.live and agent.agent_id == agent_id for agent in latest.agents
            )

        stream = log_stream.events(
            log_path(service.project_dir, agent_id),
            resumed or Position(0, offset),
            follow=follow,
            ended=ended,
            closing=lambda: service.feed.ended,
        )
        return _event_stream(stream)


def _event_stream(events: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)
