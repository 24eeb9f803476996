"""How a client reaches providers: account requests go to its own directly, all others by Oblivious HTTP.

A relay and a gateway of one operator hide nothing. So a relay with the gateway's operator is refused, and requests
to the user's own provider that must not be linked to the account go through another provider's relay. If a private
path fails, the caller gets `PrivatePathFailed`: this module never falls back to a direct request.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

import aiohttp
from yarl import URL

from mimi_mmr.client.transport.clock_check import ClockCheck
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import (
    BodyTooLarge,
    IdentityError,
    NotReached,
    PeerError,
    PrivatePathFailed,
    ShutOut,
    Unauthorized,
)
from mimi_mmr.protocol.endpoints import (
    DOWNLOAD_ASSET,
    PROVIDERS,
    RELAY_PATH,
    Ans,
    Endpoint,
    Req,
    Way,
    to_body,
)
from mimi_mmr.protocol.problems import PROBLEM, read_problem
from mimi_mmr.protocol.provider_keys import ProviderKeysTBS
from ohttp_relay.bhttp import Request
from ohttp_relay.client import OhttpClient, OhttpSocket
from ohttp_relay.errors import ExchangeFailed, OhttpError, RelayRefused, SocketEnded
from ohttp_relay.transport import AUTO_HEADERS, Close, cause_of, read_limited

MAX_ANSWER = 1 << 28
REQUEST_SECONDS = 90.0
PROVIDERS_LIFETIME = 3600.0
AT_ONCE = 16
_NO_GATEWAY = (502, 504)  # a relay's answers if the gateway gives none
_T = TypeVar("_T")


@dataclass(slots=True)
class Traffic:
    """This client's traffic: the number of requests, and the bytes of HTTP bodies."""

    requests: int = 0
    sent: int = 0
    received: int = 0

    def count(self, sent: int, received: int) -> None:
        """Add one request."""
        self.requests += 1
        self.sent += sent
        self.received += received


class Purpose(enum.Enum):
    """What a TLS connection is for. No connection and no TLS session serves two purposes.

    On a common connection the user's own provider, which is a relay too, would see which requests through its relay
    are the account's.
    """

    ACCOUNT = "requests with the account's token, and registration"
    DOCUMENTS = "documents that everybody gets"
    RELAY = "requests through a relay"


@dataclass(frozen=True, slots=True)
class Route:
    """The operators of a relay and a gateway, which are never the same."""

    relay: str
    gateway: str
    relay_url: str

    def __post_init__(self) -> None:
        """Refuse a route that hides nothing."""
        if self.relay == self.gateway:
            raise PrivatePathFailed(f"relay and gateway are both {self.gateway}'s: that hides nothing")

    def failure(self, error: OhttpError) -> PrivatePathFailed:
        """Return the error that names the party which did not do its part."""
        relay = f"the relay of {self.relay}"
        if isinstance(error, SocketEnded):
            return PrivatePathFailed(
                f"the socket to {self.gateway}, through {relay}, ended (code {error.code})"
            )
        if isinstance(error, RelayRefused):
            if error.status in _NO_GATEWAY:
                return PrivatePathFailed(f"{self.gateway} does not answer {relay} (status {error.status})")
            return PrivatePathFailed(f"{relay} passes nothing on to {self.gateway} (status {error.status})")
        if isinstance(error, ExchangeFailed):
            cause = cause_of(error.__cause__ or error)
            return PrivatePathFailed(f"{relay}, on the way to {self.gateway}, can't be asked: {cause}")
        return PrivatePathFailed(
            f"no private path to {self.gateway}, through {relay}: {type(error).__name__}"
        )


@dataclass(slots=True)
class _Known:
    fetched: float = 0.0
    providers: dict[str, ProviderKeysTBS] = field(default_factory=dict)


class PrivatePath:
    """One client's connections to providers."""

    def __init__(
        self,
        domain: str,
        url: str,
        trust: TrustAnchors,
        *,
        ssl_context: ssl.SSLContext | None = None,
        source_address: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Serve a user of `domain`, whose provider is at `url`; connect from `source_address` if given."""
        self.domain = domain
        self.traffic = Traffic()
        self.clock_check = ClockCheck(clock)
        self._url = url
        self._trust = trust
        self._clock = clock
        self._known = _Known()
        self._ways: dict[str, tuple[Route, OhttpClient]] = {}
        self._own_relay: str | None = None
        local = (source_address, 0) if source_address else None
        dates = self._dates()
        self._sessions = {purpose: _session(ssl_context, local, dates) for purpose in Purpose}

    async def close(self) -> None:
        """Close every connection."""
        for _, client in self._ways.values():
            await client.close()
        for session in self._sessions.values():
            await session.close()

    def _dates(self) -> aiohttp.TraceConfig:
        """Return what notes the Date of every answer, of the own provider or of another one's relay."""
        own, clock, trace = URL(self._url).origin(), self._clock, aiohttp.TraceConfig()

        async def started(
            _: aiohttp.ClientSession, context: Any, __: aiohttp.TraceRequestStartParams
        ) -> None:
            context.asked = clock()

        async def ended(_: aiohttp.ClientSession, context: Any, about: aiohttp.TraceRequestEndParams) -> None:
            domain = self.domain if about.url.origin() == own else self._own_relay
            if domain is not None:
                self.clock_check.note(domain, about.response.headers.get("Date"), context.asked, clock())

        trace.on_request_start.append(started)
        trace.on_request_end.append(ended)
        return trace

    # --- one's own provider, over TLS ----------------------------------------------------------------

    @overload
    async def ask_account(
        self, endpoint: Endpoint[None, Ans], token: AccessToken, /, **names: str
    ) -> Ans: ...

    @overload
    async def ask_account(
        self, endpoint: Endpoint[Req, Ans], token: AccessToken, request: Req, /, **names: str
    ) -> Ans: ...

    async def ask_account(
        self, endpoint: Endpoint[Req, Ans], token: AccessToken, request: Req | None = None, /, **names: str
    ) -> Ans:
        """Ask the user's own provider with the account's `token`; `names` fill the endpoint's path.

        Raise what the provider answered, `ShutOut` if it does not take the token, or `PeerError`; `ValueError` for
        an endpoint that is reached another way.
        """
        _check_way(endpoint, Way.ACCOUNT)
        body = to_body(request)
        return endpoint.read_answer(await self.account(endpoint.method, endpoint.path(names), body, token))

    @overload
    async def ask_directly(self, endpoint: Endpoint[None, Ans], /, **names: str) -> Ans: ...

    @overload
    async def ask_directly(self, endpoint: Endpoint[Req, Ans], request: Req, /, **names: str) -> Ans: ...

    async def ask_directly(
        self, endpoint: Endpoint[Req, Ans], request: Req | None = None, /, **names: str
    ) -> Ans:
        """Ask the user's own provider without an account's token; otherwise like `ask_account`."""
        _check_way(endpoint, Way.DIRECT)
        purpose = Purpose.DOCUMENTS if endpoint.method == "GET" else Purpose.ACCOUNT
        body = to_body(request)
        return endpoint.read_answer(
            await self.account(endpoint.method, endpoint.path(names), body, purpose=purpose)
        )

    async def account(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        token: AccessToken | None = None,
        purpose: Purpose = Purpose.ACCOUNT,
    ) -> bytes:
        """Send a request for the account; raise the error that the provider answered, or `PeerError`.

        That is `NotReached` if no connection could be made, so that nothing has arrived.
        """
        headers = {}
        if token is not None:
            bearer = base64.urlsafe_b64encode(token.reveal()).rstrip(b"=").decode()
            headers["Authorization"] = f"Bearer {bearer}"
        try:
            async with self._sessions[purpose].request(
                method,
                self._url + path,
                data=body,
                headers=headers,
                allow_redirects=False,
                skip_auto_headers=AUTO_HEADERS,
            ) as answer:
                content = await read_limited(answer.content, MAX_ANSWER, answer.content_length)
                self.traffic.count(len(body), len(content))
                return _checked(answer.status, answer.content_type, content)
        except Unauthorized:
            if token is None:
                raise
            raise ShutOut(f"{self.domain} does not know this device of the account, or no longer") from None
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotReached(f"{self.domain} can't be asked: {cause_of(error)}") from None
        except (aiohttp.ClientError, TimeoutError, OSError, OhttpError) as error:
            raise PeerError(f"{self.domain} can't be asked: {cause_of(error)}") from None

    # --- providers -----------------------------------------------------------------------------------

    async def provider(self, domain: str) -> ProviderKeysTBS:
        """Return a provider's keys, verified under its own CA; raise `PeerError` if there are none."""
        now = self._clock()
        if domain not in self._known.providers or self._known.fetched + PROVIDERS_LIFETIME < now:
            await self._fetch_providers(now)
        found = self._known.providers.get(domain)
        if found is None or found.expiry <= now:
            raise PeerError(f"{self.domain} knows no current keys of {domain}")
        return found

    async def _fetch_providers(self, now: float) -> None:
        listed = await self.ask_directly(PROVIDERS)
        known: dict[str, ProviderKeysTBS] = {}
        for document in listed.providers:
            with suppress(IdentityError):  # a bad document must not affect the other providers
                keys = document.verify(document.keys.domain, self._trust, now)
                known[keys.domain] = keys
        self._known = _Known(now, known)

    # --- obliviously ---------------------------------------------------------------------------------

    @overload
    async def ask(self, endpoint: Endpoint[None, Ans], domain: str, /, **names: str) -> Ans: ...

    @overload
    async def ask(self, endpoint: Endpoint[Req, Ans], domain: str, request: Req, /, **names: str) -> Ans: ...

    async def ask(
        self, endpoint: Endpoint[Req, Ans], domain: str, request: Req | None = None, /, **names: str
    ) -> Ans:
        """Ask a provider without showing it account or address; `names` fill the endpoint's path.

        Raise the error that the provider answered, `PrivatePathFailed` when there is no such path, `BodyTooLarge`
        when it takes no request of this size; nothing was then sent in the clear. Raise `ValueError` for an
        endpoint that is reached another way.
        """
        _check_way(endpoint, Way.OBLIVIOUS)
        body = to_body(request)
        return endpoint.read_answer(await self.call(domain, endpoint.method, endpoint.path(names), body))

    async def call(self, domain: str, method: str, path: str, body: bytes = b"") -> bytes:
        """Send a request to a provider without showing it account or address; raise the error that it answered.

        Raise `PrivatePathFailed` when there is no such path, `BodyTooLarge` when it takes no request of this size;
        nothing was then sent in the clear.
        """
        return await self._exchange(domain, method, f"https://{domain}{path}", body)

    @asynccontextmanager
    async def socket(self, domain: str) -> AsyncIterator[PathSocket]:
        """Open a WebSocket to a provider, by the same route as `call`.

        The provider learns that all requests on one socket come from one client, so two queues need two sockets.
        Raise `PrivatePathFailed` when no socket can be opened; nothing is tried another way.
        """
        route, client = await self._way(domain)
        async with AsyncExitStack() as stack:
            try:
                socket = await stack.enter_async_context(client.socket())
            except OhttpError as error:
                self._leave_relay(domain)
                raise route.failure(error) from error
            yield PathSocket(self, route, socket)

    async def download(self, hub: str, url: str) -> bytes:
        """Fetch an asset through a relay and a hub's download proxy (-06, "Download Files")."""
        return await self.ask(DOWNLOAD_ASSET, hub, url=url)

    async def _exchange(self, domain: str, method: str, url: str, body: bytes) -> bytes:
        route, client = await self._way(domain)
        try:
            async with client.request(method, url, data=body) as answer:
                content = await answer.read()
                self.traffic.count(len(body), len(content))
                kind = answer.headers.get("content-type", "")
        except RelayRefused as error:
            if error.status == 413:
                raise BodyTooLarge(f"the request is larger than the way to {domain} takes") from error
            self._leave_relay(domain)
            raise route.failure(error) from error
        except OhttpError as error:
            self._leave_relay(domain)
            raise route.failure(error) from error
        return _checked(answer.status, kind, content)

    def _leave_relay(self, domain: str) -> None:
        """Choose another relay for requests to the user's own provider, after a failure; each hides as much."""
        if domain == self.domain:
            self._ways.pop(domain, None)
            self._own_relay = None

    async def _way(self, domain: str) -> tuple[Route, OhttpClient]:
        if domain not in self._ways:
            route = await self.route(domain)

            async def keys() -> bytes:
                return (await self.provider(domain)).ohttp_keys

            client = OhttpClient(route.relay_url, keys, self._sessions[Purpose.RELAY])
            self._ways[domain] = route, client
        return self._ways[domain]

    async def route(self, gateway: str) -> Route:
        """Return the relay for a gateway: the own provider's, or another one for the own provider's gateway."""
        if gateway != self.domain:
            return Route(self.domain, gateway, f"{self._url}{RELAY_PATH}/{gateway}")
        relay = await self._relay_for_own()
        return Route(relay, gateway, f"{(await self.provider(relay)).base_url}{RELAY_PATH}/{gateway}")

    async def _relay_for_own(self) -> str:
        """Choose another provider's relay once while this client runs, so that fewer relays see its address."""
        if self._own_relay is None:
            await self.provider(self.domain)
            others = sorted(set(self._known.providers) - {self.domain})
            if not others:
                raise PrivatePathFailed(f"no other provider's relay is known to reach {self.domain} through")
            self._own_relay = secrets.choice(others)
        return self._own_relay


class PathSocket:
    """A provider at the other end of a WebSocket; made by `PrivatePath.socket`."""

    def __init__(self, path: PrivatePath, route: Route, socket: OhttpSocket) -> None:
        """Use an open socket to the gateway of this route."""
        self._path = path
        self._route = route
        self._domain = route.gateway
        self._socket = socket

    @overload
    async def ask(self, endpoint: Endpoint[None, Ans], /, **names: str) -> Ans: ...

    @overload
    async def ask(self, endpoint: Endpoint[Req, Ans], request: Req, /, **names: str) -> Ans: ...

    async def ask(self, endpoint: Endpoint[Req, Ans], request: Req | None = None, /, **names: str) -> Ans:
        """Ask the provider at the other end, as `PrivatePath.ask` does."""
        _check_way(endpoint, Way.OBLIVIOUS)
        return endpoint.read_answer(await self.call(endpoint.method, endpoint.path(names), to_body(request)))

    async def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Send a request; raise the error that the provider answered, or `PrivatePathFailed` without an answer."""
        request = Request(method, "https", self._domain, path, (), body)
        try:
            answer = await self._socket.exchange(request)
        except OhttpError as error:
            if not isinstance(error, SocketEnded) or error.code != Close.TIME_OVER:
                self._path._leave_relay(self._domain)
            raise self._route.failure(error) from error
        self._path.traffic.count(len(body), len(answer.content))
        return _checked(answer.status, answer.header("content-type") or "", answer.content)


def _session(
    ssl_context: ssl.SSLContext | None, local: tuple[str, int] | None, dates: aiohttp.TraceConfig
) -> aiohttp.ClientSession:
    """Open a session with connections of its own. Python resumes no TLS session unless it is told to."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=ssl_context or True, local_addr=local, limit=0),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trace_configs=[dates],
    )


def _check_way(endpoint: Endpoint[Req, Ans], way: Way) -> None:
    """Refuse to ask an endpoint in another way than its own: that would show what its own way hides."""
    if endpoint.way is not way:
        raise ValueError(f"{endpoint.template} is reached by the way {endpoint.way.name}, not {way.name}")


def _checked(status: int, content_type: str, content: bytes) -> bytes:
    if 200 <= status < 300:
        return content
    if content_type == PROBLEM:
        raise read_problem(content)
    raise PeerError(f"answered with status {status}")


async def gather(work: Sequence[Awaitable[_T]]) -> list[_T]:
    """Run tasks, a few at a time, and return all results in order; raise the first error after all have ended."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(item: Awaitable[_T]) -> _T:
        async with places:
            return await item

    done = await asyncio.gather(*(one(item) for item in work), return_exceptions=True)
    for result in done:
        if isinstance(result, BaseException):
            raise result
    return [result for result in done if not isinstance(result, BaseException)]
