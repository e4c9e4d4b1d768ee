"""What stands before every route: who may ask, from where, how much and how often.

A page in the user's browser can reach 127.0.0.1 too. So a request over TCP needs the
token, a Host that is ours (a rebound DNS name is not), no foreign Origin, and JSON as
its content type, which no form can send unasked.
"""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autocoder.core.api.problems import problem

CLIENTS_REMEMBERED = 1024
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes: int = 64 * 1024
    body_s: float = 10.0
    """All of a body must have come by then."""
    at_once: int = 100
    """Requests under way, streams included."""
    per_second: float = 400.0
    """Requests of one client, on average."""
    burst: float = 800.0


class Guard:
    """An ASGI application around another one; one for each way in."""

    def __init__(
        self,
        application: ASGIApp,
        *,
        token: str = "",
        hosts: Collection[str] = ("localhost",),
        origins: Collection[str] = (),
        limits: Limits | None = None,
    ) -> None:
        """Without a `token` everybody who can reach it may ask: for sockets only their user can.

        `hosts` are names without port; `origins` those of other pages that may ask.
        """
        self._application = application
        self._token = token.encode()
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)
        self._limits = limits or Limits()
        self._under_way = 0
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await problem(*refusal)(scope, receive, send)
            return
        if scope["method"] in WITH_BODY:
            body = await self._body(scope, receive)
            if isinstance(body, tuple):
                await problem(*body)(scope, receive, send)
                return
            receive = _replayed(body, receive)
        self._under_way += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._under_way -= 1

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if _host_name(headers.get("host", "")) not in self._hosts:
            return 403, "this server does not go by that host name"
        origin = headers.get("origin")
        if origin is not None and not self._is_allowed(origin, headers):
            return 403, "pages of that origin may not ask"
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and origin is None:
            return 403, "other pages may not ask"
        if not self._has_token(headers):
            return 401, "send the token as `Authorization: Bearer TOKEN`"
        if not self._takes_turn(scope):
            return 429, "more requests than this server answers"
        if self._under_way >= self._limits.at_once:
            return 429, "too many requests are under way"
        if scope["method"] in WITH_BODY:
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return 415, "send a body of content type application/json"
        return None

    def _is_allowed(self, origin: str, headers: Headers) -> bool:
        return origin in self._origins or origin == f"http://{headers.get('host', '')}"

    def _has_token(self, headers: Headers) -> bool:
        if not self._token:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # Constant time: how long a refusal takes says nothing about the token.
        matches = hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)
        return matches and scheme.lower() == "bearer"

    def _takes_turn(self, scope: Scope) -> bool:
        client = scope.get("client")
        name = client[0] if client else ""
        now = asyncio.get_running_loop().time()
        left, since = self._buckets.pop(name, (self._limits.burst, now))
        left = min(self._limits.burst, left + (now - since) * self._limits.per_second)
        allowed = left >= 1
        self._buckets[name] = (left - allowed, now)
        if len(self._buckets) > CLIENTS_REMEMBERED:
            self._buckets.popitem(last=False)
        return allowed

    async def _body(self, scope: Scope, receive: Receive) -> bytes | tuple[int, str]:
        limit = self._limits.body_bytes
        too_large = 413, f"a body may have {limit} bytes"
        if int(Headers(scope=scope).get("content-length", "0")) > limit:
            return too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        return 400, "the body ended early"
                    body += message.get("body", b"")
                    if len(body) > limit:
                        return too_large
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            return 408, f"the body had not come after {self._limits.body_s:g} s"


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].lower()


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once, then whatever comes after it: the news that the client has gone."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
