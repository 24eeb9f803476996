"""Limits for each client without stored addresses: a client is known by a keyed hash of its address.

A rate limit draws a new key for each window and keeps it in memory only.  So counts of one window cannot be
linked to those of the next, nor to an address by someone who reads the memory in a later window.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class RateLimit:
    """At most `requests` of one client in each window of `seconds`, for at most `clients` in a window.

    IPv6 clients are distinguished by /64.  Further clients are refused until the window ends, so that memory
    stays bounded (about 100 bytes a client).
    """

    def __init__(
        self,
        requests: int,
        seconds: float = 60.0,
        clients: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.requests = requests
        self.seconds = seconds
        self._clients = clients
        self._clock = clock
        self._end = float("-inf")
        self._key = b""
        self._counts: dict[bytes, int] = {}

    def allows(self, address: str | None) -> bool:
        """Count a request; tell whether it is within the limit."""
        now = self._clock()
        if now >= self._end:
            self._end, self._key, self._counts = now + self.seconds, os.urandom(16), {}
        name = _name(address, self._key)
        count = self._counts.get(name, 0)
        if count >= self.requests or (not count and len(self._counts) >= self._clients):
            return False
        self._counts[name] = count + 1
        return True

    @property
    def retry_after(self) -> int:
        """Seconds until the window ends, at least 1."""
        return max(1, int(self._end - self._clock()) + 1)


class ConnectionQuota:
    """At most `most` connections of one client at once; a client is forgotten with its last connection."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._key = os.urandom(16)
        self._held: Counter[bytes] = Counter()

    @contextmanager
    def hold(self, address: str | None) -> Iterator[bool]:
        """Count one more connection while the block runs; yield whether it is within the quota."""
        name = _name(address, self._key)
        self._held[name] += 1
        try:
            yield self._held[name] <= self._most
        finally:
            self._held[name] -= 1
            if not self._held[name]:
                del self._held[name]


def _name(address: str | None, key: bytes) -> bytes:
    return hashlib.blake2b(_prefix(address), key=key, digest_size=8).digest()


def _prefix(address: str | None) -> bytes:
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return b""
    return parsed.packed if parsed.version == 4 else parsed.packed[:8]
