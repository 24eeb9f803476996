"""The `ohttp-relay` command: relay, gateway, proxy, keys."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

import typer

from .download import DownloadProxy
from .errors import ConfigurationError, KeyFileError, OhttpError
from .gateway import DEFAULT_PATH, Gateway
from .kem import KemId
from .keys import KeyRing
from .relay import Relay
from .serve import Bind, run
from .targets import TargetPolicy

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Oblivious HTTP: relay, gateway, download proxy, keys."
)
keys_app = typer.Typer(no_args_is_help=True, help="A gateway's key ring on disk.")
app.add_typer(keys_app, name="keys")

Host = Annotated[str, typer.Option(envvar="OHTTP_HOST", help="Address to listen on.")]
Port = Annotated[int, typer.Option(envvar="OHTTP_PORT", help="Port to listen on; 0 picks one.")]
Certificate = Annotated[Path | None, typer.Option(envvar="OHTTP_TLS_CERT", help="PEM certificate chain.")]
PrivateKey = Annotated[Path | None, typer.Option(envvar="OHTTP_TLS_KEY", help="PEM private key.")]
Trust = Annotated[Path | None, typer.Option(envvar="OHTTP_CA", help="PEM authorities to trust upstream.")]
Insecure = Annotated[bool, typer.Option(help="Let a loopback hop be plain http.")]
KeyFolder = Annotated[Path, typer.Option(envvar="OHTTP_KEYS", help="Directory of the key ring.")]


def _server_tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


def _client_tls(trust: Path | None) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=str(trust)) if trust else None


def _named(pairs: list[str]) -> dict[str, str]:
    named = {}
    for pair in pairs:
        name, equals, url = pair.partition("=")
        if not (name and equals and url):
            raise ConfigurationError(f"expected NAME=URL, got {pair!r}")
        named[name] = url
    return named


@app.command()
def relay(
    gateway: Annotated[list[str], typer.Option(help="NAME=URL of a gateway; may be repeated.")],
    host: Host = "127.0.0.1",
    port: Port = 8080,
    cert: Certificate = None,
    key: PrivateKey = None,
    ca: Trust = None,
    allow_insecure_loopback: Insecure = False,
) -> None:
    """Run a relay: POST /NAME forwards to that gateway, GET /NAME gives its key list."""
    made = Relay(
        _named(gateway), ssl_context=_client_tls(ca), allow_insecure_loopback=allow_insecure_loopback
    )
    run(made.app, Bind(host, port, _server_tls(cert, key)))


@app.command()
def gateway(
    target: Annotated[list[str], typer.Option(help="Origin that may be fetched; may be repeated.")],
    keys: KeyFolder,
    host: Host = "127.0.0.1",
    port: Port = 8081,
    path: Annotated[str, typer.Option(help="Path of the gateway resource.")] = DEFAULT_PATH,
    network: Annotated[list[str] | None, typer.Option(help="Non-public network of targets.")] = None,
    cert: Certificate = None,
    key: PrivateKey = None,
    ca: Trust = None,
) -> None:
    """Run a gateway: POST takes encapsulated requests, GET gives the key list."""
    policy = TargetPolicy.of(target, network or ())
    made = Gateway(KeyRing.load(keys), policy, ssl_context=_client_tls(ca))
    run(lambda: made.app(path), Bind(host, port, _server_tls(cert, key)))


@app.command()
def proxy(
    asset_host: Annotated[list[str], typer.Option(help="HOST[:PORT] of assets; may be repeated.")],
    host: Host = "127.0.0.1",
    port: Port = 8082,
    cache: Annotated[Path | None, typer.Option(envvar="OHTTP_CACHE", help="Directory of the cache.")] = None,
    network: Annotated[list[str] | None, typer.Option(help="Non-public network of assets.")] = None,
    cert: Certificate = None,
    key: PrivateKey = None,
    ca: Trust = None,
) -> None:
    """Run a download proxy: GET /proxyDownload/{percent-encoded URL}."""
    tls = _client_tls(ca)
    made = DownloadProxy(frozenset(asset_host), cache_dir=cache, networks=network or (), ssl_context=tls)
    run(made.app, Bind(host, port, _server_tls(cert, key)))


@keys_app.command("generate")
def generate(
    directory: KeyFolder,
    kem: Annotated[list[str] | None, typer.Option(help="x25519, xwing or p256; may be repeated.")] = None,
) -> None:
    """Make a key ring; refuses to replace one."""
    with KeyRing.locked(directory):
        try:
            KeyRing.load(directory)
        except KeyFileError:
            names = kem or ["x25519"]
            try:
                kems = [KemId[name.upper()] for name in names]
            except KeyError as error:
                raise ConfigurationError(f"unknown KEM {error}") from None
            KeyRing.generate(kems).save(directory)
            return
        raise ConfigurationError(f"{directory} already holds a key ring")


@keys_app.command("rotate")
def rotate(
    directory: KeyFolder,
    lead: Annotated[float, typer.Option(help="Seconds until the new key is advertised.")] = 60.0,
) -> None:
    """Add a fresh key for each KEM; running gateways take it up."""
    with KeyRing.locked(directory):
        ring = KeyRing.load(directory)
        ring.rotate(lead=lead)
        ring.save(directory)


@keys_app.command("show")
def show(directory: KeyFolder) -> None:
    """Print the advertised key list as hex."""
    typer.echo(KeyRing.load(directory).public_list().hex())


def main() -> None:
    """Run the command; errors of this package end it with one line and status 2."""
    try:
        app()
    except OhttpError as error:
        typer.echo(f"ohttp-relay: {error}", err=True)
        raise SystemExit(2) from None
