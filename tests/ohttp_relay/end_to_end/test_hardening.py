"""Slow, broken and greedy peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.capsule.chunked import CHUNKED_REQUEST_TYPE as CHUNKED
from ohttp_relay.client import PinnedKeys
from ohttp_relay.errors import (
    CapsuleError,
    ExchangeFailed,
    RelayRefused,
    TargetRefused,
)
from ohttp_relay.gateway import DEFAULT_PATH, GatewayLimits
from ohttp_relay.keys import KeyRing
from ohttp_relay.relay import RateLimit, Relay, RelayLimits
from ohttp_relay.server import Bind, open_sockets, serve
from ohttp_relay.server.budget import SMALL
from ohttp_relay.transport import StreamedResponse
from tests.ohttp_relay.world import World, crowd


class Plain:
    """An application served by this package's own runner on a plain loopback port."""

    def __init__(self, app: web.Application, **settings: float) -> None:
        bind = Bind("127.0.0.1", 0, **settings)  # type: ignore[arg-type]
        (listener,) = open_sockets(bind)
        self.port = listener.getsockname()[1]
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(serve(app, bind, listener, stop=self.stop))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes, *, eof: bool = False) -> bytes:
        reader, writer = await self.connect()
        writer.write(data)
        if eof:
            writer.write_eof()
        try:
            return await asyncio.wait_for(reader.read(65_536), 5)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def close(self) -> None:
        self.stop.set()
        await self.task


HEAD = f"POST {DEFAULT_PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %s\r\n"


def head(kind: str = "message/ohttp-req", **fields: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return (HEAD % kind + lines + "\r\n").encode()


@pytest.fixture
async def plain_gateway(world: World):
    await world.start(gateway={"limits": GatewayLimits(idle_seconds=0.2)})
    made = Plain(world.gateway.app(), idle=1.0, grace=0.5)
    yield made
    await made.close()


async def test_large_requests_share_a_bound_and_small_ones_do_not_wait(world: World, plain_gateway) -> None:
    gateway = world.gateway
    large = head(Content_Length=str(SMALL + 1))
    async with gateway._budget.taken(gateway.limits.requests):
        assert b" 503 " in await plain_gateway.ask(large + bytes(SMALL + 1))
        assert b" 400 " in await plain_gateway.ask(head(Content_Length="2") + b"xx")
    assert b" 408 " in await plain_gateway.ask(large)  # the control: it is read, and does not come


async def test_who_announces_large_requests_and_sends_nothing_makes_nobody_wait(world: World) -> None:
    most = 4 * SMALL
    await world.start(gateway={"limits": GatewayLimits(request=most, requests=most, idle_seconds=30)})
    made = Plain(world.gateway.app(), grace=0.1)
    try:
        silent = [(await made.connect())[1] for _ in range(8)]
        for writer in silent:
            writer.write(head(Content_Length=str(most)))
        assert b" 400 " in await made.ask(head(Content_Length="2") + b"xx")  # after the heads of the others
        async with asyncio.timeout(5):
            assert b" 400 " in await made.ask(head(Content_Length=str(2 * SMALL)) + bytes(2 * SMALL))
        for writer in silent:
            writer.close()
            await writer.wait_closed()
    finally:
        await made.close()


@pytest.fixture
async def plain_relay(world: World):
    await world.start(relay={"limits": RelayLimits(idle_seconds=0.2)})
    made = Plain(world.relay.app(), idle=1.0, grace=0.5)
    yield made
    await made.close()


async def test_a_body_that_never_comes_is_given_up(plain_gateway: Plain) -> None:
    assert b" 408 " in await plain_gateway.ask(head(Content_Length="100") + b"x")
    chunked = head(CHUNKED, Transfer_Encoding="chunked")
    assert b" 408 " in await plain_gateway.ask(chunked)
    assert b" 408 " in await plain_gateway.ask(chunked + b"1\r\nx\r\n")


async def test_the_relay_gives_up_slow_clients_too(plain_relay: Plain) -> None:
    relay_head = head(Content_Length="100").replace(DEFAULT_PATH.encode(), b"/gw")
    assert b" 408 " in await plain_relay.ask(relay_head + b"x")
    chunked = head(CHUNKED, Transfer_Encoding="chunked").replace(DEFAULT_PATH.encode(), b"/gw")
    assert b" 408 " in await plain_relay.ask(chunked + b"1\r\nx\r\n")


async def test_broken_framing_is_refused(plain_gateway: Plain, plain_relay: Plain) -> None:
    for plain, path in ((plain_gateway, DEFAULT_PATH), (plain_relay, "/gw")):
        for kind in ("message/ohttp-req", CHUNKED):
            start = head(kind, Transfer_Encoding="chunked").replace(DEFAULT_PATH.encode(), path.encode())
            for body in (b"zz\r\n", b"1\r\nxx\r\n0\r\n\r\n"):
                assert b" 400 " in await plain.ask(start + body)


async def test_a_connection_without_a_request_is_closed(plain_gateway: Plain) -> None:
    assert await plain_gateway.ask(b"") == b""
    assert b" 200 " not in await plain_gateway.ask(b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ")


async def test_half_closed_connections_end(plain_gateway: Plain) -> None:
    for data in (
        b"",
        head(Content_Length="100") + b"x",
        head(CHUNKED, Transfer_Encoding="chunked") + b"1\r\nx\r\n",
    ):
        assert b" 200 " not in await plain_gateway.ask(data, eof=True)


async def test_a_client_that_has_ended_its_data_still_gets_its_answer(world: World) -> None:
    """A client without TLS may half-close after its request, which is forwarded or fetched meanwhile."""
    await world.start()
    authority = world.origin.removeprefix("https://")
    for app, path in ((world.relay.app(), "/gw"), (world.gateway.app(), DEFAULT_PATH)):
        plain = Plain(app)
        asked, opener = encapsulate_request(
            world.keyring.public_configs()[0], Request("GET", "https", authority, "/").to_bytes()
        )
        lines = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: message/ohttp-req\r\nContent-Length: "
        reader, writer = await plain.connect()
        writer.write(lines.encode() + b"%d\r\n\r\n%b" % (len(asked), asked))
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)  # to the end: the server closes afterwards
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert Response.from_bytes(opener.open(answer.partition(b"\r\n\r\n")[2])).status == 200
        await plain.close()


async def test_floods_of_headers_are_refused(plain_gateway: Plain) -> None:
    many = b"".join(b"X-%d: 1\r\n" % i for i in range(10_000))
    for flood in (many, b"X-Long: " + b"x" * 100_000 + b"\r\n"):
        request = head(Content_Length="0").replace(b"\r\n\r\n", b"\r\n" + flood + b"\r\n")
        assert b" 400 " in await plain_gateway.ask(request)
    assert b" 400 " in await plain_gateway.ask(b"\x16\x03\x01\0\x05hello\r\n\r\n")


async def test_a_thousand_idle_connections_do_not_keep_others_out(world: World) -> None:
    await world.start()
    plain = Plain(world.gateway.app(), grace=0.5)
    await crowd(f"http://127.0.0.1:{plain.port}{DEFAULT_PATH}", 1000)
    await plain.close()


# Gateways that fail behind a relay


@pytest.fixture
async def broken(world: World):
    """A function that puts a client and relay before a gateway that answers as told."""
    await world.start()

    async def start(answer, *, chunked: bool = False, limits: RelayLimits | None = None):
        app = web.Application()
        app.router.add_post("/g", answer)
        relay = Relay({"gw": await world.serve(app) + "/g"}, ssl_context=world.tls, limits=limits)
        world.relay_url = await world.serve(relay.app()) + "/gw"
        return world.client(chunked=chunked, key_source=PinnedKeys(world.keyring.public_list()))

    return start


async def cut(request: web.Request) -> web.StreamResponse:
    await request.read()
    kind = request.headers["Content-Type"].replace("req", "res")
    answer = web.StreamResponse(headers={"Content-Type": kind, "Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(bytes(100))
    assert request.transport is not None
    request.transport.abort()
    return answer


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("answer", [cut, hang_up])
async def test_a_gateway_that_dies_is_an_error_for_the_client_and_nobody_tries_again(
    world: World, broken, answer, chunked: bool
) -> None:
    asked = 0

    async def count(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await answer(request)

    client = await broken(count, chunked=chunked)
    with pytest.raises((ExchangeFailed, CapsuleError)):
        async with client.get(world.origin) as response:
            await response.read()
    assert asked == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_gateway_that_never_answers_is_given_up(world: World, broken, chunked: bool) -> None:
    stop = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    client = await broken(never, chunked=chunked, limits=RelayLimits(gateway_seconds=0.2))
    with pytest.raises(RelayRefused) as caught:
        async with client.get(world.origin):
            pass
    assert caught.value.status == 504
    stop.set()


async def test_a_gateway_that_answers_too_much_is_cut_off(world: World, broken) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "message/ohttp-res"})
        await answer.prepare(request)
        while True:
            await answer.write(bytes(1000))

    client = await broken(endless, limits=RelayLimits(response=5000))
    with pytest.raises(ExchangeFailed):
        async with client.get(world.origin):
            pass


@pytest.mark.parametrize("status", [200, 204, 302, 401, 404, 500, 503])
async def test_answers_that_are_no_capsules_are_errors(world: World, broken, status: int) -> None:
    async def other(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "https://evil.example/", "Retry-After": "1"})

    client = await broken(other)
    with pytest.raises(RelayRefused) as caught:
        async with client.get(world.origin):
            pass
    assert caught.value.status == status


# Limits by client, and by gateway


async def test_a_client_that_asks_too_much_is_told_to_wait(world: World) -> None:
    await world.start(relay={"rate": RateLimit(3, seconds=1000.0)})
    client = world.client(key_source=PinnedKeys(world.keyring.public_list()))
    for _ in range(3):
        async with client.get(world.origin) as response:
            assert response.status == 200
    with pytest.raises(RelayRefused) as caught:
        async with client.get(world.origin):
            pass
    assert caught.value.status == 429


async def test_a_gateway_is_asked_only_for_targets_it_may_serve(world: World) -> None:
    await world.start()
    client = world.client(targets=[world.origin])
    async with client.get(world.origin) as response:
        assert response.status == 200
    with pytest.raises(TargetRefused):
        async with client.get("https://other.example/"):
            pass
    assert len(world.events("relay.received")) == 1


async def test_a_whole_request_that_asks_for_it_is_streamed_too(world: World) -> None:
    client = await world.start(client={"relay_headers": {"Incremental": "?1"}})
    async with client.post(world.origin, data=b"x" * 100_000) as response:
        assert await response.read() == b"echo:" + b"x" * 100_000
    assert len(world.events("relay.received.piece")) >= 1
    assert dict(world.events("gateway.received")[0].fields)["incremental"] == "?1"


async def test_a_relay_fetches_keys_again_when_the_gateway_refuses_one(world: World) -> None:
    client = await world.start(
        relay={"limits": RelayLimits(key_list_min_seconds=0.0)}, client={"refresh_interval": 0.0}
    )
    async with client.get(world.origin) as response:
        assert response.status == 200
    world.gateway.keyring = KeyRing.generate()  # as if the gateway had lost its keys
    async with client.get(world.origin) as response:
        assert response.status == 200
    assert len(world.events("gateway.keys")) == 2


async def test_large_bodies_pass_the_relay_without_being_kept_there(world: World) -> None:
    client = await world.start()
    body = bytes(3_000_000)
    async with client.post(world.origin, data=body) as response:
        assert await response.read() == b"echo:" + body
    for event in ("relay.received.piece", "relay.answered.piece"):
        assert max(len(seen.body) for seen in world.events(event)) < 1_000_000
    assert "incremental" not in dict(world.events("gateway.received")[0].fields)


async def test_a_reader_that_stops_stops_the_target(world: World) -> None:
    """Backpressure all the way: what is under way is bounded by buffers, not by the asset."""
    produced = 0

    async def asset() -> AsyncIterator[bytes]:
        nonlocal produced
        for _ in range(200):
            produced += 1
            yield bytes(1_000_000)

    async def hub(_: Request) -> StreamedResponse:
        return StreamedResponse(200, (), asset())

    client = await world.start(client={"chunked": True}, gateway={"local": {"https://hub.example": hub}})
    async with client.get("https://hub.example/") as response:
        assert await anext(response.iter_any())
        before = -1
        while produced != before:  # until nothing moves any more
            before = produced
            await asyncio.sleep(0.1)
        assert produced < 40
