"""Oblivious HTTP over a WebSocket: what client, relay and gateway share.

RFC 9458 knows no WebSocket; this is this project's carriage of the same messages.  A socket is opened at the
URL to which requests are posted, with the subprotocol `ohttp`.  Each binary message that the client sends is
one encapsulated request (message/ohttp-req), each one that comes back the encapsulated response to the oldest
request without one (message/ohttp-res).  They are answered one at a time, and padded as bodies are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from ohttp_relay.transport.http import AUTO_HEADERS

PROTOCOL: Final = "ohttp"
_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})
_REDIRECTS: Final = range(300, 400)


class Close(IntEnum):
    """Why a socket ends: RFC 6455's codes (section 7.4.1), and from 4000 on this carriage's own."""

    DONE = 1000
    GOING_AWAY = 1001  # the server stops
    BROKEN_FRAMING = 1002
    NOT_BINARY = 1003
    GONE = 1006  # the connection broke, or its reader was too slow; never sent
    NOT_A_CAPSULE = 1007  # what over HTTP is answered with 400
    TOO_LARGE = 1009
    FAILED = 1011  # no answer could be had: over HTTP, 502 or 504
    TOO_MANY = 1013  # over HTTP, 429
    KEY = 4000  # the request could not be opened: over HTTP, the problem type ohttp-key
    TIME_OVER = 4001  # no request came for too long, or the socket is too old: another one may be opened

    @classmethod
    def of(cls, code: int) -> Close:
        """Return the reason for a code that came: what is not known here is the end and no more."""
        return cls(code) if code in _CODES else cls.DONE


_CODES: Final = frozenset(Close)


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Bytes of a request and of a response; sockets open at once, and of one client at a relay; seconds until
    the next request, until an answer, of a socket's life, and for its closing; bytes a second that a reader
    must take.

    A frame may take `idle_seconds` and what its length needs at `slowest`.  A frame that comes is whole when
    it is handed on: each socket may hold as much as its largest frame.
    """  # noqa: D205

    request: int = 64 * 1024
    response: int = 80 * 1024 * 1024
    sockets: int = 10_000
    each: int = 1_000
    idle_seconds: float = 60.0
    answer_seconds: float = 60.0
    life_seconds: float = 3600.0
    closing_seconds: float = 1.0
    slowest: int = 64 * 1024

    def reading_seconds(self, frame: bytes) -> float:
        """Return for how long a frame may be on its way to its reader, in seconds."""
        return len(frame) / self.slowest


class Line:
    """One end of a socket: it listens all the time, and what leaves has a time to do so."""

    def __init__(
        self,
        socket: web.WebSocketResponse[bool] | aiohttp.ClientWebSocketResponse[bool],
        limits: SocketLimits,
    ) -> None:
        self._socket = socket
        self._limits = limits
        self._heard = asyncio.create_task(self._receive())

    @property
    def heard(self) -> asyncio.Task[bytes | Close]:
        """What is heard next: a frame, or why there is none.  The same until it is taken."""
        return self._heard

    @property
    def end(self) -> Close | None:
        """Why the socket has ended; None while it has not, as far as was heard."""
        if not self._heard.done():
            return None
        heard = Close.GOING_AWAY if self._heard.cancelled() else self._heard.result()
        return heard if isinstance(heard, Close) else None

    def take(self) -> bytes | Close:
        """Return what was heard, and listen on.  `heard` must be done."""
        if self.end is not None:
            return self.end
        heard = self._heard.result()
        self._heard = asyncio.create_task(self._receive())
        return heard

    async def send(self, frame: bytes) -> None:
        """Send a frame.  Raises OSError if the other side is gone; TimeoutError, which is one, if too slow."""
        async with asyncio.timeout(self._limits.idle_seconds + self._limits.reading_seconds(frame)):
            await self._socket.send_bytes(frame)

    async def close(self, code: Close = Close.DONE) -> bool:
        """Close the socket; tell whether the other side took part.  It has `closing_seconds` for that."""
        try:
            if code is Close.GONE:
                return False
            async with asyncio.timeout(self._limits.closing_seconds):
                await self._socket.close(code=code)
        except TimeoutError:
            return False
        finally:
            self._heard.cancel()
        return self._socket.close_code != Close.GONE

    async def _receive(self) -> bytes | Close:
        try:
            message = await self._socket.receive()
        except (aiohttp.ClientError, OSError):  # it could not answer a ping
            return Close.GONE
        if message.type is aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is aiohttp.WSMsgType.TEXT:
            return Close.NOT_BINARY
        if message.type is aiohttp.WSMsgType.CLOSE:
            return Close.of(message.data)
        broken = message.data if message.type is aiohttp.WSMsgType.ERROR else None
        return Close.of(broken.code) if isinstance(broken, aiohttp.WebSocketError) else Close.GONE


def asks_for_socket(request: web.BaseRequest) -> bool:
    """Tell whether a request is a WebSocket's handshake (RFC 6455, section 4.2.1)."""
    return request.headers.get("Upgrade", "").strip().lower() == "websocket"


def offers_protocol(request: web.BaseRequest) -> bool:
    """Tell whether a handshake offers this subprotocol."""
    offered = ",".join(request.headers.getall("Sec-WebSocket-Protocol", ())).split(",")
    return PROTOCOL in (name.strip() for name in offered)


@asynccontextmanager
async def connect(
    session: aiohttp.ClientSession,
    url: URL,
    limits: SocketLimits,
    headers: Mapping[str, str] = _NO_HEADERS,
) -> AsyncIterator[Line]:
    """Open a socket to the next hop, over `session`'s connector, with no headers but `headers`.

    Redirects are not followed: they could lead past the relay.  Raises aiohttp.ClientError or OSError.
    """
    if session.connector is None:
        raise aiohttp.ClientConnectionError("the session is closed")
    handshake = _Handshake()
    bare = aiohttp.ClientSession(
        connector=session.connector,
        connector_owner=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=AUTO_HEADERS,
        middlewares=(handshake,),
        timeout=aiohttp.ClientTimeout(total=None),
    )
    async with bare:
        async with asyncio.timeout(limits.answer_seconds):
            socket = await bare.ws_connect(
                url,
                protocols=(PROTOCOL,),
                headers=headers,
                timeout=aiohttp.ClientWSTimeout(ws_close=2 * limits.closing_seconds),
                max_msg_size=limits.response + 1,
                decode_text=False,
            )
        line = Line(socket, limits)
        try:
            if socket.protocol != PROTOCOL:
                raise aiohttp.ClientConnectionError(f"expected the subprotocol {PROTOCOL}, got none")
            yield line
        finally:
            # To its end also if this task is cancelled: the connection would be left as it is otherwise.
            await asyncio.shield(asyncio.create_task(line.close()))
            handshake.release()


class _Handshake:
    """Stays where it was sent, and lets go of the connection in the end, however the socket broke."""

    def __init__(self) -> None:
        self._response: aiohttp.ClientResponse | None = None

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        self._response = response = await handler(request)
        if response.status in _REDIRECTS:
            self.release()
            raise aiohttp.WSServerHandshakeError(
                response.request_info, response.history, status=response.status, message="redirected"
            )
        return response

    def release(self) -> None:
        """Close the connection if it is not closed."""
        if self._response is not None:
            self._response.close()
