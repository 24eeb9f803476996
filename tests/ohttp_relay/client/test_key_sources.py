"""Where a client gets key lists from, and lists that are wrong."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from ohttp_relay.client import AgreeingKeys, PinnedKeys, RelayKeys
from ohttp_relay.client.key_sources import KeyCache, lifetime
from ohttp_relay.errors import (
    BodyTooLarge,
    ConfigurationError,
    ExchangeFailed,
    InconsistentKeys,
    InvalidKeyList,
    NoUsableKey,
)
from ohttp_relay.keys import KeyRing
from ohttp_relay.relay import Relay
from tests.ohttp_relay.world import World

# Key lists that are wrong


async def keys_served(world: World, *bodies: bytes | int) -> list[str]:
    urls = []
    for body in bodies:

        async def give(_: web.Request, body: bytes | int = body) -> web.Response:
            if isinstance(body, int):
                return web.Response(status=body)
            headers = {"Cache-Control": "private, max-age=10"}
            return web.Response(body=body, content_type="application/ohttp-keys", headers=headers)

        app = web.Application()
        app.router.add_get("/k", give)
        urls.append(await world.serve(app) + "/k")
    return urls


async def test_bad_key_lists_are_errors(world: World) -> None:
    await world.start()
    good = world.keyring.public_list()
    cases = [
        (404, ExchangeFailed),
        (b"", InvalidKeyList),
        (good[:-1], InvalidKeyList),
        (good + b"\0", InvalidKeyList),
    ]
    cases.append((b"\0\x05\1\x99\x99\0\0", NoUsableKey))
    cases.append((bytes(70_000), BodyTooLarge))
    for body, error in cases:
        (url,) = await keys_served(world, body)
        with pytest.raises(error):
            async with world.client(key_source=RelayKeys(url)).get(world.origin):
                pass


async def test_gateways_whose_key_list_is_elsewhere_bare_and_called_something_else(world: World) -> None:
    await world.start()
    config = world.keyring.public_configs()[0].to_bytes()

    async def bare(_: web.Request) -> web.Response:
        return web.Response(body=config, content_type="application/octet-stream")

    app = web.Application()
    app.router.add_get("/ohttp-keys", bare)
    lists = {"gw": await world.serve(app) + "/ohttp-keys"}
    relay = Relay({"gw": world.gateway_url}, ssl_context=world.tls, key_urls=lists)
    world.relay_url = await world.serve(relay.app()) + "/gw"
    async with world.client().get(world.origin) as response:
        assert response.status == 200
    with pytest.raises(ConfigurationError):
        Relay({"gw": world.gateway_url}, key_urls={"other": lists["gw"]})


async def test_what_is_no_key_list_does_not_pass_the_relay(world: World) -> None:
    await world.start()
    lists = await keys_served(world, b"<html>", 404, world.keyring.public_list()[:-1])
    for url in lists:
        relay = Relay({"gw": world.gateway_url}, ssl_context=world.tls, key_urls={"gw": url})
        world.relay_url = await world.serve(relay.app()) + "/gw"
        with pytest.raises(ExchangeFailed, match="502"):
            async with world.client().get(world.origin):
                pass


async def test_sources_that_must_agree(world: World) -> None:
    await world.start()
    good, other = world.keyring.public_list(), KeyRing.generate().public_list()
    one, two, three = await keys_served(world, good, good, other)
    async with world.client(key_source=AgreeingKeys(RelayKeys(one), RelayKeys(two))).get(
        world.origin
    ) as response:
        assert response.status == 200
    with pytest.raises(InconsistentKeys):
        async with world.client(key_source=AgreeingKeys(RelayKeys(one), RelayKeys(three))).get(world.origin):
            pass
    with pytest.raises(ConfigurationError):
        AgreeingKeys(RelayKeys(one))


async def test_a_list_that_does_not_verify_is_not_used(world: World) -> None:
    class Forged(Exception):
        pass

    def verify(data: bytes) -> None:
        if data != world.keyring.public_list():
            raise Forged

    await world.start()
    good, other = await keys_served(world, world.keyring.public_list(), KeyRing.generate().public_list())
    async with world.client(key_source=RelayKeys(good, verify=verify)).get(world.origin) as response:
        assert response.status == 200
    with pytest.raises(Forged):
        async with world.client(key_source=RelayKeys(other, verify=verify)).get(world.origin):
            pass


async def test_a_pinned_file_is_read_again_when_due(tmp_path, world: World) -> None:
    await world.start()
    now = 0.0
    file = tmp_path / "keys"
    file.write_bytes(KeyRing.generate().public_list())
    cache = KeyCache(PinnedKeys(file), clock=lambda: now)
    async with aiohttp.ClientSession() as session:
        first = await cache.current(session)
        file.write_bytes(world.keyring.public_list())
        assert await cache.current(session) == first
        assert not await cache.refreshed(session, first[0])  # too soon
        now = 31.0
        assert await cache.refreshed(session, first[0])
        second = await cache.current(session)
        assert second != first
        now = 40.0
        cache.expire()  # too soon again: the list stays in use
        assert await cache.current(session) == second


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 3600),
        ("max-age=600", 600),
        ("private, max-age=5", 60),
        ("max-age=999999", 86400),
        ("no-store", 3600),
    ],
)
def test_lifetimes_of_key_lists(header: str | None, seconds: float) -> None:
    assert lifetime(header) == seconds


def test_key_sources_are_checked() -> None:
    with pytest.raises(ConfigurationError):
        RelayKeys("http://relay.example/keys")
