"""Real processes: SIGHUP renews the certificate and ends nothing; a silent crowd locks nobody out."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import ssl
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mimi_mmr.crypto.certificates import CertificateAuthority
from mimi_mmr.lab.demo.world import Party, World, build_world

PATIENCE = 30.0
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
RELOADED = "the TLS certificate was read again"
REFUSED = "the new TLS certificate is refused"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = build_world(tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def running(
    party: Party, command: str, before: Callable[[], None] | None = None
) -> AsyncIterator[Process]:
    """A server as its own process, when it serves; at the end it stops as SIGTERM says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mimi_mmr", command, "--config", str(party.config)),
        stdout=PIPE,
        stderr=PIPE,
        pass_fds=[party.socket.fileno()],
        preexec_fn=before,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            assert b"serves on" in await process.stdout.readline()
        yield process
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def said(process: Process, words: str) -> str:
    """Wait for a line of the log."""
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while True:
            line = json.loads(await process.stderr.readline())
            if words in line["event"]:
                return str(line["event"])


class Line:
    """One TLS connection to a server, kept open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, party: Party, stack: AsyncExitStack) -> Line:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        host, _, port = party.url.removeprefix("https://").rpartition(":")
        made = cls(*await asyncio.open_connection(host, int(port), ssl=context))
        stack.callback(made.writer.close)
        return made

    @property
    def certificate(self) -> bytes:
        return bytes(self.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))

    async def ask(self) -> bytes:
        self.writer.write(HEALTH)
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            await self.reader.readuntil(b"}")
        return head.split()[1]


def renew(party: Party, ca: CertificateAuthority) -> bytes:
    """Replace a server's certificate and key; return the certificate (DER)."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = ca.issue_server(key.public_key(), ["127.0.0.1"], time.time())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (party.directory / "tls-key.pem").write_bytes(pem)
    (party.directory / "tls.pem").write_bytes(made.public_bytes(Encoding.PEM))
    return made.public_bytes(Encoding.DER)


@pytest.mark.parametrize("command", ["serve", "asset-host"])
async def test_a_hangup_renews_the_certificate_and_ends_nothing(world: World, command: str) -> None:
    party = world.providers["a.example"] if command == "serve" else world.asset_host
    domain = "a.example"
    ca = CertificateAuthority.load(
        domain, (world.providers[domain].directory / "data" / "ca.pem").read_bytes()
    )
    async with running(party, command) as process, AsyncExitStack() as lines:
        old = await Line.to(party, lines)
        renewed = renew(party, ca)
        process.send_signal(signal.SIGHUP)
        await said(process, RELOADED)
        new = await Line.to(party, lines)
        assert new.certificate == renewed != old.certificate
        (party.directory / "tls.pem").write_text("rubbish")
        process.send_signal(signal.SIGHUP)
        await said(process, REFUSED)
        assert (await Line.to(party, lines)).certificate == renewed
        assert [await line.ask() for line in (old, new)] == [b"200", b"200"]  # both are still open


async def test_a_hangup_reads_the_roots_of_other_providers_again(world: World) -> None:
    party = world.providers["a.example"]
    async with running(party, "serve") as process:
        process.send_signal(signal.SIGHUP)
        await said(process, "the roots in trust_dir were read again")
        (world.trust_dir / "b.example.pem").rename(world.trust_dir / "away")
        process.send_signal(signal.SIGHUP)
        await said(process, "the roots in trust_dir are refused")


async def test_the_limits_of_connections_are_settings(world: World) -> None:
    party = world.asset_host
    with party.config.open("a") as config:
        config.write("\n[connections]\nhead_seconds = 0.1\nmost = 100\n")
    async with running(party, "asset-host"), AsyncExitStack() as lines:
        used, silent = await Line.to(party, lines), await Line.to(party, lines)
        assert await used.ask() == b"200"
        async with asyncio.timeout(PATIENCE):
            assert await silent.reader.read() == b""
        assert await used.ask() == b"200"


async def test_a_stranger_with_more_connections_than_descriptors_locks_nobody_out(world: World) -> None:
    party = world.asset_host

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300))

    host, _, port = party.url.removeprefix("https://").rpartition(":")
    async with running(party, "asset-host", few), AsyncExitStack() as lines:
        for number in range(400):
            _, silent = await asyncio.open_connection(host, int(port))  # and never a handshake
            lines.callback(silent.close)
            if number % 100 == 99:
                assert await (await Line.to(party, lines)).ask() == b"200"
