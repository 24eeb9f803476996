"""The account's token and relayed requests never share a TLS connection, nor a resumed TLS session."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
from aiohttp import web

from mimi_mmr.protocol.endpoints import DELETE_QUEUE, HEALTH, RELAY_PATH
from mimi_mmr.protocol.queues import QueueRemoval
from mimi_mmr.provider.app import Provider
from mimi_mmr.provider.run import listen
from mimi_mmr.provider.settings import load_settings
from tests.mimi_mmr.conftest import LiveWorld

ACCOUNT, RELAY, DOCUMENT = "account", "relay", "document"


class Connections:
    """What a provider sees of each connection that its clients open: the kinds of requests that came over it."""

    def __init__(self) -> None:
        self.kinds: dict[int, set[str]] = defaultdict(set)
        self.resumed: list[bool] = []
        self._kept: list[object] = []  # so that no two connections have one id

    @web.middleware
    async def watch(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        assert request.transport is not None
        if id(request.transport) not in self.kinds:
            self._kept.append(request.transport)
            connection = request.transport.get_extra_info("ssl_object")
            assert isinstance(connection, ssl.SSLObject)
            self.resumed.append(bool(connection.session_reused))
        kind = DOCUMENT
        if request.path.startswith(RELAY_PATH):
            kind = RELAY
        elif "Authorization" in request.headers or request.path == "/v1/account":
            kind = ACCOUNT
        self.kinds[id(request.transport)].add(kind)
        return await handler(request)


async def watched(live: LiveWorld, domain: str, seen: Connections) -> None:
    """Start a provider again, with somebody who watches its connections."""
    await live.stop(domain)
    settings = load_settings(live.world.providers[domain].config)
    stack = live.running[domain] = AsyncExitStack()
    provider = live.providers[domain] = Provider(settings)
    stack.push_async_callback(provider.close)
    app = await provider.start()
    app.middlewares.append(seen.watch)
    runner = await listen(app, settings.listen, settings.tls)
    stack.push_async_callback(runner.cleanup)
    stack.callback(provider.stopping)


async def test_the_accounts_token_and_relayed_requests_never_share_a_tls_connection(live: LiveWorld) -> None:
    seen = Connections()
    await watched(live, "a.example", seen)
    alice = await live.person("alice", "a.example")
    for _ in range(3):  # in turns, so that a common connection would be used again
        await alice.account.registered_devices()
        await alice.path.ask_directly(HEALTH)
        await alice.path.ask(DELETE_QUEUE, "b.example", QueueRemoval(bytes(32)))
    kinds = list(seen.kinds.values())
    assert [one for one in kinds if len(one) > 1] == []
    assert {kind for one in kinds for kind in one} == {ACCOUNT, RELAY, DOCUMENT}
    assert not any(seen.resumed)


async def test_who_watches_would_see_a_common_connection_and_a_resumed_session(live: LiveWorld) -> None:
    """The positive control."""
    seen = Connections()
    await watched(live, "a.example", seen)
    url, tls = live.world.providers["a.example"].url, live.world.tls()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
        for path, headers in (
            (HEALTH.template, {"Authorization": "Bearer x"}),
            (f"{RELAY_PATH}/b.example", {}),
        ):
            async with session.get(url + path, headers=headers) as answer:
                await answer.read()
    assert list(seen.kinds.values()) == [{ACCOUNT, RELAY}]
    host, _, port = url.removeprefix("https://").rpartition(":")
    await asyncio.to_thread(resume, host, int(port), tls)
    assert seen.resumed == [False, False, True]


def resume(host: str, port: int, tls: ssl.SSLContext) -> None:
    """Ask twice, the second time in the TLS session of the first."""
    session = None
    for _ in range(2):
        with (
            socket.create_connection((host, port)) as line,
            tls.wrap_socket(line, server_hostname=host, session=session) as connection,
        ):
            connection.sendall(f"GET {HEALTH.template} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            connection.recv(1 << 16)
            session = connection.session
