"""Following a queue over a WebSocket: the requests and the pages of the long poll, all on one connection."""

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
    """What comes into one queue at one's own provider, page by page, at least once and in order.

    `async with QueueFollower(path, token, position) as pages: async for page in pages: …; pages.stored(page)`.
    Until `stored` is called, the same page comes again, and whoever begins anew with the same number gets it again:
    the provider forgets what has been acknowledged and nothing else. Each follower has a socket of its own, since
    two queues on one would be one client's to the provider; and those that are first opened in the same moment
    may look so, too, which is for the caller to avoid.

    A socket that breaks is replaced once; where there is none, or the new one breaks before it has answered, the
    iteration raises `PrivatePathFailed`. It may be gone on with. The long poll is another way, and as private, for
    a caller that decides so. What the provider answers, `UnknownQueue` for one, is raised as from a long poll.
    """

    def __init__(
        self, path: PrivatePath, token: AccessToken, acknowledged: int = 0, *, spread: float = SPREAD
    ) -> None:
        """Follow the queue that `token` reads, after the message of this number; nothing is opened yet.

        A broken socket is replaced at a random moment within `spread` seconds: those that broke together, with
        their relay, do not come back together.
        """
        self.acknowledged = acknowledged
        self._spread = spread
        self._path = path
        self._token = token
        self._lost = 0
        self._socket: PathSocket | None = None
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Nothing is opened before the first page is wanted."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        await self.close()

    async def close(self) -> None:
        """Close the socket; going on opens another."""
        self._socket = None
        await self._open.aclose()

    def __aiter__(self) -> Self:
        """This."""
        return self

    async def __anext__(self) -> QueuePage:
        """Wait for a page that has messages, or that says of more lost ones than the last that was stored."""
        while True:
            page = await self._page()
            if page.messages or page.lost > self._lost:
                return page

    def stored(self, page: QueuePage) -> None:
        """Acknowledge a page with the next request: it is where it will not be lost."""
        self._lost = max(self._lost, page.lost)
        self.acknowledged = max([self.acknowledged, *(message.sequence for message in page.messages)])

    async def _page(self) -> QueuePage:
        # To ask twice does no harm: the second time, what is acknowledged is gone, and what follows is the same.
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
