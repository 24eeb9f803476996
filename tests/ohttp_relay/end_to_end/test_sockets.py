"""The same messages over a WebSocket: what goes through, what is refused, how it ends."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.capsule import REQUEST_TYPE, ResponseOpener, encapsulate_request
from ohttp_relay.client import OhttpClient, OhttpSocket, PinnedKeys, RelayKeys
from ohttp_relay.errors import (
    ExchangeFailed,
    KeyRejected,
    OpenFailed,
    RelayRefused,
    SocketEnded,
    TargetRefused,
)
from ohttp_relay.gateway import DEFAULT_PATH, Gateway
from ohttp_relay.keys import KeyRing
from ohttp_relay.relay import RateLimit, Relay
from ohttp_relay.server import Metrics, Sockets
from ohttp_relay.transport import Close, SocketLimits, StreamedResponse
from ohttp_relay.transport.dates import format_date
from ohttp_relay.transport.streams import one_piece
from ohttp_relay.transport.websocket import PROTOCOL
from tests.ohttp_relay.frames import bare_socket, ending
from tests.ohttp_relay.world import World

ORIGIN = "https://target.example"
QUICK = SocketLimits(closing_seconds=0.3)
Answer = Callable[[Request], Awaitable[Response | StreamedResponse]]


class Inside:
    """A target in the gateway's process: it answers at once, or when it is let go."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.came = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request.content)
        self.came.set()
        await self.go.wait()
        return Response(200, (), b"echo:" + request.content)


@pytest.fixture
async def inside() -> Inside:
    return Inside()


@pytest.fixture
async def open_world(world: World, inside: Inside) -> AsyncIterator[Callable[..., Awaitable[OhttpClient]]]:
    """Starts relay and gateway with the target inside; gives a client."""

    async def start(
        *, gateway: dict[str, Any] | None = None, relay: dict[str, Any] | None = None, **client: Any
    ) -> OhttpClient:
        inner = {"local": {ORIGIN: inside}, "targets": (), "sockets": QUICK, **(gateway or {})}
        outer = {"sockets": QUICK, **(relay or {})}
        return await world.start(gateway=inner, relay=outer, client=client)

    yield start
    for service in (world.relay, world.gateway):
        await empty(service.sockets)


async def empty(sockets: Sockets) -> None:
    """Nothing is kept of a socket that has ended."""
    async with asyncio.timeout(10):
        while sockets._open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def ask(body: bytes = b"x", *fields: tuple[str, str]) -> Request:
    return Request("POST", "https", "target.example", "/", fields, body)


def sealed(world: World, body: bytes = b"x", *fields: tuple[str, str]) -> tuple[bytes, ResponseOpener]:
    fields = fields or (("date", format_date(time.time())),)
    return encapsulate_request(world.keyring.public_configs()[0], ask(body, *fields).to_bytes())


# What goes through


async def test_requests_are_answered_in_turn(world: World, open_world, inside: Inside) -> None:
    client = await open_world()
    async with client.socket() as socket:
        for number in range(20):
            response = await socket.exchange(ask(b"%d" % number))
            assert (response.status, response.content) == (200, b"echo:%d" % number)
        assert (await socket.exchange(Request("GET", "https", "other.example", "/"))).status == 403
        assert (await socket.exchange(ask(b"again"))).content == b"echo:again"
    assert inside.asked == [b"%d" % number for number in range(20)] + [b"again"]
    assert len(world.events("relay.socket")) == len(world.events("gateway.socket")) == 1


async def test_requests_at_once_wait_for_their_turn(open_world) -> None:
    client = await open_world()
    async with client.socket() as socket:
        answers = await asyncio.gather(*(socket.exchange(ask(b"%d" % number)) for number in range(10)))
    assert [answer.content for answer in answers] == [b"echo:%d" % number for number in range(10)]


async def test_frames_sent_ahead_are_answered_in_order(world: World, open_world, inside: Inside) -> None:
    await open_world()
    inside.go.clear()
    async with bare_socket(world.relay_url, tls=world.tls) as socket:
        asked = [sealed(world, b"%d" % number) for number in range(3)]
        for frame, _ in asked:
            await socket.send_bytes(frame)
        await inside.came.wait()
        assert inside.asked == [b"0"]
        inside.go.set()
        for number, (_, opener) in enumerate(asked):
            response = Response.from_bytes(opener.open(await socket.receive_bytes()))
            assert response.content == b"echo:%d" % number


async def test_a_target_that_is_fetched_and_one_that_streams(world: World) -> None:
    async def pieces(_: Request) -> StreamedResponse:
        return StreamedResponse(200, (), one_piece(bytes(200_000)))

    client = await world.start(gateway={"local": {ORIGIN: pieces}})
    async with client.socket() as socket:
        assert (await socket.exchange(ask())).content == bytes(200_000)
        authority = world.origin.removeprefix("https://")
        fetched = await socket.exchange(Request("POST", "https", authority, "/p", (), b"y"))
        assert (fetched.content, fetched.header("x-path")) == (b"echo:y", "/p")


async def test_frames_have_the_sizes_of_bodies(world: World, open_world) -> None:
    client = await open_world()
    async with client.socket() as socket:
        for size in (0, 1, 100, 300, 3000):
            async with client.post(ORIGIN + "/", data=bytes(size)) as over_http:
                await over_http.read()
            await socket.exchange(ask(bytes(size)))
    for event in ("relay.received", "relay.forwarded", "relay.answered", "gateway.received"):
        sizes = [len(seen.body) for seen in world.events(event)]
        assert sizes[0::2] == sizes[1::2], event
        assert len(set(sizes)) == 2


# Replays and dates


async def test_a_frame_is_answered_once_on_whatever_way_it_comes_again(
    world: World, open_world, inside: Inside
) -> None:
    await open_world()
    frame, opener = sealed(world)

    async def over_socket(url: str) -> int:
        async with bare_socket(url, tls=world.tls) as socket:
            await socket.send_bytes(frame)
            return Response.from_bytes(opener.open(await socket.receive_bytes())).status

    assert await over_socket(world.relay_url) == 200
    assert await over_socket(world.relay_url) == 400
    assert await over_socket(world.gateway_url) == 400
    connector = aiohttp.TCPConnector(ssl=world.tls)
    headers = {"Content-Type": REQUEST_TYPE}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(world.gateway_url, data=frame, headers=headers) as answer,
    ):
        assert Response.from_bytes(opener.open(await answer.read())).status == 400
    assert inside.asked == [b"x"]


async def test_a_clock_that_is_wrong_is_corrected_once(world: World, open_world, inside: Inside) -> None:
    wrong = await open_world(clock=lambda: time.time() - 3600)
    async with wrong.socket() as socket:
        assert (await socket.exchange(ask())).status == 200
        stale = format_date(time.time() - 3600)
        assert (await socket.exchange(ask(b"y", ("date", stale)))).status == 400
        assert (await socket.exchange(ask(b"z"))).status == 200
    assert inside.asked == [b"x", b"z"]


# What is refused


def too_short(_: World) -> bytes:
    return b"\x00\x00\x20"


def another_key(world: World) -> bytes:
    other = KeyRing.generate().public_configs()[0]
    return encapsulate_request(other, ask().to_bytes())[0]


def changed(world: World) -> bytes:
    frame = sealed(world)[0]
    return frame[:-1] + bytes([frame[-1] ^ 1])


REFUSED = [
    (lambda _: b"", Close.NOT_A_CAPSULE),
    (too_short, Close.NOT_A_CAPSULE),
    (lambda world: sealed(world)[0][:39], Close.NOT_A_CAPSULE),
    (lambda world: sealed(world)[0][:-1], Close.KEY),
    (changed, Close.KEY),
    (another_key, Close.KEY),
    (lambda _: os.urandom(600), None),
]


@pytest.mark.parametrize("through", ["relay", "gateway"])
@pytest.mark.parametrize(("make", "code"), REFUSED)
async def test_what_does_not_open_ends_the_socket_with_a_code_and_no_more(
    world: World, open_world, inside: Inside, make: Callable[[World], bytes], code: Close | None, through: str
) -> None:
    await open_world()
    async with bare_socket(
        world.relay_url if through == "relay" else world.gateway_url, tls=world.tls
    ) as socket:
        await socket.send_bytes(make(world))
        came, reason = await ending(socket)
    assert came == code or (code is None and came in (Close.KEY, Close.NOT_A_CAPSULE))
    assert reason == ""
    assert inside.asked == []


@pytest.mark.parametrize("through", ["relay", "gateway"])
async def test_text_and_frames_too_large_end_the_socket(world: World, open_world, through: str) -> None:
    limits = SocketLimits(request=1000, closing_seconds=0.3)
    await open_world(gateway={"sockets": limits}, relay={"sockets": limits})
    url = world.relay_url if through == "relay" else world.gateway_url
    async with bare_socket(url, tls=world.tls) as socket:
        await socket.send_str("text")
        assert await ending(socket) == (Close.NOT_BINARY, "")
    for size, code in ((1000, Close.KEY), (1001, Close.TOO_LARGE)):
        async with bare_socket(url, tls=world.tls) as socket:
            await socket.send_bytes(sealed(world)[0][:7] + bytes(32) + bytes(size - 39))
            assert (await ending(socket))[0] == code


async def test_an_answer_too_large_for_a_socket_is_not_sent(world: World, open_world) -> None:
    client = await open_world(gateway={"sockets": SocketLimits(response=600, closing_seconds=0.3)})
    async with client.socket() as socket:
        assert (await socket.exchange(ask())).status == 200
        with pytest.raises(SocketEnded) as ended:
            await socket.exchange(ask(bytes(600)))
    assert ended.value.code == Close.TOO_LARGE


async def test_a_broken_framing_ends_the_socket(world: World, open_world) -> None:
    await open_world()
    async with bare_socket(world.relay_url, tls=world.tls) as socket:
        await socket.send_frame(b"x", aiohttp.WSMsgType.CONTINUATION)
        assert (await ending(socket))[0] == Close.BROKEN_FRAMING


async def test_whatever_bytes_follow_a_handshake_they_end_the_socket_and_nothing_else(
    world: World, open_world, inside: Inside, caplog: pytest.LogCaptureFixture
) -> None:
    await open_world()
    rng = random.Random(1)
    for number in range(200):
        url = world.relay_url if number % 2 else world.gateway_url
        async with bare_socket(url, tls=world.tls) as socket:
            transport = socket._conn.transport
            for _ in range(rng.randrange(1, 4)):
                size = rng.randrange(0, 126)
                head = bytes(
                    [rng.choice((0x80, 0x00, 0xC0)) | rng.randrange(16), rng.choice((0x80, 0)) | size]
                )
                transport.write(rng.choice((head + rng.randbytes(4 + size), rng.randbytes(size), head)))
            if number % 3:
                transport.abort()
            else:
                socket._reader.feed_eof()
    for service in (world.relay, world.gateway):
        await empty(service.sockets)
    assert inside.asked == []
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
    async with world.client().socket() as sound:
        assert (await sound.exchange(ask())).status == 200


async def test_who_the_relay_refuses_gets_no_socket(world: World, open_world) -> None:
    client = await open_world(
        relay={"authenticate": lambda request: request.headers.get("Authorization") == "Bearer t"}
    )
    with pytest.raises(RelayRefused) as refused:
        async with client.socket():
            pass
    assert refused.value.status == 401
    async with world.client(relay_headers={"Authorization": "Bearer t"}).socket() as socket:
        assert socket.usable
    connector = aiohttp.TCPConnector(ssl=world.tls)
    async with aiohttp.ClientSession(connector=connector) as session:
        for url, protocols, status in (
            (world.relay_url + "x", [PROTOCOL], 404),
            (world.gateway_url, [], 400),
            (world.gateway_url, ["chat"], 400),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as failed:
                async with session.ws_connect(url, protocols=protocols):
                    pass
            assert failed.value.status == status
        async with session.get(world.gateway_url) as keys:  # a list of keys is still what GET gives
            assert keys.content_type == "application/ohttp-keys"


async def test_more_sockets_than_the_limit_are_refused_and_one_that_ends_makes_room(
    world: World, open_world
) -> None:
    few = SocketLimits(sockets=2, closing_seconds=0.3)
    client = await open_world(gateway={"sockets": few})
    async with client.socket(), client.socket() as second:
        with pytest.raises(RelayRefused) as refused:  # the gateway's refusal, through the relay
            async with client.socket():
                pass
        assert refused.value.status == 502
        assert (await second.exchange(ask())).status == 200
    await empty(world.gateway.sockets)
    async with client.socket() as another:
        assert (await another.exchange(ask())).status == 200


async def test_one_client_takes_no_more_than_its_share(world: World, open_world) -> None:
    client = await open_world(relay={"sockets": SocketLimits(each=2, closing_seconds=0.3)})
    connector = aiohttp.TCPConnector(ssl=world.tls, local_addr=("127.0.0.9", 0))
    async with aiohttp.ClientSession(connector=connector) as elsewhere, client.socket(), client.socket():
        with pytest.raises(RelayRefused) as refused:
            async with client.socket():
                pass
        assert refused.value.status == 429
        async with world.client(session=elsewhere).socket() as another:
            assert (await another.exchange(ask())).status == 200
    await empty(world.relay.sockets)
    assert not world.relay.sockets._quota._held
    async with client.socket() as again:
        assert (await again.exchange(ask())).status == 200


async def test_a_server_that_cancels_for_lost_connections_cancels_for_sockets_too(
    world: World, inside: Inside
) -> None:
    stopped = asyncio.Event()

    async def patient(request: Request) -> Response:
        inside.came.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return Response(200)

    gateway = Gateway(world.keyring, local={ORIGIN: patient}, sockets=QUICK)
    runner = web.AppRunner(gateway.app(), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with bare_socket(f"http://127.0.0.1:{runner.addresses[0][1]}{DEFAULT_PATH}") as socket:
        await socket.send_bytes(sealed(world)[0])
        await inside.came.wait()
        socket._conn.transport.abort()
        async with asyncio.timeout(10):
            await stopped.wait()
    await empty(gateway.sockets)
    await runner.cleanup()


async def test_a_rate_limit_counts_requests_and_not_sockets(open_world) -> None:
    client = await open_world(relay={"rate": RateLimit(4)}, key_source=None)
    async with client.socket() as socket:  # the handshake, and the key list, are two
        assert (await socket.exchange(ask())).status == 200
        assert (await socket.exchange(ask())).status == 200
        with pytest.raises(SocketEnded) as ended:
            await socket.exchange(ask())
    assert ended.value.code == Close.TOO_MANY


# The client


async def test_a_rejected_key_is_fetched_anew_for_the_next_socket(world: World, open_world) -> None:
    lists = [KeyRing.generate().public_list(), world.keyring.public_list()]

    async def source() -> bytes:
        return lists.pop(0)

    client = await open_world(key_source=source, refresh_interval=0.0)
    async with client.socket() as socket:
        with pytest.raises(KeyRejected):
            await socket.exchange(ask())
        with pytest.raises(ExchangeFailed):
            await socket.exchange(ask())
    async with client.socket() as socket:
        assert (await socket.exchange(ask())).status == 200


async def test_a_key_the_gateway_does_not_know_makes_the_relay_doubt_its_list(
    world: World, open_world
) -> None:
    await open_world()
    doubted = []
    world.relay.sockets.invalidate = doubted.append
    async with bare_socket(world.relay_url, tls=world.tls) as socket:
        await socket.send_bytes(another_key(world))
        assert (await ending(socket))[0] == Close.KEY
    assert doubted == ["gw"]


async def test_another_target_than_those_allowed_is_not_asked(open_world, inside: Inside) -> None:
    client = await open_world(targets=["https://elsewhere.example"])
    async with client.socket() as socket:
        with pytest.raises(TargetRefused):
            await socket.exchange(ask())
        assert socket.usable
    assert inside.asked == []


async def test_an_exchange_that_is_cancelled_ends_the_socket(open_world, inside: Inside) -> None:
    client = await open_world()
    inside.go.clear()
    async with client.socket() as socket:
        asking = asyncio.create_task(socket.exchange(ask(b"first")))
        await inside.came.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        inside.go.set()
        assert not socket.usable
        with pytest.raises(ExchangeFailed):
            await socket.exchange(ask(b"second"))
    assert inside.asked == [b"first"]


async def test_there_is_no_other_way_when_there_is_no_socket(world: World, serve, open_world) -> None:
    """A relay that has none, one that leads elsewhere, one that speaks something else, one that is not there."""
    direct = await open_world()
    reached: list[str] = []

    async def watched(request: web.Request) -> web.StreamResponse:
        reached.append(request.path)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(request.url.with_path("/there"))

    app = web.Application()
    app.router.add_get("/there", watched)
    app.router.add_get("/redirects", elsewhere)
    origin = await serve(app)
    keys = PinnedKeys(world.keyring.public_list())
    for path, error in (("/none", RelayRefused), ("/redirects", RelayRefused), ("/there", ExchangeFailed)):
        client = OhttpClient(origin + path, keys, ssl_context=world.tls)
        async with client:
            with pytest.raises(error):
                async with client.socket():
                    pass
    assert reached == ["/there"]  # by its own name, and never by way of the redirect
    async with OhttpClient("https://localhost:1/", keys, ssl_context=world.tls) as client:
        with pytest.raises(ExchangeFailed):
            async with client.socket():
                pass
    assert world.events("gateway.received") == []
    await direct.close()


async def test_a_gateway_that_redirects_or_has_no_sockets_gives_none(world: World, serve, open_world) -> None:
    await open_world()

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPTemporaryRedirect(world.gateway_url)

    async def plain(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/redirects", elsewhere)
    app.router.add_get("/plain", plain)
    origin = await serve(app)
    for path in ("/redirects", "/plain", "/none"):
        relay = Relay({"gw": origin + path}, ssl_context=world.tls, sockets=QUICK)
        url = await serve(relay.app()) + "/gw"
        async with OhttpClient(url, RelayKeys(world.relay_url), ssl_context=world.tls) as client:
            with pytest.raises(RelayRefused) as refused:
                async with client.socket():
                    pass
        assert refused.value.status == 502
    assert world.events("gateway.socket") == []


# Who misbehaves, and who dies


async def dishonest(
    serve,
    world: World,
    behave: Callable[[web.WebSocketResponse], Awaitable[None]],
    limits: SocketLimits = QUICK,
) -> OhttpClient:
    """A client of a relay whose gateway does as it likes."""

    async def handle(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(protocols=[PROTOCOL], timeout=0.5)
        await socket.prepare(request)
        await behave(socket)
        return socket

    app = web.Application()
    app.router.add_get("/gateway", handle)
    world.relay = Relay({"gw": await serve(app) + "/gateway"}, ssl_context=world.tls, sockets=limits)
    keys = PinnedKeys(world.keyring.public_list())
    client = OhttpClient(await serve(world.relay.app()) + "/gw", keys, ssl_context=world.tls)
    world._closing.append(client)
    return client


async def outcome(client: OhttpClient) -> BaseException:
    async with client.socket() as socket:
        with pytest.raises(Exception) as raised:
            await socket.exchange(ask())
        return raised.value


async def unasked(socket: web.WebSocketResponse) -> None:
    await socket.send_bytes(b"nobody asked")
    await socket.receive()


async def in_text(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    await socket.send_str("text")
    await socket.receive()


async def nonsense(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    await socket.send_bytes(bytes(700))
    await socket.receive()


async def hang_up(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    assert socket._req is not None
    assert socket._req.transport is not None
    socket._req.transport.abort()


async def reset(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    raw = socket.get_extra_info("socket")
    raw.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    assert socket._req is not None
    assert socket._req.transport is not None
    socket._req.transport.abort()


async def silent(socket: web.WebSocketResponse) -> None:
    while (await socket.receive()).type is aiohttp.WSMsgType.BINARY:
        pass


async def strange_code(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    await socket.close(code=4242, message=b"a reason that nobody is to see")


async def too_much(socket: web.WebSocketResponse) -> None:
    await socket.receive()
    await socket.send_bytes(bytes(5000))
    await socket.receive()


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (unasked, Close.FAILED),
        (in_text, Close.FAILED),
        (hang_up, Close.FAILED),
        (reset, Close.FAILED),
        (silent, Close.FAILED),
        (strange_code, Close.FAILED),
        (too_much, Close.TOO_LARGE),
    ],
)
async def test_a_gateway_that_breaks_the_rules_costs_its_client_the_socket(
    world: World, serve, behave: Callable[[web.WebSocketResponse], Awaitable[None]], code: Close
) -> None:
    limits = SocketLimits(response=4000, answer_seconds=0.3, closing_seconds=0.2)
    error = await outcome(await dishonest(serve, world, behave, limits))
    assert isinstance(error, SocketEnded)
    assert error.code == code
    await empty(world.relay.sockets)


async def test_an_answer_that_is_none_does_not_open(world: World, serve) -> None:
    assert isinstance(await outcome(await dishonest(serve, world, nonsense)), OpenFailed)


async def test_connections_of_sockets_that_broke_are_let_go(world: World, serve) -> None:
    client = await dishonest(serve, world, reset)
    for _ in range(5):
        async with client.socket() as socket:
            with pytest.raises(SocketEnded):
                await socket.exchange(ask())
    await empty(world.relay.sockets)
    for session in (world.relay.sockets._owned, client._owned):
        assert session is not None
        assert not session.connector._acquired


async def test_a_client_that_leaves_in_the_middle_takes_its_sockets_along(
    world: World, open_world, inside: Inside
) -> None:
    client = await open_world()
    inside.go.clear()
    async with client.socket() as socket:
        asking = asyncio.create_task(socket.exchange(ask()))
        await inside.came.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await empty(world.relay.sockets)  # though the target has not answered yet
    inside.go.set()
    await empty(world.gateway.sockets)


async def test_a_client_that_is_gone_without_a_word_takes_them_along_too(
    world: World, open_world, inside: Inside
) -> None:
    await open_world()
    inside.go.clear()
    async with bare_socket(world.relay_url, tls=world.tls) as socket:
        await socket.send_bytes(sealed(world)[0])
        await inside.came.wait()
        assert socket._conn is not None
        assert socket._conn.transport is not None
        socket._conn.transport.abort()
        await empty(world.relay.sockets)
        inside.go.set()
        await empty(world.gateway.sockets)


async def test_who_asks_for_nothing_and_who_stays_too_long_is_let_go(world: World, open_world) -> None:
    idle = SocketLimits(idle_seconds=0.1, closing_seconds=0.3)
    old = SocketLimits(life_seconds=0.1, closing_seconds=0.3)
    for at in ("gateway", "relay"):
        for limits in (idle, old):
            client = await open_world(**{at: {"sockets": limits}})
            async with client.socket() as socket:
                assert (await socket.exchange(ask())).status == 200
                assert socket._line.next_frame
                await asyncio.wait({socket._line.next_frame}, timeout=10)
                assert not socket.usable
                with pytest.raises(SocketEnded) as ended:
                    await socket.exchange(ask())
            assert ended.value.code == Close.TIME_OVER
            await empty(world.relay.sockets)
            await empty(world.gateway.sockets)


async def test_pings_do_not_keep_a_socket(world: World, open_world) -> None:
    await open_world(relay={"sockets": SocketLimits(idle_seconds=0.2, closing_seconds=0.3)})
    async with bare_socket(world.relay_url, tls=world.tls) as socket:

        async def ping() -> None:
            while True:
                await socket.ping()
                await asyncio.sleep(0.02)

        pinging = asyncio.create_task(ping())
        assert (await ending(socket))[0] == Close.TIME_OVER
        pinging.cancel()
        await asyncio.gather(pinging, return_exceptions=True)


LARGE = 16 << 20


async def large(_: Request) -> Response:
    return Response(200, (), bytes(LARGE))


@pytest.fixture(params=["over TLS", "plain"])
async def unhurried(
    request: pytest.FixtureRequest, world: World, server_tls: ssl.SSLContext
) -> AsyncIterator[Callable[[SocketLimits], Awaitable[tuple[str, Metrics]]]]:
    """Starts a gateway with large answers; gives its URL and its metrics."""
    runners = []

    async def start(limits: SocketLimits) -> tuple[str, Metrics]:
        metrics = Metrics("gateway")
        gateway = Gateway(world.keyring, local={ORIGIN: large}, sockets=limits, metrics=metrics)
        runners.append(web.AppRunner(gateway.app(), shutdown_timeout=1))
        await runners[-1].setup()
        tls = server_tls if request.param == "over TLS" else None
        await web.TCPSite(runners[-1], "127.0.0.1", 0, ssl_context=tls).start()
        port = runners[-1].addresses[0][1]
        return f"{'https' if tls else 'http'}://localhost:{port}{DEFAULT_PATH}", metrics

    yield start
    for runner in runners:
        await runner.cleanup()


async def test_who_does_not_read_is_cut_off(world: World, unhurried) -> None:
    url, metrics = await unhurried(SocketLimits(idle_seconds=0.3, slowest=1 << 30, closing_seconds=0.2))
    async with bare_socket(url, tls=world.tls, max_msg_size=0) as socket:
        transport = socket._conn.transport
        transport.pause_reading()
        for _ in range(4):  # TLS takes one that has not left before it says so
            await socket.send_bytes(sealed(world)[0])
        async with asyncio.timeout(10):
            while "ohttp_socket_ends_total{" not in (shown := metrics.render().decode()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        transport.abort()
    assert 'ohttp_socket_ends_total{reason="GONE",role="gateway"} 1.0' in shown


async def test_who_reads_slowly_but_reads_is_waited_for(world: World, unhurried) -> None:
    url, _ = await unhurried(SocketLimits(idle_seconds=0.2, slowest=LARGE // 10, closing_seconds=0.2))
    async with bare_socket(url, tls=world.tls, max_msg_size=0) as socket:
        transport = socket._conn.transport
        for _ in range(2):
            transport.pause_reading()
            frame, opener = sealed(world)
            await socket.send_bytes(frame)
            await asyncio.sleep(1)  # five times what an idle socket has
            transport.resume_reading()
            answer = Response.from_bytes(opener.open(await socket.receive_bytes(timeout=10)))
            assert len(answer.content) == LARGE


# The end


async def test_a_stop_answers_what_is_in_flight_and_then_says_so(
    world: World, open_world, inside: Inside
) -> None:
    client = await open_world()
    for service in (world.gateway, world.relay):
        inside.came.clear()
        inside.go.clear()
        async with client.socket() as busy, client.socket() as idle:
            asking = asyncio.create_task(busy.exchange(ask()))
            await inside.came.wait()
            service.sockets.stop()
            assert await code_of(idle) == Close.GOING_AWAY
            assert not asking.done()
            inside.go.set()
            assert (await asking).status == 200
            assert await code_of(busy) == Close.GOING_AWAY
            with pytest.raises(RelayRefused):
                async with client.socket():
                    pass
        service.sockets._stopping = False


async def code_of(socket: OhttpSocket) -> int | None:
    """How the socket ends when nothing is asked."""
    await asyncio.wait({socket._line.next_frame}, timeout=10)
    return socket._line.end


async def test_an_application_that_ends_stops_its_sockets(world: World, inside: Inside) -> None:
    gateway = Gateway(world.keyring, local={ORIGIN: inside}, sockets=QUICK)
    runner = web.AppRunner(gateway.app(), shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}{DEFAULT_PATH}"
    inside.go.clear()
    async with bare_socket(url) as busy, bare_socket(url) as idle:
        frame, opener = sealed(world)
        await busy.send_bytes(frame)
        await inside.came.wait()
        ended = asyncio.create_task(runner.cleanup())
        assert (await ending(idle))[0] == Close.GOING_AWAY
        inside.go.set()
        assert Response.from_bytes(opener.open(await busy.receive_bytes())).status == 200
        assert (await ending(busy))[0] == Close.GOING_AWAY
        await ended
