from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from ohttp_world import World

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


@pytest.fixture
async def serve(server_tls: ssl.SSLContext) -> AsyncIterator[Serve]:
    """Runs an application on a loopback port of its own over TLS; gives its origin."""
    runners: list[web.AppRunner] = []

    async def start(app: web.Application) -> str:
        runner = web.AppRunner(app, shutdown_timeout=0.5)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_tls)
        await site.start()
        return f"https://localhost:{runner.addresses[0][1]}"

    yield start
    for runner in reversed(runners):
        await runner.cleanup()


@pytest.fixture
async def world(serve: Serve, client_tls: ssl.SSLContext) -> AsyncIterator[World]:
    """A client, a relay, a gateway and a target, each on a real socket, and what each one saw."""
    made = World(serve, client_tls)
    yield made
    await made.close()
