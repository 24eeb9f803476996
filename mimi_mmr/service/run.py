"""Serving an application until a signal: TLS, a socket of one's own or one that was passed, graceful shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from aiohttp import web

from mimi_mmr.config import Tls, activated_socket
from mimi_mmr.errors import ConfigError

SHUTDOWN_SECONDS = 10.0

_T = TypeVar("_T")


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """Run on uvloop, where there is one."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.run(work)
    return uvloop.run(work)


def server_tls(tls: Tls) -> ssl.SSLContext:
    """TLS 1.3 for a server; raises `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_password)
    except (OSError, ssl.SSLError, ValueError):
        raise ConfigError("tls: certificate and key are not a matching PEM pair") from None
    return context


def _no_password() -> str:
    """Instead of OpenSSL's prompt on the terminal."""
    raise ValueError("the key is encrypted")


async def listen(app: web.Application, where: str, tls: Tls) -> web.AppRunner:
    """Serve `app`; raises `ConfigError` when the address can't be used."""
    context = server_tls(tls)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        descriptor = activated_socket(where)
        if descriptor is not None:
            opened = socket.socket(fileno=os.dup(descriptor))
            site: web.BaseSite = web.SockSite(runner, opened, ssl_context=context)
        else:
            host, _, port = where.rpartition(":")
            site = web.TCPSite(runner, host.strip("[]"), int(port), ssl_context=context)
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError(f"listen: {where}: {error.strerror}") from None
    return runner


async def until_signalled(ready: Callable[[], None] | None = None) -> None:
    """Wait for SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if ready is not None:
        ready()
    await stop.wait()


def announce(runner: web.AppRunner, name: str) -> None:
    """Say on stdout, in one line, that requests are served, and where."""
    addresses = ", ".join(f"{host}:{port}" for host, port, *_ in runner.addresses)
    sys.stdout.write(f"{name} serves on {addresses}\n")
    sys.stdout.flush()
