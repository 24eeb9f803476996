"""Key lists that a relay keeps: the same for every client for as long as one is kept (RFC 9458, section 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class KeptKeys:
    """A list, when it was fetched, and until when it is served; seconds of the keeper's clock."""

    body: bytes
    fetched: float
    until: float


class KeyShelf:
    """Fetches a gateway's list when there is none, once for all who wait, and keeps it."""

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        clock: Callable[[], float],
        *,
        kept: float,
        doubted: float,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._seconds = kept
        self._doubted = doubted
        self._lists: dict[str, KeptKeys] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, name: str) -> tuple[bytes, int]:
        """Return the list of gateway `name` and for how many seconds it will be served."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            found = self._lists.get(name)
            if found is None or found.until <= self._clock():
                body = await self._fetch(name)
                now = self._clock()
                found = self._lists[name] = KeptKeys(body, now, now + self._seconds)
            return found.body, max(0, int(found.until - self._clock()))

    def doubt(self, name: str) -> None:
        """Fetch again at the next question, after the gateway refused a key; not too soon after the last."""
        found = self._lists.get(name)
        if found is not None:
            soon = max(found.fetched + self._doubted, self._clock())
            self._lists[name] = replace(found, until=min(found.until, soon))
