"""Running an application: one event loop, graceful end."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Bind:
    """Where to listen; `grace` is how many seconds requests in flight have to finish at the end."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    grace: float = 30.0


def run(make_app: Callable[[], web.Application], bind: Bind) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    asyncio.run(serve(make_app(), bind))


async def serve(app: web.Application, bind: Bind) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=bind.grace)
    await runner.setup()
    try:
        await web.TCPSite(runner, bind.host, bind.port, ssl_context=bind.tls).start()
        host, port = runner.addresses[0][:2]
        sys.stderr.write(f"listening on {'https' if bind.tls else 'http'}://{host}:{port}\n")
        sys.stderr.flush()
        await stop.wait()
    finally:
        await runner.cleanup()
