"""The log says why a peer's keys can't be had, in words that an operator can act on, and without an address."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web

from mimi_mmr.crypto.certificates import CertificateAuthority, TrustAnchors
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import PeerError
from mimi_mmr.lab.demo.world import World, build_world
from mimi_mmr.protocol.endpoints import PROVIDER_KEYS
from mimi_mmr.protocol.provider_keys import ProviderKeys, ProviderKeysTBS, sign_provider_keys
from mimi_mmr.provider import peers
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.run import server_certificate
from mimi_mmr.provider.settings import load_settings
from ohttp_relay.keys import KeyRing

B = "b.example"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = build_world(tmp_path, record=False)
    yield made
    made.close()


async def why(
    world: World, url: str, caplog: pytest.LogCaptureFixture, tls: ssl.SSLContext | None = None
) -> str:
    """What a.example logs about b.example at `url`."""
    asking = Peers(
        "a.example",
        {B: url},
        world.trust(),
        SigningKey.generate(),
        ssl_context=tls or world.tls(),
        recorder=Recorder(None),
    )
    asking.publish(document("a.example", SigningKey.generate(), []))
    try:
        with caplog.at_level(logging.WARNING, "mimi_mmr"):
            assert len(await asking.documents()) == 1
    finally:
        await asking.close()
    (record,) = caplog.records
    assert "127." not in record.getMessage()
    return record.getMessage().removeprefix(f"no keys of peer {B}: ")


def document(domain: str, key: SigningKey, chain: list[bytes]) -> ProviderKeys:
    sealing = SealingKey.generate(Kem.X_WING).public
    content = ProviderKeysTBS(
        domain, sealing, sealing, KeyRing.generate().public_list(), f"https://{domain}", "", 1 << 33
    )
    return sign_provider_keys(content, key, chain)


async def served(world: World, handler: object) -> web.AppRunner:
    """b.example's listener, which answers as `handler` does."""
    settings = load_settings(world.providers[B].config)
    app = web.Application()
    app.router.add_get(PROVIDER_KEYS.template, handler)  # type: ignore[arg-type]
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    tls = server_certificate(settings.tls).context
    await web.SockSite(runner, world.providers[B].socket.dup(), ssl_context=tls).start()
    return runner


async def nothing(_: web.Request) -> web.Response:
    return web.Response(status=502)


async def test_a_certificate_that_is_not_trusted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    runner = await served(world, nothing)
    said = await why(world, world.providers[B].url, caplog, ssl.create_default_context())
    await runner.cleanup()
    assert said == "its TLS certificate is not trusted (see tls.ca)"


async def test_a_status(world: World, caplog: pytest.LogCaptureFixture) -> None:
    runner = await served(world, nothing)
    said = await why(world, world.providers[B].url, caplog)
    await runner.cleanup()
    assert said == "it answers with status 502"


async def test_a_port_where_nobody_listens(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        port = opened.getsockname()[1]
    assert await why(world, f"https://127.0.0.1:{port}", caplog) == "the connection is refused"


async def test_a_name_that_is_none(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert await why(world, "https://nobody.invalid", caplog) == "its name is not resolved"


async def test_a_peer_that_says_nothing(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "DOCUMENT_SECONDS", 0.05)
    assert await why(world, world.providers[B].url, caplog) == "it does not answer in time"


async def test_no_tls(world: World, caplog: pytest.LogCaptureFixture) -> None:
    runner = web.AppRunner(web.Application())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    said = await why(world, f"https://127.0.0.1:{runner.addresses[0][1]}", caplog)
    await runner.cleanup()
    assert said == "it does not speak TLS as expected"


async def test_keys_of_another_ca(world: World, caplog: pytest.LogCaptureFixture) -> None:
    key = SigningKey.generate()
    other = CertificateAuthority.create(B, time.time())
    signed = document(B, key, [other.issue_provider(key.public, time.time())])

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=signed.to_bytes())

    runner = await served(world, answer)
    said = await why(world, world.providers[B].url, caplog)
    await runner.cleanup()
    assert said == "its keys are not signed by the CA in trust_dir"


async def test_the_error_says_it_too(world: World) -> None:
    asking = Peers(
        "a.example",
        {B: "https://nobody.invalid"},
        TrustAnchors(),
        SigningKey.generate(),
        ssl_context=None,
        recorder=Recorder(None),
    )
    with pytest.raises(PeerError, match=r"no answer of b\.example: its name is not resolved"):
        await asking.keys(B)
    await asking.close()
