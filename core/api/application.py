"""Every route of the API. What changes the fleet is a wish: answered 202, fulfilled by the loop."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException

from autocoder.core.api import log_stream, problems
from autocoder.core.api.log_stream import Position
from autocoder.core.api.problems import Json, Problem, Refusal
from autocoder.core.api.service import Service
from autocoder.core.commands import (
    Command,
    KillAgent,
    RecoverAgent,
    SpawnAgent,
    StopAgent,
    TellAgent,
)
from autocoder.core.errors import AutocoderError
from autocoder.core.logs import log_path
from autocoder.core.models import Agent, Holder, PortRange, Role
from autocoder.core.shapes import agent_json, feature_json, lease_json
from autocoder.core.store import FeatureDraft
from autocoder.core.telling import LONGEST as LONGEST_MESSAGE
from autocoder.core.wire import SnapshotWriter, command_from_json

HEARTBEAT_S = 10.0
LARGEST_ID = 2**63 - 1
HIGHEST_PID = 2**22
LONGEST_TTL_S = 365 * 86400

AgentId = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["a-0001"])]
IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        description="Ask again under the same key and get the same answer, once done.",
    ),
]
Name = Annotated[str, Field(min_length=1, max_length=200)]
# The database holds no lone surrogates and no NUL.
Text = Annotated[str, Field(max_length=20_000, pattern=r"^[^\x00]*$")]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Allocation(Body):
    """A pair for a program that is no agent; it ends with its process, or after its time."""

    holder: Name = Field(examples=["nightly-e2e"], pattern=r"^[ -~]+$")
    pid: int | None = Field(None, ge=1, le=HIGHEST_PID, examples=[4711])
    ttl_s: float | None = Field(None, gt=0, le=LONGEST_TTL_S, examples=[3600])
    idempotency_key: str = Field("", max_length=200, examples=["build-1234"])


class Release(Body):
    holder: Name = Field(examples=["nightly-e2e"], pattern=r"^[ -~]+$")
    epoch: int | None = Field(None, ge=0, le=LARGEST_ID, examples=[17])


class Expansion(Body):
    """By `amount` ports in the next free block, by `start` to `end` (exclusive), or by default."""

    pool: Role = Field(examples=["api"])
    amount: int | None = Field(None, ge=1, le=64_000, examples=[50])
    start: int | None = Field(None, ge=1, le=65_535, examples=[None])
    end: int | None = Field(None, ge=2, le=65_536, examples=[None])

    @model_validator(mode="after")
    def _one_way(self) -> "Expansion":
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end belong together")
        if self.amount is not None and self.start is not None:
            raise ValueError("either amount, or start and end")
        return self

    @property
    def wanted(self) -> int | PortRange | None:
        if self.start is not None and self.end is not None:
            return PortRange(self.start, self.end)
        return self.amount


class Spawn(Body):
    """An agent for a feature, for a typed task, or for the next feature."""

    feature_id: int | None = Field(None, ge=1, le=LARGEST_ID, examples=[7])
    task: Text = Field("", examples=[""])

    @model_validator(mode="after")
    def _one_way(self) -> "Spawn":
        if self.feature_id is not None and self.task.strip():
            raise ValueError("either feature_id or task")
        return self


class Tell(Body):
    text: str = Field(max_length=LONGEST_MESSAGE, pattern=r"\S", examples=["Keep the header"])


class NewFeature(Body):
    name: Annotated[Name, Field(pattern=r"^[^\x00]*\S[^\x00]*$")] = Field(examples=["Due dates"])
    description: Text = Field("", examples=["A todo can have a due date."])
    steps: list[Annotated[Text, Field(max_length=2000)]] = Field([], max_length=100)
    category: Annotated[Text, Field(max_length=200)] = Field("", examples=["api"])
    priority: int = Field(0, ge=-1_000_000, le=1_000_000, examples=[10])
    depends_on: list[Annotated[int, Field(ge=1, le=LARGEST_ID)]] = Field([], max_length=100)


def _refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The refusals a route documents; those of the guard belong to all."""
    return {
        code: {
            "model": Problem,
            "description": problems.TITLES[code],
            "content": {problems.MEDIA_TYPE: {}},
        }
        for code in sorted({401, 403, 429, 503, *codes})
    }


def _example(value: object, status: int = 200, description: str = "Done") -> dict[int | str, Any]:
    return {
        status: {"description": description, "content": {"application/json": {"example": value}}}
    }


def _stream(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {media_type: {}}}}


BODY = (400, 408, 413, 415, 422)
ACCEPTED = {"accepted": {"command": "StopAgent", "agent_id": "a-0001"}}
AGENT = {"agent_id": "a-0001", "state": "ACTIVE", "feature_id": 7, "api_port": 5000}
PAIR = {"holder": "nightly-e2e", "api_port": 5003, "web_port": 5176, "epoch": 17}
STATUS = {"host_id": "box7", "pools": {"api": {"total": 100, "usable": 98, "available": 93}}}


def build_application(service: Service, version: str) -> FastAPI:
    """The API over `service`. Guards belong around it, one for each way in."""
    app = FastAPI(
        title="autocoder",
        version=version,
        description="Agents, features and ports of one project. What ends or starts an agent is "
        "a wish: 202 says that it was heard; the list of agents and the events say what came.",
    )
    app.add_exception_handler(Refusal, problems.of_refusal)
    app.add_exception_handler(RequestValidationError, problems.of_invalid_request)
    app.add_exception_handler(HTTPException, problems.of_http_exception)
    app.add_exception_handler(AutocoderError, problems.of_autocoder_error)
    _status_routes(app, service)
    _port_routes(app, service)
    _agent_routes(app, service)
    _feature_routes(app, service)
    _engine_routes(app, service)
    return app


def _status_routes(app: FastAPI, service: Service) -> None:
    @app.get("/api/status", responses=_example(STATUS) | _refusals())
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
                    "blocked": snapshot.features.blocked,
                    "ready_to_merge": snapshot.features.ready_to_merge,
                },
            }
        )

    @app.get("/api/events", responses=_example([{"id": 9, "message": "resumed"}]) | _refusals(422))
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


def _port_routes(app: FastAPI, service: Service) -> None:
    @app.get("/api/ports", responses=_example(STATUS | {"leases": []}) | _refusals())
    async def ports() -> Json:
        """Every row of the host's ledger, and the pools in numbers."""

        def read(allocator: Any) -> dict[str, Any]:
            leases = [lease_json(lease) for lease in allocator.leases()]
            return dict(allocator.get_status()) | {"leases": leases}

        return Json(await service.with_ledger(read))

    @app.post(
        "/api/ports/allocate",
        status_code=201,
        responses=_example(PAIR, 201, "The pair, held from now on") | _refusals(409, *BODY),
    )
    async def allocate(body: Allocation, key: IdempotencyKey = "") -> Json:
        """Lease a pair, or say which one the holder has already."""
        holder = Holder(body.holder, pid=body.pid)

        async def answer() -> dict[str, Any]:
            pair = await service.with_ledger(
                lambda allocator: allocator.lease(holder, ttl_s=body.ttl_s)
            )
            return {
                "holder": body.holder,
                "api_port": pair.api_port,
                "web_port": pair.web_port,
                "epoch": pair.epoch,
            }

        asked = ("allocate", body.holder, body.pid, body.ttl_s)
        return Json(await service.once(body.idempotency_key or key, asked, answer), 201)

    @app.post(
        "/api/ports/release",
        responses=_example({"holder": "nightly-e2e"}) | _refusals(409, *BODY),
    )
    async def release(body: Release) -> Json:
        """Give a pair back; it is leased again once nothing listens on it. Twice is no error."""
        await service.with_ledger(
            lambda allocator: allocator.release(body.holder, "", epoch=body.epoch)
        )
        return Json({"holder": body.holder})

    @app.post(
        "/api/ports/expand",
        responses=_example({"pool": "api", "added": [5273, 5373]}) | _refusals(409, *BODY),
    )
    async def expand(body: Expansion, key: IdempotencyKey = "") -> Json:
        """Grow a pool, for good and for every project of this host."""

        async def answer() -> dict[str, Any]:
            added = await service.with_ledger(
                lambda allocator: allocator.expand(body.pool, body.wanted)
            )
            return {"pool": body.pool.value, "added": [added.start, added.end]}

        asked = ("expand", body.model_dump_json())
        return Json(await service.once(key, asked, answer))


def _agent_routes(app: FastAPI, service: Service) -> None:
    async def find(agent_id: str) -> Agent:
        for agent in (await service.snapshot()).agents:
            if agent.agent_id == agent_id:
                return agent
        raise Refusal(404, f"there is no agent {agent_id}", "GET /api/agents?all=true lists them.")

    async def accepted(command: Command, agent_id: str = "") -> Json:
        service.submit(command)
        named = {"command": type(command).__name__} | ({"agent_id": agent_id} if agent_id else {})
        return Json({"accepted": named}, 202)

    @app.get("/api/agents", responses=_example([AGENT]) | _refusals(422))
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
        responses=_example(ACCEPTED, 202, "Heard") | _refusals(404, *BODY),
    )
    async def spawn(body: Spawn, key: IdempotencyKey = "") -> Json:
        """Start an agent now, even beyond `parallel`."""
        backlog = (await service.snapshot()).backlog
        if body.feature_id is not None and body.feature_id not in {f.id for f in backlog}:
            raise Refusal(404, f"there is no feature {body.feature_id}")

        async def answer() -> Json:
            return await accepted(SpawnAgent(body.feature_id, body.task))

        response: Json = await service.once(key, ("spawn", body.model_dump_json()), answer)
        return response

    def wish(verb: str, kind: type[StopAgent | KillAgent | RecoverAgent], says: str) -> None:
        @app.post(
            f"/api/agents/{{agent_id}}/{verb}",
            status_code=202,
            name=f"{verb} agent",
            description=says,
            responses=_example(ACCEPTED, 202, "Heard") | _refusals(404, 409, *BODY),
        )
        async def ask(agent_id: AgentId, _body: Body | None = None) -> Json:
            agent = await find(agent_id)
            if not agent.live and kind is not RecoverAgent:
                raise Refusal(409, f"agent {agent_id} has ended")
            return await accepted(kind(agent_id), agent_id)

    wish("stop", StopAgent, "Ask it to end, then force it; its feature goes back uncounted.")
    wish("kill", KillAgent, "Force its whole tree down at once.")
    wish("recover", RecoverAgent, "Go on with its work in a new agent, in its worktree.")

    @app.post(
        "/api/agents/{agent_id}/tell",
        status_code=202,
        responses=_example(ACCEPTED, 202, "Heard") | _refusals(404, 409, *BODY),
    )
    async def tell(agent_id: AgentId, body: Tell) -> Json:
        """Send it a message, which it reads at its next turn; a notice says where it cannot."""
        agent = await find(agent_id)
        if not agent.live:
            raise Refusal(409, f"agent {agent_id} has ended")
        return await accepted(TellAgent(agent_id, body.text), agent_id)

    @app.get(
        "/api/agents/{agent_id}/log",
        response_class=StreamingResponse,
        responses=_stream("text/event-stream", "Events `log` with offset and text, then `end`")
        | _refusals(404, 422),
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


def _feature_routes(app: FastAPI, service: Service) -> None:
    @app.get("/api/features", responses=_example([{"id": 7, "name": "Due dates"}]) | _refusals())
    async def features() -> Json:
        """The backlog in the order in which it is claimed."""
        return Json([feature_json(each) for each in (await service.snapshot()).backlog])

    @app.post(
        "/api/features",
        status_code=201,
        responses=_example({"id": 8, "name": "Due dates"}, 201, "Added") | _refusals(409, *BODY),
    )
    async def add(body: NewFeature, key: IdempotencyKey = "") -> Json:
        """Add a feature to the backlog."""
        draft = FeatureDraft(
            name=body.name,
            description=body.description,
            steps=tuple(body.steps),
            category=body.category,
            priority=body.priority,
            depends_on=tuple(body.depends_on),
        )

        async def answer() -> dict[str, Any]:
            (added,) = await service.with_store(lambda store: store.add_features([draft]))
            return feature_json(added)

        asked = ("feature", body.model_dump_json())
        return Json(await service.once(key, asked, answer), 201)


def _engine_routes(app: FastAPI, service: Service) -> None:
    """The two verbs and the stream, for a panel in another process."""

    @app.post(
        "/api/commands",
        status_code=202,
        responses=_example(ACCEPTED, 202, "Heard") | _refusals(*BODY),
    )
    async def command(body: dict[str, Any]) -> Json:
        """Give the engine any command, as it is on the wire."""
        wish = command_from_json(body)
        service.submit(wish)
        return Json({"accepted": {"command": type(wish).__name__}}, 202)

    @app.get(
        "/api/snapshots",
        response_class=StreamingResponse,
        responses=_stream("application/x-ndjson", "A whole snapshot, then what changes")
        | _refusals(422),
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


def _event_stream(events: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)
