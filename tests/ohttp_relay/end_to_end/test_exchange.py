"""A request from client through relay and gateway to a target, over real sockets and TLS."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from ohttp_relay import bhttp
from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.client import OhttpClient, PinnedKeys
from ohttp_relay.errors import (
    BodyTooLarge,
    ConfigurationError,
    ExchangeFailed,
    KeyRejected,
    OpenFailed,
    RelayRefused,
    TruncatedCapsule,
)
from ohttp_relay.gateway import Gateway, GatewayLimits
from ohttp_relay.hpke import KemId
from ohttp_relay.keys import KeyConfig, KeyRing
from ohttp_relay.relay import Relay, RelayLimits
from ohttp_relay.transport import problems
from ohttp_relay.transport.dates import format_date
from tests.ohttp_relay.world import World, break_off

CAPSULE = {"Content-Type": "message/ohttp-req"}


async def post(url: str, body: bytes, world: World, headers: dict | None = None) -> tuple[int, dict, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers or CAPSULE, ssl=world.tls) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.read()


async def exchange(world: World, request: bhttp.Request, url: str | None = None) -> bhttp.Response:
    capsule, opener = encapsulate_request(world.keyring.public_configs()[0], request.to_bytes())
    status, headers, body = await post(url or world.gateway_url, capsule, world)
    assert status == 200
    assert headers["Content-Type"] == "message/ohttp-res"
    return bhttp.Response.from_bytes(opener.open(body))


def get(world: World, path: str = "/", *fields: tuple[str, str]) -> bhttp.Request:
    return bhttp.Request("GET", "https", world.origin.removeprefix("https://"), path, fields)


async def test_a_request_reaches_its_target_and_the_answer_comes_back(world: World) -> None:
    client = await world.start()
    async with client.post(
        f"{world.origin}/a/b?c=d&e=%2F", data=b"hello", headers={"X-One": "1"}
    ) as response:
        assert response.status == 200
        assert response.headers["X-Path"] == "/a/b?c=d&e=%2F"
        assert await response.read() == b"echo:hello"
    (seen,) = world.target.requests
    assert (seen.method, seen.target) == ("POST", "/a/b?c=d&e=%2F")
    assert ("x-one", "1") in seen.fields


async def test_repeated_fields_stay_apart_both_ways(world: World) -> None:
    async def cookies(_: web.Request) -> web.Response:
        answer = web.Response()
        answer.headers.add("Set-Cookie", "a=1")
        answer.headers.add("Set-Cookie", "b=2, c")
        return answer

    client = await world.start()
    world.target.answer = cookies
    headers = [("accept", "text/plain"), ("accept", "text/html"), ("cookie", "a=1"), ("cookie", "b=2")]
    async with client.get(world.origin, headers=headers) as response:
        assert response.headers.getall("set-cookie") == ["a=1", "b=2, c"]
    fields = world.target.requests[0].fields
    assert [v for n, v in fields if n == "accept"] == ["text/plain", "text/html"]
    assert [v for n, v in fields if n == "cookie"] == ["a=1; b=2"]


async def test_field_octets_survive_both_ways(world: World) -> None:
    async def octets(request: web.Request) -> web.Response:
        return web.Response(headers={"X-Back": request.headers["X-There"]})

    client = await world.start()
    world.target.answer = octets
    wire = "caf\u00e9".encode().decode("latin-1")
    async with client.get(world.origin, headers={"x-there": wire}) as response:
        assert response.headers["x-back"] == wire


async def test_the_target_sees_only_what_the_client_put_inside(world: World) -> None:
    client = await world.start()
    async with client.get(world.origin, headers={"Connection": "x-hop", "X-Hop": "1", "X-End": "2"}):
        pass
    names = {name for name, _ in world.target.requests[0].fields}
    assert names == {"host", "x-end", "date"}


async def test_redirects_are_handed_back_not_followed(world: World) -> None:
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://169.254.169.254/"})

    client = await world.start()
    world.target.answer = away
    async with client.get(world.origin) as response:
        assert response.status == 302
        assert response.headers["location"] == "http://169.254.169.254/"
    assert len(world.target.requests) == 1


async def test_what_the_relay_sends_is_the_same_whoever_asks(world: World) -> None:
    await world.start()
    capsule, _ = encapsulate_request(world.keyring.public_configs()[0], get(world).to_bytes())
    headers = {
        **CAPSULE,
        "User-Agent": "me/1",
        "Accept-Language": "tlh",
        "Cookie": "id=7",
        "Authorization": "Bearer abc",
        "X-Forwarded-For": "192.0.2.1",
        "X-Mine": "1",
        "Via": "1.1 mine",
    }
    await post(world.relay_url, capsule, world, headers)
    (received,) = world.events("gateway.received")
    host = world.gateway_url.split("/")[2]
    assert sorted(received.fields) == [
        ("content-length", str(len(capsule))),
        ("content-type", "message/ohttp-req"),
        ("host", host),
    ]
    assert received.body == capsule


async def test_the_client_sends_the_relay_nothing_but_the_capsule(world: World) -> None:
    client = await world.start()
    async with client.get(f"{world.origin}/secret-path", headers={"x-token": "secret-value"}):
        pass
    (received,) = world.events("relay.received")
    assert {name for name, _ in received.fields} == {"host", "content-type", "content-length"}
    assert b"secret" not in received.body


async def test_a_gateways_cookies_and_names_do_not_pass_the_relay(world: World) -> None:
    async def marked(_: web.Request) -> web.Response:
        return web.Response(body=b"x", headers={"Set-Cookie": "id=7", "X-Id": "7", "Retry-After": "3"})

    await world.start()
    app = web.Application()
    app.router.add_post("/g", marked)
    relay = Relay({"gw": await world.serve(app) + "/g"}, ssl_context=world.tls)
    status, headers, _ = await post(await world.serve(relay.app()) + "/gw", b"x", world)
    assert status == 200
    assert set(headers) == {"Content-Type", "Content-Length", "Retry-After", "Date"}


async def test_a_field_that_connection_nominates_does_not_pass_the_relay(world: World) -> None:
    async def nominated(_: web.Request) -> web.Response:
        answer = web.Response(
            body=b"x", headers={"Connection": "keep-alive, Cache-Control", "Retry-After": "3"}
        )
        answer.headers.add("Cache-Control", "max-age=1")
        return answer

    async def twice(_: web.Request) -> web.Response:
        answer = web.Response(body=b"x", headers={"Cache-Control": "no-store"})
        answer.headers.add("Cache-Control", "private")
        return answer

    await world.start()
    app = web.Application()
    app.add_routes([web.post("/nominated", nominated), web.post("/twice", twice)])
    gateway = await world.serve(app)
    relay = Relay({"a": gateway + "/nominated", "b": gateway + "/twice"}, ssl_context=world.tls)
    url = await world.serve(relay.app())
    _, headers, _ = await post(url + "/a", b"x", world)
    assert set(headers) == {"Content-Type", "Content-Length", "Retry-After", "Date"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url + "/b", data=b"x", headers=CAPSULE, ssl=world.tls) as answer,
    ):
        assert answer.headers.getall("Cache-Control") == ["no-store", "private"]


async def test_head_of_the_key_list_is_get_without_the_list(world: World) -> None:
    await world.start()
    async with aiohttp.ClientSession() as session:
        for url in (world.relay_url, world.gateway_url):
            async with session.head(url, ssl=world.tls) as answer:
                assert (answer.status, answer.content_type) == (200, "application/ohttp-keys")
                assert answer.content_length == len(world.keyring.public_list())


async def test_a_client_that_reads_no_list_gets_one_bare_key_where_that_is_switched_on(world: World) -> None:
    world.keyring = KeyRing.generate([KemId.X_WING, KemId.X25519])
    await world.start()
    gateway = await world.serve(world.gateway.app(bare_keys="/config"))
    relay = Relay({"gw": world.gateway_url}, ssl_context=world.tls)
    relays = [await world.serve(relay.app(bare_keys=switch)) for switch in (True, False)]
    async with aiohttp.ClientSession() as session:
        for url in (f"{gateway}/config", f"{relays[0]}/gw/bare"):
            async with session.get(url, ssl=world.tls) as answer:
                assert (answer.status, answer.content_type) == (200, "application/octet-stream")
                assert "max-age" in answer.headers["Cache-Control"]
                config = KeyConfig.from_bytes(await answer.read())
            assert config.kem_id == KemId.X25519
            capsule, opener = encapsulate_request(config, get(world).to_bytes())
            _, _, body = await post(world.gateway_url, capsule, world)
            assert bhttp.Response.from_bytes(opener.open(body)).status == 200
        for url in (f"{world.gateway_url}/config", f"{relays[1]}/gw/bare", f"{relays[0]}/other/bare"):
            async with session.get(url, ssl=world.tls) as answer:
                assert answer.status == 404
    await relay.close()


async def test_bodies_are_padded_to_the_same_size(world: World) -> None:
    client = await world.start()
    for body in (b"", b"x" * 100):
        async with client.post(world.origin, data=body):
            pass
    assert len({len(seen.body) for seen in world.events("relay.received")}) == 1
    assert len({len(seen.body) for seen in world.events("relay.answered")}) == 1


async def test_the_inner_date_is_now(world: World) -> None:
    client = await world.start(
        client={"clock": lambda: 1_000_000_000.0}, gateway={"clock": lambda: 1_000_000_030.0}
    )
    async with client.get(world.origin) as response:
        assert response.status == 200
    assert ("date", "Sun, 09 Sep 2001 01:46:40 GMT") in world.target.requests[0].fields


# Errors before the capsule is open: plain, 4xx


async def test_a_wrong_key_is_told_as_such(world: World) -> None:
    await world.start()
    other = PinnedKeys(KeyRing.generate().public_list())
    with pytest.raises(KeyRejected) as caught:
        async with world.client(key_source=other).get(world.origin):
            pass
    assert (caught.value.status, caught.value.problem) == (400, problems.OHTTP_KEY)
    assert world.target.requests == []


async def test_an_unknown_key_identifier_is_told_as_such(world: World) -> None:
    await world.start()
    capsule, _ = encapsulate_request(world.keyring.public_configs()[0], get(world).to_bytes())
    for broken in (
        b"\xff" + capsule[1:],
        capsule[:2] + b"\x10" + capsule[3:],
        capsule[:6] + b"\x09" + capsule[7:],
    ):
        status, headers, body = await post(world.gateway_url, broken, world)
        assert status == 400
        assert headers["Content-Type"] == "application/problem+json"
        assert problems.decode_problem(headers["Content-Type"], body) == problems.OHTTP_KEY


@pytest.mark.parametrize("length", [0, 1, 6, 7, 38, 39, 54])
async def test_a_truncated_capsule_is_refused(world: World, length: int) -> None:
    await world.start()
    capsule, _ = encapsulate_request(world.keyring.public_configs()[0], get(world).to_bytes())
    status, headers, body = await post(world.gateway_url, capsule[:length], world)
    assert status == 400
    assert problems.decode_problem(headers["Content-Type"], body) == problems.BLANK


async def test_an_oversized_body_is_refused_before_it_is_read(world: World) -> None:
    await world.start(
        gateway={"limits": GatewayLimits(request=1000)}, relay={"limits": RelayLimits(request=1000)}
    )
    for url in (world.relay_url, world.gateway_url):
        status, _, _ = await post(url, b"x" * 1001, world)
        assert status == 413


async def test_an_oversized_body_without_a_length_is_refused(world: World) -> None:
    async def endless() -> object:
        while True:
            yield b"x" * 500
            await asyncio.sleep(0)

    await world.start(
        gateway={"limits": GatewayLimits(request=1000)}, relay={"limits": RelayLimits(request=1000)}
    )
    for url in (world.relay_url, world.gateway_url):
        async with aiohttp.ClientSession() as session:
            try:
                async with session.post(url, data=endless(), headers=CAPSULE, ssl=world.tls) as answer:
                    assert answer.status == 413
            except aiohttp.ClientOSError:
                pass  # the server hung up while we wrote: as good


@pytest.mark.parametrize("kind", ["", "text/plain", "message/ohttp-res", "message/bhttp"])
async def test_another_media_type_is_refused(world: World, kind: str) -> None:
    await world.start()
    for url in (world.relay_url, world.gateway_url):
        status, _, _ = await post(url, b"x", world, {"Content-Type": kind})
        assert status == 415


async def test_an_empty_body_and_an_unknown_gateway_are_refused_by_the_relay(world: World) -> None:
    await world.start()
    assert (await post(world.relay_url, b"", world))[0] == 400
    assert (await post(world.relay_url + "x", b"x", world))[0] == 404


# Errors after: encapsulated


async def test_a_disallowed_target_gets_an_encapsulated_403(world: World) -> None:
    client = await world.start()
    for url in ("https://localhost:1/", "https://other.example/", world.origin.replace("https", "http")):
        async with client.get(url) as response:
            assert response.status == 403
            assert b"allow-list" in await response.read()
    assert world.target.requests == []


async def test_a_dead_target_gets_an_encapsulated_504(world: World) -> None:
    async def hang_up(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    client = await world.start()
    world.target.answer = hang_up
    async with client.get(world.origin) as response:
        assert response.status == 504


async def test_a_target_that_dies_inside_its_answer_gets_an_encapsulated_504(world: World) -> None:
    client = await world.start()
    world.target.answer = break_off
    async with client.get(world.origin) as response:
        assert response.status == 504
        assert b"partial" not in await response.read()


async def test_a_slow_target_gets_an_encapsulated_504(world: World) -> None:
    stop = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    client = await world.start(gateway={"limits": GatewayLimits(target_seconds=0.05)})
    world.target.answer = never
    async with client.get(world.origin) as response:
        assert response.status == 504
    stop.set()


async def test_a_target_that_answers_too_much_gets_an_encapsulated_502(world: World) -> None:
    client = await world.start(gateway={"limits": GatewayLimits(response=1000)})
    async with client.post(world.origin, data=b"x" * 2000) as response:
        assert response.status == 502


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
async def test_expect_100_continue_gets_an_encapsulated_error(world: World, value: str) -> None:
    await world.start()
    response = await exchange(world, get(world, "/", ("expect", value)))
    assert response.status == 417
    assert world.target.requests == []


async def test_an_invalid_message_gets_an_encapsulated_400(world: World) -> None:
    await world.start()
    for garbage in (b"", b"\x07", b"\x01\x40\xc8", b"\x00\x03GET"):
        capsule, opener = encapsulate_request(world.keyring.public_configs()[0], garbage)
        status, _, body = await post(world.gateway_url, capsule, world)
        assert status == 200
        assert bhttp.Response.from_bytes(opener.open(body)).status == 400


async def test_outer_answers_carry_only_the_fields_they_need(world: World) -> None:
    await world.start()
    capsule, _ = encapsulate_request(world.keyring.public_configs()[0], get(world).to_bytes())
    _, headers, _ = await post(world.gateway_url, capsule, world)
    assert set(headers) == {"Content-Type", "Content-Length", "Date"}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304), ("GET", 599)])
async def test_answers_without_content_are_framed_like_all_others(
    world: World, chunked: bool, method: str, status: int
) -> None:
    async def bare(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"ETag": '"1"'})

    client = await world.start(client={"chunked": chunked})
    world.target.answer = bare
    async with client.request(method, world.origin) as response:
        assert (response.status, await response.read()) == (status, b"")
        assert response.headers["etag"] == '"1"'


async def test_connect_is_refused(world: World) -> None:
    await world.start()
    response = await exchange(world, bhttp.Request("CONNECT", "", world.origin.removeprefix("https://"), ""))
    assert response.status == 403


async def test_the_host_field_decides_if_there_is_no_authority(world: World) -> None:
    await world.start()
    host = world.origin.removeprefix("https://")
    response = await exchange(world, bhttp.Request("GET", "https", "", "/", (("host", host),)))
    assert response.status == 200
    response = await exchange(world, bhttp.Request("GET", "https", host, "/", (("host", "other.example"),)))
    assert response.status == 200
    assert [dict(seen.fields)["host"] for seen in world.target.requests] == [host, host]
    assert (await exchange(world, bhttp.Request("GET", "https", "", "/"))).status == 403


async def test_fields_of_the_answer_inside_do_not_come_out(world: World) -> None:
    async def marked(_: web.Request) -> web.Response:
        return web.Response(headers={"Set-Cookie": "a=1", "X-Inner": "1", "Cache-Control": "max-age=9"})

    await world.start()
    world.target.answer = marked
    capsule, _ = encapsulate_request(world.keyring.public_configs()[0], get(world).to_bytes())
    for url in (world.gateway_url, world.relay_url):
        capsule, _ = encapsulate_request(world.keyring.public_configs()[0], get(world).to_bytes())
        _, headers, _ = await post(url, capsule, world)
        assert set(headers) == {"Content-Type", "Content-Length", "Date"}


async def test_connections_are_kept_from_one_request_to_the_next(world: World) -> None:
    peers = set()

    async def whose(request: web.Request) -> web.Response:
        assert request.transport is not None
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response()

    client = await world.start()
    world.target.answer = whose
    for _ in range(5):
        async with client.get(world.origin) as response:
            assert response.status == 200
    assert len(peers) == 1


# Replay and date


async def test_a_replayed_request_is_not_answered_twice(world: World) -> None:
    await world.start()
    for fields in ((), (("date", format_date(world.gateway._answerer.clock())),)):
        world.target.requests.clear()
        capsule, opener = encapsulate_request(
            world.keyring.public_configs()[0], get(world, "/", *fields).to_bytes()
        )
        statuses = []
        for _ in range(2):
            _, _, body = await post(world.relay_url, capsule, world)
            statuses.append(bhttp.Response.from_bytes(opener.open(body)).status)
        assert statuses == [200, 400]
        assert len(world.target.requests) == 1


@pytest.mark.parametrize("offset", [-61, 61, 1e9])
async def test_a_date_outside_the_window_is_refused_with_the_gateways_date(
    world: World, offset: float
) -> None:
    await world.start(gateway={"clock": lambda: 1_000_000_000.0})
    response = await exchange(world, get(world, "/", ("date", format_date(1_000_000_000.0 + offset))))
    assert response.status == 400
    assert problems.decode_problem(response.header("content-type"), response.content) == problems.DATE
    assert response.header("date") == format_date(1_000_000_000.0)
    assert response.header("cache-control") == "no-store"


async def test_a_client_with_a_wrong_clock_corrects_it_once_for_one_request(world: World) -> None:
    client = await world.start(client={"clock": lambda: 1_000_000_000.0})
    for _ in range(2):
        async with client.get(world.origin) as response:
            assert response.status == 200
    assert len(world.target.requests) == 2
    received = world.events("relay.received")
    assert len(received) == 4  # the correction is not remembered
    assert len({seen.body[7:39] for seen in received}) == 4  # each with a fresh encapsulated key


async def test_a_date_refused_twice_is_reported(world: World) -> None:
    ticks = iter(float(tick) * 1000 for tick in range(100))
    client = await world.start(client={"clock": lambda: 1e9}, gateway={"clock": lambda: next(ticks)})
    async with client.get(world.origin) as response:
        assert response.status == 400
    assert len(world.events("relay.received")) == 2


# The client never weakens


async def test_the_client_never_falls_back_to_a_direct_request(world: World) -> None:
    await world.start()
    client = OhttpClient(
        world.relay_url + "x", PinnedKeys(world.keyring.public_list()), ssl_context=world.tls
    )
    with pytest.raises(RelayRefused):
        async with client.get(world.origin):
            pass
    await client.close()
    dead = OhttpClient(
        "https://localhost:1/gw", PinnedKeys(world.keyring.public_list()), ssl_context=world.tls
    )
    with pytest.raises(ExchangeFailed):
        async with dead.get(world.origin):
            pass
    await dead.close()
    assert world.target.requests == []


def test_http_hops_are_refused_unless_loopback_is_allowed() -> None:
    keys = PinnedKeys(b"")
    for url in ("http://relay.example/", "http://127.0.0.1/", "relay.example", "ftp://x/"):
        with pytest.raises(ConfigurationError):
            OhttpClient(url, keys)
        with pytest.raises(ConfigurationError):
            Relay({"x": url})
    with pytest.raises(ConfigurationError):
        OhttpClient("http://192.0.2.1/", keys, allow_insecure_loopback=True)
    OhttpClient("http://127.0.0.1/", keys, allow_insecure_loopback=True)
    Relay({"x": "http://[::1]/"}, allow_insecure_loopback=True)


def test_a_gateway_without_an_allow_list_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        Gateway(KeyRing.generate())


async def test_the_client_refuses_expect(world: World) -> None:
    client = await world.start()
    with pytest.raises(ConfigurationError):
        async with client.get(world.origin, headers={"Expect": "100-continue"}):
            pass


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda body: body[:20], TruncatedCapsule),
        (lambda body: body[:-1], OpenFailed),
        (lambda body: bytes([body[0] ^ 1]) + body[1:], OpenFailed),
        (lambda body: b"", TruncatedCapsule),
    ],
)
async def test_a_changed_answer_is_an_error(world: World, change, error) -> None:
    await world.start()

    async def meddle(request: web.Request) -> web.Response:
        _, _, body = await post(world.gateway_url, await request.read(), world)
        return web.Response(body=change(body), content_type="message/ohttp-res")

    app = web.Application()
    app.router.add_post("/gw", meddle)
    url = await world.serve(app) + "/gw"
    async with OhttpClient(url, PinnedKeys(world.keyring.public_list()), ssl_context=world.tls) as client:
        with pytest.raises(error):
            async with client.get(world.origin):
                pass


async def test_an_answer_over_the_clients_limit_is_an_error(world: World) -> None:
    client = await world.start(client={"max_response": 1000})
    with pytest.raises(BodyTooLarge):
        async with client.post(world.origin, data=b"x" * 2000):
            pass


# Key lists


async def test_key_lists_come_through_the_relay_and_are_kept(world: World) -> None:
    client = await world.start()
    for _ in range(3):
        async with client.get(world.origin):
            pass
    await asyncio.gather(*(world.client()._keys.current(client._transport()) for _ in range(5)))
    assert len(world.events("gateway.keys")) == 1
    assert len(world.events("relay.keys")) == 6


async def test_a_client_with_an_old_key_recovers_by_itself(world: World) -> None:
    lists = [KeyRing.generate().public_list(), world.keyring.public_list()]

    async def source() -> bytes:
        return lists[0] if len(lists) == 1 else lists.pop(0)

    await world.start()
    client = world.client(key_source=source, refresh_interval=0.0)
    async with client.get(world.origin) as response:
        assert response.status == 200
    assert len(world.target.requests) == 1


async def test_a_rejected_key_does_not_make_the_client_hammer(world: World) -> None:
    fetched = 0

    async def source() -> bytes:
        nonlocal fetched
        fetched += 1
        return KeyRing.generate().public_list()

    await world.start()
    client = world.client(key_source=source)
    for _ in range(5):
        with pytest.raises(KeyRejected):
            async with client.get(world.origin):
                pass
    assert fetched == 1
    assert len(world.events("relay.received")) == 5


# In-process targets


async def test_a_target_in_process_needs_no_second_hop(world: World) -> None:
    async def hub(request: bhttp.Request) -> bhttp.Response:
        return bhttp.Response(201, (("x-a", "1"), ("x-a", "2")), b"got:" + request.content, (("x-t", "t"),))

    client = await world.start(gateway={"local": {"https://hub.example": hub}, "targets": ()})
    async with client.post("https://hub.example/x", data=b"1") as response:
        assert response.status == 201
        assert response.headers.getall("x-a") == ["1", "2"]
        assert await response.text() == "got:1"
        assert response.trailers == (("x-t", "t"),)
    async with client.get("https://hub.example:444/x") as response:
        assert response.status == 403


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_target_in_process_may_be_a_plain_function(world: World, chunked: bool) -> None:
    def hub(request: bhttp.Request) -> bhttp.Response:
        return bhttp.Response(200, (), b"got:" + request.content)

    client = await world.start(
        gateway={"local": {"https://hub.example": hub}, "targets": ()}, client={"chunked": chunked}
    )
    async with client.post("https://hub.example/x", data=b"1") as response:
        assert (response.status, await response.text()) == (200, "got:1")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_target_in_process_has_the_time_that_any_target_has(world: World, chunked: bool) -> None:
    ended = asyncio.Event()

    async def hub(_: bhttp.Request) -> bhttp.Response:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    client = await world.start(
        gateway={"local": {"https://hub.example": hub}, "limits": GatewayLimits(target_seconds=0.05)},
        client={"chunked": chunked},
    )
    async with client.get("https://hub.example/") as response:
        assert response.status == 504
    assert ended.is_set()


async def test_a_failing_target_in_process_tells_nothing(world: World) -> None:
    async def hub(_: bhttp.Request) -> bhttp.Response:
        raise RuntimeError("secret detail")

    client = await world.start(gateway={"local": {"https://hub.example": hub}})
    async with client.get("https://hub.example/") as response:
        assert response.status == 500
        assert b"secret" not in await response.read()


async def test_clients_can_be_authenticated_and_the_gateway_does_not_see_it(world: World) -> None:
    async def token(request: web.Request) -> bool:
        return request.headers.get("Authorization") == "Bearer t"

    await world.start(relay={"authenticate": token})
    pinned = PinnedKeys(world.keyring.public_list())
    with pytest.raises(RelayRefused):
        async with world.client(key_source=pinned).get(world.origin):
            pass
    client = world.client(key_source=pinned, relay_headers={"Authorization": "Bearer t"})
    async with client.get(world.origin) as response:
        assert response.status == 200
    (received,) = world.events("gateway.received")
    assert "authorization" not in dict(received.fields)
