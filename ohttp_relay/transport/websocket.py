"""Oblivious HTTP over a WebSocket: the parts common to client, relay and gateway.

RFC 9458 has no WebSocket; this is a binding of this project for the same messages (docs/specs/ohttp.md).  A
client opens a socket at the URL to which it would POST, with the subprotocol `ohttp`.  Each binary message of
the client is one encapsulated request (message/ohttp-req); each one that comes back is the encapsulated
response to the oldest unanswered request (message/ohttp-res).  Requests are answered one at a time, and
padded as bodies are.
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
    """Close codes: those of RFC 6455, section 7.4.1, and from 4000 on those of this binding."""

    DONE = 1000
    GOING_AWAY = 1001  # the server stops
    BROKEN_FRAMING = 1002
    NOT_BINARY = 1003
    GONE = 1006  # the connection broke, or the reader was too slow; never sent
    NOT_A_CAPSULE = 1007  # over HTTP: status 400
    TOO_LARGE = 1009
    FAILED = 1011  # there was no answer; over HTTP: 502 or 504
    TOO_MANY = 1013  # over HTTP: 429
    KEY = 4000  # the gateway could not open the request; over HTTP: the problem type ohttp-key
    TIME_OVER = 4001  # idle for too long, or too old; the client may open another one

    @classmethod
    def of(cls, code: int) -> Close:
        """Return the member for a received code; DONE for an unknown one."""
        return cls(code) if code in _CODES else cls.DONE


_CODES: Final = frozenset(Close)


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """Limits of WebSockets at a relay, a gateway or a client.

    Frames are held whole, so each socket may hold as much memory as its largest frame.
    """

    request: int = 64 * 1024
    """Bytes of a request."""

    response: int = 80 * 1024 * 1024
    """Bytes of a response."""

    sockets: int = 10_000
    """Sockets open at once."""

    each: int = 1_000
    """Sockets of one client open at once, at a relay."""

    idle_seconds: float = 60.0
    """Until the next request."""

    answer_seconds: float = 60.0
    """Until an answer, and until a socket is open."""

    life_seconds: float = 3600.0
    """From opening to closing."""

    closing_seconds: float = 1.0
    """For the closing handshake."""

    slowest: int = 64 * 1024
    """Bytes a second that a reader must take: a frame has `idle_seconds` and its length at this rate."""

    def reading_seconds(self, frame: bytes) -> float:
        """Return the seconds that a reader at rate `slowest` needs for a frame."""
        return len(frame) / self.slowest


class FrameChannel:
    """One end of a WebSocket: receives the next frame ahead of its use; sends with a time-out."""

    def __init__(
        self,
        socket: web.WebSocketResponse[bool] | aiohttp.ClientWebSocketResponse[bool],
        limits: SocketLimits,
    ) -> None:
        self._socket = socket
        self._limits = limits
        self._next = asyncio.create_task(self._receive())

    @property
    def next_frame(self) -> asyncio.Task[bytes | Close]:
        """The task of the next frame; its result is the frame, or the close code.  The same until `take`."""
        return self._next

    @property
    def end(self) -> Close | None:
        """The close code; None if the socket has not ended, as far as is known."""
        if not self._next.done():
            return None
        found = Close.GOING_AWAY if self._next.cancelled() else self._next.result()
        return found if isinstance(found, Close) else None

    def take(self) -> bytes | Close:
        """Return the next frame or the close code, and receive on.  The task `next_frame` must be done."""
        if self.end is not None:
            return self.end
        found = self._next.result()
        self._next = asyncio.create_task(self._receive())
        return found

    async def send(self, frame: bytes) -> None:
        """Send a frame.  Raises OSError if the other side is gone, TimeoutError if it reads too slowly."""
        async with asyncio.timeout(self._limits.idle_seconds + self._limits.reading_seconds(frame)):
            await self._socket.send_bytes(frame)

    async def close(self, code: Close = Close.DONE) -> bool:
        """Close the socket; tell whether the other side answered within `closing_seconds`."""
        try:
            if code is Close.GONE:
                return False
            async with asyncio.timeout(self._limits.closing_seconds):
                await self._socket.close(code=code)
        except TimeoutError:
            return False
        finally:
            self._next.cancel()
        return self._socket.close_code != Close.GONE

    async def _receive(self) -> bytes | Close:
        try:
            message = await self._socket.receive()
        except (aiohttp.ClientError, OSError):  # the library could not answer a ping
            return Close.GONE
        if message.type is aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is aiohttp.WSMsgType.TEXT:
            return Close.NOT_BINARY
        if message.type is aiohttp.WSMsgType.CLOSE:
            return Close.of(message.data)
        broken = message.data if message.type is aiohttp.WSMsgType.ERROR else None
        return Close.of(broken.code) if isinstance(broken, aiohttp.WebSocketError) else Close.GONE


def wants_socket(request: web.BaseRequest) -> bool:
    """Tell whether a request is the handshake of a WebSocket (RFC 6455, section 4.2.1)."""
    upgrade = request.headers.get("Upgrade", "").strip().lower()
    return request.method == "GET" and upgrade == "websocket"


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
) -> AsyncIterator[FrameChannel]:
    """Open a socket to the next hop, over the connector of `session`, with no header fields but `headers`.

    Redirects are not followed, because they could lead past the relay.  Raises aiohttp.ClientError or OSError.
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
        line = FrameChannel(socket, limits)
        try:
            if socket.protocol != PROTOCOL:
                raise aiohttp.ClientConnectionError(f"expected the subprotocol {PROTOCOL}, got none")
            yield line
        finally:
            # Shielded: if this task is cancelled, the connection must be closed all the same.
            await asyncio.shield(asyncio.create_task(line.close()))
            handshake.release()


class _Handshake:
    """A client middleware that refuses redirects, and can close the connection after any failure."""

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
