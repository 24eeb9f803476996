"""A peer's document opens nothing in the hub's own networks; the hub's own asset host may be in them."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

from mimi_mmr.provider.settings import AssetStorage
from ohttp_relay.bhttp import Request, Response
from ohttp_relay.transport import AnyResponse
from tests.mimi_mmr.conftest import LiveWorld

PRIVATE = "https://127.0.0.1:1"  # in the networks that a.example has listed for its own asset host


async def test_a_host_that_a_peer_names_is_not_fetched_from_a_private_network(live: LiveWorld) -> None:
    hub = live.providers["a.example"]
    own = hub.settings.asset_host
    assert own is not None
    assert own.networks == ("127.0.0.0/8",)
    await live.stop("b.example")
    storage = AssetStorage(origin=PRIVATE, upload_token=own.upload_token)
    await live.start("b.example", asset_host=storage)
    assert (await hub.peers.keys("b.example")).asset_origin == PRIVATE

    async def download(url: str) -> AnyResponse:
        path = f"/proxyDownload/{quote(url, safe='')}"
        return await hub.listener._downloads.handler(Request("GET", "https", "a.example", path))

    refused = await download(f"{PRIVATE}/x")
    assert refused.status == 403
    assert isinstance(refused, Response)
    assert b"not public" in refused.content
    assert (await download(f"{own.origin}/x")).status == 404  # it was asked, and has no such asset


async def test_an_asset_host_is_the_same_however_its_origin_is_spelt(live: LiveWorld) -> None:
    """The URL of an asset has the spelling of the provider that stored it, the document another one."""
    hub = live.providers["a.example"]
    hosts = hub.listener._downloads._hosts

    def publish(origin: str) -> None:
        document = hub.keys.document(hub._clock())
        hub.peers.publish(replace(document, keys=replace(document.keys, asset_origin=origin)))

    for published in (
        "https://Assets.A.Example",
        "https://assets.a.example:443/",
        "https://assets.a.example.",
    ):
        publish(published)
        assert "assets.a.example" in hosts
        assert "Assets.A.example:443" in hosts
        assert "assets.a.example:8444" not in hosts
    publish("https://[2001:DB8:0::1]")
    assert "[2001:db8::1]" in hosts
    publish("nothing")
    assert "nothing" not in hosts
