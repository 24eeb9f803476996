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
    FrameChannel,
    SocketLimits,
    offers_protocol,
    wants_socket,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Backend(Protocol):
    """Where the requests of one socket are answered."""

    def watched(self) -> set[asyncio.Task[bytes | Close]]:
        """Return tasks that end the socket if one is done while no request is being answered."""

    def end(self) -> Close:
        """Return the close code; a task of `watched` is done."""

    async def ask(self, frame: bytes, client: FrameChannel) -> bytes | Close:
        """Return the answer to a request, or the close code if there is none; may stop if `client` ends."""


class Sockets(ABC):
    """The WebSockets of one service."""

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
        """Return the answer to a client that may not open a socket; None if it may."""

    @abstractmethod
    def open_backend(self, request: web.Request) -> AbstractAsyncContextManager[Backend]:
        """Open what answers the requests of a socket.  Raises web.HTTPException if there is none."""

    def with_sockets(self, handler: Handler) -> Handler:
        """Return a handler that opens a socket if a request asks for one, and else calls `handler`."""

        async def handle(request: web.Request) -> web.StreamResponse:
            return await (self.handle(request) if wants_socket(request) else handler(request))

        return handle

    def stop(self) -> None:
        """Accept no further sockets; close the open ones, each after the answer it waits for."""
        self._stopping = True
        for ending in self._open:
            if not ending.done():
                ending.set_result(None)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve a socket until it ends."""
        refusal = await self.refusal(request)
        if refusal is not None:
            return refusal
        if not offers_protocol(request):  # the HTTP library would log the client's address
            raise web.HTTPBadRequest(text=f"expected the subprotocol {PROTOCOL}")
        if self._stopping or len(self._open) >= self.limits.sockets:
            raise web.HTTPServiceUnavailable(text="no more sockets now", headers={"Retry-After": "5"})
        ending = asyncio.get_running_loop().create_future()
        self._open.add(ending)
        try:
            async with self.open_backend(request) as backend:
                return await self._serve(request, backend, ending)
        finally:
            self._open.discard(ending)

    async def _serve(
        self, request: web.Request, backend: Backend, ending: asyncio.Future[None]
    ) -> web.StreamResponse:
        socket: web.WebSocketResponse[bool] = web.WebSocketResponse(
            protocols=(PROTOCOL,),
            compress=False,  # ciphertext does not compress
            max_msg_size=self.limits.request + 1,
            timeout=2 * self.limits.closing_seconds,
            decode_text=False,
        )
        try:
            await socket.prepare(request)
        except ConnectionError:  # gone meanwhile; the HTTP library would log the client's address
            return web.Response(status=400, text="the client is gone")
        client = FrameChannel(socket, self.limits)
        if self._metrics is not None:
            self._metrics.socket_opened()
        why = Close.GOING_AWAY  # if this task is cancelled
        try:
            why = await self._talk(client, backend, ending)
        finally:
            if self._metrics is not None:
                self._metrics.socket_closed(why.name)
            if not await client.close(why):
                abort(request)  # frees what the client did not read
        return socket

    async def _talk(self, client: FrameChannel, backend: Backend, ending: asyncio.Future[None]) -> Close:
        """Answer requests until the socket is to be closed; return the close code."""
        now = asyncio.get_running_loop().time
        deadline = now() + self.limits.life_seconds
        reading = 0.0  # seconds that the client may still need to read the last answer
        while True:
            timeout = max(0.0, min(self.limits.idle_seconds, deadline - now())) + reading
            watched = backend.watched()
            awaited: set[asyncio.Future[Any]] = {client.next_frame, ending, *watched}
            await asyncio.wait(awaited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return Close.GOING_AWAY
            if any(task.done() for task in watched):
                return backend.end()
            if not client.next_frame.done():
                return Close.TIME_OVER
            request = client.take()
            answer = request if isinstance(request, Close) else await backend.ask(request, client)
            if isinstance(answer, Close):
                return answer
            try:
                await client.send(answer)
                reading = self.limits.reading_seconds(answer)
            except OSError:  # the client is gone or reads too slowly
                return Close.GONE
            if self._metrics is not None:
                self._metrics.socket_answered()

    def see(self, event: str, request: web.Request) -> None:
        """Tell the observer of a handshake."""
        pairs = header_pairs(request.headers.items())
        self.note(event, Seen(request.remote or "", request.method, request.path, 0, pairs))

    def note(self, event: str, seen: Seen) -> None:
        """Tell the observer, if there is one."""
        if self._observe is not None:
            self._observe(event, seen)
