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
        self._waiting: deque[tuple[asyncio.Future[None], int, ByteShare | None]] = deque()
        self._shares: dict[ByteShare, None] = {}  # those that hold something, the oldest first

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

    @asynccontextmanager
    async def growing(self) -> AsyncIterator[ByteShare]:
        """Hold what arrives, as it arrives: who only announces much, holds nothing.

        The oldest one that holds something never waits, so that they do not all wait for each other.  It may exceed
        the budget by its own size.
        """
        share = ByteShare(self)
        try:
            yield share
        finally:
            self._shares.pop(share, None)
            self._give_back(share.counted)

    async def grow(self, share: ByteShare, size: int) -> None:
        """Hold `size` bytes more for a share.  Raises Overloaded if it is not its turn in time."""
        await self._take(size, share)
        self._shares[share] = None

    def _may_take(self, size: int, share: ByteShare | None) -> bool:
        if size <= self._left:
            return True
        return share is not None and (share is next(iter(self._shares), None) or self._left == self._most)

    async def _take(self, size: int, share: ByteShare | None = None) -> None:
        if self._may_take(size, share) and (not self._waiting or share in self._shares):
            self._left -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, size, share))
        try:
            async with asyncio.timeout(self._seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its turn came in the same moment
                self._give_back(size)
            elif (turn, size, share) in self._waiting:
                self._waiting.remove((turn, size, share))
                self._wake()
            if isinstance(error, TimeoutError):
                raise Overloaded("too much is being received or answered: try again") from None
            raise

    def _give_back(self, size: int) -> None:
        self._left += size
        self._wake()

    def _wake(self) -> None:
        while (waiting := self._next()) is not None:
            self._waiting.remove(waiting)
            turn, size, _ = waiting
            if not turn.done():  # else it gave up in this moment
                self._left -= size
                turn.set_result(None)

    def _next(self) -> tuple[asyncio.Future[None], int, ByteShare | None] | None:
        """Return whose turn it is: the oldest share's, else the first one's; None if there is no room for it."""
        oldest = next(iter(self._shares), None)
        for waiting in self._waiting:
            if oldest is not None and waiting[2] is oldest:
                return waiting
        first = self._waiting[0] if self._waiting else None
        return first if first is not None and self._may_take(*first[1:]) else None


class ByteShare:
    """What one request holds of a budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self.counted = 0
        self._budget = budget
        self._size = 0

    async def grow(self, size: int) -> None:
        """Hold `size` bytes more; the first `SMALL` ones are not counted.  Raises Overloaded."""
        self._size += size
        more = self._size - self.counted
        if self._size > SMALL and more:
            await self._budget.grow(self, more)
            self.counted += more
