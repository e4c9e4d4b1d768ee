"""The orchestrator as a whole: its state, its events, and the two verbs and the stream that a
panel in another process lives on."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Query
from fastapi.responses import StreamingResponse

from autocoder.core.api import described
from autocoder.core.api.bodies import LARGEST_ID
from autocoder.core.api.problems import Json
from autocoder.core.api.service import Service
from autocoder.core.wire import SnapshotWriter, command_from_json

HEARTBEAT_S = 10.0


def add_status_routes(app: FastAPI, service: Service) -> None:
    @app.get("/api/status", responses=described.example(described.STATUS) | described.refusals())
    async def status() -> Json:
        """Both pools in numbers, and the orchestrator in a few words."""
        snapshot = await service.snapshot()
        ledger = await service.with_ledger(lambda allocator: allocator.get_status())
        live = sum(agent.live for agent in snapshot.agents)
        return Json(
            ledger
            | {
                "project": snapshot.project_dir,
                "base": snapshot.base,
                "paused": snapshot.paused,
                "finished": snapshot.finished,
                "live_agents": live,
                "features": {
                    "total": snapshot.features.total,
                    "done": snapshot.features.done,
                    "in_progress": snapshot.features.in_progress,
                    "pending": snapshot.features.pending,
                    "held": snapshot.features.held,
                    "blocked": snapshot.features.blocked,
                    "ready_to_merge": snapshot.features.ready_to_merge,
                },
            }
        )

    @app.get(
        "/api/events",
        responses=described.example([{"id": 9, "message": "resumed"}]) | described.refusals(422),
    )
    async def events(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[int, Query(ge=0, le=LARGEST_ID, description="Only later ids.")] = 0,
    ) -> Json:
        """The project's latest activity, oldest first."""
        found = await service.with_store(lambda store: store.events(limit, after))
        return Json(
            [
                {
                    "id": event.id,
                    "at": event.at,
                    "level": event.level.value,
                    "event_type": event.event_type,
                    "message": event.message,
                    "agent_id": event.agent_id,
                    "feature_id": event.feature_id,
                    "data": event.data,
                }
                for event in found
            ]
        )


def add_engine_routes(app: FastAPI, service: Service) -> None:
    """The two verbs and the stream, for a panel in another process."""

    @app.post(
        "/api/commands",
        status_code=202,
        responses=described.example(described.ACCEPTED, 202, "Heard")
        | described.refusals(*described.BODY),
    )
    async def command(body: dict[str, Any]) -> Json:
        """Give the engine any command, as it is on the wire."""
        wish = command_from_json(body)
        return Json(service.wish(wish), 202)

    @app.get(
        "/api/snapshots",
        response_class=StreamingResponse,
        responses=described.stream("application/x-ndjson", "A whole snapshot, then what changes")
        | described.refusals(422),
    )
    async def snapshots(
        follow: Annotated[bool, Query(description="Go on until the client leaves.")] = True,
    ) -> StreamingResponse:
        """One JSON object a line; an empty line is a sign of life."""
        await service.snapshot()

        async def lines() -> AsyncIterator[str]:
            writer = SnapshotWriter()
            async for snapshot in service.feed.stream(HEARTBEAT_S):
                yield (writer.write(snapshot) if snapshot is not None else "") + "\n"
                if not follow:
                    return

        return StreamingResponse(lines(), media_type="application/x-ndjson")
