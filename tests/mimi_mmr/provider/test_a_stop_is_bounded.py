"""From the signal on: what is in flight is finished in time, health checks are told, nothing new comes in."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mimi_mmr.client import Client
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import PrivatePathFailed
from mimi_mmr.lab.demo.processes import Processes
from mimi_mmr.lab.demo.world import build_world
from mimi_mmr.protocol.endpoints import HEALTH, PROVIDERS
from mimi_mmr.provider import run
from mimi_mmr.provider.run import Drain, health, mark_begun
from ohttp_relay.errors import OhttpError
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.doors import straight

PATIENCE = 10.0


@asynccontextmanager
async def server(
    drain: Drain, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    """A server of one's own, whose every path but health checks is the handler's."""
    app = web.Application(middlewares=[drain.watch])
    app.router.add_get(HEALTH.template, health(drain))
    app.router.add_get("/{path:.*}", handler)
    app.on_response_prepare.append(mark_begun)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with aiohttp.ClientSession() as session:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        await answer.read()
        return answer.status


async def test_what_is_in_flight_is_finished_and_nothing_new_is_taken() -> None:
    came, go = asyncio.Event(), asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        came.set()
        await go.wait()
        return web.Response(text="done")

    drain = Drain(relayed="/relay")
    async with server(drain, handler) as (session, url), asyncio.timeout(PATIENCE):
        assert await status(session, url + HEALTH.template) == 200
        first = asyncio.create_task(status(session, f"{url}/a"))
        await came.wait()
        drain.stop()
        ended = asyncio.create_task(drain.finished())
        assert await status(session, url + HEALTH.template) == 503
        assert await status(session, f"{url}/b") == 503
        assert not ended.done()
        go.set()
        assert await first == 200
        await ended


async def test_with_nothing_in_flight_it_ends_at_once() -> None:
    drain = Drain()
    drain.stop()
    async with asyncio.timeout(PATIENCE / 10):
        await drain.finished()


async def test_what_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "DRAIN_SECONDS", 0.05)
    came = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        came.set()
        await asyncio.Event().wait()
        raise AssertionError

    drain = Drain()
    async with server(drain, handler) as (session, url):
        first = asyncio.create_task(status(session, f"{url}/a"))
        async with asyncio.timeout(PATIENCE):
            await came.wait()
            drain.stop()
            await drain.finished()
        assert not first.done()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_relayed_request_ends_early(monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    monkeypatch.setattr(run, "RELAYED_SECONDS", 0.05)
    came = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if begun:
            await response.prepare(request)
            await response.write(b"half")
        came.set()
        await asyncio.Event().wait()
        return response

    drain = Drain(relayed="/relay")
    async with server(drain, handler) as (session, url), asyncio.timeout(PATIENCE):
        relayed = asyncio.create_task(status(session, f"{url}/relay/b.example"))
        await came.wait()
        drain.stop()
        await drain.finished()
        if begun:  # broken off, so that nobody takes the half for the whole
            with pytest.raises(aiohttp.ClientError):
                await relayed
        else:
            assert await relayed == 503


def test_no_stop_takes_longer_than_the_readme_says() -> None:
    longest = run.DRAIN_SECONDS + 2 * run.SHUTDOWN_SECONDS  # aiohttp waits, cancels, and waits once more
    assert longest < run.STOP_SECONDS
    assert run.RELAYED_SECONDS < run.DRAIN_SECONDS


async def test_a_provider_that_stops_lets_a_relayed_long_poll_go(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "RELAYED_SECONDS", 0.2)
    alice = await live.person("alice", "a.example")
    leaf = await alice.key_packages.maker.leaf()
    polls = [asyncio.create_task(Queues(alice.path).collect(leaf.queue, 0, 20.0)) for _ in range(4)]
    relays = [live.providers[name] for name in ("b.example", "c.example")]

    async with asyncio.timeout(PATIENCE):
        while not any(relay.listener._drain._patience for relay in relays):  # noqa: ASYNC110  # nothing to wait for but that
            await asyncio.sleep(0.01)
        for relay in relays:
            relay.stopping()
        for relay in relays:
            await relay.finished()
        assert (await straight(live, "b.example", HEALTH.template, method="GET")).status == 503
        assert (await straight(live, "b.example", PROVIDERS.template, method="GET")).status == 503
        for outcome in await asyncio.gather(*polls, return_exceptions=True):
            assert isinstance(outcome, (PrivatePathFailed, OhttpError)), outcome


async def test_a_process_that_relays_a_long_poll_ends_in_time(tmp_path: Path) -> None:
    world = build_world(tmp_path, record=True)
    url = world.providers["a.example"].url
    loop = asyncio.get_running_loop()
    async with (
        Processes(world) as running,
        Client("alice", "phone", "a.example", url, world.trust(), ssl_context=world.tls()) as alice,
    ):
        await alice.register()
        token = AccessToken.generate()
        await Queues(alice.path).create(token, accepts_deposits=False)
        poll = asyncio.create_task(Queues(alice.path).collect(token, 0, 20.0))
        record = world.providers["a.example"].directory / "record" / "deliveries.frames.jsonl"
        async with asyncio.timeout(3 * PATIENCE):
            while b"/v1/queues/collect" not in await asyncio.to_thread(read, record):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            started = loop.time()
            relays = [running._running[name] for name in ("b.example", "c.example")]
            for relay in relays:
                relay.terminate()
            assert [await relay.wait() for relay in relays] == [0, 0]
        assert loop.time() - started < run.STOP_SECONDS
        (outcome,) = await asyncio.gather(poll, return_exceptions=True)
        assert isinstance(outcome, (PrivatePathFailed, OhttpError))
    world.close()


def read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@pytest.mark.skipif(sys.platform != "linux", reason="sockets are listed in /proc")
async def test_a_server_that_has_stopped_has_no_socket_left(live: LiveWorld) -> None:
    """Not of a client that never says a word, of one in its handshake, nor of one that keeps its connection."""
    party = live.world.providers["a.example"]
    address = party.socket.getsockname()[:2]
    silent = [await asyncio.open_connection(*address) for _ in range(3)]
    trusting = ssl.create_default_context(cafile=live.world.ca_file)
    _, writer = await asyncio.open_connection(*address, ssl=trusting, server_hostname=address[0])
    silent[0][1].write(b"\x16\x03\x01")  # the first bytes of a handshake
    await silent[0][1].drain()
    ends = [one[1].get_extra_info("sockname") for one in silent] + [writer.get_extra_info("sockname")]
    assert _peers_of_open_sockets().issuperset(ends[3:])
    await live.stop("a.example")
    assert not _peers_of_open_sockets().intersection(ends)
    for one in (*(writer for _, writer in silent), writer):
        one.close()


def _peers_of_open_sockets() -> set[tuple[str, int]]:
    """The other ends of this process's sockets on the server's side, by the system's table."""
    found = set()
    for row in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
        _, _, other, state, *_ = row.split()
        if state == "01":  # established
            address, port = other.split(":")
            found.add((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found
