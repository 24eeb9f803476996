"""Responses whose content comes in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Self

from aiohttp import web

from ohttp_relay.bhttp.fields import Field, Fields, get_field
from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.bhttp.parts import Informational
from ohttp_relay.errors import BodyTooLarge, OhttpError
from ohttp_relay.transport.http import Hold


async def one_piece(content: bytes) -> AsyncIterator[bytes]:
    """Yield `content` as one piece; nothing if it is empty."""
    if content:
        yield content


async def no_trailers() -> tuple[Field, ...]:
    """Return an empty trailer section."""
    return ()


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """A response with its content as a stream: pieces of any size, read once, closed by the reader.

    The stream raises if the content does not come whole.  `trailers` is called once, after the content.
    """

    status: int
    fields: Fields = ()
    content: AsyncIterator[bytes] = field(default_factory=lambda: one_piece(b""))
    informational: tuple[Informational, ...] = ()
    trailers: Callable[[], Awaitable[Fields]] = no_trailers

    @classmethod
    def of(cls, response: Response) -> StreamedResponse:
        """Return a whole response as a stream."""

        async def trailers() -> Fields:
            return response.trailers

        content = one_piece(response.content)
        return cls(response.status, response.fields, content, response.informational, trailers)

    def header(self, name: str) -> str | None:
        """Return a header field's value, repeated ones joined; None if absent."""
        return get_field(self.fields, name)

    async def close(self) -> None:
        """Close the content, read or not."""
        close = getattr(self.content, "aclose", None)
        if close is not None:
            await close()

    async def collect(self, limit: int, hold: Hold | None = None) -> Response:
        """Return the response whole.  Raises BodyTooLarge beyond `limit` bytes of content.

        `hold` is awaited with the size of each piece before the piece is kept.
        """
        pieces: list[bytes] = []
        total = 0
        try:
            async for piece in self.content:
                total += len(piece)
                if total > limit:
                    raise BodyTooLarge(f"content of more than {limit} bytes")
                if hold is not None:
                    await hold(len(piece))
                pieces.append(piece)
        finally:
            await self.close()
        trailers = await self.trailers()
        return Response(self.status, self.fields, b"".join(pieces), trailers, self.informational)


AnyResponse = Response | StreamedResponse
Handler = Callable[[Request], AnyResponse | Awaitable[AnyResponse]]
"""An in-process target: a coroutine function, or a plain function if it waits for nothing, which is faster."""


class OwnedStream:
    """Pieces of content, and the resources to release when they are no longer read."""

    def __init__(self, pieces: AsyncGenerator[bytes, None], stack: AsyncExitStack) -> None:
        self._pieces = pieces
        self._stack = stack

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return await self._pieces.__anext__()

    async def aclose(self) -> None:
        """Release the resources, also if no piece was read."""
        await self._pieces.aclose()
        await self._stack.aclose()


def as_stream(response: AnyResponse) -> StreamedResponse:
    """Return any response as a stream."""
    return StreamedResponse.of(response) if isinstance(response, Response) else response


def abort(request: web.Request) -> None:
    """Abort the connection, so that the client cannot take what was sent for a whole answer."""
    if request.transport is not None:
        request.transport.abort()


async def send(request: web.Request, response: AnyResponse) -> web.StreamResponse:
    """Answer an HTTP request with a response; abort the connection if its stream fails."""
    streamed = as_stream(response)
    answer = web.StreamResponse(status=streamed.status)
    for name, value in streamed.fields:
        answer.headers.add(name, value.encode("latin-1").decode("utf-8", "replace"))
    try:
        await answer.prepare(request)
        async for piece in streamed.content:
            await answer.write(piece)
        await answer.write_eof()
    except OhttpError:
        abort(request)
    finally:
        await streamed.close()
    return answer
