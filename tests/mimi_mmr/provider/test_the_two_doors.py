"""What answers straight over TLS, what answers out of the gateway only, and what each refuses."""

from __future__ import annotations

import secrets

import pytest

from mimi_mmr.errors import BodyTooLarge, MmrError, PeerError
from mimi_mmr.protocol.queues import QueueOrder
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.doors import frames, obliviously, straight

ANONYMOUS = {
    "/v1/rooms",
    "/v1/update/{room}",
    "/v1/submitMessage/{room}",
    "/v1/snapshot/{room}",
    "/v1/report/{room}",
    "/v1/links/{room}",
    "/v1/joinRequests/{room}",
    "/v1/keyMaterial/{provider}",
    "/v1/queues",
    "/v1/queues/collect",
    "/v1/queues/delete",
    "/v1/replyInbox",
    "/v1/keyPackages",
    "/v1/keyPackages/order",
    "/v1/connectionPackage/{user}",
    "/v1/connectionRequest/{user}",
    "/v1/assets",
}


async def test_every_anonymous_endpoint_answers_out_of_the_gateway_and_to_nobody_else(
    live: LiveWorld,
) -> None:
    bob = await live.person("bob", "b.example")
    routes = live.providers["a.example"].oblivious_router().routes
    assert {route.template for route in routes} == ANONYMOUS
    for route in routes:
        path = route.template
        for name, value in (("room", "some-room"), ("provider", "b.example"), ("user", "alice")):
            path = path.replace(f"{{{name}}}", value)
        refused = await straight(live, "a.example", path, b"\x00", method=route.method)
        assert refused.status == 404, path
        answered = await obliviously(bob, "a.example", path, b"\x00", method=route.method)
        assert answered.status != 500, path
        if answered.status >= 400:
            assert answered.code != "not-found", path


async def test_endpoints_of_accounts_and_peers_do_not_answer_out_of_the_gateway(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    for path in ("/v1/account", "/v1/account/bob/packages", "/v1/notify", "/v1/claim", "/health"):
        answer = await obliviously(bob, "a.example", path, b"")
        assert (answer.status, answer.code) == (404, "not-found"), path


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
    for path in ("/v1/account", "/v1/claim"):
        answer = await straight(live, "a.example", path, body)
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
        through = await bob.path._client(gateway)
        async with through.get(url) as answer:
            assert answer.status == 403, url
        with pytest.raises(PeerError, match="not on the allow-list"):
            await bob.path._exchange(gateway, "GET", url, b"")
        with pytest.raises(MmrError):
            await bob.path.download(gateway, url)


async def test_a_listed_target_is_fetched(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    through = await bob.path._client("a.example")
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
