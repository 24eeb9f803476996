"""Where a service's connections come in: whole requests of the usual kind are answered here and now.

The HTTP library's machinery costs a gateway as much as its cryptography: a task, a request object, a stream
and a table of headers for each request, whose head is, byte for byte, what the same relay sent before.  So a
head is read once and then known; a request that is there whole is answered from its bytes; and all else (a
head not seen whole at once, another method or path, chunked or large bodies, slow clients, odd or hostile
framing) goes, with its connection and for good, to the library, whose limits and rules then hold.

Requests that came in one turn of the event loop are answered together: a service may then take each of its
steps for all of them in a row, while the processor has that step's code at hand.
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
from ohttp_relay.server.reply import Passing, Reply
from ohttp_relay.transport.dates import format_date

log = logging.getLogger(__name__)

WHOLE: Final = 64 * 1024
"""Bytes of a request's content that are waited for here; a larger one streams through the library."""

_HEAD: Final = 4096
_TOGETHER: Final = 16  # requests: the first one's answer waits for the last one's
_KNOWN_HEADS: Final = 1024  # which relays share; in memory only, and forgotten when there are more
_TICK: Final = 1.0
_REQUEST: Final = re.compile(
    rb"POST (/[\x21\x22\x24-\x3e\x40-\x7e]*) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[ \t]*[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\r\n)+)\r\n"
)
_LENGTH: Final = re.compile(r"[0-9]{1,5}")
# With any of these there is more to a request than its content: the library judges it.
_UNUSUAL: Final = frozenset(
    {"connection", "content-encoding", "expect", "te", "transfer-encoding", "upgrade"}
)


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a usual request: path, fields with lower-case names, bytes of content."""

    path: str
    fields: Mapping[str, str]
    length: int

    @classmethod
    def parse(cls, data: bytes) -> Head | None:
        """Return the head that `data` is, up to its empty line; None if it is not a usual one.

        Usual is: POST in HTTP/1.1, each field once, in plain ASCII, Host and Content-Length among them, none
        that changes framing or asks for more than an answer.
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
        if not _UNUSUAL.isdisjoint(fields) or int(length) > WHOLE:
            return None
        return cls(path, fields, int(length))

    @property
    def pairs(self) -> tuple[Field, ...]:
        """The fields as pairs."""
        return tuple(self.fields.items())


class Resident(Protocol):
    """A service that answers whole requests."""

    def expects(self, head: Head) -> bool:
        """Tell whether requests with this head are answered at the door."""

    def receive(self, visits: Sequence[Visit]) -> Sequence[Reply | Awaitable[Reply | Passing]]:
        """Return the answers to requests, in their order, or what will be them; never raises, now or later."""


class Visitor(Protocol):
    """Who sends a request."""

    @property
    def peer(self) -> str:
        """The address the connection comes from."""


class Visit(NamedTuple):
    """A request that is there whole: its head, its content, who sent it."""

    head: Head
    body: bytes
    visitor: Visitor


class House:
    """What the doors of one worker share: who answers, the library behind, known heads, the time.

    `library` makes a protocol of the HTTP library for a connection that is passed on.  `idle`: seconds that an
    unused connection is kept.
    """

    def __init__(
        self,
        resident: Resident,
        library: Callable[[], asyncio.Protocol],
        metrics: Metrics | None = None,
        idle: float = 75.0,
    ) -> None:
        self.resident = resident
        self.library = library
        self.metrics = metrics
        self.idle = idle
        self.loop = asyncio.get_running_loop()
        self.doors: set[Door] = set()
        self.closing = False
        self._asked: list[tuple[Door, Visit, float]] = []
        self._heads: dict[bytes, Head | None] = {}
        self._tick()

    def __call__(self) -> Door:
        """Make a door for a connection."""
        return Door(self)

    def head(self, data: bytes) -> Head | None:
        """Return the head that `data` is, if requests with it are answered at the door."""
        try:
            return self._heads[data]
        except KeyError:
            if len(self._heads) >= _KNOWN_HEADS:
                self._heads.clear()
            head = Head.parse(data)
            found = head if head is not None and self.resident.expects(head) else None
            self._heads[data] = found
            return found

    def ask(self, door: Door, visit: Visit) -> None:
        """Have a request answered at the end of this turn of the loop."""
        if not self._asked:
            self.loop.call_soon(self.answer)
        self._asked.append((door, visit, time.perf_counter()))

    def answer(self) -> None:
        """Answer those that asked first, as many as are answered together."""
        asked, self._asked = self._asked[:_TOGETHER], self._asked[_TOGETHER:]
        if not asked:  # somebody could not wait
            return
        if self._asked:
            self.loop.call_soon(self.answer)
        try:
            replies = self.resident.receive([visit for _, visit, _ in asked])
        except Exception as error:
            # A defect of the service: nobody is to wait for ever, nor to bring down the doors of other turns.
            log.error("requests failed at the door: %s", type(error).__name__)  # noqa: TRY400
            for door, _, _ in asked:
                door.abandon()
            return
        for (door, _, started), reply in zip(asked, replies, strict=True):
            door.answer(reply, started)

    async def close(self, grace: float) -> None:
        """Let requests that are being answered end, for `grace` seconds; close all connections."""
        self.closing = True
        while self._asked:
            self.answer()
        for door in tuple(self.doors):
            door.close()
        tasks = [door.task for door in self.doors if door.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for door in tuple(self.doors):
            door.abandon()
        self._timer.cancel()

    def _tick(self) -> None:
        """Once a second: the time for Date and for idleness, which no request asks for by itself."""
        self.now, self.date = self.loop.time(), format_date(time.time()).encode("ascii")
        for door in tuple(self.doors):
            door.tick(self.now)
        self._timer = self.loop.call_later(_TICK, self._tick)


class Door(asyncio.Protocol):
    """One connection, until it is passed on."""

    __slots__ = (
        "_asked",
        "_drained",
        "_head",
        "_held",
        "_house",
        "_last",
        "_paused",
        "_since",
        "_transport",
        "task",
    )

    def __init__(self, house: House) -> None:
        self._house = house
        self._held = b""
        self._last = b"\0"  # how the last request's head read; no request starts so
        self._asked = False  # the house has a request of this door's
        self._paused = False
        self._drained: asyncio.Future[None] | None = None
        self._since = house.now
        self.task: asyncio.Task[None] | None = None

    @property
    def peer(self) -> str:
        """The address the connection comes from."""
        name = self._transport.get_extra_info("peername")
        return str(name[0]) if name else ""

    @property
    def _busy(self) -> bool:
        """Whether a request is with the house, or its answer is waited for."""
        return self._asked or self.task is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        self._house.doors.add(self)
        opened = transport.get_extra_info("socket")
        if opened is not None:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop what is being done for a client that is gone."""
        self._house.doors.discard(self)
        self._cancel()

    def data_received(self, data: bytes) -> None:
        """Answer a whole request, or wait for the rest of one, or pass the connection on."""
        if self._held:
            data = self._held + data
        if self._busy or self._paused:
            self._hold(data)  # a next request waits its turn
        else:
            self._take(data)

    def _take(self, data: bytes) -> None:
        house = self._house
        if not data.startswith(self._last):  # a connection's requests mostly start alike
            start = data.find(b"\r\n\r\n", 0, _HEAD) + 4
            head = house.head(data[:start]) if start > 3 else None
            if head is None:
                self._pass_on(data)
                return
            self._last, self._head = data[:start], head
        head, start = self._head, len(self._last)
        end = start + head.length
        if len(data) < end:
            self._hold(data)
            return
        self._held = data[end:]
        self._since = house.now
        self._asked = True
        house.ask(self, Visit(head, data[start:end], self))

    def eof_received(self) -> None:
        """Answer what was asked before the client sent its end, as far as nothing has to be waited for.

        At once, for the transport closes after this; one with TLS could not be kept from it.
        """
        self._next()
        while self._asked:
            self._house.answer()
            self._next()

    def answer(self, reply: Reply | Awaitable[Reply | Passing], started: float) -> None:
        """Answer the request that the house was asked for, now or when the answer is there."""
        self._asked = False
        if isinstance(reply, Reply):
            self._answer(reply, started)
            return
        self.task = self._house.loop.create_task(self._wait(reply, started))
        if self._transport.is_closing():
            self.abandon()

    def _hold(self, data: bytes) -> None:
        if not self._held:
            self._since = self._house.now
        self._held = data
        if len(data) > _HEAD + WHOLE:
            self._transport.pause_reading()

    async def _wait(self, reply: Awaitable[Reply | Passing], started: float) -> None:
        metrics = self._house.metrics
        if metrics is not None:
            metrics.begun()
        try:
            answer = await reply
            if isinstance(answer, Passing):
                await self._pass(answer)
        except Exception as error:
            # A defect of the service: the next answer must not be taken for this one's.
            log.error("a request failed at the door: %s", type(error).__name__)  # noqa: TRY400
            self._transport.close()
            return
        finally:
            self.task = None
            if metrics is not None:
                metrics.ended()
        self._answer(answer, started)

    async def _pass(self, passing: Passing) -> None:
        """Send an answer as it comes, no faster than the client reads."""
        transport, house = self._transport, self._house
        transport.write(passing.head(house.date, close=house.closing))
        try:
            async for piece in passing.pieces:
                transport.write(passing.frame(piece))
                if self._paused:
                    self._drained = house.loop.create_future()
                    await self._drained
            if passing.length is None:
                transport.write(b"0\r\n\r\n")
        except Exception:
            transport.abort()  # the head is out: only a broken connection still says that this is not whole
        finally:
            await passing.pieces.aclose()

    def _answer(self, reply: Reply | Passing, started: float) -> None:
        house = self._house
        if house.metrics is not None:  # first: who has the answer may look
            house.metrics.answered(reply.status, time.perf_counter() - started)
        if isinstance(reply, Reply) and not self._transport.is_closing():
            self._transport.write(reply.to_bytes(house.date, close=house.closing))
        self._since = house.now
        if house.closing:
            self._transport.close()
        elif self._held:
            self._resume()

    def pause_writing(self) -> None:
        """Answer nothing more before the client has read what there is."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._paused = False
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        if self._held:
            self._resume()

    def _resume(self) -> None:
        self._house.loop.call_soon(self._next)

    def _next(self) -> None:
        if self._held and not self._busy and not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()
            data, self._held = self._held, b""
            self._take(data)

    def _pass_on(self, data: bytes) -> None:
        """Give the connection to the library, with what came of its next request."""
        if self._transport.is_closing():  # which would do what it is asked to, and could not say so
            return
        self._house.doors.discard(self)
        self._held = b""
        handler = self._house.library()
        self._transport.set_protocol(handler)
        handler.connection_made(self._transport)
        if data:
            handler.data_received(data)

    def tick(self, now: float) -> None:
        """Look after a connection that is slow or unused."""
        idle = now - self._since
        if self._busy or idle < _TICK:
            return
        if self._paused:
            if idle > self._house.idle:
                self._transport.abort()
        elif self._held:
            self._pass_on(self._held)  # not whole after a second: the library has limits for that
        elif idle > self._house.idle:
            self._transport.close()

    def close(self) -> None:
        """Close the connection, unless a request is being answered or came in part."""
        if self.task is None and not self._paused:
            if self._held:
                self._pass_on(self._held)
            else:
                self._transport.close()

    def abandon(self) -> None:
        """Give up what is asked, or is being answered."""
        self._asked = False
        self._cancel()
        self._transport.close()

    def _cancel(self) -> None:
        if self.task is not None:  # when it has begun: what it waits for must learn that nobody does any more
            self._house.loop.call_soon(self.task.cancel)
