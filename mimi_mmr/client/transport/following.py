"""Following a queue over a WebSocket: the long poll's requests and pages, all on one connection."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from mimi_mmr.client.transport.private_path import PathSocket, PrivatePath
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import PrivatePathFailed
from mimi_mmr.protocol.endpoints import COLLECT
from mimi_mmr.protocol.queues import CollectRequest, QueuePage

PAGE = 64
WAIT_MS = 25_000
SPREAD = 3.0


class QueueFollower:
    """The messages of one queue at the user's own provider, page by page, in order and at least once.

    `async with QueueFollower(path, token, position) as pages: async for page in pages: …; pages.stored(page)`.
    Until `stored` is called, the same page comes again, also to a new follower that starts at the same number: the
    provider deletes acknowledged messages only. Each follower has its own socket, because the provider could link
    two queues on one socket to one client. Sockets that are opened at the same moment can be linked, too; the
    caller has to avoid that.

    A broken socket is replaced once. If no socket can be opened, or the new one breaks before it has answered, the
    iteration raises `PrivatePathFailed`; the caller may iterate again. The caller may also use the long poll
    instead, which is as private. Errors that the provider answers, such as `UnknownQueue`, are raised as from a
    long poll.
    """

    def __init__(
        self, path: PrivatePath, token: AccessToken, acknowledged: int = 0, *, spread: float = SPREAD
    ) -> None:
        """Follow the queue that `token` reads, after the message of this number; nothing is opened yet.

        A broken socket is replaced at a random moment within `spread` seconds, so that sockets which broke
        together, with their relay, are not reopened together.
        """
        self.acknowledged = acknowledged
        self._spread = spread
        self._path = path
        self._token = token
        self._lost = 0
        self._socket: PathSocket | None = None
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Return this; the socket is opened with the first page."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        await self.close()

    async def close(self) -> None:
        """Close the socket. Further iteration opens another one."""
        self._socket = None
        await self._open.aclose()

    def __aiter__(self) -> Self:
        """Return this."""
        return self

    async def __anext__(self) -> QueuePage:
        """Wait for a page that has messages, or that reports more lost messages than the last stored page."""
        while True:
            page = await self._page()
            if page.messages or page.lost > self._lost:
                return page

    def stored(self, page: QueuePage) -> None:
        """Note that a page is stored safely: the next request acknowledges it."""
        self._lost = max(self._lost, page.lost)
        self.acknowledged = max([self.acknowledged, *(message.sequence for message in page.messages)])

    async def _page(self) -> QueuePage:
        # Asking twice is harmless: the acknowledged messages are deleted already, and the same ones follow.
        if self._socket is not None:
            try:
                return await self._ask(self._socket)
            except PrivatePathFailed:
                await self.close()
                await asyncio.sleep(self._spread * secrets.randbelow(1 << 16) / (1 << 16))
        self._socket = await self._open.enter_async_context(self._path.socket(self._path.domain))
        return await self._ask(self._socket)

    async def _ask(self, socket: PathSocket) -> QueuePage:
        request = CollectRequest(self._token.reveal(), self.acknowledged, PAGE, WAIT_MS)
        return await socket.ask(COLLECT, request)
