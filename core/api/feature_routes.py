"""The backlog, and what may be wished of its features."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from autocoder.core.api import described
from autocoder.core.api.bodies import Body, FeatureId, IdempotencyKey, NewFeature, Priority
from autocoder.core.api.problems import Json, Refusal
from autocoder.core.api.service import Service
from autocoder.core.commands import (
    Command,
    EnableFeature,
    MergeFeature,
    PrioritiseFeature,
    RetryFeature,
)
from autocoder.core.models import Feature
from autocoder.core.shapes import feature_json
from autocoder.core.store import FeatureDraft

HEARD = described.example({"accepted": {"command": "RetryFeature", "feature_id": 7}}, 202, "Heard")


def add_feature_routes(app: FastAPI, service: Service) -> None:
    @app.get(
        "/api/features",
        responses=described.example([{"id": 7, "name": "Due dates"}]) | described.refusals(),
    )
    async def features() -> Json:
        """The backlog in the order in which it is claimed."""
        return Json([feature_json(each) for each in (await service.snapshot()).backlog])

    @app.post(
        "/api/features",
        status_code=201,
        responses=described.example({"id": 8, "name": "Due dates"}, 201, "Added")
        | described.refusals(409, *described.BODY),
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
            backend=body.backend,
            model=body.model,
            base=body.base,
        )

        async def answer() -> dict[str, Any]:
            await service.blocking(lambda: service.check_choice(draft))
            (added,) = await service.with_store(lambda store: store.add_features([draft]))
            return feature_json(added)

        asked = ("feature", body.model_dump_json())
        return Json(await service.once(key, asked, answer), 201)

    async def find(feature_id: int) -> Feature:
        for feature in (await service.snapshot()).backlog:
            if feature.id == feature_id:
                return feature
        raise Refusal(404, f"there is no feature {feature_id}", "GET /api/features lists them.")

    def wish(verb: str, says: str, command: Callable[[int], Command]) -> None:
        @app.post(
            f"/api/features/{{feature_id}}/{verb}",
            status_code=202,
            name=f"{verb} feature",
            description=says,
            responses=HEARD | described.refusals(404, *described.BODY),
        )
        async def ask(feature_id: FeatureId, _body: Body | None = None) -> Json:
            await find(feature_id)
            return Json(service.wish(command(feature_id), feature_id=feature_id), 202)

    wish("retry", "Make it claimable now, its attempts set back to none.", RetryFeature)
    wish("enable", "Let it be claimed.", EnableFeature)
    wish(
        "disable",
        "Keep it from being claimed by itself.",
        lambda feature_id: EnableFeature(feature_id, enabled=False),
    )
    wish("merge", "Test its finished branch on its base, then land it there.", MergeFeature)

    @app.post(
        "/api/features/{feature_id}/prioritise",
        status_code=202,
        responses=HEARD | described.refusals(404, *described.BODY),
    )
    async def prioritise(feature_id: FeatureId, body: Priority) -> Json:
        """Give it another priority; a higher one is claimed first."""
        await find(feature_id)
        wished = PrioritiseFeature(feature_id, body.priority)
        return Json(service.wish(wished, feature_id=feature_id), 202)
