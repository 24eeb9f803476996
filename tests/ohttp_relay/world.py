"""Worlds for tests: real servers on loopback, and what each party saw."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from ohttp_relay.client import OhttpClient, RelayKeys
from ohttp_relay.gateway import DEFAULT_PATH, Gateway
from ohttp_relay.keys import KeyRing
from ohttp_relay.relay import Relay
from ohttp_relay.transport import Seen, TargetPolicy

LOOPBACK = ("127.0.0.0/8", "::1/128")


class Target:
    """A target server that records requests and answers as told."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.echo

    async def echo(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        return web.Response(body=b"echo:" + body, headers={"X-Path": request.raw_path})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        pairs = tuple((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in request.raw_headers)
        body = await request.read()
        self.requests.append(Seen(request.remote or "", request.method, request.raw_path, 0, pairs, body))
        return await self.answer(request)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app


async def break_off(request: web.Request) -> web.StreamResponse:
    """Answer with a part of what was announced, then hang up."""
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b"partial")
    assert request.transport is not None
    request.transport.abort()
    return answer


class World:
    def __init__(self, serve: Callable[[web.Application], Awaitable[str]], tls: ssl.SSLContext) -> None:
        self.serve = serve
        self.tls = tls
        self.seen: list[tuple[str, Seen]] = []
        self.target = Target()
        self.keyring = KeyRing.generate()
        self._closing: list[Any] = []

    def observe(self, event: str, seen: Seen) -> None:
        self.seen.append((event, seen))

    def events(self, name: str) -> list[Seen]:
        return [seen for event, seen in self.seen if event == name]

    async def start(
        self,
        *,
        gateway: dict[str, Any] | None = None,
        relay: dict[str, Any] | None = None,
        client: dict[str, Any] | None = None,
    ) -> OhttpClient:
        self.origin = await self.serve(self.target.app())
        settings: dict[str, Any] = {
            "targets": TargetPolicy.of([self.origin], LOOPBACK),
            "ssl_context": self.tls,
            "observe": self.observe,
        }
        self.gateway = Gateway(self.keyring, **{**settings, **(gateway or {})})
        self.gateway_url = await self.serve(self.gateway.app()) + DEFAULT_PATH
        relay_settings: dict[str, Any] = {"ssl_context": self.tls, "observe": self.observe}
        self.relay = Relay({"gw": self.gateway_url}, **{**relay_settings, **(relay or {})})
        self.relay_url = await self.serve(self.relay.app()) + "/gw"
        return self.client(**(client or {}))

    def client(self, **settings: Any) -> OhttpClient:
        source = settings.pop("key_source", None) or RelayKeys(self.relay_url)
        made = OhttpClient(self.relay_url, source, **{"ssl_context": self.tls, **settings})
        self._closing.append(made)
        return made

    async def close(self) -> None:
        for part in self._closing:
            await part.close()


async def crowd(url: str, count: int) -> None:
    """Open idle connections to a server, then see that it still answers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made: list[socket.socket] = []
    try:
        for at in range(count):
            connection = socket.socket()
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                connection.connect(("127.0.0.1", URL(url).port))
            made.append(connection)
            if at % 500 == 499:
                await asyncio.sleep(0.05)  # the other end accepts in this very loop
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 200
    finally:
        for connection in made:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
