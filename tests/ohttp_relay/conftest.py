from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from ohttp_relay.server import Bind, open_sockets
from ohttp_relay.server import serve as run
from tests.ohttp_relay.world import World

VECTORS = Path(__file__).parent.parent / "vectors"


@pytest.fixture(scope="session")
def vectors() -> Callable[[str], dict]:
    return lambda name: json.loads((VECTORS / name).read_text())


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1", "asset.example", "*.example").configure_cert(context)
    return context


@pytest.fixture(scope="session")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


Serve = Callable[[web.Application], Awaitable[str]]


@pytest.fixture(params=["fast", "library"])
async def serve(request: pytest.FixtureRequest, server_tls: ssl.SSLContext) -> AsyncIterator[Serve]:
    """Runs an application on a loopback port of its own over TLS; gives its origin.

    Once as the commands do, with the fast path where the application has one; once by the HTTP library alone.
    """
    stop = asyncio.Event()
    serving: list[asyncio.Task[None]] = []
    runners: list[web.AppRunner] = []

    async def by_the_library(app: web.Application) -> str:
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_tls)
        await site.start()
        return f"https://localhost:{runner.addresses[0][1]}"

    async def fast_path(app: web.Application) -> str:
        bind = Bind("127.0.0.1", 0, tls=server_tls, grace=0.5)
        (listener,) = open_sockets(bind)
        port = listener.getsockname()[1]
        serving.append(asyncio.create_task(run(app, bind, listener, stop=stop)))
        return f"https://localhost:{port}"

    yield fast_path if request.param == "fast" else by_the_library
    stop.set()
    for task in serving:
        await task
    for runner in reversed(runners):
        await runner.cleanup()


@pytest.fixture
async def world(serve: Serve, client_tls: ssl.SSLContext) -> AsyncIterator[World]:
    """A client, a relay, a gateway and a target, each on a real socket, and what each one saw."""
    made = World(serve, client_tls)
    yield made
    await made.close()
