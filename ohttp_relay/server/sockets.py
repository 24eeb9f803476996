"""WebSockets of clients at a relay or a gateway: accepted, limited, answered one request at a time, closed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from aiohttp import web

from ohttp_relay.server.metrics import Metrics
from ohttp_relay.transport.http import header_pairs
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.streams import abort
from ohttp_relay.transport.websocket import (
    PROTOCOL,
    Close,
    Line,
    SocketLimits,
    asks_for_socket,
    offers_protocol,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Onward(Protocol):
    """Where the requests of one socket get their answers."""

    def heard(self) -> set[asyncio.Task[bytes | Close]]:
        """Return what ends the socket if it is done while no request is being answered."""

    def end(self) -> Close:
        """Return why the socket ends; something of `heard` is done."""

    async def ask(self, frame: bytes, client: Line) -> bytes | Close:
        """Return the answer to a request, or why there is none; may stop if `client` ends."""


class Sockets(ABC):
    """The sockets of one service."""

    def __init__(
        self, limits: SocketLimits | None, observe: Observer | None, metrics: Metrics | None
    ) -> None:
        self.limits = limits or SocketLimits()
        self._observe = observe
        self._metrics = metrics
        self._open: set[asyncio.Future[None]] = set()
        self._stopping = False

    @abstractmethod
    async def refusal(self, request: web.Request) -> web.Response | None:
        """Return why this client gets no socket."""

    @abstractmethod
    def onward(self, request: web.Request) -> AbstractAsyncContextManager[Onward]:
        """Open the way onward.  Raises web.HTTPException if there is none."""

    def beside(self, handler: Handler) -> Handler:
        """Return a handler that opens a socket if one is asked for, and else does what `handler` does."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await (self.handle(request) if asks_for_socket(request) else handler(request))

        return handle

    def stop(self) -> None:
        """Take no more sockets; close those that are open, each after the answer that is being made."""
        self._stopping = True
        for ending in self._open:
            if not ending.done():
                ending.set_result(None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve a socket until it ends."""
        refusal = await self.refusal(request)
        if refusal is not None:
            return refusal
        if not offers_protocol(request):  # before the HTTP library says so, and whose socket it is, in a log
            raise web.HTTPBadRequest(text=f"expected the subprotocol {PROTOCOL}")
        if self._stopping or len(self._open) >= self.limits.sockets:
            raise web.HTTPServiceUnavailable(text="no more sockets now", headers={"Retry-After": "5"})
        ending = asyncio.get_running_loop().create_future()
        self._open.add(ending)
        try:
            async with self.onward(request) as onward:
                return await self._serve(request, onward, ending)
        finally:
            self._open.discard(ending)

    async def _serve(
        self, request: web.Request, onward: Onward, ending: asyncio.Future[None]
    ) -> web.StreamResponse:
        socket: web.WebSocketResponse[bool] = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            compress=False,  # what is sealed does not shrink
            max_msg_size=self.limits.request + 1,
            timeout=2 * self.limits.closing_seconds,
            decode_text=False,
        )
        try:
            await socket.prepare(request)
        except ConnectionError:  # gone while the way onward was opened; the HTTP library would log who it was
            return web.Response(status=400, text="the client is gone")
        client = Line(socket, self.limits)
        if self._metrics is not None:
            self._metrics.socket_opened()
        why = Close.GOING_AWAY  # if this task is cancelled
        try:
            why = await self._talk(client, onward, ending)
        finally:
            if self._metrics is not None:
                self._metrics.socket_closed(why.name)
            if not await client.close(why):
                abort(request)  # or what was not read would be kept for a reader that may never come
        return socket

    async def _talk(self, client: Line, onward: Onward, ending: asyncio.Future[None]) -> Close:
        """Answer requests until the socket is to be closed; return why it is."""
        now = asyncio.get_running_loop().time
        over = now() + self.limits.life_seconds
        reading = 0.0  # what the last answer may take: it may still be on its way when it has been sent
        while True:
            patience = max(0.0, min(self.limits.idle_seconds, over - now())) + reading
            beyond = onward.heard()
            awaited: set[asyncio.Future[Any]] = {client.heard, ending, *beyond}
            await asyncio.wait(awaited, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return Close.GOING_AWAY
            if any(task.done() for task in beyond):
                return onward.end()
            if not client.heard.done():
                return Close.TIME_OVER
            request = client.take()
            answer = request if isinstance(request, Close) else await onward.ask(request, client)
            if isinstance(answer, Close):
                return answer
            try:
                await client.send(answer)
                reading = self.limits.reading_seconds(answer)
            except OSError:  # gone, or slower than a reader may be
                return Close.GONE
            if self._metrics is not None:
                self._metrics.socket_answered()

    def see(self, event: str, request: web.Request) -> None:
        """Tell of a handshake."""
        pairs = header_pairs(request.headers.items())
        self.note(event, Seen(request.remote or "", request.method, request.path, 0, pairs))

    def note(self, event: str, seen: Seen) -> None:
        """Tell the observer, if there is one."""
        if self._observe is not None:
            self._observe(event, seen)
