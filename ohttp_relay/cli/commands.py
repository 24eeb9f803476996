"""The `ohttp-relay` command: relay, gateway, proxy, keys."""

from __future__ import annotations

import hmac
import math
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from aiohttp import web

from ohttp_relay.cli.options import (
    Admin,
    CacheBytes,
    Certificate,
    ClientCa,
    ClientSeconds,
    FreshSeconds,
    GatewaySeconds,
    Grace,
    Host,
    Idle,
    Insecure,
    KeyFolder,
    KeyListSeconds,
    MaxFields,
    MaxObject,
    MaxRequest,
    MaxResponse,
    MaxSockets,
    MaxStream,
    Networks,
    PaddingName,
    PaddingOption,
    Port,
    PrivateKey,
    ReadSeconds,
    RequireDate,
    SocketIdle,
    SocketLife,
    TargetSeconds,
    TotalSeconds,
    Trust,
    UpCertificate,
    UpKey,
    Workers,
    number,
    seconds,
)
from ohttp_relay.cli.plain_help import PlainCommand, PlainGroup
from ohttp_relay.cli.version_option import add_version_option
from ohttp_relay.download.proxy import DownloadLimits, DownloadProxy
from ohttp_relay.errors import ConfigurationError, KeyFileError, OhttpError
from ohttp_relay.gateway.replay import ReplayGuard
from ohttp_relay.gateway.resource import UNDATED_WINDOW, Gateway, GatewayLimits
from ohttp_relay.gateway.rotation import KeyKeeper
from ohttp_relay.gateway.shared_replay import DEFAULT_RATE, SharedReplayCache
from ohttp_relay.hpke.kem import KemId
from ohttp_relay.keys.ring import KeyRing
from ohttp_relay.relay.rate_limit import RateLimit
from ohttp_relay.relay.resource import Relay, RelayLimits
from ohttp_relay.server.certificates import ServerCertificate
from ohttp_relay.server.logs import configure_logs
from ohttp_relay.server.metrics import Metrics
from ohttp_relay.server.run import Bind, run
from ohttp_relay.transport.targets import TargetPolicy
from ohttp_relay.transport.urls import check_url
from ohttp_relay.transport.websocket import SocketLimits

RELAY: Final = RelayLimits()
GATEWAY: Final = GatewayLimits()
DOWNLOAD: Final = DownloadLimits()
SOCKETS: Final = SocketLimits()
IDLE: Final = Bind("", 0).idle
_KEMS: Final = {"x25519": KemId.X25519, "xwing": KemId.X_WING, "p256": KemId.P256}

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=False,
    help="Oblivious HTTP: relay, gateway, proxy, keys.",
)
keys_app = typer.Typer(cls=PlainGroup, no_args_is_help=True, help="A gateway's key ring on disk.")
app.add_typer(keys_app, name="keys")
add_version_option(app, "ohttp-relay")


def _server_tls(
    certificate: Path | None, key: Path | None, client_ca: Path | None
) -> ServerCertificate | None:
    if certificate is None:
        if client_ca is not None:
            raise ConfigurationError("a client certificate can only be asked for with --cert")
        return None
    try:
        return ServerCertificate(certificate, key, client_ca)
    except ConfigurationError as error:
        raise ConfigurationError(f"cannot use the TLS certificate or key: {error}") from None


def _client_tls(
    trust: Path | None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(trust) if trust else None)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use the upstream certificates: {error}") from None
    return context


def _named(pairs: list[str]) -> dict[str, str]:
    named = {}
    for pair in pairs:
        name, equals, url = pair.partition("=")
        if not (name and equals and url):
            raise ConfigurationError(f"expected NAME=URL, got {pair!r}")
        named[name] = url
    return named


def _check_paths(path: str, bare_keys: str | None) -> None:
    """Raise ConfigurationError unless the gateway's paths are two different ones."""
    for one in filter(None, (path, bare_keys)):
        if not one.startswith("/") or "{" in one:
            raise ConfigurationError(f"a path starts with '/' and has no '{{', got {one!r}")
    if path == bare_keys:
        raise ConfigurationError("--bare-keys and --path need two different paths")


def _tokens(path: Path | None) -> Callable[[web.Request], bool] | None:
    if path is None:
        return None
    try:
        known = [line.strip().encode() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise ConfigurationError(f"cannot read the tokens: {error.strerror}") from None

    def allowed(request: web.Request) -> bool:
        given = (
            request.headers.get("Authorization", "")
            .removeprefix("Bearer ")
            .encode("utf-8", "surrogateescape")
        )
        return any([hmac.compare_digest(given, token) for token in known])  # noqa: C419  # compare all, always

    return allowed


def _replay_guard(folder: Path, window: float, rate: int, undated: int) -> ReplayGuard:
    """Return the guard that all workers share: `rate` requests a second, `undated` keys; window in seconds."""
    remembered = 2 * window + 1
    dated = SharedReplayCache(folder / "dated", remembered, math.ceil(rate * remembered))
    others = SharedReplayCache(folder / "undated", UNDATED_WINDOW, undated) if undated else None
    return ReplayGuard(dated, others, window)


def _serve(role: str, make: Callable[[Metrics], web.Application], bind: Bind) -> None:
    """Run a role with logs, and with metrics that its workers share."""
    configure_logs(sys.stderr)
    metrics = Metrics(role, bind.workers)
    run(lambda: make(metrics), bind, metrics.admin_app, metrics.enter)


@app.command(cls=PlainCommand)
def relay(
    gateway: Annotated[list[str], typer.Option(help="NAME=URL of a gateway; repeatable.")],
    host: Host = "127.0.0.1",
    port: Port = 8080,
    workers: Workers = 1,
    admin_port: Admin = None,
    grace: Grace = 30.0,
    cert: Certificate = None,
    key: PrivateKey = None,
    client_ca: ClientCa = None,
    ca: Trust = None,
    up_cert: UpCertificate = None,
    up_key: UpKey = None,
    keys: Annotated[
        list[str] | None, typer.Option(help="NAME=URL of a key list, if not at the gateway.")
    ] = None,
    tokens: Annotated[Path | None, typer.Option(help="File with a bearer token on each line.")] = None,
    per_minute: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Requests of one client per minute.")
    ] = None,
    max_request: MaxRequest = RELAY.request,
    max_response: MaxResponse = RELAY.response,
    max_stream: MaxStream = RELAY.stream,
    client_seconds: ClientSeconds = RELAY.idle_seconds,
    gateway_seconds: GatewaySeconds = RELAY.gateway_seconds,
    key_list_seconds: KeyListSeconds = RELAY.key_list_seconds,
    idle_seconds: Idle = IDLE,
    sockets: MaxSockets = SOCKETS.sockets,
    sockets_each: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="WebSockets of one client at once.")
    ] = SOCKETS.each,
    socket_idle_seconds: SocketIdle = SOCKETS.idle_seconds,
    socket_life_seconds: SocketLife = SOCKETS.life_seconds,
    bare_keys: Annotated[
        bool, typer.Option(help="Serve one key at /NAME/bare too, for clients that read no list (Firefox).")
    ] = False,
    allow_insecure_loopback: Insecure = False,
) -> None:
    """Run a relay: POST /NAME forwards to that gateway, GET /NAME gives its key list or opens a WebSocket."""
    gateways, upstream, authenticate = _named(gateway), _client_tls(ca, up_cert, up_key), _tokens(tokens)
    lists = _named(keys or [])
    for url in [*gateways.values(), *lists.values()]:  # report a bad setting before any worker starts
        check_url(url, allow_insecure_loopback=allow_insecure_loopback)
    limits = RelayLimits(
        request=max_request,
        response=max_response,
        stream=max_stream,
        idle_seconds=client_seconds,
        gateway_seconds=gateway_seconds,
        key_list_seconds=key_list_seconds,
        key_list_min_seconds=min(RELAY.key_list_min_seconds, key_list_seconds),
    )
    bounds = SocketLimits(
        sockets=sockets,
        each=sockets_each,
        idle_seconds=socket_idle_seconds,
        life_seconds=socket_life_seconds,
    )

    def make(metrics: Metrics) -> web.Application:
        return Relay(
            gateways,
            limits=limits,
            authenticate=authenticate,
            ssl_context=upstream,
            allow_insecure_loopback=allow_insecure_loopback,
            metrics=metrics,
            rate=RateLimit(per_minute) if per_minute else None,
            key_urls=lists,
            sockets=bounds,
        ).app(bare_keys=bare_keys)

    tls = _server_tls(cert, key, client_ca)
    _serve("relay", make, Bind(host, port, tls, workers, grace, idle=idle_seconds, admin_port=admin_port))


@app.command(cls=PlainCommand)
def gateway(
    target: Annotated[list[str], typer.Option(help="Origin that may be fetched; repeatable.")],
    keys: KeyFolder,
    host: Host = "127.0.0.1",
    port: Port = 8081,
    workers: Workers = 1,
    admin_port: Admin = None,
    grace: Grace = 30.0,
    path: Annotated[str, typer.Option(help="Path of the gateway resource.")] = "/.well-known/ohttp-gateway",
    bare_keys: Annotated[
        str | None, typer.Option(help="Path for one key, for clients that read no list (Firefox).")
    ] = None,
    sockets: MaxSockets = SOCKETS.sockets,
    socket_idle_seconds: SocketIdle = SOCKETS.idle_seconds,
    socket_life_seconds: SocketLife = SOCKETS.life_seconds,
    max_request: MaxRequest = GATEWAY.request,
    max_response: MaxResponse = GATEWAY.response,
    max_stream: MaxStream = GATEWAY.stream,
    max_fields: MaxFields = GATEWAY.fields,
    client_seconds: ClientSeconds = GATEWAY.idle_seconds,
    target_seconds: TargetSeconds = GATEWAY.target_seconds,
    idle_seconds: Idle = IDLE,
    padding: PaddingOption = PaddingName.BUCKETS,
    network: Networks = None,
    rotate_hours: Annotated[
        float,
        number("Age at which a key is replaced; 0 for never.", 0, 87_600, "HOURS"),
    ] = 24.0,
    window: Annotated[float, seconds("Time that a Date may differ.", 2, 86_400)] = 60.0,
    require_date: RequireDate = False,
    replay: Annotated[
        Path | None,
        typer.Option(envvar="OHTTP_REPLAY", help="Directory of the replay tables; by default KEYS/replay."),
    ] = None,
    replay_rate: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Requests a second that the replay table has room for.")
    ] = DEFAULT_RATE,
    replay_undated: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000_000_000,
            help="Requests without a Date remembered in two days; 0 as --require-date.",
        ),
    ] = 100_000,
    cert: Certificate = None,
    key: PrivateKey = None,
    client_ca: ClientCa = None,
    ca: Trust = None,
) -> None:
    """Run a gateway: POST takes encapsulated requests, GET gives the key list or opens a WebSocket."""
    policy, upstream = TargetPolicy.of(target, network or ()), _client_tls(ca)
    KeyRing.load(keys)
    _check_paths(path, bare_keys)
    limits = GatewayLimits(
        request=max_request,
        response=max_response,
        stream=max_stream,
        target_seconds=target_seconds,
        idle_seconds=client_seconds,
        fields=max_fields,
    )
    bounds = SocketLimits(sockets=sockets, idle_seconds=socket_idle_seconds, life_seconds=socket_life_seconds)
    undated = 0 if require_date else replay_undated
    guard = _replay_guard(replay or keys / "replay", window, replay_rate, undated)
    whole, streamed = padding.paddings()

    def make(metrics: Metrics) -> web.Application:
        ring = KeyRing.load(keys)
        serving = Gateway(
            ring,
            policy,
            replay=guard,
            padding=whole,
            stream_padding=streamed,
            limits=limits,
            ssl_context=upstream,
            metrics=metrics,
            sockets=bounds,
        )
        made = serving.app(path, bare_keys)
        KeyKeeper(ring, keys, lifetime=rotate_hours * 3600 or None).attach(made)
        return made

    tls = _server_tls(cert, key, client_ca)
    _serve("gateway", make, Bind(host, port, tls, workers, grace, idle=idle_seconds, admin_port=admin_port))


@app.command(cls=PlainCommand)
def proxy(
    asset_host: Annotated[list[str], typer.Option(help="HOST[:PORT] of assets; repeatable.")],
    host: Host = "127.0.0.1",
    port: Port = 8082,
    workers: Workers = 1,
    admin_port: Admin = None,
    grace: Grace = 30.0,
    cache: Annotated[Path | None, typer.Option(envvar="OHTTP_CACHE", help="Directory of the cache.")] = None,
    cache_bytes: CacheBytes = DOWNLOAD.cache,
    max_object: MaxObject = DOWNLOAD.object,
    read_seconds: ReadSeconds = DOWNLOAD.read_seconds,
    total_seconds: TotalSeconds = DOWNLOAD.total_seconds,
    fresh_seconds: FreshSeconds = DOWNLOAD.heuristic,
    idle_seconds: Idle = IDLE,
    network: Networks = None,
    cert: Certificate = None,
    key: PrivateKey = None,
    client_ca: ClientCa = None,
    ca: Trust = None,
) -> None:
    """Run a download proxy: GET /proxyDownload/{percent-encoded URL}."""
    hosts, upstream = frozenset(asset_host), _client_tls(ca)
    limits = DownloadLimits(max_object, cache_bytes, read_seconds, total_seconds, fresh_seconds)
    networks = tuple(network or ())
    TargetPolicy.of((), networks)

    def make(metrics: Metrics) -> web.Application:
        made = DownloadProxy(
            hosts, None, cache, limits, networks=networks, ssl_context=upstream, metrics=metrics
        )
        return made.app()

    tls = _server_tls(cert, key, client_ca)
    _serve("proxy", make, Bind(host, port, tls, workers, grace, idle=idle_seconds, admin_port=admin_port))


@keys_app.command("generate", cls=PlainCommand)
def generate(
    keys: KeyFolder,
    kem: Annotated[list[str] | None, typer.Option(help="x25519, xwing or p256; repeatable.")] = None,
    overlap_hours: Annotated[
        float,
        number("Time for which a replaced key is accepted.", 0, 8_760, "HOURS"),
    ] = 24.0,
) -> None:
    """Make a key ring; fail if there is one."""
    try:
        kems = [_KEMS[name.lower()] for name in kem or ["x25519"]]
    except KeyError as error:
        raise ConfigurationError(f"unknown KEM {error}, expected x25519, xwing or p256") from None
    with KeyRing.locked(keys):
        try:
            KeyRing.load(keys)
        except KeyFileError:
            KeyRing.generate(kems, overlap=overlap_hours * 3600).save(keys)
            return
    raise ConfigurationError(f"{keys} already holds a key ring")


@keys_app.command("rotate", cls=PlainCommand)
def rotate(
    keys: KeyFolder,
    lead: Annotated[float, seconds("Time until the new key is advertised.", 0, 86_400)] = 60.0,
) -> None:
    """Add a fresh key for each KEM; running gateways read it."""
    with KeyRing.locked(keys):
        ring = KeyRing.load(keys)
        ring.rotate(lead=lead)
        ring.save(keys)


@keys_app.command("show", cls=PlainCommand)
def show(keys: KeyFolder) -> None:
    """Print the advertised key list as hex."""
    typer.echo(KeyRing.load(keys).public_list().hex())


def main() -> None:
    """Run the command; print an error of this package in one line and exit with status 2."""
    try:
        app()
    except OhttpError as error:
        typer.echo(f"ohttp-relay: {error}", err=True)
        raise SystemExit(2) from None
