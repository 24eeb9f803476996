"""A fast path for small whole requests over HTTP/1.1, in front of the HTTP library.

aiohttp costs a gateway as much time as its cryptography: for each request a task, a request object, a stream
and a table of headers.  But a relay sends the same head with each request, byte for byte.  So this module
parses a head once and remembers the result, and answers a request that has arrived whole from its bytes.
Everything else goes to aiohttp together with its connection, which stays there: an unknown head, a head that
does not arrive in one piece, another method or path, chunked or large content, a slow client, unusual or
hostile framing.  The limits and rules of aiohttp then apply.  docs/adr/0002 says why this exists.

Requests that arrive in one turn of the event loop are answered together.  A service may then take each of its
steps for all of them in a row, while the code of that step is in the processor's caches.

States of a connection, and what follows on an event:

| state | event | what follows |
| --- | --- | --- |
| idle: no bytes of a request | a whole request of a known head arrives | submit it; -> submitted |
| | a known head with part of its content | buffer it; -> partial |
| | any other bytes | -> handed over |
| | no request for `idle` seconds, or the server stops | -> closed |
| partial: head whole, content not | the rest of the content arrives | submit it; -> submitted |
| | 1 to 2 seconds pass, or the server stops | -> handed over |
| submitted: with the service, in this turn | the service returns a reply | write it; -> idle or partial |
| | the service returns an awaitable | start a task; -> waiting |
| | the service raises, or the server gives up | -> closed |
| waiting: a task awaits the reply | the task has a reply | write it; -> idle or partial |
| | the task has a streamed reply | write its head and pieces; then as above |
| | the task raises | -> closed |
| | the server gives up, or the client disconnects | cancel the task; -> closed |
| submitted, waiting | bytes of a further request | buffer them; over the limit, stop reading |
| | end of the client's data, without TLS | answer what arrived whole; -> closed |
| | end of the client's data, with TLS | answer what was submitted; -> closed |
| any but handed over | the client does not read (write buffer full) | answer no further request until it does |
| | it does not read for `idle` seconds | -> closed, aborted |
| | the client disconnects | -> closed |
| handed over | anything | aiohttp's; this module has no part in it |
| closed | anything | ignored |

Bytes buffered in the states submitted and waiting are processed after the reply, as if they had just arrived.
"""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, cast

from ohttp_relay.bhttp.fields import Field
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.server.reply import Reply, StreamedReply
from ohttp_relay.transport.dates import format_date

log = logging.getLogger(__name__)

MAX_CONTENT: Final = 64 * 1024
"""Bytes of content that a request may have here; a larger one streams through the HTTP library."""

_MAX_HEAD: Final = 4096
_MAX_BATCH: Final = 16  # requests; the first one's reply waits for the last one's
_MAX_KNOWN_HEADS: Final = (
    1024  # several relays may share one; in memory only, all dropped when there are more
)
_TICK: Final = 1.0  # seconds
_REQUEST: Final = re.compile(
    rb"POST (/[\x21\x22\x24-\x3e\x40-\x7e]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[ \t]*[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\r\n)+)\r\n"
)
_LENGTH: Final = re.compile(r"[0-9]{1,5}")
# With any of these there is more to a request than its content: the library decides.
_UNUSUAL: Final = frozenset(
    {"connection", "content-encoding", "expect", "te", "transfer-encoding", "upgrade"}
)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """The head of a usual request: path, fields with lower-case names, bytes of content."""

    path: str
    fields: Mapping[str, str]
    length: int

    @classmethod
    def parse(cls, data: bytes) -> RequestHead | None:
        """Return the head in `data`, which ends with its empty line; None if it is not a usual one.

        Usual is: POST in HTTP/1.1; each field once, in plain ASCII; Host and Content-Length among them; no
        field that changes framing or asks for more than an answer.
        """
        match = _REQUEST.fullmatch(data)
        if match is None:
            return None
        path, lines = match[1].decode("ascii"), match[2].decode("ascii").splitlines()
        pairs = [
            (name.lower(), value.strip(" \t")) for name, _, value in (line.partition(":") for line in lines)
        ]
        fields = dict(pairs)
        length = fields.get("content-length", "")
        if len(fields) < len(pairs) or "host" not in fields or _LENGTH.fullmatch(length) is None:
            return None
        if not _UNUSUAL.isdisjoint(fields) or int(length) > MAX_CONTENT:
            return None
        return cls(path, fields, int(length))

    @property
    def pairs(self) -> tuple[Field, ...]:
        """The fields as pairs."""
        return tuple(self.fields.items())


class RequestHandler(Protocol):
    """A service that answers whole requests."""

    def expects(self, head: RequestHead) -> bool:
        """Tell whether the service answers requests with this head on the fast path."""

    def receive(self, requests: Sequence[WholeRequest]) -> Sequence[Reply | Awaitable[Reply | StreamedReply]]:
        """Return the replies to `requests`, in their order, or awaitables of them.

        Neither the call nor the awaitables may raise.
        """


class Peer(Protocol):
    """The sender of a request."""

    @property
    def peer(self) -> str:
        """The address of the connection's other end."""


class WholeRequest(NamedTuple):
    """A request that has arrived whole: its head, its content, its sender."""

    head: RequestHead
    body: bytes
    sender: Peer


class FastServer:
    """The shared state of one worker's connections: the service, the HTTP library, known heads, the time.

    `library` makes a protocol of the HTTP library for a connection that is handed over.  `idle`: seconds
    after which an unused connection is closed.
    """

    def __init__(
        self,
        handler: RequestHandler,
        library: Callable[[], asyncio.Protocol],
        metrics: Metrics | None = None,
        idle: float = 75.0,
    ) -> None:
        self.handler = handler
        self.library = library
        self.metrics = metrics
        self.idle = idle
        self.loop = asyncio.get_running_loop()
        self.connections: set[FastConnection] = set()
        self.closing = False
        self._submitted: list[tuple[FastConnection, WholeRequest, float]] = []
        self._heads: dict[bytes, RequestHead | None] = {}
        self._tick()

    def __call__(self) -> FastConnection:
        """Make the protocol of a new connection."""
        return FastConnection(self)

    def head(self, data: bytes) -> RequestHead | None:
        """Return the head in `data`; None if the library is to answer requests with it."""
        try:
            return self._heads[data]
        except KeyError:
            if len(self._heads) >= _MAX_KNOWN_HEADS:
                self._heads.clear()
            head = RequestHead.parse(data)
            found = head if head is not None and self.handler.expects(head) else None
            self._heads[data] = found
            return found

    def submit(self, connection: FastConnection, request: WholeRequest) -> None:
        """Have a request answered at the end of this turn of the event loop."""
        if not self._submitted:
            self.loop.call_soon(self.answer_batch)
        self._submitted.append((connection, request, time.perf_counter()))

    def answer_batch(self) -> None:
        """Answer the oldest submitted requests, at most one batch of them."""
        batch, self._submitted = self._submitted[:_MAX_BATCH], self._submitted[_MAX_BATCH:]
        if not batch:  # answered before this turn ended
            return
        if self._submitted:
            self.loop.call_soon(self.answer_batch)
        try:
            replies = self.handler.receive([request for _, request, _ in batch])
        except Exception as error:
            # A defect of the service: no client may wait for ever, and other batches must go on.
            log.error("the service failed on the fast path: %s", type(error).__name__)  # noqa: TRY400
            for connection, _, _ in batch:
                connection.give_up()
            return
        for (connection, _, started), reply in zip(batch, replies, strict=True):
            connection.answer(reply, started)

    async def close(self, grace: float) -> None:
        """Let requests that are being answered end, for `grace` seconds; close all connections."""
        self.closing = True
        while self._submitted:
            self.answer_batch()
        for connection in tuple(self.connections):
            connection.close()
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for connection in tuple(self.connections):
            connection.give_up()
        self._timer.cancel()

    def _tick(self) -> None:
        """Update the time for Date and for idle connections, once a second and not for each request."""
        self.now, self.date = self.loop.time(), format_date(time.time()).encode("ascii")
        for connection in tuple(self.connections):
            connection.check_idle(self.now)
        self._timer = self.loop.call_later(_TICK, self._tick)


class FastConnection(asyncio.Protocol):
    """One connection, until it is handed over; the module's docstring has its states."""

    __slots__ = (
        "_active_since",
        "_buffer",
        "_drained",
        "_ended",
        "_head",
        "_known_start",
        "_server",
        "_submitted",
        "_transport",
        "_write_paused",
        "task",
    )

    def __init__(self, server: FastServer) -> None:
        self._server = server
        self._buffer = b""
        self._known_start = b"\0"  # the bytes of the last request's head; no request starts with a NUL
        self._submitted = False
        self._write_paused = False
        self._ended = False  # the client sends nothing more
        self._drained: asyncio.Future[None] | None = None
        self._active_since = server.now
        self.task: asyncio.Task[None] | None = None

    @property
    def peer(self) -> str:
        """The address of the connection's other end."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    @property
    def busy(self) -> bool:
        """Whether the connection is in state submitted or waiting."""
        return self._submitted or self.task is not None

    @property
    def active_since(self) -> float:
        """The last event of the connection, in seconds of the loop's clock."""
        return self._active_since

    @property
    def silent(self) -> bool:
        """Whether nothing has come on the connection so far."""
        return self._known_start == b"\0" and not self._buffer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the work for a client that disconnected."""
        self._server.connections.discard(self)
        self._cancel_task()

    def data_received(self, data: bytes) -> None:
        """Submit a whole request, or wait for the rest of one, or hand the connection over."""
        if self._buffer:
            data = self._buffer + data
        if self.busy or self._write_paused:
            self._keep(data)  # a further request waits its turn
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        server = self._server
        if not data.startswith(self._known_start):  # most requests of a connection start with the same bytes
            start = data.find(b"\r\n\r\n", 0, _MAX_HEAD) + 4
            head = server.head(data[:start]) if start > 3 else None
            if head is None:
                self._hand_over(data)
                return
            self._known_start, self._head = data[:start], head
        head, start = self._head, len(self._known_start)
        end = start + head.length
        if len(data) < end:
            if self._ended:
                self._transport.close()
            else:
                self._keep(data)
            return
        self._buffer = data[end:]
        self._active_since = server.now
        self._submitted = True
        server.submit(self, WholeRequest(head, data[start:end], self))

    def eof_received(self) -> bool:
        """Answer the requests before the end of the client's data; return whether the transport stays open for it.

        A TLS transport cannot stay open, so only replies that need not be awaited reach its client.
        """
        self._take_next()
        self._ended = True
        while self._submitted:
            self._server.answer_batch()
            self._take_next()
        return self.busy and self._transport.get_extra_info("ssl_object") is None

    def answer(self, reply: Reply | Awaitable[Reply | StreamedReply], started: float) -> None:
        """Answer the submitted request, now or when the reply is there."""
        self._submitted = False
        if isinstance(reply, Reply):
            self._finish(reply, started)
            return
        self.task = self._server.loop.create_task(self._wait(reply, started))
        if self._transport.is_closing():
            self.give_up()

    def _keep(self, data: bytes) -> None:
        if not self._buffer:
            self._active_since = self._server.now
        self._buffer = data
        if len(data) > _MAX_HEAD + MAX_CONTENT:
            self._transport.pause_reading()

    async def _wait(self, reply: Awaitable[Reply | StreamedReply], started: float) -> None:
        metrics = self._server.metrics
        if metrics is not None:
            metrics.begun()
        try:
            answer = await reply
            if isinstance(answer, StreamedReply):
                await self._stream(answer)
        except Exception as error:
            # A defect of the service: the client must not take the next reply for this one's.
            log.error("a request failed on the fast path: %s", type(error).__name__)  # noqa: TRY400
            self._transport.close()
            return
        finally:
            self.task = None
            if metrics is not None:
                metrics.ended()
        self._finish(answer, started)

    async def _stream(self, reply: StreamedReply) -> None:
        """Write a reply as its pieces come, no faster than the client reads."""
        transport, server = self._transport, self._server
        transport.write(reply.head(server.date, close=server.closing))
        try:
            async for piece in reply.pieces:
                transport.write(reply.frame(piece))
                if self._write_paused:
                    self._drained = server.loop.create_future()
                    await self._drained
            if reply.length is None:
                transport.write(b"0\r\n\r\n")
        except Exception:
            transport.abort()  # the head is out: only a broken connection tells that the reply is not whole
        finally:
            await reply.pieces.aclose()

    def _finish(self, reply: Reply | StreamedReply, started: float) -> None:
        server = self._server
        if server.metrics is not None:  # before the write: a client with the reply may read the metrics
            server.metrics.answered(reply.status, time.perf_counter() - started)
        if isinstance(reply, Reply) and not self._transport.is_closing():
            self._transport.write(reply.to_bytes(server.date, close=server.closing))
        self._active_since = server.now
        if server.closing:
            self._transport.close()
        elif self._buffer:
            self._take_next_soon()
        elif self._ended:
            self._transport.close()

    def pause_writing(self) -> None:
        """Answer no further request before the client has read what there is."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._write_paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._buffer:
            self._take_next_soon()

    def _take_next_soon(self) -> None:
        self._server.loop.call_soon(self._take_next)

    def _take_next(self) -> None:
        if self._buffer and not self.busy and not self._write_paused and not self._transport.is_closing():
            if not self._ended:
                self._transport.resume_reading()
            data, self._buffer = self._buffer, b""
            self._take(data)

    def _hand_over(self, data: bytes) -> None:
        """Give the connection to the library, with what has arrived of its next request."""
        if self._transport.is_closing():  # the library would serve the request and could not answer it
            return
        self._server.connections.discard(self)
        self._buffer = b""
        handler = self._server.library()
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        if data:
            handler.data_received(data)

    def check_idle(self, now: float) -> None:
        """Hand over or close a connection that is slow or unused; `now` in seconds of the loop's clock."""
        idle = now - self._active_since
        if self.busy or idle < _TICK:
            return
        if self._write_paused:
            if idle > self._server.idle:
                self._transport.abort()
        elif self._buffer:
            self._hand_over(self._buffer)  # not whole after a second: the library has limits for that
        elif idle > self._server.idle:
            self._transport.close()

    def close(self) -> None:
        """Close the connection, unless a request is being answered or has arrived in part."""
        if self.task is None and not self._write_paused:
            if self._buffer:
                self._hand_over(self._buffer)
            else:
                self._transport.close()

    def give_up(self) -> None:
        """Drop the submitted request, or cancel the task that awaits its reply; close the connection."""
        self._submitted = False
        self._cancel_task()
        self._transport.close()

    def _cancel_task(self) -> None:
        if self.task is not None:  # once it has started, so that what it awaits is cancelled too
            self._server.loop.call_soon(self.task.cancel)
