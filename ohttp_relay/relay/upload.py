"""A client's request on its way through a relay, piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import aiohttp
from aiohttp import web

from ohttp_relay.errors import BodyTooLarge


class Upload:
    """Passes a request's bytes on; once it is through, the gateway has so long to answer.

    `limit` is in bytes; `idle`, for the client's next bytes, and `answer`, for the gateway, in seconds.
    """

    def __init__(
        self, content: aiohttp.StreamReader, limit: int, idle: float, answer: float, patience: asyncio.Timeout
    ) -> None:
        self._content = content
        self._limit = limit
        self._idle = idle
        self._answer = answer
        self._patience = patience
        self._answered = False
        self.refusal: tuple[int, str] | None = None

    def answered(self) -> None:
        """Set no more clocks: the answer has begun."""
        self._answered = True

    async def pieces(self, note: Callable[[bytes], None]) -> AsyncGenerator[bytes, None]:
        """Give the request's bytes as they come.  What the client did wrong is kept in `refusal`."""
        total = 0
        while piece := await self._next():
            total += len(piece)
            if total > self._limit:
                self.refusal = 413, f"at most {self._limit} bytes are accepted"
                raise BodyTooLarge(self.refusal[1])
            note(piece)
            yield piece
        if not self._answered:
            self._patience.reschedule(asyncio.get_running_loop().time() + self._answer)

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._idle):
                return await self._content.readany()
        except TimeoutError:
            self.refusal = 408, "the request did not come in time"
            raise
        except web.RequestPayloadError:
            self.refusal = 400, "the request's framing is broken"
            raise
