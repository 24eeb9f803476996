"""Routes that don't care how a request came: over TLS directly, or out of an Oblivious HTTP capsule."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import web

from mimi_mmr.errors import (
    BodyTooLarge,
    HubRefusal,
    IdentityError,
    InvalidUri,
    MmrError,
    NoKeyPackages,
    NotAllowed,
    ParseError,
    PeerError,
    QueueFull,
    RoomError,
    SealedBoxRejected,
    Unauthorized,
    UnknownQueue,
    UnknownRoom,
    WrongEpoch,
)
from mimi_mmr.protocol.problems import PROBLEM, write_problem
from mimi_mmr.provider.record import Recorder
from ohttp_relay import bhttp
from ohttp_relay import errors as ohttp_errors
from ohttp_relay.transport import read_limited

CONTENT_TYPE = "application/octet-stream"

_STATUS: tuple[tuple[type[MmrError], int], ...] = (
    (BodyTooLarge, 413),
    (ParseError, 400),
    (InvalidUri, 400),
    (Unauthorized, 401),
    (UnknownRoom, 404),
    (UnknownQueue, 404),
    (NoKeyPackages, 404),
    (WrongEpoch, 409),
    (NotAllowed, 403),
    (QueueFull, 507),
    (PeerError, 502),
    (SealedBoxRejected, 400),
    (IdentityError, 400),
    (HubRefusal, 400),
    (RoomError, 400),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A request: what the path names, the bearer token if there is one, and the body."""

    names: Mapping[str, str]
    body: bytes = field(repr=False)
    bearer: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    content_type: str = CONTENT_TYPE


Handler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint. `role` says in whose name the provider answers: hub, accounts, deliveries or assets."""

    method: str
    template: str
    handler: Handler
    role: str
    limit: int

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """The names in the path, if this is the route."""
        wanted, found = self.template.split("/"), path.split("/")
        if method != self.method or len(wanted) != len(found):
            return None
        names = {}
        for part, value in zip(wanted, found, strict=True):
            if part.startswith("{"):
                names[part[1:-1]] = unquote(value)
            elif part != value:
                return None
        return names


class Router:
    """Endpoints by method and path; errors become problem documents with this package's stable codes."""

    def __init__(self, recorder: Recorder) -> None:
        """Start without routes."""
        self.routes: list[Route] = []
        self._recorder = recorder

    def add(self, method: str, template: str, handler: Handler, *, role: str, limit: int = 1 << 16) -> None:
        """Serve `template` (`/v1/update/{room}`); bodies above `limit` bytes are refused."""
        self.routes.append(Route(method, template, handler, role, limit))

    async def dispatch(self, method: str, path: str, call_body: bytes, bearer: str = "") -> Reply:
        """Answer one request, whatever it is; never raises."""
        for route in self.routes:
            names = route.match(method, path)
            if names is not None:
                return await self._answer(route, path, Call(names, call_body, bearer))
        return problem(404, "not-found", "no such endpoint")

    async def _answer(self, route: Route, path: str, call: Call) -> Reply:
        self._recorder.write(route.role, "in", method=route.method, path=path, body=call.body)
        try:
            check_size(call.body, route.limit)
            reply = await route.handler(call)
        except MmrError as error:
            reply = error_reply(error)
        except Exception as error:  # a bug must not show a peer its insides, nor a log what was asked
            log.error("endpoint failed: %s %s", route.template, type(error).__name__)  # noqa: TRY400
            reply = problem(500, "internal", "internal error")
        self._recorder.write(route.role, "out", status=reply.status, body=reply.body)
        return reply

    async def oblivious(self, request: bhttp.Request) -> bhttp.Response:
        """The gateway's local target."""
        reply = await self.dispatch(request.method, request.path, request.content)
        return bhttp.Response(reply.status, (("content-type", reply.content_type),), reply.body)

    def aiohttp_routes(self) -> list[web.RouteDef]:
        """The same endpoints for an aiohttp application, for a hub that mounts them."""
        return [web.route(route.method, route.template, self._serve(route)) for route in self.routes]

    def _serve(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def serve(request: web.Request) -> web.StreamResponse:
            try:
                body = await read_limited(request.content, route.limit, request.content_length)
            except ohttp_errors.BodyTooLarge:
                return to_aiohttp(error_reply(BodyTooLarge(f"the body is above {route.limit} bytes")))
            scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
            token = bearer if scheme.lower() == "bearer" else ""
            return to_aiohttp(await self.dispatch(request.method, request.rel_url.raw_path, body, token))

        return serve


def check_size(body: bytes, limit: int) -> None:
    """Raises `BodyTooLarge`."""
    if len(body) > limit:
        raise BodyTooLarge(f"a body of {len(body)} bytes; at most {limit} here")


def to_aiohttp(reply: Reply) -> web.Response:
    """A reply on aiohttp."""
    return web.Response(status=reply.status, body=reply.body, content_type=reply.content_type)


def problem(status: int, code: str, message: str) -> Reply:
    """RFC 9457's document."""
    return Reply(status, write_problem(code, message), PROBLEM)


def error_reply(error: MmrError) -> Reply:
    """An error of this package, as it crosses the wire."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    return problem(status, error.code, str(error))
