"""Protection against replays (RFC 9458, section 6.5).

A request is recognized by its encapsulated key.  The Date inside a request bounds how long a key must be
remembered: a request outside the window is refused for its Date, so one window of keys is enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from ohttp_relay.errors import DateRejected, ReplayedRequest, ReplayStoreFull
from ohttp_relay.transport.dates import parse_date

KEY_SIZE = 16


def replay_key(enc: bytes) -> bytes:
    """Return the 16 bytes under which a request is remembered."""
    return hashlib.sha256(enc).digest()[:KEY_SIZE]


class ReplayStore(Protocol):
    """Remembers keys for at least the window it was made for."""

    def seen(self, key: bytes, now: float) -> bool | Awaitable[bool]:
        """Remember `key` (16 bytes); tell whether it was remembered before.  Both are one atomic step.

        May raise ReplayStoreFull rather than forget a key too early.
        """


class ReplayCache:
    """A store in this process: two generations of keys, each `window` seconds long.

    A key is remembered for one to two windows.  A generation holds at most `capacity` keys of about 100 bytes;
    when it is full, requests are refused until it ends.
    """

    def __init__(self, window: float = 120.0, capacity: int = 1_000_000) -> None:
        self.window = window
        self.capacity = capacity
        self._current: set[bytes] = set()
        self._previous: set[bytes] = set()
        self._started = float("-inf")

    def seen(self, key: bytes, now: float) -> bool:
        """Remember `key`; tell whether it was remembered before."""
        self._turn(now)
        if key in self._current or key in self._previous:
            return True
        if len(self._current) >= self.capacity:
            raise ReplayStoreFull("the replay cache is full")
        self._current.add(key)
        return False

    def _turn(self, now: float) -> None:
        age = now - self._started
        if age < self.window:
            return
        self._previous = self._current if age < 2 * self.window else set()
        self._current = set()
        self._started = now


async def _refuse_if(known: Awaitable[bool]) -> None:
    if await known:
        raise ReplayedRequest("this request was received before")


@dataclass(frozen=True, slots=True)
class ReplayGuard:
    """The gateway's rule: the Date is at most `tolerance` seconds away from now, and the key is new.

    `dated` must remember keys for 2 * tolerance at least.  Requests without a Date are remembered in
    `undated`, which must remember them for as long as a key configuration is accepted.  Without `undated` they
    are refused.
    """

    dated: ReplayStore
    undated: ReplayStore | None = None
    tolerance: float = 60.0

    @classmethod
    def in_memory(cls, tolerance: float = 60.0, undated_window: float | None = None) -> ReplayGuard:
        """Make a guard for one process.

        `undated_window`: for how many seconds to remember requests without a Date; None refuses them.
        """
        undated = None if undated_window is None else ReplayCache(undated_window)
        return cls(ReplayCache(2 * tolerance + 1), undated, tolerance)

    def check(self, enc: bytes, date: str | None, now: float) -> Awaitable[None] | None:
        """Remember a request.  Raises DateRejected, ReplayedRequest or ReplayStoreFull.

        With an asynchronous store, return an awaitable that raises instead.
        """
        store = self.undated if date is None else self._dated(date, now)
        if store is None:
            raise DateRejected("a Date field is required")
        known = store.seen(replay_key(enc), now)
        if known is False:
            return None
        if known is True:
            raise ReplayedRequest("this request was received before")
        return _refuse_if(known)

    def _dated(self, date: str, now: float) -> ReplayStore:
        moment = parse_date(date)
        if moment is None or abs(now - moment) > self.tolerance:
            raise DateRejected("the Date field is outside the acceptable range")
        return self.dated
