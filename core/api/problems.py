"""Every refusal as `application/problem+json` (RFC 9457), whoever refuses."""

import json
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from autocoder.core.errors import AutocoderError, DatabaseError, RefusedError, UsageError

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "No or wrong token",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Refused in the present state",
    413: "Too large",
    415: "Wrong content type",
    422: "Invalid",
    429: "Too many requests",
    503: "Not now",
}


class Problem(BaseModel):
    """Why not, and what to do about it."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:autocoder:PoolExhausted"])
    title: str = Field(examples=["Refused in the present state"])
    status: int = Field(examples=[409])
    detail: str = Field(examples=["no pair is free: pool api has 98 usable ports, 98 leased"])
    hint: str = Field(default="", examples=["Extend the pool: autocoder ports expand api"])


class Refusal(Exception):
    """A refusal of the API's own, with its status."""

    def __init__(self, status: int, detail: str, hint: str = "", kind: str = "Refused") -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.hint = hint
        self.kind = kind


class Json(JSONResponse):
    """JSON in ASCII: nothing in it can steer the terminal it ends up on, and lone surrogates
    of odd file names survive."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


def problem(
    status: int,
    detail: str,
    *,
    hint: str = "",
    kind: str = "Refused",
    more: dict[str, Any] | None = None,
) -> Response:
    content = {
        "type": f"urn:autocoder:{kind}",
        "title": TITLES.get(status, "Refused"),
        "status": status,
        "detail": detail,
        "hint": hint,
    } | (more or {})
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status in (429, 503):
        headers["Retry-After"] = "1"
    return Json(content, status, headers, MEDIA_TYPE)


def of_refusal(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return problem(error.status, error.detail, hint=error.hint, kind=error.kind)


def of_autocoder_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AutocoderError)
    said = error.as_dict()
    kind, detail, hint = str(said.pop("error")), str(said.pop("message")), str(said.pop("hint"))
    if isinstance(error, DatabaseError):
        status = 503
    elif isinstance(error, RefusedError):
        status = 409
    else:
        status = 422 if isinstance(error, UsageError) else 409
    return problem(status, detail, hint=hint, kind=kind, more=said)


def of_invalid_request(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        {"where": ".".join(map(str, each["loc"])), "what": each["msg"]} for each in error.errors()
    ][:20]
    detail = "; ".join(f"{each['where']}: {each['what']}" for each in found[:3])
    return problem(422, detail, kind="Invalid", more={"errors": found})


def of_http_exception(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = problem(error.status_code, str(error.detail), kind="Http")
    response.headers.update(error.headers or {})
    return response
