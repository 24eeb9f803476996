"""A server's connections: accepted, bounded in number, and in the time that a slow or silent client may take.

Each connection has seconds for its TLS handshake, for the head of its first request, and for each request's body.
aiohttp has limits for none of these; its own limit, for connections that wait for a further request, stays in use.
When there are as many connections as there may be, a new one takes the place of the one that was unused longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web

from ohttp_relay.server.fast_http import FastConnection

log = logging.getLogger(__name__)

_MOST_DESCRIPTORS: Final = 1 << 20
_ACCEPTS: Final = 64  # connections that are accepted in one turn of the event loop
_PAUSE: Final = 0.1  # seconds, after the system had no descriptor left
_CLOSING: Final = 5.0  # seconds for the end of TLS
_TURNS: Final = 50  # of the event loop, for connections that close by themselves when the server ends
_WORD_SECONDS: Final = 60.0
_SHARE: Final = 50  # of a full server's connections, one in so many makes room at once


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of a server's connections."""

    connections: int = 10_000
    """Connections at once; at most half of the descriptors that the process may have, whatever is set here."""

    handshake_seconds: float = 10.0
    """Until the TLS handshake is complete."""

    head_seconds: float = 15.0
    """Until the head of a new connection's first request has arrived."""

    body_seconds: float = 30.0
    """Until a request's body has arrived, and a second more for every `body_rate` bytes of it, which can't be saved
    up: without a byte, a body never has more seconds than these."""

    body_rate: int = 16 * 1024
    """Bytes."""

    reading_seconds: float = 75.0
    """Without progress while a client reads an answer."""

    unread: int = 256 * 1024 * 1024
    """Bytes of answers that clients have not read yet; over it, connections are closed, those first whose answers
    have waited longest for the size that they have."""

    def bound(self, servers: int = 1) -> int:
        """Return how many connections one of `servers` in this process may have."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(1, min(self.connections, soft // (2 * servers)))


def raise_descriptor_limit() -> None:
    """Let this process have as many descriptors as the system permits; leave it as it is if that fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(_MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Connection:
    """One accepted connection."""

    __slots__ = (
        "asked",
        "body",
        "due",
        "opening",
        "protocol",
        "request",
        "since",
        "socket",
        "transport",
        "unread",
        "unread_since",
        "wire",
    )

    def __init__(self, opened: socket.socket, now: float) -> None:
        self.socket = opened
        self.since = (
            now  # the last event: accepted, opened, a request began or ended, some of an answer was read
        )
        self.opening: asyncio.Task[None] | None = None
        self.transport: Any = None  # asyncio.Transport; None during the handshake
        self.wire: Any = None  # the transport without TLS; the same as `transport` if there is no TLS
        self.protocol: asyncio.BaseProtocol | None = None
        self.request: web.BaseRequest | None = None
        self.asked = False  # whether a request has come to the HTTP library
        self.body = 0  # bytes of the request's body that were seen
        self.due = 0.0  # when more of it has to have arrived
        self.unread = 0
        self.unread_since = 0.0

    def look_at_unread(self, now: float) -> None:
        """Measure what the client has not read yet; a change counts as an event.

        With TLS it is what waits to be encrypted, and what is encrypted and waits to be sent.
        """
        unread = self.wire.get_write_buffer_size()
        if self.wire is not self.transport:
            unread += self.transport.get_write_buffer_size()
        if unread == self.unread:
            return
        if not self.unread:
            self.unread_since = now
        self.unread, self.since = unread, now

    def body_is_late(self, arrived: int, now: float, limits: ConnectionLimits) -> bool:
        """Note how many bytes of the body have arrived; return whether it is too slow."""
        self.due = min(
            self.due + (arrived - self.body) / limits.body_rate, max(self.due, now + limits.body_seconds)
        )
        self.body = arrived
        return now > self.due

    @property
    def rank(self) -> tuple[int, float]:
        """How much is lost if it is closed: least without a request, most if a whole request is being answered.

        Between them are requests that have not come whole, and answers that are not read.  Then by the last event.
        """
        if isinstance(self.protocol, FastConnection):
            return 2 if self.protocol.busy else 0, self.protocol.active_since
        if self.request is None:
            return 1 if self.unread else 0, self.since
        return 2 if self.request.content.is_eof() else 1, self.since

    def drop(self) -> None:
        """Close it at once."""
        if self.transport is not None:
            self.transport.abort()
            return
        if self.opening is not None:
            self.opening.cancel()
        if self.wire is not None:
            self.wire.abort()

    def abandon(self) -> None:
        """Close it at once, whatever TLS or the HTTP library still wait for."""
        if self.wire is not None:
            self.wire.abort()
        elif self.opening is not None:
            self.opening.cancel()
        else:
            self.socket.close()


class _Early(asyncio.Protocol):
    """Keeps what arrives before the protocol that it is for."""

    def __init__(self) -> None:
        self._data = b""
        self._ended = self._lost = False

    def data_received(self, data: bytes) -> None:
        self._data += data

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True

    def give_to_tls(self, wire: asyncio.Transport) -> None:
        """Pass on the first bytes of a handshake to the transport's new protocol."""
        protocol = cast(asyncio.BufferedProtocol, wire.get_protocol())
        while self._data and not wire.is_closing():
            buffer = memoryview(protocol.get_buffer(len(self._data)))
            size = min(len(buffer), len(self._data))
            buffer[:size], self._data = self._data[:size], self._data[size:]
            protocol.buffer_updated(size)

    def give_to(self, protocol: asyncio.Protocol, transport: asyncio.Transport) -> None:
        """Begin with `protocol`, and pass on what has arrived since the handshake."""
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._data:
            protocol.data_received(self._data)
        if self._ended:
            protocol.eof_received()
        if self._lost:
            protocol.connection_lost(None)


class Connections:
    """Accepts connections on listening sockets, and closes those that exceed a limit."""

    def __init__(
        self,
        factory: Callable[[], asyncio.Protocol],
        library: web.Server,
        listeners: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        limits: ConnectionLimits,
        servers: int = 1,
    ) -> None:
        """Serve connections on `listeners`, which listen already, with the protocols that `factory` makes.

        `library` is the server that answers requests, maybe after a protocol of `factory` has handed over its
        connection. `servers` share the descriptors of this process.
        """
        self._loop = asyncio.get_running_loop()
        self._factory = factory
        self._tls = tls
        self._limits = limits
        self._listeners = list(listeners)
        self.bound = limits.bound(servers)
        self._open: dict[int, _Connection] = {}  # by descriptor
        self._next_word = 0.0  # when the log may tell again that there are too many
        self._answer: Callable[[Any], Awaitable[web.StreamResponse]] = library.request_handler
        library.request_handler = self._watch
        smallest = min(limits.head_seconds, limits.body_seconds, limits.reading_seconds)
        self._pause = min(1.0, smallest / 4)
        for listener in self._listeners:
            listener.setblocking(False)
        self._listen()
        self._timer = self._loop.call_later(self._pause, self._tick)

    def __len__(self) -> int:
        """Return how many connections are open, with those in their handshake."""
        self._forget_closed()
        return len(self._open)

    def close(self) -> None:
        """Accept no more connections, and drop those in their handshake; the others are the HTTP library's."""
        self._timer.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()
        for connection in self._open.values():
            if connection.transport is None:
                connection.drop()

    async def wait_closed(self) -> None:
        """Wait, after `close` and the HTTP library's own closing, until the sockets are closed.

        What does not close within some turns of the loop, since its client does not take part, is dropped.
        """
        for turn in range(2 * _TURNS):
            self._forget_closed()
            if not self._open:
                return
            if turn >= _TURNS:
                for connection in self._open.values():
                    connection.abandon()
            await asyncio.sleep(0)

    # Accepting

    def _listen(self) -> None:
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                opened, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor or memory left
                self._make_room()
                self._rest()
                return
            self._take(opened)

    def _rest(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
        self._loop.call_later(_PAUSE, self._listen)

    def _take(self, opened: socket.socket) -> None:
        opened.setblocking(False)
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = opened.fileno()
        self._open.pop(number, None)  # the system gives a number again only when it is free
        if len(self._open) >= self.bound:
            self._forget_closed()
        if len(self._open) >= self.bound:
            self._make_room()
        connection = self._open[number] = _Connection(opened, self._loop.time())
        connection.opening = self._loop.create_task(self._begin(connection))
        connection.opening.add_done_callback(lambda _: self._began(connection))

    def _began(self, connection: _Connection) -> None:
        connection.opening = None
        if connection.wire is None:
            self._loop.call_later(_PAUSE, connection.socket.close)
        elif connection.transport is None:
            connection.wire.abort()  # it closes the socket

    async def _begin(self, connection: _Connection) -> None:
        with contextlib.suppress(OSError):  # the handshake failed, or took too long
            if self._tls is None:
                made = await self._loop.connect_accepted_socket(self._factory, connection.socket)
                connection.wire, connection.protocol = made
                connection.transport = connection.wire
            else:
                await self._begin_tls(connection, self._tls)
            connection.since = self._loop.time()

    async def _begin_tls(self, connection: _Connection, tls: ssl.SSLContext) -> None:
        """Do the handshake, and keep the transport below: the one of TLS does not count what it has encrypted."""
        seconds = self._limits.handshake_seconds
        first, further = _Early(), _Early()
        wire, _ = await self._loop.connect_accepted_socket(lambda: first, connection.socket)
        connection.wire = wire
        handshake = self._loop.create_task(
            self._loop.start_tls(
                wire,
                further,
                tls,
                server_side=True,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=min(_CLOSING, seconds),
            )
        )
        try:
            await asyncio.sleep(0)  # it has replaced `first`, and begins in the next turn
            if wire.is_closing():  # `first` has learnt it, and nobody else will
                return
            self._loop.call_soon(first.give_to_tls, wire)
            transport = await handshake
        finally:
            handshake.cancel()
        if transport is not None:
            connection.transport, connection.protocol = transport, self._factory()
            further.give_to(connection.protocol, transport)

    # Limits

    async def _watch(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request, and note on its connection when it began and ended."""
        transport = request.transport
        opened = transport.get_extra_info("socket") if transport is not None else None
        connection = self._open.get(opened.fileno()) if opened is not None else None
        if connection is None:
            return await self._answer(request)
        connection.asked, connection.request = True, request
        connection.since = self._loop.time()
        connection.body, connection.due = 0, connection.since + self._limits.body_seconds
        try:
            return await self._answer(request)
        finally:
            connection.request, connection.since = None, self._loop.time()

    def _tick(self) -> None:
        """Close what is too slow."""
        now = self._loop.time()
        self._forget_closed()
        for connection in list(self._open.values()):
            if connection.transport is not None and self._too_slow(connection, now):
                connection.drop()
        self._bound_unread(now)
        self._timer = self._loop.call_later(self._pause, self._tick)

    def _too_slow(self, connection: _Connection, now: float) -> bool:
        limits, protocol = self._limits, connection.transport.get_protocol()
        if protocol is not connection.protocol:  # handed over to the library
            connection.protocol, connection.since = protocol, now
        connection.look_at_unread(now)
        if connection.unread:
            return now - connection.since > limits.reading_seconds
        if isinstance(protocol, FastConnection):  # it has limits of its own, but none for a silent newcomer
            return protocol.silent and now - connection.since > limits.head_seconds
        request = connection.request
        if request is None:
            return not connection.asked and now - connection.since > limits.head_seconds
        if request.content.is_eof():
            return False
        if not connection.transport.is_reading():  # it waits for the server
            connection.due = now + limits.body_seconds
            return False
        return connection.body_is_late(request.content.total_bytes, now, limits)

    def _bound_unread(self, now: float) -> None:
        total = sum(connection.unread for connection in self._open.values())
        if total <= self._limits.unread:
            return
        waiting = [one for one in self._open.values() if one.unread]
        for connection in sorted(waiting, key=lambda one: one.unread * (one.unread_since - now)):
            connection.drop()
            total -= connection.unread
            if total <= self._limits.unread:
                return

    def _make_room(self) -> None:
        """Close the connections that were unused longest."""
        count = max(1, self.bound // _SHARE)
        for number, connection in heapq.nsmallest(count, self._open.items(), key=lambda one: one[1].rank):
            connection.drop()
            del self._open[number]
        now = self._loop.time()
        if now >= self._next_word:
            self._next_word = now + _WORD_SECONDS
            log.warning("as many connections as there may be: those unused longest are closed")

    def _forget_closed(self) -> None:
        for number in [number for number, one in self._open.items() if one.socket.fileno() == -1]:
            del self._open[number]
