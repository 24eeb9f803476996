"""What each party can see in the bytes on its sockets, its logs and its metrics."""

from __future__ import annotations

import io
import logging
import ssl
from collections.abc import AsyncIterator
from urllib.parse import quote

import aiohttp
import pytest
import trustme
from aiohttp import web

from ohttp_relay.client import OhttpClient, PinnedKeys
from ohttp_relay.download import DownloadProxy
from ohttp_relay.gateway import DEFAULT_PATH, Gateway
from ohttp_relay.keys import KeyRing
from ohttp_relay.relay import Relay
from ohttp_relay.server import Metrics, configure_logs
from ohttp_relay.transport import TargetPolicy
from tests.ohttp_relay.tap import Tap, cipher_suites, extensions
from tests.ohttp_relay.world import LOOPBACK, Target, World

CLIENT_ADDRESS = "127.0.0.77"
OF_THE_CLIENT = [
    CLIENT_ADDRESS.encode(),
    b"planted-agent",
    b"planted-cookie",
    b"planted-token",
    b"planted-lang",
]
OF_THE_REQUEST = [b"planted-path", b"planted-query", b"planted-field", b"planted-body", b"planted-answer"]
OUTER = {
    "User-Agent": "planted-agent",
    "Cookie": "id=planted-cookie",
    "Authorization": "Bearer planted-token",
    "Accept-Language": "planted-lang",
    "X-Forwarded-For": CLIENT_ADDRESS,
    "Forwarded": f"for={CLIENT_ADDRESS}",
}


class Wire:
    """Client, relay, gateway, target over plain TCP, a tap in front of each server, logs and metrics kept."""

    def __init__(self) -> None:
        self.runners: list[web.AppRunner] = []
        self.target = Target()
        self.logs = io.StringIO()
        self.metrics = [Metrics("relay"), Metrics("gateway")]
        self.keyring = KeyRing.generate()

    async def serve(self, app: web.Application) -> tuple[str, Tap]:
        runner = web.AppRunner(app, shutdown_timeout=0.5, access_log=None)
        self.runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        tap = await Tap.before(f"http://127.0.0.1:{runner.addresses[0][1]}")
        return f"http://127.0.0.1:{tap.port}", tap

    async def start(self) -> None:
        configure_logs(self.logs, logging.DEBUG)
        self.origin, self.at_target = await self.serve(self.target.app())
        policy = TargetPolicy.of([self.origin], LOOPBACK)
        gateway = Gateway(self.keyring, policy, metrics=self.metrics[1])
        url, self.at_gateway = await self.serve(gateway.app())
        relay = Relay({"gw": url + DEFAULT_PATH}, allow_insecure_loopback=True, metrics=self.metrics[0])
        relay_url, self.at_relay = await self.serve(relay.app())
        connector = aiohttp.TCPConnector(local_addr=(CLIENT_ADDRESS, 0))
        self.session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self.relay_url = relay_url + "/gw"

    def client(self, *, chunked: bool) -> OhttpClient:
        keys = PinnedKeys(self.keyring.public_list())
        return OhttpClient(
            self.relay_url,
            keys,
            self.session,
            relay_headers=OUTER,
            chunked=chunked,
            allow_insecure_loopback=True,
        )

    async def close(self) -> None:
        await self.session.close()
        for runner in reversed(self.runners):
            await runner.cleanup()
        for tap in (self.at_target, self.at_gateway, self.at_relay):
            await tap.close()
        logging.getLogger("ohttp_relay").handlers = []
        logging.getLogger("aiohttp").handlers = []


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    await made.start()
    yield made
    await made.close()


@pytest.mark.parametrize("chunked", [False, True])
async def test_no_party_sees_on_its_sockets_what_it_must_not(wire: Wire, chunked: bool) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="planted-answer", headers={"Set-Cookie": "planted-answer=1"})

    wire.target.answer = answer
    url = f"{wire.origin}/planted-path?planted-query"
    async with wire.client(chunked=chunked).post(
        url, data=b"planted-body", headers={"x-f": "planted-field"}
    ) as got:
        assert await got.text() == "planted-answer"
    assert CLIENT_ADDRESS in wire.at_relay.peers  # the relay is the one that sees it
    for secret in OF_THE_CLIENT:
        assert secret in wire.at_relay.up or secret == b"planted-agent"
        assert secret not in wire.at_gateway.up
        assert secret not in wire.at_target.up
    assert CLIENT_ADDRESS not in wire.at_gateway.peers + wire.at_target.peers
    for secret in OF_THE_REQUEST:
        for tap in (wire.at_relay, wire.at_gateway):
            assert secret not in tap.up + tap.down
    host = wire.origin.removeprefix("http://").encode()
    assert host not in wire.at_relay.up + wire.at_gateway.up
    for secret in OF_THE_REQUEST[:4]:
        assert secret in wire.at_target.up


async def test_logs_and_metrics_say_nothing_of_clients_or_requests(wire: Wire) -> None:
    async def fail(_: web.Request) -> web.Response:
        raise RuntimeError("planted-answer")

    for answer in (wire.target.answer, fail):
        wire.target.answer = answer
        for chunked in (False, True):
            async with wire.client(chunked=chunked).post(f"{wire.origin}/planted-path", data=b"planted-body"):
                pass
            async with wire.client(chunked=chunked).get("https://planted-path.example/"):
                pass
    async with wire.session.post(wire.relay_url, data=b"x", headers=OUTER) as refused:
        assert refused.status == 415
    shown = b"".join(metrics.render() for metrics in wire.metrics) + wire.logs.getvalue().encode()
    for secret in [*OF_THE_CLIENT, *OF_THE_REQUEST, b"127.0.0.1", wire.origin.encode()]:
        assert secret not in shown
    metrics = wire.metrics[1].render().decode()
    assert 'ohttp_requests_total{role="gateway",status="200"} 8.0' in metrics
    assert 'ohttp_refusals_total{reason="TargetRefused",role="gateway"} 4.0' in metrics
    assert 'ohttp_requests_total{role="relay",status="415"} 1.0' in wire.metrics[0].render().decode()
    assert "ohttp_request_seconds_bucket" in metrics
    async with aiohttp.ClientSession() as session:
        origin, tap = await wire.serve(wire.metrics[0].admin_app())
        async with session.get(f"{origin}/health") as health, session.get(f"{origin}/metrics") as rendered:
            assert await health.json() == {"status": "ok", "role": "relay"}
            assert "ohttp_in_flight" in await rendered.text()
        await tap.close()


async def test_a_clients_tls_fingerprint_ends_at_the_relay(world: World, authority: trustme.CA) -> None:
    await world.start()
    tap = await Tap.before(world.gateway_url.removesuffix(DEFAULT_PATH))
    world._closing.append(tap)
    hellos = []
    for ciphers in ("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE+CHACHA20"):
        relay = Relay({"gw": f"https://localhost:{tap.port}{DEFAULT_PATH}"}, ssl_context=world.tls)
        outer = await Tap.before(await world.serve(relay.app()))
        world._closing.append(outer)
        mine = ssl.create_default_context()
        authority.configure_trust(mine)
        mine.maximum_version = ssl.TLSVersion.TLSv1_2
        mine.set_ciphers(ciphers)
        keys = PinnedKeys(world.keyring.public_list())
        async with (
            OhttpClient(f"https://localhost:{outer.port}/gw", keys, ssl_context=mine) as client,
            client.get(world.origin) as response,
        ):
            assert response.status == 200
        hellos.append((outer.hellos[0], tap.hellos[-1]))
    (client_one, relay_one), (client_two, relay_two) = hellos
    assert cipher_suites(client_one) != cipher_suites(client_two)
    assert cipher_suites(relay_one) == cipher_suites(relay_two)
    assert extensions(relay_one) == extensions(relay_two)


@pytest.mark.parametrize("chunked", [False, True])
async def test_the_asset_host_sees_the_hub_and_not_who_downloads(
    world: World, chunked: bool, tmp_path
) -> None:
    assets = Target()
    origin = await world.serve(assets.app())
    proxy = DownloadProxy(
        {origin.removeprefix("https://")}, cache_dir=tmp_path, networks=LOOPBACK, ssl_context=world.tls
    )
    world._closing.append(proxy)
    client = await world.start(
        gateway={"local": {"https://hub.example": proxy.handler}, "targets": ()}, client={"chunked": chunked}
    )
    path = quote(f"{origin}/asset", safe="")
    headers = {
        "cookie": "planted",
        "referer": "https://planted.example/",
        "user-agent": "planted",
        "x-me": "planted",
    }
    for _ in range(3):
        async with client.get(f"https://hub.example/proxyDownload/{path}", headers=headers) as response:
            assert await response.read() == b"echo:"
    (seen,) = assets.requests
    assert {name for name, _ in seen.fields} == {"host", "accept-encoding"}
    assert "planted" not in repr(seen.fields)
