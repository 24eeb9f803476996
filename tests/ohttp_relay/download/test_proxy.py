"""The download proxy over sockets: one fetch an object, ranges, refusals, failures."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.download import DownloadLimits, DownloadProxy
from ohttp_relay.download.cache import DiskCache, GrowingFile, object_name
from ohttp_relay.download.locks import FetchLock, PendingObject
from ohttp_relay.download.proxy import parse_download_url
from ohttp_relay.errors import InvalidMessage, TargetUnreachable
from ohttp_relay.transport import StreamedResponse
from tests.ohttp_relay.world import LOOPBACK, World, break_off

ASSET = os.urandom(300_000)


class Downloads:
    """An asset host, a proxy, and a client of it."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.now = 1_000_000_000.0
        self.fields: dict[str, str] = {"Content-Type": "application/octet-stream", "ETag": '"1"'}
        self.body = ASSET
        world.target.answer = self.asset

    async def asset(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("If-None-Match") == self.fields.get("ETag", "-"):
            return web.Response(status=304, headers=self.fields)
        if request.path != "/asset":
            raise web.HTTPNotFound
        return web.Response(body=self.body, headers={**self.fields, "Set-Cookie": "id=1", "X-Track": "1"})

    async def start(
        self, *, cached: bool = True, limits: DownloadLimits | None = None, private: bool | None = None
    ) -> None:
        self.origin = await self.world.serve(self.world.target.app())
        own = {self.origin.removeprefix("https://")} if private else set()
        self.proxy = DownloadProxy(
            {self.origin.removeprefix("https://")},
            cache_dir=self.folder / "cache" if cached else None,
            limits=limits,
            networks=LOOPBACK,
            private_hosts=None if private is None else own,
            ssl_context=self.world.tls,
            clock=lambda: self.now,
        )
        self.url = await self.world.serve(self.proxy.app())
        self.world._closing.append(self.proxy)

    async def get(self, url: str | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        target = quote(url or f"{self.origin}/asset", safe="")
        path = aiohttp.client.URL(f"{self.url}/proxyDownload/{target}", encoded=True)
        async with (
            aiohttp.ClientSession() as session,
            session.get(path, headers=headers, ssl=self.world.tls) as answer,
        ):
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, await answer.read()

    @property
    def fetches(self) -> int:
        return len(self.world.target.requests)


@pytest.fixture
def downloads(world: World, tmp_path: Path) -> Downloads:
    return Downloads(world, tmp_path)


@pytest.mark.parametrize("cached", [True, False])
async def test_an_asset_comes_whole_and_the_asset_host_learns_nothing(
    downloads: Downloads, cached: bool
) -> None:
    await downloads.start(cached=cached)
    status, headers, body = await downloads.get(Cookie="a=1", Referer="https://x/", Authorization="secret")
    assert (status, body) == (200, ASSET)
    assert set(headers) == {
        "content-type",
        "content-length",
        "etag",
        "date",
        "x-content-type-options",
        *(("accept-ranges",) if cached else ()),
    }
    (seen,) = downloads.world.target.requests
    assert {name for name, _ in seen.fields} == {"host", "accept-encoding"}


@pytest.mark.parametrize("cached", [True, False])
async def test_listed_networks_are_open_for_the_private_hosts_only(
    downloads: Downloads, cached: bool
) -> None:
    """Two registered hosts in one private network: the second one is named by somebody else."""
    await downloads.start(cached=cached, private=False)
    assert (await downloads.get())[0] == 403
    assert downloads.fetches == 0
    await downloads.start(cached=cached, private=True)
    assert (await downloads.get())[::2] == (200, ASSET)


async def test_many_downloads_are_one_fetch(downloads: Downloads) -> None:
    await downloads.start()
    answers = await asyncio.gather(*(downloads.get() for _ in range(8)))
    answers.append(await downloads.get())
    assert all(body == ASSET for _, _, body in answers)
    assert downloads.fetches == 1
    downloads.now += 3599
    assert (await downloads.get())[1]["age"] == "3599"
    assert downloads.fetches == 1


async def test_workers_share_a_fetch_while_it_goes_on(downloads: Downloads) -> None:
    """What another worker is fetching is followed, whole and in ranges; the asset host is asked once."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": str(len(ASSET)), "X-Not-Passed": "1"})
        await answer.prepare(request)
        await answer.write(ASSET[:1000])
        begun.set()
        await go_on.wait()
        await answer.write(ASSET[1000:])
        return answer

    downloads.world.target.answer = slowly
    await downloads.start()
    origin = downloads.origin
    other = Downloads(downloads.world, downloads.folder)
    await other.start()
    downloads.world.target.answer = slowly
    other.proxy._hosts = {origin.removeprefix("https://")}
    first = asyncio.create_task(downloads.get())
    await begun.wait()
    followed = await other.proxy.answer("/proxyDownload/" + quote(f"{origin}/asset", safe=""))
    assert isinstance(followed, StreamedResponse)
    pieces = followed.content
    assert await anext(pieces) == ASSET[:1000]
    ranged = asyncio.create_task(other.get(f"{origin}/asset", Range="bytes=990-1009"))
    go_on.set()
    assert b"".join([piece async for piece in pieces]) == ASSET[1000:]
    assert (await ranged)[::2] == (206, ASSET[990:1010])
    assert (await first)[2] == (await other.get(f"{origin}/asset"))[2] == ASSET
    assert downloads.fetches == 1
    assert not [
        path
        for path in (downloads.folder / "cache").iterdir()
        if path.suffix in (".lock", ".coming", ".part")
    ]


async def test_a_fetch_that_fails_fails_for_the_workers_that_follow_it(downloads: Downloads) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def breaks(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": str(len(ASSET))})
        await answer.prepare(request)
        await answer.write(ASSET[:1000])
        begun.set()
        await go_on.wait()
        assert request.transport is not None
        request.transport.abort()
        return answer

    await downloads.start()
    downloads.world.target.answer = breaks
    origin = downloads.origin
    answer = await downloads.proxy.answer("/proxyDownload/" + quote(f"{origin}/asset", safe=""))
    await begun.wait()
    cache = DiskCache(downloads.folder / "cache", 1 << 30)
    pending = PendingObject.find(cache.lock(object_name(f"{origin}/asset")))
    assert pending is not None
    assert FetchLock.acquire(pending.lock) is None
    pieces = pending.read()
    assert await anext(pieces) == ASSET[:1000]
    go_on.set()
    with pytest.raises(TargetUnreachable):
        async for _ in pieces:
            pass
    assert isinstance(answer, StreamedResponse)
    with pytest.raises(TargetUnreachable):
        await answer.collect(1 << 30)
    lock_of_fetch = FetchLock.acquire(pending.lock)
    assert lock_of_fetch is not None
    lock_of_fetch.release()


async def test_what_a_dead_worker_left_is_no_object(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from ohttp_relay.download.locks import FetchLock\n"
        "lock = Path(sys.argv[1]); part = lock.with_suffix('.1.part'); part.write_bytes(b'half')\n"
        "FetchLock.acquire(lock).announce(part, (('a', 'b'),), None); print('held', flush=True); sys.stdin.read()"
    )
    lock = tmp_path / "x.lock"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(lock), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    assert FetchLock.acquire(lock) is None
    pending = PendingObject.find(lock)
    assert pending is not None
    assert (pending.fields, pending.size) == ((("a", "b"),), None)
    pieces = pending.read()
    assert await anext(pieces) == b"half"
    process.kill()
    await process.wait()
    with pytest.raises(TargetUnreachable):
        await anext(pieces)
    assert PendingObject.find(lock) is None
    lock_of_fetch = FetchLock.acquire(lock)
    assert lock_of_fetch is not None
    lock_of_fetch.release()
    assert not lock.exists()


async def test_a_cache_survives_its_process(downloads: Downloads) -> None:
    await downloads.start()
    await downloads.get()
    other = Downloads(downloads.world, downloads.folder)
    origin = downloads.origin
    await other.start()
    other.proxy._hosts = {origin.removeprefix("https://")}
    assert (await other.get(f"{origin}/asset"))[2] == ASSET
    assert downloads.fetches == 1


async def test_a_stale_object_is_confirmed_or_replaced(downloads: Downloads) -> None:
    downloads.fields["Cache-Control"] = "max-age=10"
    await downloads.start()
    await downloads.get()
    downloads.now += 11
    assert (await downloads.get())[2] == ASSET
    assert downloads.fetches == 2
    downloads.now += 9
    await downloads.get()
    assert downloads.fetches == 2
    downloads.now += 11
    downloads.body, downloads.fields["ETag"] = b"new", '"2"'
    assert (await downloads.get())[2] == b"new"
    assert (await downloads.get())[2] == b"new"
    assert downloads.fetches == 3


@pytest.mark.parametrize("control", ["no-store", "private", "max-age=0, no-store", 'private="x", max-age=9'])
async def test_what_must_not_be_stored_is_not(downloads: Downloads, control: str) -> None:
    downloads.fields["Cache-Control"] = control
    await downloads.start()
    for _ in range(2):
        assert (await downloads.get())[2] == ASSET
    assert downloads.fetches == 2
    assert list((downloads.folder / "cache").iterdir()) == []


@pytest.mark.parametrize("first", [True, False])
async def test_ranges_are_served_from_one_fetch(downloads: Downloads, first: bool) -> None:
    await downloads.start()
    if not first:
        await downloads.get()
    for text, start, stop in (("0-9", 0, 10), ("299990-", 299990, 300000), ("-5", 299995, 300000)):
        status, headers, body = await downloads.get(Range=f"bytes={text}")
        assert (status, body) == (206, ASSET[start:stop])
        assert headers["content-range"] == f"bytes {start}-{stop - 1}/300000"
    status, headers, _ = await downloads.get(Range="bytes=300000-")
    assert (status, headers["content-range"]) == (416, "bytes */300000")
    for text in ("bytes=0-1,4-5", "bytes=5-1", "items=0-1"):
        assert (await downloads.get(Range=text))[0] == 200
    assert downloads.fetches == 1


MODIFIED = "Sun, 09 Sep 2001 01:00:00 GMT"


class Parts:
    """An asset host that serves ranges, of a version that may change, and notes what it was asked."""

    def __init__(self, downloads: Downloads) -> None:
        self.body = ASSET
        self.fields = {"ETag": '"1"', "Last-Modified": MODIFIED}
        downloads.world.target.answer = self.answer

    async def answer(self, request: web.Request) -> web.Response:
        wanted = request.http_range
        if "Range" not in request.headers:
            return web.Response(body=self.body, headers=self.fields)
        start = wanted.start
        if start >= len(self.body):
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(self.body)}"})
        span = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        return web.Response(
            status=206, body=self.body[start:], headers={**self.fields, "Content-Range": span}
        )


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
@pytest.mark.parametrize("cached", [True, False])
async def test_a_resumed_download_never_mixes_two_versions(downloads: Downloads, cached: bool) -> None:
    parts = Parts(downloads)
    await downloads.start(cached=cached)

    async def resume(if_range: str) -> tuple[int, bytes]:
        fields = {"Range": "bytes=200000-", "If-Range": if_range}
        status, _, body = await downloads.get(**fields)
        return status, body

    for current in ('"1"', MODIFIED):
        assert await resume(current) == (206, ASSET[200_000:])
    for other in ('"0"', 'W/"1"', "1", "Sun, 09 Sep 2001 01:00:01 GMT", ""):
        assert await resume(other) == (200, ASSET)
    parts.body, parts.fields = b"a shorter version", {"ETag": '"2"'}
    downloads.now += 1e6  # what is stored is stale now
    assert await resume('"1"') == (200, b"a shorter version")
    assert {name for seen in downloads.world.target.requests for name, _ in seen.fields} <= {
        *("host", "accept-encoding", "range", "if-none-match", "if-modified-since")
    }


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
@pytest.mark.parametrize("cached", [True, False])
async def test_a_date_names_no_version_that_may_have_changed_again_within_its_second(
    downloads: Downloads, cached: bool
) -> None:
    parts = Parts(downloads)
    await downloads.start(cached=cached)
    for date, status in (
        ("Sun, 09 Sep 2001 01:00:00 GMT", 200),
        ("Sun, 09 Sep 2001 00:59:00 GMT", 200),
        ("rubbish", 200),
        ("Sun, 09 Sep 2001 01:00:01 GMT", 206),
    ):
        parts.fields = {"Last-Modified": MODIFIED, "Date": date, "Cache-Control": "max-age=60"}
        downloads.now += 1e6  # what is stored is stale now
        parts.body += b"."  # and has changed
        await downloads.get()
        fields = {"Range": "bytes=200000-", "If-Range": MODIFIED}
        assert (await downloads.get(**fields))[0] == status, date


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
@pytest.mark.parametrize("cached", [True, False])
async def test_a_range_that_lies_outside_is_told_the_size(downloads: Downloads, cached: bool) -> None:
    Parts(downloads)
    await downloads.start(cached=cached)
    await downloads.get()
    status, headers, _ = await downloads.get(Range="bytes=300000-")
    assert (status, headers["content-range"]) == (416, "bytes */300000")


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
@pytest.mark.parametrize("cached", [True, False])
async def test_a_range_that_ends_before_it_begins_is_none(downloads: Downloads, cached: bool) -> None:
    await downloads.start(cached=cached)
    assert (await downloads.get(Range="bytes=9-3"))[::2] == (200, ASSET)
    assert all("range" not in dict(seen.fields) for seen in downloads.world.target.requests)


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
@pytest.mark.parametrize("cached", [True, False])
async def test_head_is_answered_like_get_without_the_asset(downloads: Downloads, cached: bool) -> None:
    await downloads.start(cached=cached)
    target = quote(f"{downloads.origin}/asset", safe="")
    path = aiohttp.client.URL(f"{downloads.url}/proxyDownload/{target}", encoded=True)
    _, fields, _ = await downloads.get()
    async with aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.head(path, headers={"Range": "bytes=0-9"}, ssl=downloads.world.tls) as answer:
                assert (answer.status, answer.content_length) == (200, len(ASSET))
                assert {name.lower() for name in answer.headers} - {"age"} == set(fields) - {"age"}
    for method, status in (("HEAD", 200), ("PUT", 405)):
        asked = Request(method, "https", "hub.example", f"/proxyDownload/{target}")
        inside = await downloads.proxy.handler(asked)
        assert isinstance(inside, Response)
        assert (inside.status, inside.content) == (status, b"")


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
@pytest.mark.parametrize("cached", [True, False])
async def test_a_part_that_was_not_asked_for_is_an_error(downloads: Downloads, cached: bool) -> None:
    async def part(_: web.Request) -> web.Response:
        return web.Response(status=206, body=b"0123456789", headers={"Content-Range": "bytes 10-19/100"})

    downloads.world.target.answer = part
    await downloads.start(cached=cached)
    assert (await downloads.get())[0] == 502
    for wanted in ("bytes=0-9", "bytes=10-15", "bytes=-10", "bytes=10-11,13-14", "bytes=500-"):
        assert (await downloads.get(Range=wanted))[0] == 502
    if not cached:
        status, headers, body = await downloads.get(Range="bytes=10-19")
        assert (status, headers["content-range"], body) == (206, "bytes 10-19/100", b"0123456789")


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
@pytest.mark.parametrize("cached", [True, False])
async def test_an_asset_hosts_fields_that_exceed_a_limit_are_a_502(
    downloads: Downloads, cached: bool
) -> None:
    downloads.fields["X-Long"] = "v" * 70_000
    await downloads.start(cached=cached)
    status, _, body = await downloads.get()
    assert (status, b"more than" in body) == (502, True)
    downloads.fields["X-Long"] = "v" * 60_000
    assert (await downloads.get())[0] == 200


OPEN_PROXY = [
    "https://evil.example/asset",
    "https://{host}@evil.example/asset",
    "https://{host}.evil.example/asset",
    "https://evil.example/#{host}",
    "https://evil.example/?{host}",
    "https://evil.example\\@{host}/",
    "http://{host}/asset",
    "ftp://{host}/asset",
    "//{host}/asset",
    "file:///etc/passwd",
    "https://localhost/asset",
    "https://127.0.0.1:1/asset",
    "https:/{host}/asset",
    "https://{host}\n/asset",
    "https://u:p@{host}/asset",
    "x",
]


@pytest.mark.parametrize("text", OPEN_PROXY)
async def test_open_proxy_attempts_are_refused(downloads: Downloads, text: str) -> None:
    await downloads.start()
    host = downloads.origin.removeprefix("https://")
    assert (await downloads.get(text.format(host=host)))[0] in (400, 403, 404)
    assert downloads.fetches == 0


def test_the_url_is_decoded_once_and_stands_alone() -> None:
    prefix = "/proxyDownload/"
    url = parse_download_url(prefix + "https%3A%2F%2Fa.example%2Fx%252Fy%3Fq%3D%2526")
    assert str(url) == "https://a.example/x%2Fy?q=%26"
    for path in (
        "/other/https%3A%2F%2Fa.example%2F",
        prefix,
        prefix + "https://a.example/",
        prefix + "https%3A%2F%2Fa.example%2F?x",
        prefix + "https%253A%252F%252Fa.example%252F",
        prefix + "https%3A%2F%2Fa.example%2F%20",
        prefix + "https%3A%2F%2Fa.example%2F%C3%A9",
        prefix + "https%3A%2F%2Fa.example%2F%00",
        prefix + "https%3A%2F%2F%5B%3A%3A1%5D%3A44%40%2F",
    ):
        with pytest.raises(InvalidMessage):
            parse_download_url(path)


async def test_errors_of_the_asset_host_are_plain(downloads: Downloads) -> None:
    await downloads.start()
    assert (await downloads.get(f"{downloads.origin}/missing"))[0] == 404
    downloads.world.target.answer = lambda _: _raise(web.HTTPFound("https://evil.example/"))
    status, headers, _ = await downloads.get()
    assert status == 502
    assert "location" not in headers
    downloads.world.target.answer = lambda _: _raise(web.HTTPInternalServerError())
    assert (await downloads.get())[0] == 502


async def _raise(error: Exception) -> web.StreamResponse:
    raise error


async def test_an_asset_that_breaks_off_is_never_taken_as_whole(downloads: Downloads) -> None:
    await downloads.start()
    downloads.world.target.answer = break_off
    with pytest.raises(aiohttp.ClientError):
        await downloads.get()
    downloads.world.target.answer = downloads.asset
    assert (await downloads.get())[2] == ASSET
    assert downloads.fetches == 2


@pytest.mark.parametrize("cached", [True, False])
async def test_slow_and_endless_asset_hosts_are_cut_off(downloads: Downloads, cached: bool) -> None:
    stop = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"x")
        await stop.wait()
        return answer

    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(bytes(10_000))
            await asyncio.sleep(0)  # or a write to a connection that is gone would never let go of the loop

    limits = DownloadLimits(object=200_000, read_seconds=0.1)
    await downloads.start(cached=cached, limits=limits)
    for answer in (slow, endless):
        downloads.world.target.answer = answer
        with pytest.raises(aiohttp.ClientError):
            await downloads.get()
    stop.set()
    downloads.world.target.answer = downloads.asset
    assert (await downloads.get())[0] == 502  # longer than the limit, and says so


async def test_a_full_disk_is_an_error_and_not_a_short_object(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: GrowingFile, piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    await downloads.start()
    monkeypatch.setattr(GrowingFile, "append", full)
    with pytest.raises(aiohttp.ClientError):
        await downloads.get()
    monkeypatch.undo()
    assert (await downloads.get())[2] == ASSET


async def test_a_client_that_goes_away_does_not_spoil_the_object(downloads: Downloads) -> None:
    go_on = asyncio.Event()

    async def halting(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers=downloads.fields)
        await answer.prepare(request)
        await answer.write(ASSET[:100])
        await go_on.wait()
        await answer.write(ASSET[100:])
        return answer

    await downloads.start()
    downloads.world.target.answer = halting
    response = await downloads.proxy.answer("/proxyDownload/" + quote(f"{downloads.origin}/asset", safe=""))
    stream = response.content
    assert isinstance(stream, AsyncIterator)
    assert await anext(stream) == ASSET[:100]
    await stream.aclose()
    go_on.set()
    assert (await downloads.get())[2] == ASSET
    assert downloads.fetches == 1


async def test_a_download_through_relay_and_gateway_in_process(downloads: Downloads) -> None:
    await downloads.start()
    world = downloads.world
    client = await world.start(gateway={"local": {"https://hub.example": downloads.proxy.handler}})
    target = quote(f"{downloads.origin}/asset", safe="")
    for _ in range(2):
        async with client.get(f"https://hub.example/proxyDownload/{target}") as response:
            assert response.status == 200
            assert await response.read() == ASSET
    async with client.get(
        f"https://hub.example/proxyDownload/{target}", headers={"Range": "bytes=5-9"}
    ) as part:
        assert (part.status, await part.read()) == (206, ASSET[5:10])
    assert downloads.fetches == 1
    async with client.post("https://hub.example/proxyDownload/x") as response:
        assert response.status == 405
