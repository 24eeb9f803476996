"""The router: endpoints of the table, mounted with their handlers.

Every request takes the same steps: admit it, read its body within its limit, parse it, call its handler. A check of
who asks comes before the body is read. A handler gets a parsed request and returns an answer of the type that the
table names.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, overload

from aiohttp import web

from mimi_mmr.errors import BodyTooLarge, MmrError, ParseError
from mimi_mmr.protocol.endpoints import Ans, Endpoint, Req, Way, to_body
from mimi_mmr.protocol.peers import PEER_SCHEME
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.replies import Reply, error_reply, problem
from ohttp_relay import bhttp
from ohttp_relay import errors as ohttp_errors
from ohttp_relay.server import ByteBudget
from ohttp_relay.transport import has_coding, read_limited

Subject = TypeVar("Subject")
MAX_BODIES = 256 << 20
log = logging.getLogger(__name__)


ReadBody = Callable[[int], Awaitable[bytes]]


async def _nothing(_: int) -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request before admission: the names in its path, and its credentials, "" if there are none.

    `bearer` is a bearer token, `peer` another provider's signed head of the request. The body is not read yet.
    """

    names: Mapping[str, str]
    limit: int
    bearer: str = field(default="", repr=False)
    peer: str = field(default="", repr=False)
    read: ReadBody = field(default=_nothing, repr=False)

    async def body(self, limit: int | None = None) -> bytes:
        """Read the body, of at most `limit` bytes (by default what the table allows); raise `BodyTooLarge`."""
        return await self.read(self.limit if limit is None else min(limit, self.limit))


@dataclass(frozen=True, slots=True)
class Call(Generic[Subject, Req]):
    """A request for a handler: its subject, the parsed request, the names in its path.

    `body` is the unparsed request, for a handler that hashes it or forwards it.
    """

    subject: Subject
    request: Req
    names: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Encoded(Generic[Ans]):
    """An answer that is already encoded and is forwarded without parsing."""

    body: bytes = field(repr=False)


# Admits a request: checks who asks, then reads the body; returns its subject and the body, or raises an error.
Admission = Callable[[Arrival], Awaitable[tuple[Subject, bytes]]]
Handler = Callable[[Call[Subject, Req]], Awaitable[Ans | Encoded[Ans]]]
_Answer = Callable[[Arrival], Awaitable[Reply]]
_Route = tuple[Endpoint[Any, Any], _Answer]


class Router:
    """Endpoints that are reached in the same ways; errors become problem documents with stable codes."""

    def __init__(self, recorder: Recorder, *ways: Way, bodies: ByteBudget | None = None) -> None:
        """Serve only endpoints that are reached in one of `ways`; `bodies` bounds what is received at once."""
        self._recorder = recorder
        self._bodies = bodies or ByteBudget(MAX_BODIES)
        self._ways = ways
        self._routes: dict[tuple[str, int], list[_Route]] = defaultdict(list)

    @property
    def endpoints(self) -> list[Endpoint[Any, Any]]:
        """The endpoints that are mounted."""
        return [endpoint for routes in self._routes.values() for endpoint, _ in routes]

    @overload
    def serve(self, endpoint: Endpoint[Req, Ans], handler: Handler[None, Req, Ans]) -> None: ...

    @overload
    def serve(
        self,
        endpoint: Endpoint[Req, Ans],
        handler: Handler[Subject, Req, Ans],
        *,
        admit: Admission[Subject],
        refuse: Callable[[MmrError], Ans] | None = None,
    ) -> None: ...

    def serve(
        self,
        endpoint: Endpoint[Req, Ans],
        handler: Handler[Any, Req, Ans],
        *,
        admit: Admission[Any] | None = None,
        refuse: Callable[[MmrError], Ans] | None = None,
    ) -> None:
        """Mount an endpoint.

        `admit` is called before the body is parsed; endpoints of accounts and peers must have one. `refuse` turns
        an error into an answer, for endpoints whose answer type can hold one; without it, errors become problem
        documents.
        """
        if endpoint.way not in self._ways:
            raise ValueError(f"{endpoint.template} is not reached by any of this router's ways")
        if admit is None and endpoint.way in (Way.ACCOUNT, Way.PEER):
            raise ValueError(f"{endpoint.template} has to check who asks")
        if endpoint in self.endpoints:
            raise ValueError(f"{endpoint.template} is mounted already")
        entrance = admit or _anybody

        async def answer(arrival: Arrival) -> Reply:
            subject, body = await entrance(arrival)
            try:
                call = Call(subject, endpoint.read_request(body), arrival.names, body)
                answer = await handler(call)
            except MmrError as error:
                if refuse is None:
                    raise
                answer = refuse(error)
            return Reply(endpoint.status, answer.body if isinstance(answer, Encoded) else to_body(answer))

        self._routes[endpoint.method, endpoint.template.count("/")].append((endpoint, answer))

    async def dispatch(
        self, method: str, path: str, body: bytes | ReadBody, bearer: str = "", peer: str = ""
    ) -> Reply:
        """Answer any request; errors become replies. `body` may be a function that reads it up to a limit."""
        for endpoint, answer in self._routes.get((method, path.count("/")), ()):
            names = endpoint.match(method, path)
            if names is not None:
                read = self._recorded(endpoint, path, body)
                reply = await _guarded(endpoint, answer, Arrival(names, endpoint.limit, bearer, peer, read))
                self._recorder.write(endpoint.role, "out", status=reply.status, body=reply.body)
                return reply
        return problem(404, "not-found", "no such endpoint")

    def _recorded(self, endpoint: Endpoint[Any, Any], path: str, body: bytes | ReadBody) -> ReadBody:
        """Return a function that reads the body and records the request."""

        async def read(limit: int) -> bytes:
            content = await body(limit) if callable(body) else body
            self._recorder.write(endpoint.role, "in", method=endpoint.method, path=path, body=content)
            _check_size(content, limit)
            return content

        return read

    async def oblivious(self, request: bhttp.Request) -> bhttp.Response:
        """Answer a request out of a capsule, as the gateway's local target."""
        reply = await self.dispatch(request.method, request.path, request.content)
        return bhttp.Response(reply.status, (("content-type", reply.content_type),), reply.body)

    def aiohttp_routes(self) -> list[web.RouteDef]:
        """Return the endpoints as routes for an aiohttp application, which is served over TLS."""
        return [web.route(one.method, one.template, self._serve_over_tls) for one in self.endpoints]

    async def _serve_over_tls(self, request: web.Request) -> web.StreamResponse:
        if has_coding(request.headers):
            text = "the body has a content coding; none is decoded"
            return problem(415, ParseError.code, text).to_aiohttp()
        async with self._bodies.growing() as held:

            async def read(limit: int) -> bytes:
                try:
                    return await read_limited(request.content, limit, request.content_length, hold=held.grow)
                except ohttp_errors.BodyTooLarge:
                    raise BodyTooLarge(f"the body is above {limit} bytes") from None

            scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
            bearer = credentials if scheme.lower() == "bearer" else ""
            peer = credentials if scheme.lower() == PEER_SCHEME.lower() else ""
            path = request.rel_url.raw_path
            return (await self.dispatch(request.method, path, read, bearer, peer)).to_aiohttp()


async def _anybody(arrival: Arrival) -> tuple[None, bytes]:
    """Admit every request."""
    return None, await arrival.body()


async def _guarded(endpoint: Endpoint[Any, Any], answer: _Answer, arrival: Arrival) -> Reply:
    """Answer, with a reply for every error."""
    try:
        return await answer(arrival)
    except MmrError as error:
        return error_reply(error)
    except ohttp_errors.Overloaded as error:
        return problem(503, "overloaded", str(error))
    except Exception as error:  # a bug must not show a peer its insides, nor a log what was asked
        log.error("endpoint failed: %s %s", endpoint.template, type(error).__name__)  # noqa: TRY400
        return problem(500, "internal", "internal error")


def _check_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise BodyTooLarge(f"a body of {len(body)} bytes; at most {limit} here")
