"""Serving an application until a signal: TLS, its own or a passed socket, graceful shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import stat
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from aiohttp import web

from mimi_mmr.errors import ConfigError
from mimi_mmr.protocol.endpoints import HEALTH
from mimi_mmr.provider.settings import ServerTls, activated_socket
from ohttp_relay.errors import ConfigurationError
from ohttp_relay.server import ConnectionLimits, Connections, ServerCertificate, raise_descriptor_limit
from ohttp_relay.transport import abort

DRAIN_SECONDS = 6.0  # for requests in flight, from the signal on
RELAYED_SECONDS = 2.0  # for relayed requests in flight: one may be a long poll at another provider
SHUTDOWN_SECONDS = 1.5  # for aiohttp, after that; it waits as long again after it cancels the rest
IDLE_SECONDS = 75.0  # until a connection without a request is closed
BACKLOG = 1024
STOP_SECONDS = 10.0  # the upper bound for a stop, stated in docs/operations.md
BEGUN = web.RequestKey("mimi_mmr.begun", bool)

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run on uvloop if it is installed."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(work)
    return uvloop.run(work)


def prepare_process() -> None:
    """Prepare this process to be a server: call this first.

    SIGHUP is ignored until the server can reload its files; it looks at them by itself later.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    raise_descriptor_limit()


def server_certificate(tls: ServerTls) -> ServerCertificate:
    """Return a server's certificate, for TLS 1.3; raise `ConfigError`."""
    try:
        minimum, others = ssl.TLSVersion.TLSv1_3, stat.S_IRWXO
        return ServerCertificate(tls.certificate, tls.key, minimum=minimum, forbidden_mode=others)
    except ConfigurationError as error:
        raise ConfigError(f"tls: {error}") from None


def outgoing_tls(ca: Path | None) -> ssl.SSLContext | None:
    """Return a TLS context that trusts the CA in this file; None means the system's CAs. Raise `ConfigError`."""
    try:
        return ssl.create_default_context(cafile=ca) if ca else None
    except (OSError, ssl.SSLError):
        raise ConfigError(f"tls.ca: {ca}: expected certificates in PEM") from None


@dataclass(slots=True)
class Served:
    """An application that is being served. `certificate` is read again when its files have changed."""

    certificate: ServerCertificate
    addresses: list[Any]
    connections: Connections
    _runner: web.AppRunner
    _looking: asyncio.Task[None]

    async def cleanup(self) -> None:
        """Accept no more connections, and close those that there are."""
        self._looking.cancel()
        self.connections.close()
        await self._runner.cleanup()
        await self.connections.wait_closed()


async def listen(
    app: web.Application,
    where: str,
    tls: ServerTls,
    limits: ConnectionLimits | None = None,
    idle: float = IDLE_SECONDS,
    servers: int = 1,
    setting: str = "listen",
) -> Served:
    """Serve `app`; raise `ConfigError`, which names the `setting`, when the address can't be used.

    A connection is closed `idle` seconds after its last request. `servers` of this process share its descriptors.
    """
    certificate = server_certificate(tls)
    runner = web.AppRunner(
        app,
        access_log=None,
        shutdown_timeout=SHUTDOWN_SECONDS,
        keepalive_timeout=idle,
        auto_decompress=False,
    )
    await runner.setup()
    try:
        listeners = await _listeners(where)
    except OSError as error:
        await runner.cleanup()
        raise ConfigError(f"{setting}: {where}: {error.strerror}") from None
    library = cast("web.Server", runner.server)
    addresses = [opened.getsockname() for opened in listeners]
    made = Connections(
        library, library, listeners, certificate.context, limits or ConnectionLimits(), servers
    )
    return Served(certificate, addresses, made, runner, asyncio.create_task(certificate.watch()))


async def _listeners(where: str) -> list[socket.socket]:
    """Open the sockets to listen on: the one that was passed, or one for each address of a name."""
    descriptor = activated_socket(where)
    if descriptor is not None:
        passed = socket.socket(fileno=os.dup(descriptor))
        passed.listen(BACKLOG)
        return [passed]
    host, _, port = where.rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    opened: list[socket.socket] = []
    try:
        for family, _kind, _protocol, _name, address in dict.fromkeys(found):
            opened.append(made := socket.socket(family, socket.SOCK_STREAM))
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind(address)
            made.listen(BACKLOG)
    except OSError:
        for made in opened:
            made.close()
        raise
    return opened


class Drain:
    """Requests in flight; when the server stops, they have limited time to finish.

    During that time only health checks are accepted, and they report that the server is stopping.
    """

    def __init__(self, relayed: str | None = None) -> None:
        """Give requests whose path begins with `relayed` less time to finish: they wait for another server."""
        self._relayed = relayed
        self._stopping = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._patience: set[asyncio.Timeout] = set()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    def stop(self) -> None:
        """Refuse new requests, and start the shorter time limit of relayed requests."""
        self._stopping = True
        end = asyncio.get_running_loop().time() + RELAYED_SECONDS
        for patience in self._patience:
            patience.reschedule(end)
        if not self._in_flight:
            self._idle.set()

    async def finished(self) -> None:
        """Wait until no request is in flight, or their time is over."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            return  # the remaining requests end with their connections

    @web.middleware
    async def watch(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Handle a request as aiohttp middleware."""
        if request.path == HEALTH.template:
            return await handler(request)
        if self._stopping:
            return _unavailable()
        self._in_flight += 1
        try:
            if self._relayed is None or not request.path.startswith(self._relayed):
                return await handler(request)
            return await self._watch_relayed(request, handler)
        finally:
            self._in_flight -= 1
            if self._stopping and not self._in_flight:
                self._idle.set()

    async def _watch_relayed(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._patience.add(patience)
                return await handler(request)
        except TimeoutError:
            if not patience.expired():
                raise
            if request.get(BEGUN):  # the head is sent: only an abort shows that the answer is incomplete
                abort(request)
            return _unavailable()
        finally:
            self._patience.discard(patience)


async def mark_begun(request: web.BaseRequest, _: web.StreamResponse) -> None:
    """Record that the head of an answer was sent; a handler for `on_response_prepare`."""
    if isinstance(request, web.Request):
        request[BEGUN] = True


def health(drain: Drain) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return the handler of health checks."""

    async def handle(_: web.Request) -> web.Response:
        if drain.stopping:
            return web.json_response({"status": "stopping"}, status=503)
        return web.json_response({"status": "ok"})

    return handle


def _unavailable() -> web.Response:
    response = web.Response(status=503, text="this server is about to stop")
    response.force_close()
    return response


async def until_signalled(
    ready: Callable[[], None] | None = None, reload: Callable[[], object] | None = None
) -> None:
    """Wait for SIGTERM or SIGINT; call `reload` at each SIGHUP."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if reload is not None:
        loop.add_signal_handler(signal.SIGHUP, reload)
    if ready is not None:
        ready()
    await stop.wait()


def announce(served: Served, name: str) -> None:
    """Print one line on stdout: the server is ready, at which address."""
    addresses = ", ".join(f"{host}:{port}" for host, port, *_ in served.addresses)
    sys.stdout.write(f"{name} serves on {addresses}\n")
    sys.stdout.flush()
