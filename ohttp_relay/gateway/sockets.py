"""WebSockets at a gateway: each frame is opened, checked and answered like a request over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from ohttp_relay.capsule.gateway import OpenedRequest, decapsulate_request
from ohttp_relay.errors import CapsuleError, OpenFailed, UnknownKey
from ohttp_relay.keys.ring import KeyRing
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.server.sockets import Sockets
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.websocket import Close, FrameChannel, SocketLimits

Answer = Callable[[OpenedRequest], Awaitable[bytes]]
"""Returns the encapsulated response to an opened request; never raises."""


class GatewaySockets(Sockets):
    """WebSockets whose requests the gateway answers."""

    def __init__(
        self,
        keyring: KeyRing,
        answer: Answer,
        limits: SocketLimits | None = None,
        observe: Observer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(limits, observe, metrics)
        self.keyring = keyring
        self.answer = answer

    async def refusal(self, request: web.Request) -> None:
        """Return None: every client may open a socket."""

    @asynccontextmanager
    async def open_backend(self, request: web.Request) -> AsyncIterator[_Answers]:
        """Yield what answers requests in this process."""
        self.see("gateway.socket", request)
        yield _Answers(self)


@dataclass(frozen=True, slots=True)
class _Answers:
    sockets: GatewaySockets

    def watched(self) -> set[asyncio.Task[bytes | Close]]:
        return set()

    def end(self) -> Close:
        return Close.DONE

    async def ask(self, frame: bytes, _: FrameChannel) -> bytes | Close:
        """Answer a request.  A target that has begun is not stopped if the client leaves meanwhile."""
        self.sockets.note("gateway.received", Seen(body=frame))
        try:
            opened = decapsulate_request(self.sockets.keyring, frame)
        except (UnknownKey, OpenFailed):
            return Close.KEY
        except CapsuleError:
            return Close.NOT_A_CAPSULE
        answer = await self.sockets.answer(opened)
        return answer if len(answer) <= self.sockets.limits.response else Close.TOO_LARGE
