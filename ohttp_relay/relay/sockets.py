"""WebSockets through a relay: one to the gateway for each socket of a client, and frames between the two.

The handshake to the gateway is the same for all clients: it has no header field of the client's.  Sockets are
closed without a reason in words.
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

from ohttp_relay.relay.rate_limit import ConnectionQuota, RateLimit
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.server.sockets import Sockets
from ohttp_relay.transport.http import open_session
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.websocket import Close, FrameChannel, SocketLimits, connect

Refusal = Callable[[web.Request], Awaitable[web.Response | None]]
"""Returns the answer to a client that may not use the relay or names no gateway of it; else None."""

_FORWARDED_CODES: Final = frozenset(
    {Close.GOING_AWAY, Close.NOT_A_CAPSULE, Close.TOO_LARGE, Close.KEY, Close.TIME_OVER}
)


class RelaySockets(Sockets):
    """WebSockets whose requests are forwarded to a gateway, by the name in the URL.

    `invalidate` is called with the name of a gateway that could not open a request: the cached key list may be
    outdated.  Without a `session`, the sockets have a connection pool of their own, so that they and requests
    over HTTP do not use up each other's connections.
    """

    def __init__(
        self,
        gateways: Mapping[str, URL],
        refusal: Refusal,
        invalidate: Callable[[str], object],
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
        self.invalidate = invalidate
        self._session = session
        self._owned: aiohttp.ClientSession | None = None
        self._ssl = ssl_context
        self._quota = ConnectionQuota(self.limits.each)
        self.rate = rate

    async def close(self) -> None:
        """Close the session that this object opened."""
        if self._owned is not None:
            await self._owned.close()
            self._owned = None

    async def refusal(self, request: web.Request) -> web.Response | None:
        """Return the relay's refusal of this client; None if it may open a socket."""
        return await self._refusal(request)

    @asynccontextmanager
    async def open_backend(self, request: web.Request) -> AsyncIterator[_Gateway]:
        """Open the socket to the gateway; raise the HTTP error for the client if there is none."""
        self.see("relay.socket", request)
        url = self._gateways[request.match_info["name"]]
        async with AsyncExitStack() as stack:
            if not stack.enter_context(self._quota.hold(request.remote)):
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
    line: FrameChannel
    url: str
    request: web.Request
    sockets: RelaySockets

    def watched(self) -> set[asyncio.Task[bytes | Close]]:
        return {self.line.next_frame}

    def end(self) -> Close:
        return self._close_code(
            self.line.end or Close.FAILED
        )  # a frame that no request asked for is a failure too

    async def ask(self, frame: bytes, client: FrameChannel) -> bytes | Close:
        """Forward a request, once, and return its answer; stop when either side ends."""
        request, rate = self.request, self.sockets.rate
        if rate is not None and not rate.allows(request.remote):
            return Close.TOO_MANY
        self.sockets.note("relay.received", Seen(request.remote or "", "GET", request.path, body=frame))
        self.sockets.note("relay.forwarded", Seen(target=self.url, body=frame))
        try:
            await self.line.send(frame)
            async with asyncio.timeout(self.sockets.limits.answer_seconds):
                await self._answered(client)
        except OSError:  # TimeoutError is one
            return Close.FAILED
        if not self.line.next_frame.done():
            return client.end or Close.GONE
        answer = self.line.take()
        if isinstance(answer, Close):
            return self._close_code(answer)
        self.sockets.note("relay.answered", Seen(body=answer))
        return answer

    async def _answered(self, client: FrameChannel) -> None:
        """Wait for the gateway's frame, or for the end of the client's socket."""
        both = {self.line.next_frame, client.next_frame}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if client.end is None:  # the client sent a further request, which waits
            await asyncio.wait({self.line.next_frame})

    def _close_code(self, end: Close) -> Close:
        """Return the close code for the client when the gateway's socket ended with `end`."""
        if end is Close.KEY:
            self.sockets.invalidate(self.request.match_info["name"])
        return end if end in _FORWARDED_CODES else Close.FAILED
