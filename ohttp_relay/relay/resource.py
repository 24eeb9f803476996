"""The Oblivious Relay Resource (RFC 9458, sections 5 and 6.2) on aiohttp.

It maps names to gateways, one to one, and forwards bodies.  The request to the gateway is the same for all
clients: POST, content type, body.  Nothing of the client's connection, header fields or address is forwarded.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy
from yarl import URL

from ohttp_relay.bhttp.fields import Field, without_connection_fields
from ohttp_relay.capsule.chunked import CHUNKED_REQUEST_TYPE, CHUNKED_RESPONSE_TYPE
from ohttp_relay.capsule.format import REQUEST_TYPE
from ohttp_relay.errors import BodyTooLarge, ConfigurationError, InvalidKeyList, NoUsableKey
from ohttp_relay.keys.configuration import BARE_TYPE, bare_config, decode_key_list
from ohttp_relay.keys.configuration import MEDIA_TYPE as KEYS_TYPE
from ohttp_relay.relay.key_lists import KeyListCache
from ohttp_relay.relay.rate_limit import RateLimit
from ohttp_relay.relay.sockets import RelaySockets
from ohttp_relay.relay.upload import Upload
from ohttp_relay.server.fast_http import RequestHead, WholeRequest
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.server.reply import NO_CODING, Reply, StreamedReply
from ohttp_relay.server.service import Service
from ohttp_relay.transport.http import (
    AUTO_HEADERS,
    has_coding,
    header_pairs,
    is_incremental,
    media_type,
    open_session,
    read_limited,
)
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.problems import OHTTP_KEY, decode_problem
from ohttp_relay.transport.streams import OwnedStream
from ohttp_relay.transport.urls import check_url
from ohttp_relay.transport.websocket import SocketLimits

Authenticate = Callable[[web.Request], bool | Awaitable[bool]]
"""Tells whether a client may use the relay; nothing it reads is forwarded."""

# Responses with these statuses have no content, whatever length they declare: a client would take framing
# after them for the next response.
_WITHOUT_CONTENT: Final = (204, 304)
# The fields of a gateway's answer that go back; all others (Set-Cookie, Server, Via, ...) are dropped.
_RETURNED: Final = ("Content-Type", "Cache-Control", "Retry-After", "Incremental")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """Limits of a relay, in bytes and seconds."""

    buffered: int = 64 * 1024
    """Bytes of a request or answer that are read before they are forwarded; a larger one is streamed."""

    request: int = 16 * 1024 * 1024
    """Bytes of a request that is not chunked."""

    response: int = 80 * 1024 * 1024
    """Bytes of a response that is not chunked."""

    key_list: int = 64 * 1024
    """Bytes of a key list."""

    stream: int = 1 << 40
    """Bytes of a chunked request or response."""

    gateway_seconds: float = 60.0
    """Until the gateway begins to answer."""

    idle_seconds: float = 30.0
    """Until the client's next bytes."""

    key_list_seconds: float = 300.0
    """For how long a key list is cached."""

    key_list_min_seconds: float = 5.0
    """For how long it is cached at least, also when the gateway refuses a key."""


class Relay(Service):
    """A relay: `POST /{name}` forwards an encapsulated request to a gateway, `GET /{name}` gives its key list.

    Every client gets the same key list while it is cached: the consistency measure of RFC 9458, section 7.
    """

    def __init__(
        self,
        gateways: Mapping[str, str | URL],
        session: aiohttp.ClientSession | None = None,
        limits: RelayLimits | None = None,
        authenticate: Authenticate | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        allow_insecure_loopback: bool = False,
        clock: Callable[[], float] = time.monotonic,
        observe: Observer | None = None,
        metrics: Metrics | None = None,
        rate: RateLimit | None = None,
        key_urls: Mapping[str, str | URL] | None = None,
        sockets: SocketLimits | None = None,
    ) -> None:
        if not gateways or not set(key_urls or ()) <= set(gateways):
            raise ConfigurationError("a relay needs at least one gateway, and key lists of known ones only")
        self._gateways = {
            name: check_url(url, allow_insecure_loopback=allow_insecure_loopback)
            for name, url in gateways.items()
        }
        # A gateway serves its key list at its own URL (RFC 9540, section 5) unless another one is given.
        self._key_urls = self._gateways | {
            name: check_url(url, allow_insecure_loopback=allow_insecure_loopback)
            for name, url in (key_urls or {}).items()
        }
        self.limits = limits or RelayLimits()
        super().__init__(session, self._open_session, checked=False, observe=observe, metrics=metrics)
        self._authenticate = authenticate
        self._rate = rate
        self._ssl = ssl_context
        lifetime, min_age = self.limits.key_list_seconds, self.limits.key_list_min_seconds
        self._keys = KeyListCache(self._fetch_keys, clock, lifetime=lifetime, min_age=min_age)
        self.sockets = RelaySockets(
            self._gateways,
            self._refusal,
            self._keys.invalidate,
            session,
            sockets,
            ssl_context=ssl_context,
            observe=observe,
            metrics=metrics,
            rate=rate,
        )

    # Mounting

    def routes(self, prefix: str = "", *, bare_keys: bool = False) -> list[web.RouteDef]:
        """Return the routes, below `prefix`.  Call `sockets.stop` before the server stops.

        With `bare_keys`, GET of `/{name}/bare` gives one key configuration, for clients that read no list.
        """
        path, keys = f"{prefix}/{{name}}", self.sockets.with_sockets(self.handle_keys)
        bare = [web.get(f"{path}/bare", self.handle_bare_key)] if bare_keys else []
        return [web.post(path, self.handle), web.get(path, keys), *bare]

    def app(self, prefix: str = "", *, bare_keys: bool = False) -> web.Application:
        """Return an application that serves the relay alone and closes it at the end; see `routes`."""
        # `authenticate` takes a request of the HTTP library, so the fast path cannot serve it.
        handler = _FastPath(self, prefix) if self._authenticate is None else None
        return self._application(self.routes(prefix, bare_keys=bare_keys), self.sockets.stop, handler)

    async def close(self) -> None:
        """Close the sessions that the relay opened."""
        await self.sockets.close()
        await super().close()

    # Requests

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Forward an encapsulated request, once (RFC 9458, section 6.5)."""
        refusal = await self._refusal(request)
        if refusal is not None:
            return refusal
        kind = media_type(request.headers.get("Content-Type"))
        if kind not in (REQUEST_TYPE, CHUNKED_REQUEST_TYPE):
            return web.Response(status=415, text=f"expected {REQUEST_TYPE} or {CHUNKED_REQUEST_TYPE}")
        if has_coding(request.headers):
            return Reply.text(415, "expected content without a coding", NO_CODING).to_library()
        length = request.content_length
        streams = kind == CHUNKED_REQUEST_TYPE or is_incremental(request.headers.get("Incremental"))
        if not streams and length is not None and length > self.limits.request:
            return web.Response(status=413, text=f"at most {self.limits.request} bytes are accepted")
        if streams or length is None or length > self.limits.buffered:
            return await self._stream(request, kind, incremental=streams)
        return await self._whole(request, kind)

    async def handle_keys(self, request: web.Request) -> web.Response:
        """Serve a gateway's key list, from the cache if it is there."""
        return await self._key_list(request, KEYS_TYPE, bytes)

    async def handle_bare_key(self, request: web.Request) -> web.Response:
        """Serve one key configuration of a gateway's key list, without the length that it has in the list."""
        return await self._key_list(request, BARE_TYPE, _bare)

    async def _key_list(
        self, request: web.Request, kind: str, form: Callable[[bytes], bytes]
    ) -> web.Response:
        refusal = await self._refusal(request)
        if refusal is not None:
            return refusal
        self._see("relay.keys", request)
        name = request.match_info["name"]
        try:
            body, seconds = await self._keys.get(name)
            body = form(body)
        except (aiohttp.ClientError, OSError, BodyTooLarge, InvalidKeyList, NoUsableKey):
            return web.Response(status=502, text="the gateway gave no key list")
        headers = {"Cache-Control": f"max-age={seconds}"}
        return web.Response(body=body, content_type=kind, headers=headers)

    def knows(self, name: str) -> bool:
        """Tell whether a gateway has this name."""
        return name in self._gateways

    def receive(self, name: str, request: WholeRequest) -> Reply | Awaitable[Reply | StreamedReply]:
        """Return the reply to a small request, or an awaitable of it; neither raises."""
        if self._rate is not None and not self._rate.allows(request.sender.peer):
            return _too_many(self._rate)
        if self.observed:
            self.see_whole("relay.received", request)
        return self._forward(name, REQUEST_TYPE, request.body)

    async def _refusal(self, request: web.Request) -> web.Response | None:
        if not self.knows(request.match_info["name"]):
            return web.Response(status=404, text="no gateway of this name")
        if self._rate is not None and not self._rate.allows(request.remote):
            return _too_many(self._rate).to_library()
        if self._authenticate is None:
            return None
        allowed = self._authenticate(request)
        if allowed if isinstance(allowed, bool) else await allowed:
            return None
        return web.Response(status=401, text="this relay serves its own users")

    async def _whole(self, request: web.Request, kind: str) -> web.StreamResponse:
        """Forward a small request once it is whole, so that a slow client costs the gateway nothing."""
        try:
            body = await read_limited(
                request.content, self.limits.buffered, request.content_length, self.limits.idle_seconds
            )
        except TimeoutError:
            return web.Response(status=408, text="the request did not come in time")
        except web.RequestPayloadError:
            return web.Response(status=400, text="the request's framing is broken")
        self._see("relay.received", request, body)
        reply = await self._forward(request.match_info["name"], kind, body)
        return reply.to_library() if isinstance(reply, Reply) else await reply.send(request)

    async def _forward(self, name: str, kind: str, body: bytes) -> Reply | StreamedReply:
        """Return the gateway's answer to a whole request; raises nothing."""
        if not body:
            return Reply.text(400, "the request has no content")
        try:
            async with asyncio.timeout(self.limits.gateway_seconds) as deadline:
                return await self._send(name, body, {"Content-Type": kind}, deadline)
        except (aiohttp.ClientError, OSError) as error:
            return _gateway_error(error)

    async def _stream(self, request: web.Request, kind: str, *, incremental: bool) -> web.StreamResponse:
        """Forward a request piece by piece; the answer may begin before it ends."""
        self._see("relay.received", request)
        headers = {"Content-Type": kind, **({"Incremental": "?1"} if incremental else {})}
        upload: Upload | None = None
        limits = self.limits
        try:
            async with asyncio.timeout(None) as deadline:
                most = limits.stream if kind == CHUNKED_REQUEST_TYPE else limits.request
                upload = Upload(request.content, most, limits.idle_seconds, limits.gateway_seconds, deadline)
                pieces = upload.pieces(lambda piece: self._note("relay.received.piece", Seen(body=piece)))
                name = request.match_info["name"]
                reply = await self._send(name, pieces, headers, deadline, upload)
                return reply.to_library() if isinstance(reply, Reply) else await reply.send(request)
        except (aiohttp.ClientError, OSError) as error:
            if upload is not None and upload.refusal is not None:
                return web.Response(status=upload.refusal[0], text=upload.refusal[1])
            return _gateway_error(error).to_library()

    async def _send(
        self,
        name: str,
        data: bytes | AsyncGenerator[bytes, None],
        headers: dict[str, str],
        deadline: asyncio.Timeout,
        upload: Upload | None = None,
    ) -> Reply | StreamedReply:
        if self._observe is not None:
            body, fields = data if isinstance(data, bytes) else b"", header_pairs(headers.items())
            self._observe("relay.forwarded", Seen(target=str(self._gateways[name]), fields=fields, body=body))
        answer = await self.session.post(
            self._gateways[name],
            data=data,
            headers=headers,
            skip_auto_headers=AUTO_HEADERS,
            allow_redirects=False,
            auto_decompress=False,
        )
        try:
            if upload is not None:
                upload.answered()
            deadline.reschedule(
                None
            )  # the answer has begun; from here on the session's time-outs apply to each piece
            return await self._return(name, answer)
        except BaseException:
            answer.close()
            raise

    async def _return(self, name: str, answer: aiohttp.ClientResponse) -> Reply | StreamedReply:
        """Return the gateway's answer: whole if it is small, else as a stream."""
        headers = answer.headers
        if has_coding(headers):
            answer.close()
            return Reply.text(502, "the gateway's answer has a content coding")
        length = 0 if answer.status in _WITHOUT_CONTENT else answer.content_length
        fields = _returned(headers)
        if length is None or length > self.limits.buffered:
            return self._return_pieces(answer, fields)
        content = await answer.read()
        if self._observe is not None:
            self._observe("relay.answered", Seen(status=answer.status, fields=_pairs(answer), body=content))
        if answer.status == 400 and decode_problem(headers.get("Content-Type"), content) == OHTTP_KEY:
            self._keys.invalidate(name)
        return Reply(answer.status, fields, content)

    def _return_pieces(
        self, answer: aiohttp.ClientResponse, fields: tuple[Field, ...]
    ) -> Reply | StreamedReply:
        self._note("relay.answered", Seen(status=answer.status, fields=_pairs(answer)))
        whole = media_type(answer.headers.get("Content-Type")) != CHUNKED_RESPONSE_TYPE
        most = self.limits.response if whole else self.limits.stream
        if answer.content_length is not None and answer.content_length > most:
            answer.close()
            return Reply.text(502, "the gateway's answer is too large")
        stack = AsyncExitStack()
        stack.callback(answer.close)
        pieces = OwnedStream(self._pieces(answer, most), stack)
        return StreamedReply(answer.status, fields, answer.content_length, pieces)

    async def _pieces(self, answer: aiohttp.ClientResponse, left: int) -> AsyncGenerator[bytes, None]:
        """Yield an answer's pieces.  Raises BodyTooLarge after `left` bytes."""
        async for piece in answer.content.iter_any():
            left -= len(piece)
            if left < 0:
                raise BodyTooLarge("the gateway's answer is too large")
            self._note("relay.answered.piece", Seen(body=piece))
            yield piece

    async def _fetch_keys(self, name: str) -> bytes:
        url = self._key_urls[name]
        async with (
            asyncio.timeout(self.limits.gateway_seconds),
            self.session.get(
                url, skip_auto_headers=AUTO_HEADERS, allow_redirects=False, auto_decompress=False
            ) as answer,
        ):
            if answer.status != 200:
                raise InvalidKeyList(f"expected a key list, got status {answer.status}")
            if has_coding(answer.headers):
                raise InvalidKeyList("expected a key list without a content coding")
            body = await read_limited(answer.content, self.limits.key_list, answer.content_length)
        decode_key_list(body)  # some gateways send another media type, so the content decides
        return body

    def _open_session(self) -> aiohttp.ClientSession:
        return open_session(ssl_context=self._ssl, timeout=self.limits.gateway_seconds)


@dataclass(frozen=True, slots=True)
class _FastPath:
    """The relay as a handler of the fast path."""

    relay: Relay
    prefix: str

    def expects(self, head: RequestHead) -> bool:
        return (
            head.path.startswith(f"{self.prefix}/")
            and self.relay.knows(self._name(head))
            and media_type(head.fields.get("content-type")) == REQUEST_TYPE
            and not is_incremental(head.fields.get("incremental"))
            and head.length <= min(self.relay.limits.buffered, self.relay.limits.request)
        )

    def receive(self, requests: Sequence[WholeRequest]) -> Sequence[Reply | Awaitable[Reply | StreamedReply]]:
        return [self.relay.receive(self._name(request.head), request) for request in requests]

    def _name(self, head: RequestHead) -> str:
        return head.path.removeprefix(f"{self.prefix}/")


def _bare(key_list: bytes) -> bytes:
    return bare_config(decode_key_list(key_list)).to_bytes()


def _returned(headers: CIMultiDictProxy[str]) -> tuple[Field, ...]:
    """Return the fields that go back to the client, all lines of each, without those about the connection."""
    names = [name for name in _RETURNED if name in headers]
    if "Connection" in headers:
        passed = {name for name, _ in without_connection_fields(headers.items())}
        names = [name for name in names if name.lower() in passed]
    return tuple((name, value) for name in names for value in headers.getall(name))


def _too_many(rate: RateLimit) -> Reply:
    return Reply.text(429, "too many requests", ("Retry-After", str(rate.retry_after)))


def _gateway_error(error: Exception) -> Reply:
    if isinstance(error, TimeoutError):
        return Reply.text(504, "the gateway did not answer in time")
    return Reply.text(502, "the gateway gave no whole answer")


def _pairs(answer: aiohttp.ClientResponse) -> tuple[Field, ...]:
    return header_pairs(answer.headers.items())


__all__ = ["Authenticate", "Relay", "RelayLimits"]
