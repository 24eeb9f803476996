"""A signal by which one task tells others that there may be work for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

_T = TypeVar("_T")


class Wakeup:
    """A repeatable signal: `wake` wakes all tasks that wait now.

    `count` is the number of wake-ups so far. A task reads it before it looks, and so misses no wake-up meanwhile.
    """

    def __init__(self) -> None:
        self.count = 0
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Wake all tasks that wait."""
        self.count += 1
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float | None = None, *, after: int | None = None) -> None:
        """Wait for a wake-up, at most `seconds`. Return at once if there was one since the count was `after`."""
        if after is None or after == self.count:
            # `asyncio.wait_for` of Python 3.11 drops a cancellation that comes together with the wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._event.wait()

    async def until(self, look: Callable[[], Awaitable[_T | None]], seconds: float | None = None) -> _T:
        """Call a function, and again after each wake-up, until it finds something; return that.

        Raise `TimeoutError` after `seconds`.
        """
        async with asyncio.timeout(seconds):
            while True:
                count = self.count
                if found := await look():
                    return found
                await self.wait(after=count)
