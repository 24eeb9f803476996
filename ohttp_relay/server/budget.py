"""A bound on the bytes that many requests hold in memory together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ohttp_relay.errors import Overloaded

SMALL: Final = 64 * 1024
"""Bytes that are not counted: the number of connections bounds what small requests hold together."""


class ByteBudget:
    """A number of bytes that all requests share.  Who finds none left waits its turn, first come, first served."""

    def __init__(self, most: int, seconds: float = 30.0) -> None:
        """Give out at most `most` bytes at once; nobody waits longer than `seconds`."""
        self._most = most
        self._seconds = seconds
        self._left = most
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def held(self) -> int:
        """The bytes that are given out."""
        return self._most - self._left

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes; at most all there are, so that what is larger goes through alone.

        Sizes up to `SMALL` are not counted and do not wait.  Raises Overloaded if it is not its turn in time.
        """
        if size <= SMALL:
            yield
            return
        size = min(size, self._most)
        await self._take(size)
        try:
            yield
        finally:
            self._give_back(size)

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._left:
            self._left -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size))
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its turn came in the same moment
                self._give_back(size)
            elif (turn, size) in self._waiting:
                self._waiting.remove((turn, size))
                self._wake()
            if isinstance(error, TimeoutError):
                raise Overloaded("too much is being received or answered: try again") from None
            raise

    def _give_back(self, size: int) -> None:
        self._left += size
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][1] <= self._left:
            turn, size = self._waiting.popleft()
            if not turn.done():  # else it gave up in this moment
                self._left -= size
                turn.set_result(None)
