"""Sockets at the command: many of them at little memory, several workers on one port, and the end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from ohttp_relay.bhttp import Response
from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.client import OhttpClient, OhttpSocket, PinnedKeys
from ohttp_relay.errors import RelayRefused
from ohttp_relay.gateway import DEFAULT_PATH
from ohttp_relay.keys import KeyRing
from ohttp_relay.transport import Close
from ohttp_relay.transport.dates import format_date
from tests.ohttp_relay.frames import bare_socket, ending
from tests.ohttp_relay.server.test_command import Process, Setting, children, command
from tests.ohttp_relay.world import Target

FIRST, MORE = 50, 950  # a thousand: all that one client may hold
EACH = 48 * 1024  # bytes that a socket may cost a relay, which has two ends of it, or a gateway


@pytest.fixture
async def setting(serve, tmp_path: Path, authority: trustme.CA) -> Setting:
    target = Target()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    return Setting(tmp_path, target, await serve(target.app()), str(ca))


@asynccontextmanager
async def chain(
    setting: Setting, gateway: tuple[str, ...] = (), relay: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Process, Process, OhttpClient]]:
    """A gateway's process, a relay's in front of it, and a client of theirs."""
    async with command(*setting.arguments, *gateway) as inner:
        arguments = ["relay", "--gateway", f"g={inner.url}{DEFAULT_PATH}", "--allow-insecure-loopback"]
        async with command(*arguments, *relay) as outer:
            keys = PinnedKeys(KeyRing.load(setting.keys).public_list())
            connector = aiohttp.TCPConnector(limit=0)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                OhttpClient(f"{outer.url}/g", keys, session, allow_insecure_loopback=True) as client,
            ):
                yield inner, outer, client


def resident(pid: int) -> int:
    """Bytes in memory of a process and its children."""
    total = 0
    for one in (pid, *map(int, children(pid))):
        lines = Path(f"/proc/{one}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    return total


async def test_a_thousand_sockets_at_once_cost_little_memory(setting: Setting) -> None:
    request = setting.request()
    async with chain(setting) as (gateway, relay, client), AsyncExitStack() as stack:
        places = asyncio.Semaphore(25)

        async def one() -> OhttpSocket:
            async with places:
                socket = await stack.enter_async_context(client.socket())
                assert (await socket.exchange(request)).status == 200
                return socket

        await asyncio.gather(*(one() for _ in range(FIRST)))
        before = [resident(process.process.pid) for process in (gateway, relay)]
        sockets = await asyncio.gather(*(one() for _ in range(MORE)))
        grown = [
            resident(process.process.pid) - was for process, was in zip((gateway, relay), before, strict=True)
        ]
        assert max(grown) < MORE * EACH, grown
        assert (await sockets[0].exchange(request)).status == 200  # the first is as good as the last
        with pytest.raises(RelayRefused) as refused:
            async with client.socket():
                pass
        assert refused.value.status == 429


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"gateway": ("--sockets", "0")}, 502),
        ({"relay": ("--sockets", "0")}, 503),
        ({"relay": ("--sockets-each", "0")}, 429),
    ],
)
async def test_what_the_command_allows_of_sockets(
    setting: Setting, options: dict[str, tuple[str, ...]], status: int
) -> None:
    async with chain(setting, **options) as (_, _, client):
        with pytest.raises(RelayRefused) as refused:
            async with client.socket():
                pass
        assert refused.value.status == status


async def test_workers_share_what_they_have_seen_and_each_serves_sockets(setting: Setting) -> None:
    async with command(*setting.arguments) as gateway:
        url = gateway.url + DEFAULT_PATH
        config = KeyRing.load(setting.keys).public_configs()[0]
        for fields in ((), (("date", format_date(time.time())),)):
            frame, opener = encapsulate_request(config, setting.request(*fields).to_bytes())

            async def send(frame: bytes = frame) -> bytes:
                async with bare_socket(url) as socket:
                    await socket.send_bytes(frame)
                    return await socket.receive_bytes()

            answers = await asyncio.gather(*(send() for _ in range(12)))
            statuses = sorted(Response.from_bytes(opener.open(answer)).status for answer in answers)
            assert statuses == [200] + [400] * 11
        await gateway.end()
    assert len(setting.target.requests) == 2


async def test_the_end_of_every_worker_answers_what_is_in_flight_and_says_so(setting: Setting) -> None:
    go_on = asyncio.Event()
    waiting = asyncio.Semaphore(0)

    async def slow(_: web.Request) -> web.Response:
        waiting.release()
        await go_on.wait()
        return web.Response(text="whole")

    config = KeyRing.load(setting.keys).public_configs()[0]
    async with command(*setting.arguments) as gateway, AsyncExitStack() as stack:
        url = gateway.url + DEFAULT_PATH
        setting.target.answer = slow
        sockets = [await stack.enter_async_context(bare_socket(url)) for _ in range(12)]
        openers = []
        for socket in sockets[:6]:
            frame, opener = encapsulate_request(config, setting.request().to_bytes())
            await socket.send_bytes(frame)
            await waiting.acquire()
            openers.append(opener)
        gateway.process.send_signal(signal.SIGTERM)
        for socket in sockets[6:]:
            assert (await ending(socket))[0] == Close.GOING_AWAY
        go_on.set()
        for socket, opener in zip(sockets, openers, strict=False):
            answer = Response.from_bytes(opener.open(await socket.receive_bytes(timeout=10)))
            assert answer.content == b"whole"
            assert (await ending(socket))[0] == Close.GOING_AWAY
        assert await gateway.process.wait() == 0


async def test_a_relay_that_ends_says_so_through_to_the_gateway(setting: Setting) -> None:
    async with chain(setting) as (gateway, relay, client), client.socket() as socket:
        assert (await socket.exchange(setting.request())).status == 200
        relay.process.send_signal(signal.SIGTERM)
        await asyncio.wait({socket._line.next_frame}, timeout=10)
        assert socket._line.end == Close.GOING_AWAY
        assert await relay.process.wait() == 0
        await gateway.end()
