"""A provider's one TLS listener, and which endpoints are reached directly or through the gateway.

These are reached directly over TLS: accounts by their owners, endpoints for other providers, health checks, the
relay to the peers' gateways, and this provider's gateway. Rooms, queues, shelves, directory and assets answer
through the gateway only. The table of endpoints decides this; there is no setting for it.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

from mimi_mmr.protocol.endpoints import DOWNLOAD_ASSET, ENDPOINTS, HEALTH, RELAY_PATH, ProviderRole, Way
from mimi_mmr.provider.assets import AssetHosts
from mimi_mmr.provider.http import Router
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.run import Drain, health, mark_begun
from mimi_mmr.provider.settings import Settings
from ohttp_relay import bhttp
from ohttp_relay.download import DownloadProxy
from ohttp_relay.gateway import DEFAULT_PATH as GATEWAY_PATH
from ohttp_relay.gateway import Gateway, GatewayLimits
from ohttp_relay.keys import KeyRing
from ohttp_relay.relay import Relay
from ohttp_relay.server import ByteBudget
from ohttp_relay.transport import AnyResponse, Observer, Seen, TargetPolicy, hide_server

DOWNLOAD_PREFIX = DOWNLOAD_ASSET.template.partition("{")[0]
_ROLES = {row.template: row.role for row in ENDPOINTS if row.way is Way.PEER}


class Listener:
    """The two routers, the gateway, the download proxy and the relay of one provider."""

    def __init__(
        self,
        settings: Settings,
        ring: KeyRing,
        peers: Peers,
        recorder: Recorder,
        outgoing: ssl.SSLContext | None,
    ) -> None:
        """Open capsules with the keys in `ring`; connect to peers and asset hosts with `outgoing`."""
        self._recorder = recorder
        self._drain = Drain(relayed=RELAY_PATH)
        bodies = ByteBudget(settings.max_bodies_bytes)
        self.direct = Router(recorder, Way.DIRECT, Way.ACCOUNT, Way.PEER, bodies=bodies)
        self.oblivious = Router(recorder, Way.OBLIVIOUS)
        observe = self._observe if recorder.active else None
        self._downloads = _downloads(settings, peers, outgoing, observe)
        self._gateway = self._make_gateway(settings, ring, outgoing, observe)
        self._relay = _relay(settings, outgoing, observe) if settings.peers else None
        self.sockets = [one.sockets for one in (self._gateway, self._relay) if one is not None]

    def application(self, documents: list[web.RouteDef]) -> web.Application:
        """Return the application, with the endpoints mounted so far and the routes in `documents`."""
        app = web.Application(middlewares=[self._watch])
        app.add_routes(self._gateway.routes())
        if self._relay is not None:
            app.add_routes(self._relay.routes(RELAY_PATH))
        app.router.add_get(HEALTH.template, health(self._drain))
        app.add_routes(documents)
        app.add_routes(self.direct.aiohttp_routes())
        app.on_response_prepare.append(hide_server)
        app.on_response_prepare.append(mark_begun)
        return app

    def stop(self) -> None:
        """Refuse new requests, fail health checks, end sockets; requests in flight are finished."""
        self._drain.stop()
        for sockets in self.sockets:
            sockets.stop()

    async def finished(self) -> None:
        """Wait, after `stop`, until no request is in flight or their time is over."""
        await self._drain.finished()

    async def close(self) -> None:
        """Close connections to peers and asset hosts."""
        if self._relay is not None:
            await self._relay.close()
        await self._gateway.close()
        await self._downloads.close()

    # --- oblivious HTTP ------------------------------------------------------------------------------

    def _make_gateway(
        self, settings: Settings, ring: KeyRing, outgoing: ssl.SSLContext | None, observe: Observer | None
    ) -> Gateway:
        asset_host = settings.asset_host
        targets = (
            TargetPolicy.of([asset_host.origin], asset_host.networks) if asset_host else TargetPolicy.of([])
        )
        return Gateway(
            ring,
            targets,
            {f"https://{settings.domain}": self._answer},
            limits=GatewayLimits(request=settings.max_request_bytes, requests=settings.max_bodies_bytes),
            ssl_context=outgoing,
            observe=observe,
        )

    async def _answer(self, request: bhttp.Request) -> AnyResponse:
        """Answer a request from a capsule that is for this provider."""
        if request.path.startswith(DOWNLOAD_PREFIX):
            return await self._downloads.handler(request)
        return await self.oblivious.oblivious(request)

    # --- recording -----------------------------------------------------------------------------------

    def _observe(self, event: str, seen: Seen) -> None:
        """Record what the relay, the gateway and the download proxy see."""
        role, _, _ = event.partition(".")
        self._recorder.write(
            ProviderRole.ASSETS if role == "download" else role,
            event,
            peer=seen.peer,
            method=seen.method,
            path=seen.target,
            status=seen.status,
            headers=seen.fields,
            body=seen.body,
        )

    @web.middleware
    async def _watch(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Record the client's address, for the ledger; no other code in this package reads an address."""
        if self._recorder.active:
            self._recorder.write(
                _role_of(request.path),
                "connection",
                peer=request.remote or "",
                method=request.method,
                path=request.path,
                headers=request.headers.items(),
            )
        return await self._drain.watch(request, handler)


def _role_of(path: str) -> str:
    """Return the part of the provider that learns the client's address for this path."""
    if path.startswith(f"{RELAY_PATH}/"):
        return "relay"
    if path == GATEWAY_PATH:
        return "gateway"
    return _ROLES.get(path, ProviderRole.ACCOUNTS)


def _downloads(
    settings: Settings, peers: Peers, outgoing: ssl.SSLContext | None, observe: Observer | None
) -> DownloadProxy:
    own = settings.asset_host
    return DownloadProxy(
        AssetHosts(peers),
        cache_dir=settings.data_dir / "downloads",
        networks=own.networks if own else (),
        # A peer's document may name any host, in this provider's private networks too.
        private_hosts={own.origin.removeprefix("https://")} if own else (),
        ssl_context=outgoing,
        observe=observe,
    )


def _relay(settings: Settings, outgoing: ssl.SSLContext | None, observe: Observer | None) -> Relay:
    gateways = {domain: url + GATEWAY_PATH for domain, url in settings.peers.items()}
    return Relay(gateways, ssl_context=outgoing, observe=observe)
