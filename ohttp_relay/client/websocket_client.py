"""A client's WebSocket: exchanges with a gateway over one connection through the relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.bhttp.padding import Padding
from ohttp_relay.bhttp.parts import response_limits
from ohttp_relay.capsule.client import encapsulate_request
from ohttp_relay.client.dates import corrected_date, dated, may_correct
from ohttp_relay.client.key_sources import KeyCache
from ohttp_relay.errors import ExchangeFailed, KeyRejected, SocketEnded
from ohttp_relay.transport import problems
from ohttp_relay.transport.websocket import Close, FrameChannel, SocketLimits


class OhttpSocket:
    """A WebSocket that sends requests one at a time; made by `OhttpClient.socket`.

    Each request has a fresh HPKE context, a Date and padding, as over HTTP.  The gateway sees that they come
    from one client, so requests that must not be linked need sockets of their own.  It does not reconnect.
    """

    def __init__(
        self,
        line: FrameChannel,
        session: aiohttp.ClientSession,
        keys: KeyCache,
        check: Callable[[Request], None],
        padding: Padding,
        limits: SocketLimits,
        clock: Callable[[], float],
    ) -> None:
        self._line = line
        self._session = session
        self._keys = keys
        self._check = check
        self._padding = padding
        self._limits = limits
        self._clock = clock
        self._turn = asyncio.Lock()
        self._usable = True

    @property
    def usable(self) -> bool:
        """Whether another exchange may succeed: none has failed, and the socket has not ended."""
        return self._usable and self._line.end is None

    async def exchange(self, request: Request) -> Response:
        """Send a request and return the target's response, whatever its status.

        Raises KeyRejected if the gateway could not open the request (the next socket fetches the key list again),
        SocketEnded with the close code if the socket ended first, ExchangeFailed if no answer came in time,
        OpenFailed or TruncatedCapsule if the answer does not open, InvalidMessage, TargetRefused.  After any of
        these but TargetRefused, and after a cancelled exchange, the socket is unusable.  After KeyRejected the
        request was not processed; after the others this is not known.
        """
        self._check(request)
        async with self._turn:
            if request.header("date") is not None:
                return await self._once(request)
            response = await self._once(dated(request, self._clock()))
            kind = response.header("content-type")
            if not may_correct(response.status, kind):
                return response
            correction = corrected_date(kind, response.content, response.header("date"))
            return response if correction is None else await self._once(dated(request, correction))

    async def _once(self, request: Request) -> Response:
        config, suite = await self._keys.current(self._session)
        sealed, opener = encapsulate_request(config, request.to_bytes(self._padding), suite)
        if not self._usable:
            raise ExchangeFailed("the socket is unusable since an exchange on it failed")
        self._usable = False  # until the answer has arrived
        answer = await self._answer(sealed)
        response = Response.from_bytes(opener.open(answer), response_limits(self._limits.response))
        self._usable = True
        return response

    async def _answer(self, sealed: bytes) -> bytes:
        if self._line.end is None:
            try:
                await self._line.send(sealed)
                async with asyncio.timeout(self._limits.answer_seconds):
                    await asyncio.wait({self._line.next_frame})
            except OSError as error:
                raise ExchangeFailed(f"no answer on the socket: {type(error).__name__}") from error
        answer = self._line.take()
        if answer is Close.KEY:
            self._keys.expire()
            raise KeyRejected(400, problems.OHTTP_KEY)
        if isinstance(answer, Close):
            raise SocketEnded(answer)
        return answer
