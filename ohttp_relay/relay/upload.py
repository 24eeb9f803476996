"""A client's request that a relay forwards piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import aiohttp
from aiohttp import web

from ohttp_relay.errors import BodyTooLarge


class Upload:
    """The bytes of a request as they come, with limits.

    `limit` is in bytes; `idle`, for the client's next bytes, and `answer`, for the gateway, in seconds.
    `deadline` is the time-out of the exchange: it starts to run when the request has been forwarded whole.
    """

    def __init__(
        self, content: aiohttp.StreamReader, limit: int, idle: float, answer: float, deadline: asyncio.Timeout
    ) -> None:
        self._content = content
        self._limit = limit
        self._idle = idle
        self._answer = answer
        self._deadline = deadline
        self._answered = False
        self.refusal: tuple[int, str] | None = None

    def answered(self) -> None:
        """Note that the answer has begun, so that no time-out is set any more."""
        self._answered = True

    async def pieces(self, note: Callable[[bytes], None]) -> AsyncGenerator[bytes, None]:
        """Yield the request's bytes as they come; `note` gets each piece.

        If the client breaks a limit or the framing, `refusal` holds status and text of the answer, and this
        raises.
        """
        total = 0
        while piece := await self._next():
            total += len(piece)
            if total > self._limit:
                self.refusal = 413, f"at most {self._limit} bytes are accepted"
                raise BodyTooLarge(self.refusal[1])
            note(piece)
            yield piece
        if not self._answered:
            self._deadline.reschedule(asyncio.get_running_loop().time() + self._answer)

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
