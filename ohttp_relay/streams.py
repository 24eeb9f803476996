"""Responses whose content arrives in pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from aiohttp import web

from .bhttp import Informational, Request, Response
from .errors import BodyTooLarge
from .fields import Field, Fields, get_field


async def one_piece(content: bytes) -> AsyncIterator[bytes]:
    """Give `content` as a stream of at most one piece."""
    if content:
        yield content


async def no_trailers() -> tuple[Field, ...]:
    """Give an empty trailer section."""
    return ()


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """A response with its content as a stream: pieces of any size, read once, closed by the reader.

    The stream raises if the content does not come whole.  `trailers` is asked once, after the content.
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

    async def collect(self, limit: int) -> Response:
        """Return the response whole.  Raises BodyTooLarge beyond `limit` bytes of content."""
        pieces: list[bytes] = []
        total = 0
        async with aclosing(closable(self.content)) as content:
            async for piece in content:
                total += len(piece)
                if total > limit:
                    raise BodyTooLarge(f"content of more than {limit} bytes")
                pieces.append(piece)
        trailers = await self.trailers()
        return Response(self.status, self.fields, b"".join(pieces), trailers, self.informational)


AnyResponse = Response | StreamedResponse
Handler = Callable[[Request], Awaitable[AnyResponse]]
"""An in-process target."""


async def closable(content: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Give the pieces of `content`; closing this generator closes that one if it can be closed."""
    try:
        async for piece in content:
            yield piece
    finally:
        close = getattr(content, "aclose", None)
        if close is not None:
            await close()


async def send(request: web.Request, response: AnyResponse) -> web.StreamResponse:
    """Answer an HTTP request with a response; a stream that fails leaves the answer visibly incomplete."""
    streamed = StreamedResponse.of(response) if isinstance(response, Response) else response
    answer = web.StreamResponse(status=streamed.status)
    for name, value in streamed.fields:
        answer.headers.add(name, value.encode("latin-1").decode("utf-8", "replace"))
    await answer.prepare(request)
    async with aclosing(closable(streamed.content)) as content:
        async for piece in content:
            await answer.write(piece)
    await answer.write_eof()
    return answer
