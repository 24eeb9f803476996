"""A relay's sockets: for each of a client's one to the gateway, and frames from one to the other.

What it opens is the same whoever asks: a handshake without any header of the client's, closed without reason.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
from aiohttp import web
from yarl import URL

from ohttp_relay.relay.rate_limit import RateLimit, Share
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.server.sockets import Sockets
from ohttp_relay.transport.http import open_session
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.websocket import Close, Line, SocketLimits, connect

Refusal = Callable[[web.Request], Awaitable[web.Response | None]]
"""Returns the answer to a client that may not use the relay, or names no gateway of it."""

_PASSED_ON: Final = frozenset(
    {Close.GOING_AWAY, Close.NOT_A_CAPSULE, Close.TOO_LARGE, Close.KEY, Close.TIME_OVER}
)


class RelaySockets(Sockets):
    """Sockets whose requests go on to a gateway, by the name in the URL.

    `doubt` is told the name of a gateway that could not open a request: its key list may be an old one.
    They share no connection pool with requests over HTTP, unless a session is given: either would otherwise
    take the other's places.
    """

    def __init__(
        self,
        gateways: Mapping[str, URL],
        refusal: Refusal,
        doubt: Callable[[str], object],
        session: aiohttp.ClientSession | None = None,
        limits: SocketLimits | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        observe: Observer | None = None,
        metrics: Metrics | None = None,
        rate: RateLimit | None = None,
    ) -> None:
        super().__init__(limits, observe, metrics)
        self._gateways = gateways
        self._refusal = refusal
        self.doubt = doubt
        self._session = session
        self._owned: aiohttp.ClientSession | None = None
        self._ssl = ssl_context
        self._share = Share(self.limits.each)
        self.rate = rate

    async def close(self) -> None:
        """Close the session that was opened here."""
        if self._owned is not None:
            await self._owned.close()
            self._owned = None

    async def refusal(self, request: web.Request) -> web.Response | None:
        """Refuse whom the relay refuses."""
        return await self._refusal(request)

    @asynccontextmanager
    async def onward(self, request: web.Request) -> AsyncIterator[_Gateway]:
        """Open the socket to the gateway first, so that a client without one gets an HTTP status."""
        self.see("relay.socket", request)
        url = self._gateways[request.match_info["name"]]
        async with AsyncExitStack() as stack:
            if not stack.enter_context(self._share.hold(request.remote)):
                raise web.HTTPTooManyRequests(text="too many sockets of one client")
            try:
                line = await stack.enter_async_context(connect(self._transport(), url, self.limits))
            except TimeoutError:
                raise web.HTTPGatewayTimeout(text="the gateway did not answer in time") from None
            except (aiohttp.ClientError, OSError):
                raise web.HTTPBadGateway(text="the gateway gave no socket") from None
            yield _Gateway(line, str(url), request, self)

    def _transport(self) -> aiohttp.ClientSession:
        if self._session is not None:
            return self._session
        if self._owned is None:
            self._owned = open_session(
                ssl_context=self._ssl, timeout=self.limits.answer_seconds, limit=self.limits.sockets
            )
        return self._owned


@dataclass(frozen=True, slots=True)
class _Gateway:
    line: Line
    url: str
    request: web.Request
    sockets: RelaySockets

    def heard(self) -> set[asyncio.Task[bytes | Close]]:
        return {self.line.heard}

    def end(self) -> Close:
        return self._said(self.line.end or Close.FAILED)  # a frame that answers nothing is a failure, too

    async def ask(self, frame: bytes, client: Line) -> bytes | Close:
        """Pass a request on, once, and its answer back; stop when either side ends."""
        request, rate = self.request, self.sockets.rate
        if rate is not None and not rate.allows(request.remote):
            return Close.TOO_MANY
        self.sockets.note("relay.received", Seen(request.remote or "", "GET", request.path, body=frame))
        self.sockets.note("relay.forwarded", Seen(target=self.url, body=frame))
        try:
            await self.line.send(frame)
            async with asyncio.timeout(self.sockets.limits.answer_seconds):
                await self._answered(client)
        except OSError:  # a time that is over is one
            return Close.FAILED
        if not self.line.heard.done():
            return client.end or Close.GONE
        answer = self.line.take()
        if isinstance(answer, Close):
            return self._said(answer)
        self.sockets.note("relay.answered", Seen(body=answer))
        return answer

    async def _answered(self, client: Line) -> None:
        """Wait for the gateway, or for the client's end."""
        both = {self.line.heard, client.heard}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if client.end is None:  # its next request may be there already, and waits
            await asyncio.wait({self.line.heard})

    def _said(self, end: Close) -> Close:
        """Return what the client is told of the gateway's end."""
        if end is Close.KEY:
            self.sockets.doubt(self.request.match_info["name"])
        return end if end in _PASSED_ON else Close.FAILED
