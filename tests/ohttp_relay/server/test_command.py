"""The command: settings, several workers, its end, metrics, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.cli import commands as cli
from ohttp_relay.client import OhttpClient, PinnedKeys, RelayKeys
from ohttp_relay.gateway import DEFAULT_PATH
from ohttp_relay.keys import KeyRing, decode_key_list
from ohttp_relay.transport.dates import format_date
from tests.ohttp_relay.world import Target, crowd

CAPSULE = {"Content-Type": "message/ohttp-req"}


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gateway", "--keys", "{tmp}/none", "--target", "https://a.example"], "no key ring"),
        (["gateway", "--keys", "{tmp}/none", "--target", "a.example"], "an origin is"),
        (
            ["gateway", "--keys", "{tmp}/none", "--target", "https://a.example", "--network", "x"],
            "not a network",
        ),
        (
            ["gateway", "--keys", "{tmp}/keys", "--target", "https://a.example", "--replay-rate", "9"],
            "replay file dated was made with another window or number of keys",
        ),
        (["relay", "--gateway", "x"], "expected NAME=URL"),
        (["relay", "--gateway", "x=http://gateway.example/"], "both hops need https"),
        (["relay", "--gateway", "x=https://g.example/", "--tokens", "{tmp}/none"], "cannot read the tokens"),
        (["relay", "--gateway", "x=https://g.example/", "--cert", "{tmp}/none"], "cannot use the TLS"),
        (
            ["relay", "--gateway", "x=https://g.example/", "--client-ca", "{tmp}/x"],
            "only be asked for with --cert",
        ),
        (["relay", "--gateway", "x=https://g.example/", "--host", "192.0.2.1"], "cannot listen"),
        (["proxy", "--asset-host", "a.example", "--network", "x"], "not a network"),
        (["keys", "generate", "--keys", "{tmp}/new", "--kem", "rsa"], "unknown KEM"),
        (["keys", "rotate", "--keys", "{tmp}/none"], "no key ring"),
    ],
)
def test_bad_settings_end_with_one_clear_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments,
    message: str,
) -> None:
    KeyRing.generate().save(tmp_path / "keys")
    cli._replay_guard(tmp_path / "keys" / "replay", window=60.0, rate=10, undated=1)
    monkeypatch.setattr(sys, "argv", ["ohttp-relay", *(text.format(tmp=tmp_path) for text in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


def test_a_gateway_without_traffic_keeps_small_tables_apart_from_its_keys(tmp_path: Path) -> None:
    KeyRing.generate().save(tmp_path / "keys")
    before = sorted(path.name for path in (tmp_path / "keys").iterdir())
    guard = cli._replay_guard(tmp_path / "tables", window=60.0, rate=2000, undated=100_000)
    assert guard.undated is not None
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == before
    tables = sorted((tmp_path / "tables").iterdir())
    assert [path.name for path in tables] == ["dated", "undated"]
    assert sum(path.stat().st_size for path in tables) < 8 << 20
    larger = cli._replay_guard(tmp_path / "larger", window=60.0, rate=4000, undated=0)
    assert larger.undated is None  # a Date is required
    assert (tmp_path / "larger" / "dated").stat().st_size > 1.9 * tables[0].stat().st_size


class Process:
    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def end(self) -> str:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        assert self.process.stderr is not None
        rest = (await self.process.stderr.read()).decode()
        assert await self.process.wait() == 0
        return rest


@contextlib.asynccontextmanager
async def command(*arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ohttp_relay", *arguments, "--port", "0", stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    first = json.loads(await asyncio.wait_for(process.stderr.readline(), 20))["event"]
    assert first.startswith("listening on "), first
    try:
        yield Process(process, first.split()[2])
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Setting:
    """A gateway process with two workers in front of a target of the test's."""

    def __init__(self, folder: Path, target: Target, origin: str, ca: str) -> None:
        self.keys = folder / "keys"
        self.target = target
        self.origin = origin
        KeyRing.generate(overlap=100.0).save(self.keys)
        self.arguments = [
            *("gateway", "--keys", str(self.keys), "--target", origin, "--network", "127.0.0.0/8"),
            *("--ca", ca, "--workers", "2", "--rotate-hours", "0"),
        ]

    def request(self, *fields: tuple[str, str]) -> Request:
        return Request("GET", "https", self.origin.removeprefix("https://"), "/", fields)


@pytest.fixture
async def setting(serve, tmp_path: Path, authority: trustme.CA) -> Setting:
    target = Target()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    return Setting(tmp_path, target, await serve(target.app()), str(ca))


def shown(url: str) -> bytes:
    """The certificate (DER) that a server shows to a new connection."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host, int(port))))


async def test_a_hangup_renews_the_certificate_of_all_workers_and_ends_none(
    tmp_path: Path, authority: trustme.CA
) -> None:
    pem, key = tmp_path / "tls.pem", tmp_path / "key.pem"

    def renew() -> bytes:
        made = authority.issue_cert("127.0.0.1")
        made.private_key_pem.write_to_path(key)
        made.cert_chain_pems[0].write_to_path(pem)
        return ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())

    first = renew()
    served = ("relay", "--gateway", "x=https://gateway.example/", "--cert", str(pem), "--key", str(key))
    async with command(*served, "--workers", "2") as relay:
        assert await asyncio.to_thread(shown, relay.url) == first
        renewed = renew()
        for _ in range(200):  # again, for a worker that was not up at the first one
            relay.process.send_signal(signal.SIGHUP)
            found = {await asyncio.to_thread(shown, relay.url) for _ in range(8)}
            if found == {renewed}:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("the new certificate was not taken up")
        pem.write_text("rubbish")
        relay.process.send_signal(signal.SIGHUP)
        assert {await asyncio.to_thread(shown, relay.url) for _ in range(8)} == {renewed}
        log = await relay.end()
    assert "the new TLS certificate is refused" in log
    assert "a worker died" not in log


async def post(url: str, body: bytes) -> bytes:
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=CAPSULE) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_workers_share_keys_and_replay_store_and_take_up_a_rotation(setting: Setting) -> None:
    async with command(*setting.arguments) as gateway:
        url = gateway.url + DEFAULT_PATH
        config = KeyRing.load(setting.keys).public_configs()[0]
        for fields in ((), (("date", format_date(__import__("time").time())),)):
            capsule, opener = encapsulate_request(config, setting.request(*fields).to_bytes())
            bodies = await asyncio.gather(*(post(url, capsule) for _ in range(12)))
            statuses = sorted(Response.from_bytes(opener.open(body)).status for body in bodies)
            assert statuses == [200] + [400] * 11
        assert len(setting.target.requests) == 2
        ring = KeyRing.load(setting.keys)
        ring.rotate()
        ring.save(setting.keys)
        async with OhttpClient(
            url, RelayKeys(url, allow_insecure_loopback=True), allow_insecure_loopback=True
        ) as client:
            for _ in range(200):
                async with aiohttp.ClientSession() as session, session.get(url) as answer:
                    if decode_key_list(await answer.read())[0] != config:
                        break
                await asyncio.sleep(0.05)
            else:
                pytest.fail("the new key was not taken up")
            async with client.get(setting.origin) as response:
                assert response.status == 200
        old, opener = encapsulate_request(config, setting.request().to_bytes())
        assert Response.from_bytes(opener.open(await post(url, old))).status == 200  # still accepted
        await gateway.end()


async def test_the_end_finishes_what_is_in_flight(setting: Setting) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        arrived.set()
        await go_on.wait()
        return web.Response(text="whole")

    setting.target.answer = slow
    async with command(*setting.arguments) as gateway:
        url = gateway.url + DEFAULT_PATH
        keys = PinnedKeys(KeyRing.load(setting.keys).public_list())
        async with OhttpClient(url, keys, allow_insecure_loopback=True) as client:

            async def ask() -> str:
                async with client.get(setting.origin) as response:
                    return await response.text()

            asking = asyncio.create_task(ask())
            await arrived.wait()
            gateway.process.send_signal(signal.SIGTERM)
            for _ in range(100):  # new connections are refused once the end has begun
                try:
                    async with aiohttp.ClientSession() as session, session.get(url):
                        await asyncio.sleep(0.02)
                except aiohttp.ClientError:
                    break
            else:
                pytest.fail("the gateway still listens")
            go_on.set()
            assert await asking == "whole"
        assert await gateway.process.wait() == 0


def children(pid: int) -> frozenset[str]:
    return frozenset(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


async def two_workers(process: Process, other_than: frozenset[str] = frozenset()) -> frozenset[str]:
    for _ in range(500):
        found = children(process.process.pid)
        if len(found) == 2 and found != other_than:
            return found
        await asyncio.sleep(0.01)
    pytest.fail("there are no two workers")


async def test_a_worker_that_dies_is_started_again(setting: Setting) -> None:
    async with command(*setting.arguments) as gateway:
        before = await two_workers(gateway)
        os.kill(int(min(before)), signal.SIGKILL)
        await two_workers(gateway, other_than=before)
        await gateway.end()


async def test_metrics_are_of_all_workers_and_outlive_one(setting: Setting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def metrics() -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/metrics") as answer,
        ):
            return await answer.text()

    async with command(*setting.arguments, "--admin-port", str(port)) as gateway:
        url = gateway.url + DEFAULT_PATH
        config = KeyRing.load(setting.keys).public_configs()[0]
        for _ in range(20):  # each on a connection of its own, which either worker may get
            capsule, _ = encapsulate_request(config, setting.request().to_bytes())
            await post(url, capsule)
        assert 'ohttp_requests_total{role="gateway",status="200"} 20.0' in await metrics()
        assert 'ohttp_request_seconds_count{role="gateway"} 20.0' in await metrics()
        assert 'ohttp_in_flight{role="gateway"} 0.0' in await metrics()
        workers = await two_workers(gateway)
        os.kill(max(map(int, workers)), signal.SIGKILL)
        await two_workers(gateway, other_than=workers)
        capsule, _ = encapsulate_request(config, setting.request().to_bytes())
        await post(url, capsule)
        assert 'ohttp_requests_total{role="gateway",status="200"} 21.0' in await metrics()
        await gateway.end()


async def test_relay_with_tls_mutual_tls_and_tokens(
    tmp_path: Path, authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    (tmp_path / "tokens").write_text("token-one\ntoken-two\n")
    arguments = ["relay", "--gateway", "g=https://localhost:1/", "--cert", str(tmp_path / "server.pem")]
    arguments += ["--client-ca", str(tmp_path / "ca.pem"), "--tokens", str(tmp_path / "tokens")]
    async with command(*arguments) as relay:
        url = relay.url.replace("127.0.0.1", "localhost") + "/g"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                async with session.post(url, data=b"x", headers=CAPSULE, ssl=client_tls) as answer:
                    await answer.read()
            mutual = ssl.create_default_context()
            authority.configure_trust(mutual)
            authority.issue_cert("client.example").configure_cert(mutual)
            for token, status in (("token-two", 502), ("token-three", 401), ("", 401)):
                headers = {**CAPSULE, "Authorization": f"Bearer {token}"}
                async with session.post(url, data=b"x", headers=headers, ssl=mutual) as answer:
                    assert answer.status == status
        await relay.end()


@pytest.mark.nightly
async def test_ten_thousand_idle_connections_do_not_keep_others_out(setting: Setting) -> None:
    async with command(*setting.arguments) as gateway:
        await crowd(gateway.url + DEFAULT_PATH, 10_000)
        await gateway.end()
