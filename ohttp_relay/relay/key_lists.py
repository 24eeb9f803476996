"""A relay's cache of key lists: every client gets the same list while it is cached (RFC 9458, section 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class CachedKeyList:
    """A key list; when it was fetched and until when it is served, in seconds of the cache's clock."""

    body: bytes
    fetched: float
    until: float


class KeyListCache:
    """Key lists by gateway name, each fetched once for all clients that wait for it.

    `lifetime`: for how many seconds a list is served.  `min_age`: how old a list must be, in seconds, before
    `invalidate` has it fetched again.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        clock: Callable[[], float],
        *,
        lifetime: float,
        min_age: float,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lifetime = lifetime
        self._min_age = min_age
        self._lists: dict[str, CachedKeyList] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, name: str) -> tuple[bytes, int]:
        """Return the list of gateway `name`, and for how many seconds it will be served."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            found = self._lists.get(name)
            if found is None or found.until <= self._clock():
                body = await self._fetch(name)
                now = self._clock()
                found = self._lists[name] = CachedKeyList(body, now, now + self._lifetime)
            return found.body, max(0, int(found.until - self._clock()))

    def invalidate(self, name: str) -> None:
        """Fetch the list again at its next use if it is `min_age` old, because the gateway refused a key."""
        found = self._lists.get(name)
        if found is not None:
            soon = max(found.fetched + self._min_age, self._clock())
            self._lists[name] = replace(found, until=min(found.until, soon))
