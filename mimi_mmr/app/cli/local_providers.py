"""Two providers on one machine, written to a directory: CAs, TLS certificates, settings."""

from __future__ import annotations

import json
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.key_files import make_authority
from mimi_mmr.provider.new_files import write_new

DOMAINS = ("a.example", "b.example")
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LocalProvider:
    """One provider: `config` for `mimi-mmr serve`, `url` for `mimi-mmr account create`, and its asset host.

    Both have the same asset host, which the first one runs: a hub fetches from no other host in a private network.
    """

    domain: str
    url: str
    config: Path
    assets: str


def set_up(directory: Path, port: int) -> list[LocalProvider]:
    """Write all of it to a new directory, with `trust` and `tls-roots.pem` for clients.

    Raise `ConfigError`, also if something listens on one of the three ports that start at `port`.
    """
    try:
        if not directory.exists():
            _check_free(port)
        directory.mkdir(parents=True, mode=0o700)
        providers = [
            LocalProvider(
                domain,
                f"https://{HOST}:{port + number}",
                directory / domain / "config.toml",
                f"{HOST}:{port + len(DOMAINS)}",
            )
            for number, domain in enumerate(DOMAINS)
        ]
        (directory / "trust").mkdir()
        roots = [_certify(provider, directory / "trust") for provider in providers]
        write_new(directory / "tls-roots.pem", b"".join(roots), 0o644)
        token = secrets.token_urlsafe(24)
        for provider, peer in (providers, providers[::-1]):
            settings = _settings(provider, peer, token, runs_assets=provider is providers[0])
            write_new(provider.config, settings.encode())
    except FileExistsError:
        raise ConfigError(f"{directory} exists; expected the name of a new directory") from None
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    return providers


def _check_free(first: int) -> None:
    for port in range(first, first + len(DOMAINS) + 1):
        try:
            socket.create_server((HOST, port)).close()
        except OSError as error:
            raise ConfigError(f"port {port} of {HOST} can't be listened on: {error.strerror}").with_hint(
                "name the first of three free ports in a row with --port"
            ) from None


def _certify(provider: LocalProvider, trust: Path) -> bytes:
    """Make the provider's CA and its TLS certificate; return the root, in PEM."""
    place = provider.config.parent
    (place / "data").mkdir(parents=True, mode=0o700)
    now = time.time()
    authority = make_authority(provider.domain, place / "data" / "ca.pem", trust, now)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.issue_server(key.public_key(), [HOST], now)
    write_new(place / "tls-key.pem", key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    write_new(place / "tls.pem", certificate.public_bytes(Encoding.PEM), 0o644)
    return authority.root_pem()


def _settings(provider: LocalProvider, peer: LocalProvider, token: str, *, runs_assets: bool) -> str:
    lines = {
        "domain": provider.domain,
        "base_url": provider.url,
        "listen": provider.url.removeprefix("https://"),
        "trust_dir": "../trust",
    }
    top = "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items())
    tls = 'certificate = "tls.pem"\nkey = "tls-key.pem"\nca = "../tls-roots.pem"\n'
    peers = f'"{peer.domain}" = "{peer.url}"\n'
    host = {
        "origin": f"https://{provider.assets}",
        "upload_token": token,
        "networks": [f"{HOST}/32"],
    } | ({"listen": provider.assets} if runs_assets else {})
    assets = "".join(f"{name} = {json.dumps(value)}\n" for name, value in host.items())
    return f"{top}\n[tls]\n{tls}\n[peers]\n{peers}\n[asset_host]\n{assets}"
