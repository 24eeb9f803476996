"""The hub's download proxy: `GET /proxyDownload/{downloadUrl}` (draft-ietf-mimi-protocol, "Download Files").

It fetches assets of registered hosts for its users.  An asset host sees the hub and not the client, and, with
the cache, one fetch for each object.  Nothing of a client's request but the URL is forwarded.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from os import PathLike
from typing import Final
from urllib.parse import unquote
from weakref import WeakValueDictionary

import aiohttp
from aiohttp import web
from yarl import URL

from ohttp_relay.bhttp.fields import Field, Fields, get_field
from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.download.cache import DiskCache, GrowingFile, StoredObject, discard, object_name, read_file
from ohttp_relay.download.freshness import Freshness, judge
from ohttp_relay.download.locks import POLL_SECONDS, FetchLock, PendingObject
from ohttp_relay.download.ranges import (
    Unsatisfiable,
    is_current,
    is_part_of,
    is_range,
    parse_range,
    unsatisfied,
)
from ohttp_relay.errors import InvalidAnswer, InvalidMessage, OhttpError, TargetRefused, TargetUnreachable
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.server.service import Service
from ohttp_relay.transport.http import AUTO_HEADERS, from_library, invalid_answer
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.streams import AnyResponse, OwnedStream, StreamedResponse, as_stream, send
from ohttp_relay.transport.targets import TargetPolicy, open_target_session
from ohttp_relay.transport.urls import parse_url

PREFIX: Final = "/proxyDownload/"
_NOT_IN_URLS: Final = frozenset(' "<>\\^`{|}#')
_RETURNED: Final = ("content-type", "content-encoding", "etag", "last-modified", "cache-control")


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """Limits of a download proxy, in bytes and seconds."""

    object: int = 2 * 1024**3
    """Bytes of one object."""

    cache: int = 16 * 1024**3
    """Bytes of all stored objects."""

    read_seconds: float = 30.0
    """For connecting, and between reads."""

    total_seconds: float = 3600.0
    """For one download."""

    heuristic: float = 3600.0
    """For how long an object without freshness information is fresh at most."""


def parse_download_url(path: str, prefix: str = PREFIX) -> URL:
    """Return the URL in a request's path, percent-decoded once.

    Raises InvalidMessage unless the path is `prefix` and one percent-encoded https URL.
    """
    encoded = path.removeprefix(prefix)
    if encoded == path or not encoded or any(character in encoded for character in "/?#"):
        raise InvalidMessage("expected one percent-encoded URL in the path")
    try:
        text = unquote(encoded, errors="strict")
        if not text.isascii() or not text.isprintable() or _NOT_IN_URLS.intersection(text):
            raise InvalidMessage("the path does not hold a URL")
        url = parse_url(text, encoded=True)
        known = url.scheme == "https" and url.raw_host and url.raw_user is None and url.port
    except ValueError:
        raise InvalidMessage("the path does not hold a URL") from None
    if not known or not url.raw_path.startswith("/"):
        raise InvalidMessage("the path does not hold an https URL")
    return url


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client wants of an object: the values of its Range and If-Range fields."""

    range: str | None = None
    if_range: str | None = None

    @property
    def span(self) -> str | None:
        """The range, if it is one that is served."""
        return self.range if is_range(self.range) else None

    def is_of(self, fields: Fields) -> bool:
        """Tell whether a range may be served of the version that has these fields."""
        etag, modified, date = (get_field(fields, name) for name in ("etag", "last-modified", "date"))
        return is_current(self.if_range, etag, modified, date)


@dataclass(slots=True)
class _Fetching:
    """An answer that is written to disk and may be read meanwhile."""

    fields: tuple[Field, ...]
    size: int | None
    file: GrowingFile
    task: asyncio.Task[None] | None = None


class DownloadProxy(Service):
    """A proxy for assets of `asset_hosts` (`host` or `host:port`), with a disk cache in `cache_dir` if given.

    `asset_hosts` is read at each request, so it may change.  `networks` are non-public networks that asset
    hosts may be in: all of them, or only `private_hosts` if these are given.
    """

    def __init__(
        self,
        asset_hosts: Container[str],
        session: aiohttp.ClientSession | None = None,
        cache_dir: str | PathLike[str] | None = None,
        limits: DownloadLimits | None = None,
        *,
        networks: Iterable[str] = (),
        private_hosts: Container[str] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.time,
        observe: Observer | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        super().__init__(session, self._open_session, checked=True, observe=observe, metrics=metrics)
        self.limits = limits or DownloadLimits()
        self._hosts = asset_hosts
        self._cache = DiskCache(cache_dir, self.limits.cache) if cache_dir is not None else None
        self._policy = TargetPolicy.of((), networks)
        self._private_hosts = private_hosts
        self._public: aiohttp.ClientSession | None = None
        self._ssl = ssl_context
        self._clock = clock
        self._fetching: dict[str, _Fetching] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # Mounting

    def routes(self, prefix: str = PREFIX) -> list[web.RouteDef]:
        """Return the route `GET {prefix}{downloadUrl}`, for HEAD too."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if request.method == "HEAD":
                return await send(request, await self._head(request.raw_path, prefix))
            headers = request.headers
            wanted = Wanted(headers.get("Range"), headers.get("If-Range"))
            return await send(request, await self.answer(request.raw_path, wanted, prefix))

        return [web.get(prefix + "{url:.*}", handle)]

    def app(self, prefix: str = PREFIX) -> web.Application:
        """Return an application that serves the proxy alone and closes it at the end."""
        return self._application(self.routes(prefix))

    async def handler(self, request: Request) -> AnyResponse:
        """Answer a request as a gateway's in-process target."""
        if request.method == "HEAD":
            return await self._head(request.path)
        if request.method != "GET":
            return Response(405, (("allow", "GET, HEAD"),))
        return await self.answer(request.path, Wanted(request.header("range"), request.header("if-range")))

    async def close(self) -> None:
        """Cancel running fetches; close the session that the proxy opened."""
        tasks = [fetching.task for fetching in self._fetching.values() if fetching.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._public is not None:
            await self._public.close()
            self._public = None
        await super().close()

    # One download

    async def answer(self, path: str, wanted: Wanted | None = None, prefix: str = PREFIX) -> AnyResponse:
        """Return the answer to `GET path`; `wanted` is a part of the object.  Raises no OhttpError."""
        try:
            url = self._check(parse_download_url(path, prefix))
            return await self._download(url, wanted or Wanted())
        except TargetRefused as error:
            return _plain(403, str(error))
        except InvalidAnswer as error:
            return _plain(502, str(error))
        except aiohttp.ClientResponseError:
            return _plain(502, str(invalid_answer("the asset host")))
        except InvalidMessage as error:
            return _plain(400, str(error))
        except (TargetUnreachable, aiohttp.ClientError, OSError, TimeoutError):
            return _plain(504, "the asset host gave no whole answer")

    async def _head(self, path: str, prefix: str = PREFIX) -> Response:
        """Return the answer to `HEAD path`: status and fields of a GET for the whole object."""
        answer = as_stream(await self.answer(path, None, prefix))
        await answer.close()
        return Response(answer.status, answer.fields)

    def _check(self, url: URL) -> URL:
        if _host_of(url) not in self._hosts:
            raise TargetRefused("the host is not a registered asset host")
        return url

    async def _download(self, url: URL, wanted: Wanted) -> AnyResponse:
        if self._cache is None:
            return await self._pass_through(url, wanted)
        name = object_name(str(url))
        turn = self._locks.setdefault(name, asyncio.Lock())
        async with turn:  # one request to the origin at a time
            found = await self._find(self._cache, name, url)
        if isinstance(found, _Fetching):
            return _ranged(found.fields, found.size, wanted, found.file.read)
        if isinstance(found, PendingObject):
            return _ranged(found.fields, found.size, wanted, found.read)
        if isinstance(found, StoredObject):
            return self._stored(self._cache, found, wanted)
        return found

    async def _find(
        self, cache: DiskCache, name: str, url: URL
    ) -> _Fetching | PendingObject | StoredObject | AnyResponse:
        if name in self._fetching:
            return self._fetching[name]
        async with asyncio.timeout(self.limits.read_seconds):
            while True:
                lock = FetchLock.acquire(cache.lock(name))
                stored = cache.find(name)
                if stored is not None and stored.is_fresh(self._clock()):
                    if lock is not None:
                        lock.release()
                    return stored
                if lock is not None:
                    break
                pending = PendingObject.find(cache.lock(name))
                if pending is not None:
                    return pending
                await asyncio.sleep(POLL_SECONDS)  # another worker has sent the request and has no answer yet
        return await self._fetch(cache, name, url, stored, lock)

    async def _fetch(
        self, cache: DiskCache, name: str, url: URL, stored: StoredObject | None, lock: FetchLock
    ) -> _Fetching | StoredObject | AnyResponse:
        """Fetch from the asset host as the only worker; release `lock` afterwards."""
        stack = AsyncExitStack()
        fetching: _Fetching | None = None
        try:
            answer = await stack.enter_async_context(self._ask(url, _validators(stored)))
            fields = from_library(answer)
            freshness = judge(answer.status, fields, self._clock(), self.limits.heuristic)
            if stored is not None and answer.status == 304:
                await stack.aclose()
                return cache.refresh(stored, self._clock(), freshness.lifetime, freshness.age)
            if stored is not None:
                cache.remove(name)
            if answer.status != 200 or not freshness.storable or not self._fits(answer):
                return await self._relay(stack, answer, fields)
            fetching = self._store(cache, name, stack, answer, fields, freshness, lock)
        except BaseException:
            await stack.aclose()
            raise
        else:
            return fetching
        finally:
            if fetching is None:  # else the writer releases it
                lock.release()

    def _ask(self, url: URL, headers: dict[str, str]) -> aiohttp.client._RequestContextManager:
        self._note("download.fetched", Seen(method="GET", target=str(url)))
        return self._session_for(url).get(
            url,
            headers={"Accept-Encoding": "identity", **headers},
            skip_auto_headers=AUTO_HEADERS,
            allow_redirects=False,
            auto_decompress=False,
        )

    def _fits(self, answer: aiohttp.ClientResponse) -> bool:
        return (answer.content_length or 0) <= min(self.limits.object, self.limits.cache)

    # Without storing

    async def _pass_through(self, url: URL, wanted: Wanted) -> AnyResponse:
        """Fetch what is wanted; fetch the whole if the part is of another version than the client has."""
        span = wanted.span
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(self._ask(url, {"Range": span} if span else {}))
            fields = from_library(answer)
            if answer.status not in (206, 416) or wanted.is_of(fields):
                return await self._relay(stack, answer, fields, span)
        except BaseException:
            await stack.aclose()
            raise
        await stack.aclose()
        return await self._pass_through(url, Wanted())

    async def _relay(
        self, stack: AsyncExitStack, answer: aiohttp.ClientResponse, fields: Fields, span: str | None = None
    ) -> AnyResponse:
        """Return an asset host's answer; `span` is the range that it was asked for.  Raises InvalidAnswer."""
        if answer.status not in (200, 206):
            await stack.aclose()
            status = answer.status if 400 <= answer.status < 500 or answer.status == 503 else 502
            size = unsatisfied(get_field(fields, "content-range")) if status == 416 else None
            if size is not None:
                return Response(416, (("content-range", size),))
            return _plain(status, "the asset host has no such asset" if status == 404 else "no asset")
        if (answer.content_length or 0) > self.limits.object:
            await stack.aclose()
            return _plain(502, "the asset is too large")
        returned = _safe(fields, answer.content_length)
        if answer.status == 206:
            part = get_field(fields, "content-range")
            if span is None or not is_part_of(span, part):
                raise InvalidAnswer("the asset host answered with a part that it was not asked for")
            returned = (*returned, ("content-range", part or ""))
        return StreamedResponse(answer.status, returned, OwnedStream(self._pieces(stack, answer), stack))

    async def _pieces(
        self, stack: AsyncExitStack, answer: aiohttp.ClientResponse
    ) -> AsyncGenerator[bytes, None]:
        total = 0
        deadline = asyncio.get_running_loop().time() + self.limits.total_seconds
        try:
            async with stack:
                while True:
                    async with asyncio.timeout_at(deadline):
                        piece = await answer.content.readany()
                    if not piece:
                        return
                    total += len(piece)
                    if total > self.limits.object:
                        raise TargetUnreachable("the asset is too large")
                    yield piece
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise TargetUnreachable("the asset did not come whole") from None

    # With storing

    def _store(
        self,
        cache: DiskCache,
        name: str,
        stack: AsyncExitStack,
        answer: aiohttp.ClientResponse,
        fields: Fields,
        freshness: Freshness,
        lock: FetchLock,
    ) -> _Fetching:
        date = get_field(fields, "date")
        kept = (*_safe(fields, None), *((("date", date),) if date is not None else ()))
        fetching = _Fetching(kept, answer.content_length, GrowingFile(cache.part(name)))
        lock.announce(fetching.file.path, kept, fetching.size)
        self._fetching[name] = fetching

        async def write() -> None:
            file = fetching.file
            failed = True
            try:
                async for piece in self._pieces(stack, answer):
                    await file.append(piece)
                now = self._clock()
                stored = StoredObject(name, kept, file.size, now, freshness.lifetime, freshness.age)
                cache.add(stored, file.path)
                file.path = cache.body(name)
                failed = False
            except (OhttpError, OSError):
                pass  # the readers learn it from `file`
            finally:
                if failed:
                    discard(file.path)
                self._fetching.pop(name, None)
                lock.release()
                await file.finish(failed=failed)

        fetching.task = asyncio.create_task(write())
        return fetching

    def _stored(self, cache: DiskCache, stored: StoredObject, wanted: Wanted) -> AnyResponse:
        fields = (*stored.fields, ("age", str(int(stored.current_age(self._clock())))))
        path, size = cache.body(stored.name), stored.size

        def read(start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
            return read_file(path, start, size if stop is None else stop)

        return _ranged(fields, size, wanted, read)

    def _session_for(self, url: URL) -> aiohttp.ClientSession:
        """Return the session for an asset host: only private hosts may be in the listed networks."""
        if self._private_hosts is None or _host_of(url) in self._private_hosts:
            return self.session
        if self._public is None:
            self._public = self._open(TargetPolicy.of(()))
        return self._public

    def _open_session(self) -> aiohttp.ClientSession:
        return self._open(self._policy)

    def _open(self, policy: TargetPolicy) -> aiohttp.ClientSession:
        return open_target_session(policy, ssl_context=self._ssl, timeout=self.limits.read_seconds)


def _host_of(url: URL) -> str:
    """Return a URL's host in its one spelling, with the port unless that is 443."""
    host = (url.raw_host or "").lower().rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        pass  # a name
    else:
        host = f"[{address}]" if address.version == 6 else str(address)
    return host if url.port == 443 else f"{host}:{url.port}"


Reader = Callable[[int, int | None], AsyncIterator[bytes]]


def _ranged(fields: Fields, size: int | None, wanted: Wanted, read: Reader) -> AnyResponse:
    """Return 200 with the whole object, 206 with the requested range, or 416."""
    try:
        span = parse_range(wanted.span, size) if size is not None and wanted.is_of(fields) else None
    except Unsatisfiable:
        return Response(416, (("content-range", f"bytes */{size}"),))
    fields = tuple(pair for pair in fields if pair[0] != "date")  # the asset host's; kept for If-Range alone
    if span is None:
        length = (("content-length", str(size)),) if size is not None else ()
        return StreamedResponse(200, (*fields, *length, ("accept-ranges", "bytes")), read(0, None))
    extra = (
        ("content-length", str(span.stop - span.start)),
        ("content-range", f"bytes {span.start}-{span.stop - 1}/{size}"),
    )
    return StreamedResponse(206, (*fields, *extra), read(span.start, span.stop))


def _safe(fields: Fields, length: int | None) -> tuple[Field, ...]:
    """Return the fields to forward: those that describe the object, none that could mark a client."""
    returned = [(name, value) for name in _RETURNED if (value := get_field(fields, name)) is not None]
    returned.append(("x-content-type-options", "nosniff"))
    if length is not None:
        returned.append(("content-length", str(length)))
    return tuple(returned)


def _validators(stored: StoredObject | None) -> dict[str, str]:
    if stored is None:
        return {}
    found = {"If-None-Match": "etag", "If-Modified-Since": "last-modified"}
    values = {header: get_field(stored.fields, name) for header, name in found.items()}
    return {header: value for header, value in values.items() if value is not None}


def _plain(status: int, text: str) -> Response:
    return Response(status, (("content-type", "text/plain; charset=utf-8"),), text.encode())
