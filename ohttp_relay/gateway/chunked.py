"""Chunked messages at a gateway: receiving a request, sending a response."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

import aiohttp
from aiohttp import web

from ohttp_relay.bhttp.fields import Field
from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.bhttp.padding import Padding
from ohttp_relay.bhttp.parts import Limits
from ohttp_relay.bhttp.stream import Data, Decoder, End, Event, content_piece, end_message, start_response
from ohttp_relay.capsule.chunked import (
    CHUNKED_RESPONSE_TYPE,
    ChunkedRequest,
    ChunkWriter,
    chunked_header_size,
)
from ohttp_relay.capsule.format import HEADER_SIZE
from ohttp_relay.errors import InvalidMessage, OhttpError, TruncatedCapsule
from ohttp_relay.keys.ring import KeyRing
from ohttp_relay.transport.streams import AnyResponse, StreamedResponse, abort

BROKEN = aiohttp.ClientError, web.RequestPayloadError, OSError
HEADERS = {"Content-Type": CHUNKED_RESPONSE_TYPE, "Incremental": "?1"}


class Incoming:
    """A chunked request that is being received: its head, its content, its end, in this order."""

    def __init__(
        self, stream: aiohttp.StreamReader, opened: ChunkedRequest, limits: Limits, idle: float
    ) -> None:
        self._stream = stream
        self._opened = opened
        self._decoder = Decoder(request=True, limits=limits)
        self._events: deque[Event] = deque()
        self._ended = False
        self._idle = idle
        self._trailers: tuple[Field, ...] = ()
        self.failure: OhttpError | None = None

    @classmethod
    async def open(cls, stream: aiohttp.StreamReader, ring: KeyRing, limits: Limits, idle: float) -> Incoming:
        """Read the bytes before the chunks.  Raises CapsuleError, or TimeoutError after `idle` seconds."""
        try:
            async with asyncio.timeout(idle):
                head = await stream.readexactly(HEADER_SIZE)
                ring_checked = chunked_header_size(head)
                head += await stream.readexactly(ring_checked - HEADER_SIZE)
        except TimeoutError:  # it is an OSError, but has another answer
            raise
        except (asyncio.IncompleteReadError, *BROKEN):
            raise TruncatedCapsule("the request ends before its first chunk") from None
        return cls(stream, ChunkedRequest(ring, head), limits, idle)

    @property
    def enc(self) -> bytes:
        """The encapsulated key, by which replays are recognized."""
        return self._opened.enc

    def trailers(self) -> tuple[Field, ...]:
        """Return the trailer section; it is empty before the whole content was read."""
        return self._trailers

    @property
    def authentic(self) -> bool:
        """Whether a chunk was opened, so that further errors can be encapsulated."""
        return self._opened.reader.opened > 0

    def respond(self) -> tuple[bytes, ChunkWriter]:
        """Return (first bytes, writer for the response)."""
        return self._opened.respond()

    async def head(self) -> Request:
        """Return the request without its content."""
        event = await self._event()
        if not isinstance(event, Request):
            raise InvalidMessage("the message is not a request")
        return event

    async def body(self) -> AsyncGenerator[bytes, None] | None:
        """Return the content still to come; None if there is none.

        The content raises if the message does not come whole; `failure` is then the error.
        """
        try:
            first = await self._event()
        except OhttpError as error:
            self.failure = error
            return self._failed(error)
        return self._content(first) if isinstance(first, Data) else None

    async def _failed(self, error: OhttpError) -> AsyncGenerator[bytes, None]:
        raise error
        yield b""

    async def _content(self, event: Event) -> AsyncGenerator[bytes, None]:
        try:
            while isinstance(event, Data):
                yield event.content
                event = await self._event()
        except OhttpError as error:
            self.failure = error
            raise

    async def _event(self) -> Event:
        while not self._events:
            if self._ended:
                raise InvalidMessage("the message has no end")
            await self._receive()
        event = self._events.popleft()
        if isinstance(event, End):
            self._trailers = event.trailers
        return event

    async def _receive(self) -> None:
        try:
            async with asyncio.timeout(self._idle):
                data = await self._stream.readany()
        except BROKEN:
            raise TruncatedCapsule("the request did not come whole") from None
        for plaintext in self._opened.reader.feed(data):
            self._events += self._decoder.feed(plaintext)
        if not data and self._stream.at_eof():
            self._ended = True
            self._events += self._decoder.feed(self._opened.reader.finish())
            self._events += self._decoder.finish()
            if not isinstance(self._events[-1], End):
                raise InvalidMessage("the message has no end")


Encode = Callable[[Response], bytes]


async def send_chunked(
    request: web.Request, incoming: Incoming, response: AnyResponse, encode: Encode, padding: Padding
) -> web.StreamResponse:
    """Seal and send a response: a whole one at once, a streamed one piece by piece and padded at its end.

    If the content does not come whole, abort the connection, without a final chunk.
    """
    first, writer = incoming.respond()
    if isinstance(response, Response):
        return web.Response(body=first + writer.finish(encode(response)), headers=HEADERS)
    try:
        head = start_response(response.status, response.fields, response.informational)
    except InvalidMessage:
        await response.close()
        invalid = encode(Response(response.status, response.fields))  # becomes an error for the client
        return web.Response(body=first + writer.finish(invalid), headers=HEADERS)
    answer = web.StreamResponse(headers=HEADERS)
    try:
        await answer.prepare(request)
        await answer.write(first + writer.write(head))
        await _send_content(answer, writer, response, padding)
        await answer.write_eof()
    except (OhttpError, OSError, TimeoutError, aiohttp.ClientError):
        abort(request)
    finally:
        await response.close()
    return answer


async def _send_content(
    answer: web.StreamResponse, writer: ChunkWriter, response: StreamedResponse, padding: Padding
) -> None:
    async for piece in response.content:
        await answer.write(writer.write(content_piece(piece)))
    tail = end_message(await response.trailers())
    length = writer.total + len(tail)
    await answer.write(writer.finish(tail.ljust(len(tail) + padding(length) - length, b"\0")))
