"""Sources of a gateway's key list, and the client's cache of it."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp
from yarl import URL

from ohttp_relay.errors import ConfigurationError, ExchangeFailed, InconsistentKeys, NoUsableKey
from ohttp_relay.hpke.suites import Suite
from ohttp_relay.keys.configuration import KeyConfig, choose_config, decode_key_list
from ohttp_relay.transport.http import AUTO_HEADERS, has_coding, read_limited
from ohttp_relay.transport.urls import check_url

_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=(\d{1,9})(?:$|[,\s])")
_KEY_LIST_LIMIT = 64 * 1024
_LIFETIME = 3600.0


@dataclass(frozen=True, slots=True)
class KeyList:
    """The bytes of a key list, and for how many seconds it may be used."""

    data: bytes
    lifetime: float = _LIFETIME


class KeySource(Protocol):
    """A source of a key list; the source checks that the list is the gateway's."""

    async def fetch(self, session: aiohttp.ClientSession) -> KeyList:
        """Return the current key list.  Raises OhttpError."""


KeyCallable = Callable[[], Awaitable[bytes]]


class RelayKeys:
    """A key list fetched through the relay, so that the gateway does not see the client.

    The relay could replace the keys.  `verify` is called with the bytes of the list and raises if they are not
    the gateway's (by a signature, or a digest from elsewhere).  Without it the client trusts the relay here.
    """

    def __init__(
        self,
        url: str | URL,
        *,
        verify: Callable[[bytes], None] | None = None,
        allow_insecure_loopback: bool = False,
    ) -> None:
        self._url = check_url(url, allow_insecure_loopback=allow_insecure_loopback)
        self._verify = verify

    async def fetch(self, session: aiohttp.ClientSession) -> KeyList:
        """Fetch the list.  Raises ExchangeFailed if there is none."""
        try:
            async with session.get(
                self._url, skip_auto_headers=AUTO_HEADERS, allow_redirects=False, auto_decompress=False
            ) as answer:
                if answer.status != 200:
                    raise ExchangeFailed(f"expected a key list, got status {answer.status}")
                if has_coding(answer.headers):
                    raise ExchangeFailed("expected a key list, got one with a content coding")
                data = await read_limited(answer.content, _KEY_LIST_LIMIT, answer.content_length)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ExchangeFailed(f"no key list: {type(error).__name__}") from error
        if self._verify is not None:
            self._verify(data)
        return KeyList(data, lifetime(answer.headers.get("Cache-Control")))


class PinnedKeys:
    """A key list from elsewhere: bytes, or a file that is read again at each refresh."""

    def __init__(self, keys: bytes | str | os.PathLike[str]) -> None:
        self._keys = keys

    async def fetch(self, session: aiohttp.ClientSession) -> KeyList:
        """Return the list."""
        if isinstance(self._keys, bytes):
            return KeyList(self._keys, float("inf"))
        return KeyList(await asyncio.to_thread(Path(self._keys).read_bytes))


class AgreeingKeys:
    """A key list that several sources must give in the same bytes.

    If it comes through two relays of different operators, no relay can replace it, and the gateway cannot give
    this client a list of its own (RFC 9458, section 7).
    """

    def __init__(self, *sources: KeySource) -> None:
        if len(sources) < 2:
            raise ConfigurationError("at least two sources are needed to agree")
        self._sources = sources

    async def fetch(self, session: aiohttp.ClientSession) -> KeyList:
        """Return the list.  Raises InconsistentKeys if the sources do not agree."""
        lists = await asyncio.gather(*(source.fetch(session) for source in self._sources))
        if len({found.data for found in lists}) > 1:
            raise InconsistentKeys("the sources of the key list do not agree")
        return KeyList(lists[0].data, min(found.lifetime for found in lists))


class CallableKeys:
    """A key list from any async callable without arguments."""

    def __init__(self, source: KeyCallable) -> None:
        self._source = source

    async def fetch(self, session: aiohttp.ClientSession) -> KeyList:
        """Return the list that the callable returns."""
        return KeyList(await self._source())


def as_key_source(source: KeySource | KeyCallable) -> KeySource:
    """Return `source` as an object with `fetch`.  Raises TypeError."""
    if hasattr(source, "fetch"):
        return source
    if inspect.isroutine(source) or callable(source):
        return CallableKeys(source)
    raise TypeError("a key source has a method fetch(session), or is an async callable")


def lifetime(cache_control: str | None) -> float:
    """Return for how many seconds a list may be used: 60 to 86,400 by max-age, 3,600 without one."""
    found = _MAX_AGE.search(cache_control or "")
    return min(86_400.0, max(60.0, float(found[1]))) if found else _LIFETIME


class KeyCache:
    """The key list in use: cached for its lifetime, refreshed at most every `interval` seconds."""

    def __init__(
        self,
        source: KeySource,
        *,
        interval: float = 30.0,
        kems: tuple[int, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._interval = interval
        self._kems = kems
        self._clock = clock
        self._chosen: tuple[KeyConfig, Suite] | None = None
        self._fetched = self._expires = float("-inf")
        self._lock = asyncio.Lock()

    async def current(self, session: aiohttp.ClientSession) -> tuple[KeyConfig, Suite]:
        """Return the key configuration and suite to use; fetch the list if none is cached."""
        async with self._lock:
            if self._chosen is None or self._clock() >= self._expires:
                await self._refresh(session)
            return self._held()

    async def refreshed(self, session: aiohttp.ClientSession, rejected: KeyConfig) -> bool:
        """Fetch the list again after the gateway refused `rejected`; tell whether there is another key now."""
        async with self._lock:
            if self._held()[0] == rejected and self._clock() >= self._fetched + self._interval:
                await self._refresh(session)
            return self._held()[0] != rejected

    def expire(self) -> None:
        """Fetch the list again before its next use, unless the last fetch is less than the interval ago."""
        if self._clock() >= self._fetched + self._interval:
            self._expires = self._clock()

    def _held(self) -> tuple[KeyConfig, Suite]:
        if self._chosen is None:
            raise NoUsableKey("there is no key configuration")
        return self._chosen

    async def _refresh(self, session: aiohttp.ClientSession) -> None:
        self._fetched = self._clock()
        fetched = await self._source.fetch(session)
        configs = decode_key_list(fetched.data)
        self._chosen = choose_config(configs, self._kems)
        self._expires = self._clock() + fetched.lifetime


__all__ = [
    "AgreeingKeys",
    "CallableKeys",
    "KeyCache",
    "KeyList",
    "KeySource",
    "PinnedKeys",
    "RelayKeys",
    "as_key_source",
    "lifetime",
]
