"""The response that a client gets, whole or as a stream."""

from __future__ import annotations

import json as jsonlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy

from ohttp_relay.bhttp.fields import Field
from ohttp_relay.bhttp.message import Response
from ohttp_relay.bhttp.parts import Informational, Limits
from ohttp_relay.bhttp.stream import Data, Decoder, End, Event, ResponseHead
from ohttp_relay.capsule.chunked import ResponseReader
from ohttp_relay.errors import BodyTooLarge, ExchangeFailed, InvalidMessage
from ohttp_relay.transport.streams import one_piece


class OhttpResponse:
    """The target's response.

    `headers` and pieces of content are available as soon as they arrive, `trailers` after all content was read.
    Reading raises if the message does not arrive whole.
    """

    def __init__(
        self,
        status: int,
        fields: tuple[Field, ...],
        pieces: AsyncIterator[bytes],
        informational: tuple[Informational, ...] = (),
        limit: int = 1 << 62,
    ) -> None:
        self.status = status
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict(fields))
        self.informational = informational
        self.trailers: tuple[Field, ...] = ()
        self._pieces = pieces
        self._limit = limit
        self._read: bytes | None = None

    @classmethod
    def of(cls, response: Response) -> OhttpResponse:
        """Return `response` as one whose content has arrived."""
        made = cls(
            response.status, tuple(response.fields), one_piece(response.content), response.informational
        )
        made.trailers = tuple(response.trailers)
        return made

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Yield the content in pieces as they come."""
        if self._read is not None:
            yield self._read
            return
        async for piece in self._pieces:
            yield piece

    async def read(self) -> bytes:
        """Return the whole content.  Raises BodyTooLarge, TruncatedCapsule, OpenFailed, ExchangeFailed."""
        if self._read is None:
            pieces: list[bytes] = []
            total = 0
            async for piece in self._pieces:
                total += len(piece)
                if total > self._limit:
                    raise BodyTooLarge(f"content of more than {self._limit} bytes")
                pieces.append(piece)
            self._read = b"".join(pieces)
        return self._read

    async def text(self, encoding: str = "utf-8") -> str:
        """Return the content as text."""
        return (await self.read()).decode(encoding)

    async def json(self) -> object:
        """Return the content parsed as JSON."""
        return jsonlib.loads(await self.read())


async def receive_chunked(
    stream: aiohttp.StreamReader, reader: ResponseReader, limits: Limits, read_limit: int
) -> OhttpResponse:
    """Return a chunked response as soon as its head has arrived."""
    events = _events(stream, reader, Decoder(request=False, limits=limits))
    informational: list[Informational] = []
    async for event in events:
        if isinstance(event, ResponseHead):
            break
        if isinstance(event, Informational):
            informational.append(event)
    else:
        raise InvalidMessage("the message is not a response")
    made = OhttpResponse(event.status, event.fields, one_piece(b""), tuple(informational), read_limit)
    made._pieces = _content(events, made)
    return made


async def _content(events: AsyncGenerator[Event, None], response: OhttpResponse) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, Data):
            yield event.content
        elif isinstance(event, End):
            response.trailers = event.trailers
            return
    raise InvalidMessage("the message has no end")


async def _events(
    stream: aiohttp.StreamReader, reader: ResponseReader, decoder: Decoder
) -> AsyncGenerator[Event, None]:
    pending: deque[bytes] = deque()
    try:
        while data := await stream.readany():
            pending += reader.feed(data)
            while pending:
                for event in decoder.feed(pending.popleft()):
                    yield event
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ExchangeFailed(f"no whole answer from the relay: {type(error).__name__}") from error
    for event in [*decoder.feed(reader.finish()), *decoder.finish()]:
        yield event
