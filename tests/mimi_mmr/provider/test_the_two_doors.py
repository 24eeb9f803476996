"""What answers straight over TLS, what answers out of the gateway only, and what each refuses."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from mimi_mmr.errors import BodyTooLarge, MmrError, PeerError
from mimi_mmr.protocol.endpoints import (
    DIRECTORY,
    DOWNLOAD_ASSET,
    ENDPOINTS,
    HEALTH,
    RELAY_PATH,
    Endpoint,
    Way,
)
from mimi_mmr.protocol.problems import PROBLEM
from mimi_mmr.protocol.queues import QueueOrder
from mimi_mmr.provider.listener import DOWNLOAD_PREFIX
from ohttp_relay.download import PREFIX as DOWNLOADS
from ohttp_relay.gateway import DEFAULT_PATH as GATEWAY_PATH
from tests.mimi_mmr.client.inside import exchange, way_to
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.doors import frames, obliviously, straight

NAMES = {
    "room": "some-room",
    "provider": "b.example",
    "user": "bob",
    "device": "bob-phone",
    "number": "1",
    "url": "https://elsewhere.example/x",
}


def rows(*ways: Way) -> list[tuple[Endpoint[Any, Any], str]]:
    """The endpoints that are reached by these ways, each with a path that there may be."""
    found = [row for row in ENDPOINTS if row.way in ways]
    return [(row, row.path({name: NAMES[name] for name in row.names})) for row in found]


async def test_every_endpoint_of_the_table_is_mounted_once_and_no_other(live: LiveWorld) -> None:
    provider = live.providers["a.example"]
    listener = provider.listener
    mounted = [*listener.direct.endpoints, *listener.oblivious.endpoints]
    beside = {HEALTH, DIRECTORY, DOWNLOAD_ASSET}  # no bodies of this package: they have handlers of their own
    assert sorted(map(str, mounted)) == sorted(str(row) for row in ENDPOINTS if row not in beside)
    assert all(row.way is Way.OBLIVIOUS for row in listener.oblivious.endpoints)
    assert DOWNLOAD_PREFIX == DOWNLOADS

    app = listener.application(provider.documents.routes())
    served = [(route.method, getattr(route.resource, "canonical", "")) for route in app.router.routes()]
    over_tls = [(row.method, row.template) for row in ENDPOINTS if row.way is not Way.OBLIVIOUS]
    over_tls += [("HEAD", path) for method, path in over_tls if method == "GET"]  # by aiohttp
    relayed = RELAY_PATH + "/{name}"
    over_tls += [(method, path) for path in (GATEWAY_PATH, relayed) for method in ("GET", "HEAD", "POST")]
    assert sorted(served) == sorted(over_tls)


async def test_every_oblivious_endpoint_answers_out_of_the_gateway_and_to_nobody_else(
    live: LiveWorld,
) -> None:
    bob = await live.person("bob", "b.example")
    assert len(rows(Way.OBLIVIOUS)) == 18
    for row, path in rows(Way.OBLIVIOUS):
        refused = await straight(live, "a.example", path, b"\x00", method=row.method)
        assert refused.status == 404, path
        answered = await obliviously(bob, "a.example", path, b"\x00", method=row.method)
        assert answered.status != 500, path
        if answered.kind == PROBLEM:
            assert answered.code != "not-found", path
        else:
            assert answered.status != 404, path


async def test_every_other_endpoint_answers_straight_and_not_out_of_the_gateway(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    for row, path in rows(Way.DIRECT, Way.ACCOUNT, Way.PEER):
        answer = await obliviously(bob, "a.example", path, b"", method=row.method)
        assert (answer.status, answer.code) == (404, "not-found"), path
        there = await straight(live, "a.example", path, b"", method=row.method)
        assert there.status in {Way.ACCOUNT: (401,), Way.PEER: (401,)}.get(row.way, (200, 400)), path


async def test_an_unknown_endpoint_is_said_to_be_unknown(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    assert (await straight(live, "a.example", "/v1/nothing")).status == 404
    for method, path in (
        ("POST", "/v1/nothing"),
        ("GET", "/v1/rooms"),
        ("POST", "/"),
        ("POST", "/v1/rooms/"),
    ):
        answer = await obliviously(bob, "a.example", path, method=method)
        assert (answer.status, answer.code) == (404, "not-found"), path
    with pytest.raises(PeerError, match="no such endpoint"):
        await bob.path.call("a.example", "POST", "/v1/nothing")


async def test_an_oversize_body_gets_its_own_error_straight_and_out_of_a_capsule(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    body = bytes((1 << 16) + 1)
    answer = await straight(live, "a.example", "/v1/account", body)
    assert (answer.status, answer.code) == (413, "too-large")
    answer = await obliviously(bob, "a.example", "/v1/queues", body)
    assert (answer.status, answer.code) == (413, "too-large")
    with pytest.raises(BodyTooLarge, match="65536"):
        await bob.path.call("a.example", "POST", "/v1/queues", body)


async def test_a_body_at_its_limit_is_read(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    answer = await obliviously(bob, "a.example", "/v1/queues", bytes(1 << 16))
    assert (answer.status, answer.code) == (400, "malformed")


async def test_a_request_above_the_gateways_own_limit_gets_the_same_error(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    await live.stop("a.example")
    await live.start("a.example", max_request_bytes=1 << 17)
    with pytest.raises(BodyTooLarge):
        await bob.path.call("a.example", "POST", "/v1/assets", bytes(1 << 18))


async def test_a_target_that_is_not_listed_is_refused_inside_the_capsule(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    host = live.world.asset_host.url
    targets = [
        ("a.example", "https://elsewhere.example/x"),
        ("a.example", "https://b.example/v1/queues"),
        ("a.example", live.world.providers["a.example"].url + "/health"),
        ("a.example", "https://127.0.0.1:1/x"),
        ("c.example", f"{host}/{secrets.token_hex(16)}"),
    ]
    for gateway, url in targets:
        through = await way_to(bob.path, gateway)
        async with through.get(url) as answer:
            assert answer.status == 403, url
        with pytest.raises(PeerError, match="not on the allow-list"):
            await exchange(bob.path, gateway, "GET", url)
        with pytest.raises(MmrError):
            await bob.path.download(gateway, url)


async def test_a_listed_target_is_fetched(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    through = await way_to(bob.path, "a.example")
    async with through.get(f"{live.world.asset_host.url}/{secrets.token_hex(16)}") as answer:
        assert answer.status == 404  # the host's own answer: no such asset


async def test_nothing_names_the_server_software(live: LiveWorld) -> None:
    import aiohttp

    connector = aiohttp.TCPConnector(ssl=live.world.tls())
    async with aiohttp.ClientSession(connector=connector) as session:
        for url in (live.world.providers["a.example"].url, live.world.asset_host.url):
            async with session.get(f"{url}/health") as answer:
                assert answer.status == 200
                assert "Server" not in answer.headers


async def test_what_a_capsule_holds_stands_in_no_relays_or_networks_frames(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    token = secrets.token_bytes(32)
    await bob.path.call("a.example", "POST", "/v1/queues", QueueOrder(token, True).to_bytes())
    seen = frames(live)
    relayed = (live.world.providers["b.example"].directory / "record" / "relay.frames.jsonl").read_bytes()
    assert b"relay.forwarded" in relayed
    assert b"/v1/queues" in seen
    assert b"/v1/queues" not in relayed


async def test_the_directory_names_the_gateway_and_says_nothing_of_consent(live: LiveWorld) -> None:
    answer = await straight(live, "a.example", "/.well-known/mimi-protocol-directory", method="GET")
    assert answer.status == 200
    assert b"obliviousGateway" in answer.body
    assert b"onsent" not in answer.body
    for path in (
        "/v1/requestConsent/b.example",
        "/v1/updateConsent/b.example",
        "/v1/identifierQuery/b.example",
    ):
        assert (await straight(live, "a.example", path)).status == 404
