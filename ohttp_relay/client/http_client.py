"""An Oblivious HTTP client (RFC 9458) with an interface like aiohttp's.

Every request has a fresh HPKE context, a Date, and padding to a size bucket.  If the relay fails, the request
fails: it is never sent directly.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
from yarl import URL

from ohttp_relay.bhttp.fields import Field, without_connection_fields
from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.bhttp.padding import Padding, buckets, stream_buckets
from ohttp_relay.bhttp.parts import response_limits
from ohttp_relay.bhttp.stream import content_piece, end_message, start_request
from ohttp_relay.capsule.chunked import (
    CHUNKED_REQUEST_TYPE,
    CHUNKED_RESPONSE_TYPE,
    ChunkWriter,
    start_chunked_request,
)
from ohttp_relay.capsule.client import encapsulate_request
from ohttp_relay.capsule.format import REQUEST_TYPE, RESPONSE_TYPE
from ohttp_relay.client.dates import corrected_date, dated, may_correct
from ohttp_relay.client.key_sources import (
    AgreeingKeys,
    KeyCache,
    KeyCallable,
    KeySource,
    PinnedKeys,
    RelayKeys,
    as_key_source,
)
from ohttp_relay.client.response import OhttpResponse, receive_chunked
from ohttp_relay.client.websocket_client import OhttpSocket
from ohttp_relay.errors import (
    BodyTooLarge,
    ConfigurationError,
    ExchangeFailed,
    KeyRejected,
    RelayRefused,
    TargetRefused,
)
from ohttp_relay.hpke.suites import Suite
from ohttp_relay.keys.configuration import KeyConfig
from ohttp_relay.transport import problems
from ohttp_relay.transport.http import AUTO_HEADERS, has_coding, open_session, payload, read_limited
from ohttp_relay.transport.targets import Origin
from ohttp_relay.transport.urls import check_url, split_target
from ohttp_relay.transport.websocket import SocketLimits, connect

__all__ = ["AgreeingKeys", "OhttpClient", "OhttpResponse", "OhttpSocket", "PinnedKeys", "RelayKeys"]

_ERROR_LIMIT: Final = 16 * 1024
_TIMEOUT: Final = 90.0  # seconds; longer than at relay and gateway, so that their error arrives first
Headers = Mapping[str, str] | Iterable[Field]
Body = bytes | AsyncIterable[bytes]


class OhttpClient:
    """A client of one relay and the gateway behind it.

    `key_source` gives the gateway's key list.  `max_response` is in bytes.  `kems` are the KEMs to use, in
    order of preference (default: X-Wing, X25519, P-256).  With `chunked`, every exchange uses chunked OHTTP and
    bodies stream both ways; the gateway must support it, there is no fallback.  `targets` are the origins that
    this gateway may be asked for (RFC 9458, section 6.1); None permits all.
    """

    def __init__(
        self,
        relay_url: str | URL,
        key_source: KeySource | KeyCallable,
        session: aiohttp.ClientSession | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        relay_headers: Mapping[str, str] | None = None,
        allow_insecure_loopback: bool = False,
        padding: Padding = buckets,
        max_response: int = 80 * 1024 * 1024,
        chunked: bool = False,
        kems: tuple[int, ...] = (),
        refresh_interval: float = 30.0,
        targets: Iterable[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._relay = check_url(relay_url, allow_insecure_loopback=allow_insecure_loopback)
        self._keys = KeyCache(as_key_source(key_source), interval=refresh_interval, kems=kems)
        self._session = session
        self._owned: aiohttp.ClientSession | None = None
        self._ssl = ssl_context
        self._relay_headers = dict(relay_headers or {})
        self._padding = padding
        self._max_response = max_response
        self._chunked = chunked
        self._targets = None if targets is None else frozenset(Origin.parse(origin) for origin in targets)
        self._limits = response_limits(1 << 62 if chunked else max_response)
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session that the client opened."""
        if self._owned is not None:
            await self._owned.close()
            self._owned = None

    def get(self, url: str | URL, *, headers: Headers = ()) -> AbstractAsyncContextManager[OhttpResponse]:
        """GET `url`; see `request`."""
        return self.request("GET", url, headers=headers)

    def post(
        self, url: str | URL, *, data: Body = b"", headers: Headers = ()
    ) -> AbstractAsyncContextManager[OhttpResponse]:
        """POST `data` to `url`; see `request`."""
        return self.request("POST", url, data=data, headers=headers)

    @asynccontextmanager
    async def request(
        self, method: str, url: str | URL, *, data: Body = b"", headers: Headers = ()
    ) -> AsyncIterator[OhttpResponse]:
        """Send a request; yield the target's response, whatever its status.

        `data` may be an async iterable if the client is chunked.  Raises KeyRejected or RelayRefused for an
        answer that is not encapsulated, ExchangeFailed if there is none, OpenFailed or TruncatedCapsule if it
        does not open, BodyTooLarge, InvalidMessage.  With a chunked client, reading may raise them too.
        """
        content, body = (data, None) if isinstance(data, bytes) else (b"", data)
        if body is not None and not self._chunked:
            raise ConfigurationError("a body that streams needs a chunked client")
        request = build_request(method, url, content, headers)
        self._check_target(request)
        async with AsyncExitStack() as stack:
            yield await _Exchange(self, self._transport(), stack, body).dated(request)

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[OhttpSocket]:
        """Open a WebSocket through the relay to the gateway, for requests that share a connection.

        The gateway learns that the requests of a socket come from one client; it may guess the same of sockets
        that are opened together.  The socket uses one connection of the session.  Raises RelayRefused for an
        HTTP status other than 101, ExchangeFailed if there is no socket.  Nothing is tried again.
        """
        limits = SocketLimits(response=self._max_response, answer_seconds=_TIMEOUT)
        async with AsyncExitStack() as stack:
            session = self._transport()
            try:
                connecting = connect(session, self._relay, limits, self._relay_headers)
                line = await stack.enter_async_context(connecting)
            except aiohttp.WSServerHandshakeError as error:
                raise RelayRefused(error.status) from None
            except (aiohttp.ClientError, OSError) as error:
                raise ExchangeFailed(f"no socket from the relay: {type(error).__name__}") from error
            yield OhttpSocket(
                line, session, self._keys, self._check_target, self._padding, limits, self._clock
            )

    def _check_target(self, request: Request) -> None:
        if self._targets is not None and Origin.of_request(request.scheme, request.host) not in self._targets:
            raise TargetRefused("this gateway is not to be asked for that origin")

    def _transport(self) -> aiohttp.ClientSession:
        session = self._session or self._owned
        if session is None:
            session = self._owned = open_session(ssl_context=self._ssl, timeout=_TIMEOUT)
        return session


@dataclass(frozen=True, slots=True)
class _Exchange:
    """One request of the caller: an exchange, and the two repetitions that the RFC permits."""

    client: OhttpClient
    session: aiohttp.ClientSession
    stack: AsyncExitStack
    body: AsyncIterable[bytes] | None

    async def dated(self, request: Request) -> OhttpResponse:
        """Send the request with a Date; once more with the gateway's date if it rejects this one."""
        if request.header("date") is not None:
            return await self.keyed(request)
        response = await self.keyed(dated(request, self.client._clock()))
        correction = await _corrected_date(response)
        if correction is None or self.body is not None:
            return response
        # Once; the corrected date is used for no other request (RFC 9458, section 6.5.2).
        return await self.keyed(dated(request, correction))

    async def keyed(self, request: Request) -> OhttpResponse:
        """Send the request; once more under a new key if the gateway rejects this one."""
        keys = self.client._keys
        config, suite = await keys.current(self.session)
        try:
            return await self.send(request, config, suite)
        except KeyRejected:
            # The gateway could not open the request, so it did not process it.
            if not await keys.refreshed(self.session, config) or self.body is not None:
                raise
        except RelayRefused:
            keys.expire()
            raise
        return await self.send(request, *await keys.current(self.session))

    async def send(self, request: Request, config: KeyConfig, suite: Suite) -> OhttpResponse:
        """Send the request once, under a fresh HPKE context."""
        try:
            if self.client._chunked:
                return await self._send_chunked(request, config, suite)
            return await self._send_whole(request, config, suite)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ExchangeFailed(f"no whole answer from the relay: {type(error).__name__}") from error

    async def _send_whole(self, request: Request, config: KeyConfig, suite: Suite) -> OhttpResponse:
        client = self.client
        sealed, opener = encapsulate_request(config, request.to_bytes(client._padding), suite)
        async with await self._post(sealed, {"Content-Type": REQUEST_TYPE}) as answer:
            await _check(answer, RESPONSE_TYPE)
            body = await read_limited(answer.content, client._max_response, answer.content_length)
        return OhttpResponse.of(Response.from_bytes(opener.open(body), client._limits))

    async def _send_chunked(self, request: Request, config: KeyConfig, suite: Suite) -> OhttpResponse:
        client = self.client
        first, writer, reader = start_chunked_request(config, suite)
        headers = {"Content-Type": CHUNKED_REQUEST_TYPE, "Incremental": "?1"}
        if self.body is None:
            upload: Body = first + writer.finish(request.to_bytes(client._padding))
        else:
            upload = _upload(first, writer, request, self.body)
        answer = await self.stack.enter_async_context(await self._post(upload, headers))
        await _check(answer, CHUNKED_RESPONSE_TYPE)
        return await receive_chunked(answer.content, reader, client._limits, client._max_response)

    async def _post(self, data: Body, headers: dict[str, str]) -> aiohttp.ClientResponse:
        return await self.session.post(
            self.client._relay,
            data=payload(data) if isinstance(data, bytes) else data,
            headers={**self.client._relay_headers, **headers},
            skip_auto_headers=AUTO_HEADERS,
            allow_redirects=False,
            auto_decompress=False,
        )


async def _upload(
    first: bytes, writer: ChunkWriter, request: Request, body: AsyncIterable[bytes]
) -> AsyncIterator[bytes]:
    """Yield the chunks of a request whose content is streamed, without holding any back."""
    yield first + writer.write(start_request(request))
    async for piece in body:
        yield writer.write(content_piece(piece))
    tail = end_message()
    length = writer.total + len(tail)
    yield writer.finish(tail.ljust(len(tail) + stream_buckets(length) - length, b"\0"))


def build_request(method: str, url: str | URL, data: bytes, headers: Headers) -> Request:
    """Return a Binary HTTP request for an absolute URL, whose octets are kept.  Raises ConfigurationError.

    OPTIONS for a URL without a path asks the server as a whole (RFC 9112, section 3.2.4).
    """
    scheme, authority, path = split_target(url)
    pairs = without_connection_fields(headers.items() if isinstance(headers, Mapping) else headers)
    if any(name == "expect" for name, _ in pairs):
        raise ConfigurationError("Expect cannot be used (RFC 9458, section 5.1)")
    whole = "*" if method == "OPTIONS" else "/"
    return Request(method, scheme, authority, path or whole, tuple(pairs), data)


async def _corrected_date(response: OhttpResponse) -> float | None:
    kind = response.headers.get("content-type")
    if not may_correct(response.status, kind):
        return None
    return corrected_date(kind, await response.read(), response.headers.get("date"))


async def _check(answer: aiohttp.ClientResponse, kind: str) -> None:
    """Raise unless an answer is an encapsulated response of this media type, in its own bytes."""
    if answer.status != 200 or answer.content_type != kind:
        raise await _refusal(answer)
    if has_coding(answer.headers):
        raise ExchangeFailed("expected an encapsulated response, got one with a content coding")


async def _refusal(answer: aiohttp.ClientResponse) -> RelayRefused:
    try:
        body = await read_limited(answer.content, _ERROR_LIMIT)
    except BodyTooLarge:
        body = b""
    problem = problems.decode_problem(answer.headers.get("Content-Type"), body)
    kind = KeyRejected if problem == problems.OHTTP_KEY else RelayRefused
    return kind(answer.status, problem)
