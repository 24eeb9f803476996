"""A small world on loopback: providers with CAs, TLS, settings and sockets of their own, and an asset host.

No port is fixed: each socket is opened here and passed to the process that serves on it.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mimi_mmr.crypto.certificates import CertificateAuthority, TrustAnchors
from mimi_mmr.provider.key_files import make_authority

PROVIDERS = ("a.example", "b.example", "c.example")
ASSET_HOST = "storage.a.example"


@dataclass(slots=True)
class Party:
    """A process that is to be started: its name, directory, settings file, and the socket that it will serve on."""

    name: str
    directory: Path
    socket: socket.socket
    url: str
    config: Path
    source: str | None
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """Everything on disk and every socket, before any process runs."""

    root: Path
    providers: dict[str, Party]
    asset_host: Party
    ca_file: Path
    trust_dir: Path

    def trust(self) -> TrustAnchors:
        """Return every provider's CA."""
        return TrustAnchors.from_directory(self.trust_dir)

    def tls(self) -> ssl.SSLContext:
        """Return what clients trust for TLS."""
        return ssl.create_default_context(cafile=self.ca_file)

    def close(self) -> None:
        """Close this process's copies of the sockets."""
        for party in (*self.providers.values(), self.asset_host):
            party.socket.close()


def build_world(root: Path, domains: Sequence[str] = PROVIDERS, *, record: bool = True) -> World:
    """Make directories, CAs, certificates, sockets and settings below `root`."""
    trust_dir = root / "trust"
    trust_dir.mkdir(parents=True, exist_ok=True)
    now = time.time()
    names = (*domains, ASSET_HOST)
    parties = {name: _party(root, name, number) for number, name in enumerate(names)}
    tls_roots = [
        _certify(party, trust_dir if party.name != ASSET_HOST else None, now) for party in parties.values()
    ]
    ca_file = root / "tls-roots.pem"
    ca_file.write_bytes(b"".join(tls_roots))
    asset_host = parties.pop(ASSET_HOST)
    token = secrets.token_urlsafe(24)
    _configure_asset_host(asset_host, token, record=record)
    world = World(root, parties, asset_host, ca_file, trust_dir)
    for party in parties.values():
        _configure_provider(world, party, token, record=record)
    return world


def loopback(network: int, number: int) -> str | None:
    """127.<network>.0.<number>, where the whole of 127.0.0.0/8 is this machine; elsewhere None.

    As each party has its own address, the ledger can tell which party saw whose address.
    """
    return f"127.{network}.0.{number}" if sys.platform == "linux" else None


def _party(root: Path, name: str, number: int) -> Party:
    address = loopback(1, number + 1) or "127.0.0.1"
    listening = socket.create_server((address, 0), backlog=1024)
    listening.set_inheritable(True)
    directory = root / name
    directory.mkdir(mode=0o700, exist_ok=True)
    url = f"https://{address}:{listening.getsockname()[1]}"
    return Party(name, directory, listening, url, directory / "config.toml", loopback(1, number + 1))


def _certify(party: Party, trust_dir: Path | None, now: float) -> bytes:
    """Make the party's CA, and its TLS certificate; return the root."""
    data = party.directory / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    if trust_dir is not None:
        authority = make_authority(party.name, data / "ca.pem", trust_dir, now)
    else:
        authority = CertificateAuthority.create(party.name, now)
    key = ec.generate_private_key(ec.SECP256R1())
    address = party.url.removeprefix("https://").rpartition(":")[0]
    certificate = authority.issue_server(key.public_key(), [address], now)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _write_private(party.directory / "tls-key.pem", pem)
    (party.directory / "tls.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    return authority.root_pem()


def _configure_asset_host(party: Party, token: str, *, record: bool) -> None:
    lines = [
        f"listen = {json.dumps(f'fd:{party.socket.fileno()}')}",
        'data_dir = "assets"',
        f"upload_token = {json.dumps(token)}",
        'record_dir = "record"' if record else "",
        *_tls(party),
    ]
    _write_private(party.config, "\n".join(lines).encode())


def _configure_provider(world: World, party: Party, token: str, *, record: bool) -> None:
    peers = [
        f"{json.dumps(name)} = {json.dumps(other.url)}"
        for name, other in world.providers.items()
        if name != party.name
    ]
    has_assets = ASSET_HOST.removeprefix("storage.") == party.name
    lines = [
        f"domain = {json.dumps(party.name)}",
        f"base_url = {json.dumps(party.url)}",
        f"listen = {json.dumps(f'fd:{party.socket.fileno()}')}",
        'data_dir = "data"',
        f"trust_dir = {json.dumps(str(world.trust_dir))}",
        f"source_address = {json.dumps(party.source)}" if party.source else "",
        'record_dir = "record"' if record else "",
        "[peers]",
        *peers,
        *(_assets(world, token) if has_assets else ()),
        *_tls(party),
        f"ca = {json.dumps(str(world.ca_file))}",
    ]
    _write_private(party.config, "\n".join(lines).encode())


def _assets(world: World, token: str) -> list[str]:
    return [
        "[asset_host]",
        f"origin = {json.dumps(world.asset_host.url)}",
        f"upload_token = {json.dumps(token)}",
        'networks = ["127.0.0.0/8"]',
    ]


def _tls(party: Party) -> list[str]:
    return ["[tls]", 'certificate = "tls.pem"', 'key = "tls-key.pem"']


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
