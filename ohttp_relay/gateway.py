"""The Oblivious Gateway Resource (RFC 9458, section 5) on aiohttp.

Whatever fails before the capsule is open is answered plainly (4xx); whatever fails after is an
encapsulated response, and the outer status is 200.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import aiohttp
from aiohttp import web

from . import problems
from .bhttp import Limits, Request, Response
from .capsule import REQUEST_TYPE, RESPONSE_TYPE, OpenedRequest, decapsulate_request
from .errors import (
    BodyTooLarge,
    CapsuleError,
    ConfigurationError,
    DateRejected,
    InvalidMessage,
    OhttpError,
    OpenFailed,
    ReplayedRequest,
    ReplayStoreFull,
    TargetRefused,
    TargetUnreachable,
    UnknownKey,
)
from .fetch import Fetcher
from .keys import MEDIA_TYPE as KEYS_TYPE
from .keys import KeyRing
from .padding import Padding, buckets
from .replay import ReplayGuard, format_date
from .streams import AnyResponse, Handler
from .targets import CheckedConnector, Origin, TargetPolicy, open_target_session
from .transport import Observer, Seen, header_pairs, hide_server, media_type, read_limited

DEFAULT_PATH: Final = "/.well-known/ohttp-gateway"
UNDATED_WINDOW: Final = 2 * 86_400.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """Bytes of an encapsulated request, bytes of a target's answer, seconds for a target to answer."""

    request: int = 16 * 1024 * 1024
    response: int = 64 * 1024 * 1024
    target_seconds: float = 30.0
    fields: int = 256


_ANSWERS: Final[Mapping[type[OhttpError], tuple[int, str]]] = MappingProxyType(
    {
        DateRejected: (400, problems.DATE),
        ReplayedRequest: (400, problems.BLANK),
        InvalidMessage: (400, problems.BLANK),
        TargetRefused: (403, problems.BLANK),
        BodyTooLarge: (413, problems.BLANK),
        ReplayStoreFull: (503, problems.BLANK),
        TargetUnreachable: (504, problems.BLANK),
    }
)


class Gateway:
    """Opens requests, checks them, has them answered, seals the answers.

    `targets` is the allow-list: origins such as `https://a.example`, or a TargetPolicy.  `local` maps
    origins to in-process targets.  One of the two must not be empty.
    """

    def __init__(
        self,
        keyring: KeyRing,
        targets: TargetPolicy | Iterable[str] = (),
        local: Mapping[str, Handler] | None = None,
        session: aiohttp.ClientSession | None = None,
        *,
        replay: ReplayGuard | None = None,
        padding: Padding = buckets,
        limits: GatewayLimits | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        observe: Observer | None = None,
    ) -> None:
        self.keyring = keyring
        self.policy = targets if isinstance(targets, TargetPolicy) else TargetPolicy.of(targets)
        self.limits = limits or GatewayLimits()
        self._local = {Origin.parse(origin): handler for origin, handler in (local or {}).items()}
        if not self.policy.origins and not self._local:
            raise ConfigurationError("a gateway needs an allow-list of targets")
        if session is not None and not isinstance(session.connector, CheckedConnector):
            raise ConfigurationError("a gateway fetches over a session made by open_target_session")
        self._replay = replay or ReplayGuard.in_memory(undated_window=UNDATED_WINDOW)
        self._padding = padding
        self._ssl = ssl_context
        self._clock = clock
        self._observe = observe
        self._session = session
        self._owned: aiohttp.ClientSession | None = None
        self._bhttp_limits = Limits(fields=self.limits.fields, content=self.limits.request)

    # Mounting

    def routes(self, path: str = DEFAULT_PATH) -> list[web.RouteDef]:
        """Return the routes: POST for encapsulated requests, GET for the key list (RFC 9540, section 5)."""
        return [web.post(path, self.handle), web.get(path, self.handle_keys, allow_head=False)]

    def app(self, path: str = DEFAULT_PATH) -> web.Application:
        """Return an application that serves the gateway alone and closes it at the end."""
        app = web.Application()
        app.add_routes(self.routes(path))
        app.on_response_prepare.append(hide_server)
        app.on_cleanup.append(self._cleanup)
        return app

    async def close(self) -> None:
        """Close the session that the gateway opened itself."""
        if self._owned is not None:
            await self._owned.close()
            self._owned = None

    async def _cleanup(self, _: web.Application) -> None:
        await self.close()

    # Requests

    async def handle_keys(self, request: web.Request) -> web.Response:
        """Serve the key list."""
        self._see("gateway.keys", request)
        headers = {"Cache-Control": f"max-age={int(min(3600, self.keyring.overlap / 2))}"}
        return web.Response(body=self.keyring.public_list(), content_type=KEYS_TYPE, headers=headers)

    async def handle(self, request: web.Request) -> web.Response:
        """Serve an encapsulated request."""
        if media_type(request.headers.get("Content-Type")) != REQUEST_TYPE:
            return _plain(415, problems.BLANK, f"expected {REQUEST_TYPE}")
        try:
            body = await read_limited(request.content, self.limits.request, request.content_length)
            self._see("gateway.received", request, body)
            opened = decapsulate_request(self.keyring, body)
        except BodyTooLarge as error:
            return _plain(413, problems.BLANK, str(error))
        except (UnknownKey, OpenFailed) as error:
            return _plain(400, problems.OHTTP_KEY, str(error))
        except CapsuleError as error:
            return _plain(400, problems.BLANK, str(error))
        return web.Response(body=await self.answer(opened), content_type=RESPONSE_TYPE)

    async def answer(self, opened: OpenedRequest) -> bytes:
        """Return the encapsulated response to a request that is out of its capsule; never raises."""
        self._note("gateway.decapsulated", Seen(body=opened.request))
        response = await self._respond(opened)
        return opened.sealer.seal(response.to_bytes(self._padding))

    async def _respond(self, opened: OpenedRequest) -> Response:
        try:
            return await self._serve(Request.from_bytes(opened.request, self._bhttp_limits), opened.enc)
        except OhttpError as error:
            return self._refuse(error)
        except Exception as error:  # a local target's own failure must not leave the encapsulation
            log.error("a target failed: %s", type(error).__name__)  # noqa: TRY400  # a traceback may hold content
            return _problem(500, problems.BLANK, "the target failed")

    async def _serve(self, request: Request, enc: bytes) -> Response:
        if "100-continue" in (request.header("expect") or "").lower():
            return _problem(417, problems.BLANK, "100-continue cannot be used (RFC 9458, section 5.1)")
        await self._replay.check(enc, request.header("date"), self._clock())
        handler = self._local_handler(request)
        if handler is not None:
            response = await self._whole(await handler(request))
        else:
            response = await self._fetch(request)
        response.to_bytes()  # an invalid answer is the target's failure: find it while it can be said
        return response

    async def _whole(self, response: AnyResponse) -> Response:
        if isinstance(response, Response):
            return response
        try:
            return await response.collect(self.limits.response)
        except BodyTooLarge:
            return _problem(502, problems.BLANK, "the target's answer is too large")

    def _local_handler(self, request: Request) -> Handler | None:
        try:
            return self._local.get(Origin.parse(f"{request.scheme}://{request.host}"))
        except ConfigurationError:
            raise TargetRefused("the target is not an origin") from None

    async def _fetch(self, request: Request) -> Response:
        self._note("gateway.fetched", Seen(method=request.method, target=request.origin + request.path))
        try:
            return await self._fetcher().fetch(request)
        except BodyTooLarge:
            return _problem(502, problems.BLANK, "the target's answer is too large")

    def _fetcher(self) -> Fetcher:
        session = self._session or self._owned
        if session is None:
            session = self._owned = open_target_session(self.policy, ssl_context=self._ssl)
        limits = self.limits
        return Fetcher(self.policy, session, limit=limits.response, timeout=limits.target_seconds)

    def _refuse(self, error: OhttpError) -> Response:
        status, kind = next(
            (answer for cls, answer in _ANSWERS.items() if isinstance(error, cls)), (500, problems.BLANK)
        )
        response = _problem(status, kind, str(error))
        if isinstance(error, DateRejected):  # lets the client correct its clock, once (section 6.5.2)
            return response.with_fields(("date", format_date(self._clock())), ("cache-control", "no-store"))
        return response

    # Observation

    def _see(self, event: str, request: web.Request, body: bytes = b"") -> None:
        if self._observe is not None:
            pairs = header_pairs(request.headers.items())
            self._observe(event, Seen(request.remote or "", request.method, request.path, 0, pairs, body))

    def _note(self, event: str, seen: Seen) -> None:
        if self._observe is not None:
            self._observe(event, seen)


def _problem(status: int, kind: str, title: str) -> Response:
    return Response(status, (("content-type", problems.MEDIA_TYPE),), problems.encode_problem(kind, title))


def _plain(status: int, kind: str, title: str) -> web.Response:
    body = problems.encode_problem(kind, title)
    return web.Response(
        status=status,
        body=body,
        content_type=problems.MEDIA_TYPE,
        headers={"Cache-Control": "no-store"},
    )
