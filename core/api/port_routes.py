"""The host's ledger, for programs that are no agents: pairs that end with a pid or a time."""

from typing import Any

from fastapi import FastAPI

from autocoder.core.api import described
from autocoder.core.api.bodies import Allocation, Expansion, IdempotencyKey, Release
from autocoder.core.api.problems import Json
from autocoder.core.api.service import Service
from autocoder.core.models import Holder
from autocoder.core.shapes import lease_json


def add_port_routes(app: FastAPI, service: Service) -> None:
    @app.get(
        "/api/ports",
        responses=described.example(described.STATUS | {"leases": []}) | described.refusals(),
    )
    async def ports() -> Json:
        """Every row of the host's ledger, and the pools in numbers."""

        def read(allocator: Any) -> dict[str, Any]:
            leases = [lease_json(lease) for lease in allocator.leases()]
            return dict(allocator.get_status()) | {"leases": leases}

        return Json(await service.with_ledger(read))

    @app.post(
        "/api/ports/allocate",
        status_code=201,
        responses=described.example(described.PAIR, 201, "The pair, held from now on")
        | described.refusals(409, *described.BODY),
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
        responses=described.example({"holder": "nightly-e2e"})
        | described.refusals(409, *described.BODY),
    )
    async def release(body: Release) -> Json:
        """Give a pair back; it is leased again once nothing listens on it. Twice is no error."""
        await service.with_ledger(
            lambda allocator: allocator.release(body.holder, "", epoch=body.epoch)
        )
        return Json({"holder": body.holder})

    @app.post(
        "/api/ports/expand",
        responses=described.example({"pool": "api", "added": [5273, 5373]})
        | described.refusals(409, *described.BODY),
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
