"""A whole provider: its parts put together on one TLS listener.

Directly, over TLS: accounts (by their owners), other providers, relay, gateway, health. Out of the gateway only:
rooms, queues, shelves, directory, inboxes. There is no setting that opens the second kind to direct requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import ConfigError
from mimi_mmr.protocol.key_packages import KeyMaterialRequest
from mimi_mmr.protocol.peers import PeerRequest
from mimi_mmr.protocol.provider_keys import ProviderKeys, ProviderKeysTBS, ProviderList, sign_provider_keys
from mimi_mmr.provider.accounts import AccountService
from mimi_mmr.provider.assets import AssetHosts, AssetService
from mimi_mmr.provider.databases import open_database
from mimi_mmr.provider.deliveries import DeliveryService
from mimi_mmr.provider.http import Call, Reply, Router
from mimi_mmr.provider.hub import HubService
from mimi_mmr.provider.key_files import (
    authority,
    key_ring,
    sealing_key,
    secret_file,
    trust_anchors,
)
from mimi_mmr.provider.outbox import OutboxWorker
from mimi_mmr.provider.peers import KEYS_PATH, Peers
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.run import HEALTH, Drain, health, mark_begun
from mimi_mmr.provider.settings import Settings
from mimi_mmr.provider.store.accounts import AccountStore
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.deliveries import DeliveryStore
from mimi_mmr.provider.store.hub import HubStore
from ohttp_relay import bhttp
from ohttp_relay.download import PREFIX as DOWNLOAD_PREFIX
from ohttp_relay.download import DownloadProxy
from ohttp_relay.gateway import DEFAULT_PATH as GATEWAY_PATH
from ohttp_relay.gateway import Gateway, GatewayLimits
from ohttp_relay.relay import Relay
from ohttp_relay.rotation import KeyKeeper
from ohttp_relay.sockets import Sockets
from ohttp_relay.streams import AnyResponse
from ohttp_relay.targets import TargetPolicy
from ohttp_relay.transport import Observer, Seen, hide_server

KEYS_LIFETIME = 7 * 86400
HOUSEKEEPING_SECONDS = 3600.0
KEY_RING = "ohttp-keys"
RELAY = "/relay"
KEY_RING_LIFETIME = 30 * 86400.0
log = logging.getLogger(__name__)


class Provider:
    """Hub, accounts, deliveries, relay and gateway of one domain."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Nothing is opened before `start`."""
        self.settings = settings
        self._clock = clock
        self._recorder = Recorder(settings.record_dir)
        self._closers: list[Callable[[], object]] = []
        self._drain = Drain(relayed=RELAY)
        self._sockets: list[Sockets] = []
        self._housekeeping: asyncio.Task[None] | None = None

    # --- life ----------------------------------------------------------------------------------------

    async def start(self) -> web.Application:
        """Open databases and keys, start the workers, and give the application to serve."""
        settings = self.settings
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"data_dir: {settings.data_dir}: {error.strerror}") from None
        self._ca = authority(settings)
        trust = trust_anchors(settings, self._ca)
        identity = SigningKey.from_seed(secret_file(settings.data_dir / "provider.key", 32))
        outgoing = self._outgoing_tls()
        self.peers = Peers(
            settings.domain,
            settings.peers,
            trust,
            identity,
            ssl_context=outgoing,
            source_address=settings.source_address,
            recorder=self._recorder,
            clock=self._clock,
        )
        self._closers.append(self.peers.close)
        if not settings.peers:
            log.warning("no peers: clients need a second provider, as a relay, and can't use this one alone")
        await self._open_services(trust, outgoing)
        self.peers.publish(self._own_keys(identity))
        self._housekeeping = asyncio.create_task(self._keep_house(identity), name="housekeeping")
        return self._application(outgoing)

    def stopping(self) -> None:
        """Refuse what comes from now on, tell health checks, end long polls and sockets; the rest is finished."""
        self._drain.stop()
        self.deliveries.stopping()
        for sockets in self._sockets:
            sockets.stop()

    async def finished(self) -> None:
        """After `stopping`: until no request is in flight, or their time is over."""
        await self._drain.finished()

    async def close(self) -> None:
        """Stop workers, then close what they used; safe to call after a failed start."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        for closer in reversed(self._closers):
            result = closer()
            if asyncio.iscoroutine(result):
                await result
        self._closers.clear()

    async def _open_services(self, trust: TrustAnchors, outgoing: ssl.SSLContext | None) -> None:
        settings, domain = self.settings, self.settings.domain
        self.hub_store = HubStore(await self._database("hub"), domain)
        self._account_store = AccountStore(await self._database("accounts"))
        database = await self._database("deliveries")
        self._delivery_store = DeliveryStore(database, settings.max_queue_bytes, settings.max_queues)
        self._queue_key = sealing_key(settings.data_dir / "queue.key")
        self._key_material_key = sealing_key(settings.data_dir / "key-material.key")
        self.deliveries = DeliveryService(
            domain, self._delivery_store, self._queue_key, self._key_material_key, self._recorder, self._clock
        )
        self.outbox = OutboxWorker(self.hub_store, self._fan_out)
        self.hub = HubService(
            domain, self.hub_store, self.outbox, self.peers, self.deliveries.claim, self._clock
        )
        self.accounts = AccountService(domain, self._account_store, self._ca, trust, self._clock)
        asset_host = settings.asset_host
        self.assets = AssetService(
            asset_host.origin if asset_host else None,
            asset_host.upload_token if asset_host else "",
            outgoing,
            self._recorder,
        )
        self._closers.append(self.assets.close)
        self._keyring = key_ring(settings.data_dir / KEY_RING)
        self.outbox.start()
        self._closers.append(self.outbox.close)

    async def _database(self, role: str) -> Database:
        database = await open_database(self.settings, role)
        self._closers.append(database.close)
        return database

    def _outgoing_tls(self) -> ssl.SSLContext | None:
        ca = self.settings.tls.ca
        try:
            return ssl.create_default_context(cafile=ca) if ca else None
        except (OSError, ssl.SSLError):
            raise ConfigError(f"tls.ca: {ca}: expected certificates in PEM") from None

    def _own_keys(self, identity: SigningKey) -> ProviderKeys:
        now = self._clock()
        asset_host = self.settings.asset_host
        keys = ProviderKeysTBS(
            self.settings.domain,
            self._key_material_key.public,
            self._queue_key.public,
            self._keyring.public_list(),
            self.settings.base_url,
            asset_host.origin if asset_host else "",
            int(now) + KEYS_LIFETIME,
        )
        return sign_provider_keys(keys, identity, [self._ca.issue_provider(identity.public, now)])

    async def _fan_out(self, domain: str, body: bytes) -> None:
        if domain == self.settings.domain:
            await self.deliveries.notify(domain, body)
        else:
            await self.peers.send(domain, "notify", body)

    async def _keep_house(self, identity: SigningKey) -> None:
        keeper = KeyKeeper(self._keyring, self.settings.data_dir / KEY_RING, lifetime=KEY_RING_LIFETIME)
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            try:
                await self._tidy(keeper, identity)
            except Exception as error:  # what failed now is tried again next time
                log.error("housekeeping failed: %s", type(error).__name__)  # noqa: TRY400

    async def _tidy(self, keeper: KeyKeeper, identity: SigningKey) -> None:
        keeper.tend()
        self.peers.publish(self._own_keys(identity))  # signed anew: the document's expiry moves on
        await self._delivery_store.expire(self._clock())
        await self._account_store.expire(self._clock())

    # --- endpoints -----------------------------------------------------------------------------------

    def _application(self, outgoing: ssl.SSLContext | None) -> web.Application:
        direct = self._direct_router()
        app = web.Application(middlewares=[self._watch])
        gateway = self._gateway(outgoing)
        self._closers.append(gateway.close)
        self._sockets.append(gateway.sockets)
        app.add_routes(gateway.routes())
        if self.settings.peers:
            relay = self._relay(outgoing)
            self._closers.append(relay.close)
            self._sockets.append(relay.sockets)
            app.add_routes(relay.routes(RELAY))
        app.router.add_get(HEALTH, health(self._drain))
        app.router.add_get("/.well-known/mimi-protocol-directory", self._directory)
        app.add_routes(direct.aiohttp_routes())
        app.on_response_prepare.append(hide_server)
        app.on_response_prepare.append(mark_begun)
        return app

    def _direct_router(self) -> Router:
        router = Router(self._recorder)
        self.accounts.mount_direct(router)
        router.add("GET", KEYS_PATH, self._keys, role="accounts")
        router.add("GET", "/v1/providers", self._providers, role="accounts")
        router.add("POST", "/v1/notify", self._notify, role="deliveries", limit=PeerRequest.LIMIT)
        router.add("POST", "/v1/claim", self._claim, role="deliveries")
        return router

    def oblivious_router(self) -> Router:
        """What answers out of the gateway only."""
        router = Router(self._recorder)
        self.hub.mount(router)
        self.deliveries.mount(router)
        self.accounts.mount_oblivious(router)
        self.assets.mount(router)
        return router

    def _gateway(self, outgoing: ssl.SSLContext | None) -> Gateway:
        asset_host = self.settings.asset_host
        origins = [asset_host.origin] if asset_host else []
        networks = asset_host.networks if asset_host else ()
        router = self.oblivious_router()
        downloads = DownloadProxy(
            AssetHosts(self.peers),
            cache_dir=self.settings.data_dir / "downloads",
            networks=networks,
            ssl_context=outgoing,
            observe=self._observer,
        )
        self._closers.append(downloads.close)

        async def answer(request: bhttp.Request) -> AnyResponse:
            if request.path.startswith(DOWNLOAD_PREFIX):
                return await downloads.handler(request)
            return await router.oblivious(request)

        return Gateway(
            self._keyring,
            TargetPolicy.of(origins, networks),
            {f"https://{self.settings.domain}": answer},
            limits=GatewayLimits(request=self.settings.max_request_bytes),
            ssl_context=outgoing,
            observe=self._observer,
        )

    def _relay(self, outgoing: ssl.SSLContext | None) -> Relay:
        gateways = {domain: url + GATEWAY_PATH for domain, url in self.settings.peers.items()}
        return Relay(gateways, ssl_context=outgoing, observe=self._observer)

    @property
    def _observer(self) -> Observer | None:
        return self._observe if self._recorder.active else None

    def _observe(self, event: str, seen: Seen) -> None:
        role, _, _ = event.partition(".")
        role = "assets" if role == "download" else role
        self._recorder.write(
            role,
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
        """Record who connects, for the ledger; nothing else in this package looks at an address."""
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

    async def _directory(self, _: web.Request) -> web.Response:
        """-06, "Directory"; -06's other endpoints are not for users of these rooms, and answer 404."""
        base = f"https://{self.settings.domain}/v1"
        document = {
            "keyMaterial": f"{base}/keyMaterial/{{provider}}",
            "update": f"{base}/update/{{roomId}}",
            "notify": f"{self.settings.base_url}/v1/notify",
            "submitMessage": f"{base}/submitMessage/{{roomId}}",
            "proxyDownload": f"https://{self.settings.domain}{DOWNLOAD_PREFIX}{{downloadUrl}}",
            "obliviousGateway": f"{self.settings.base_url}{GATEWAY_PATH}",
        }
        return web.Response(body=json.dumps(document), content_type="application/json")

    async def _keys(self, _: Call) -> Reply:
        return Reply(body=self.peers.own.to_bytes())

    async def _providers(self, _: Call) -> Reply:
        return Reply(body=ProviderList(tuple(await self.peers.documents())).to_bytes())

    async def _notify(self, call: Call) -> Reply:
        sender, body = await self.peers.receive(call.body, "notify")
        await self.deliveries.notify(sender, body)
        return Reply(201)

    async def _claim(self, call: Call) -> Reply:
        sender, body = await self.peers.receive(call.body, "claim")
        return Reply(body=await self.deliveries.claim(KeyMaterialRequest.from_bytes(body), sender))


def _role_of(path: str) -> str:
    if path.startswith(f"{RELAY}/"):
        return "relay"
    if path == GATEWAY_PATH:
        return "gateway"
    return "deliveries" if path in ("/v1/notify", "/v1/claim") else "accounts"
