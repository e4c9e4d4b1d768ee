"""What a route's description says of its answers, refusals included."""

from typing import Any

from autocoder.core.api import problems
from autocoder.core.api.problems import Problem


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The refusals a route documents; those of the guard belong to all."""
    return {
        code: {
            "model": Problem,
            "description": problems.TITLES[code],
            "content": {problems.MEDIA_TYPE: {}},
        }
        for code in sorted({401, 403, 429, 503, *codes})
    }


def example(value: object, status: int = 200, description: str = "Done") -> dict[int | str, Any]:
    return {
        status: {"description": description, "content": {"application/json": {"example": value}}}
    }


def stream(media_type: str, description: str) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {media_type: {}}}}


BODY = (400, 408, 413, 415, 422)
ACCEPTED = {"accepted": {"command": "StopAgent", "agent_id": "a-0001"}}
AGENT = {"agent_id": "a-0001", "state": "ACTIVE", "feature_id": 7, "api_port": 5000}
PAIR = {"holder": "nightly-e2e", "api_port": 5003, "web_port": 5176, "epoch": 17}
STATUS = {"host_id": "box7", "pools": {"api": {"total": 100, "usable": 98, "available": 93}}}
