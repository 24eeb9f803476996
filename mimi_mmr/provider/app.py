"""A whole provider: it opens its parts in order, starts them and stops them."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web

from mimi_mmr.errors import ConfigError
from mimi_mmr.protocol.endpoints import NOTIFY
from mimi_mmr.provider.accounts import AccountService
from mimi_mmr.provider.assets import AssetService
from mimi_mmr.provider.databases import hold_databases, open_database
from mimi_mmr.provider.documents import DocumentService
from mimi_mmr.provider.hub import HubService
from mimi_mmr.provider.listener import Listener
from mimi_mmr.provider.outbox import OutboxWorker
from mimi_mmr.provider.own_keys import OwnKeys
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.queues import QueueService
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.run import outgoing_tls
from mimi_mmr.provider.settings import ROLES, Settings
from mimi_mmr.provider.shelves import ShelfService
from mimi_mmr.provider.store.accounts import AccountStore
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.deliveries import DeliveryStore
from mimi_mmr.provider.store.hub import HubStore

HOUSEKEEPING_SECONDS = 3600.0
LOG_ATTEMPTS = 30
LOG_SECONDS = 10.0
log = logging.getLogger(__name__)


class Provider:
    """Hub, accounts, queues, shelves, relay and gateway of one domain."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        """Store the settings; nothing is opened before `start`."""
        self.settings = settings
        self._clock = clock
        self._recorder = Recorder(settings.record_dir)
        self._opened = AsyncExitStack()  # closed in reverse
        self._databases: dict[str, Database] = {}
        self._housekeeping: asyncio.Task[None] | None = None

    # --- life ----------------------------------------------------------------------------------------

    async def start(self) -> web.Application:
        """Open databases and keys, start the workers, and return the application to serve."""
        settings = self.settings
        try:
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"data_dir: {settings.data_dir}: {error.strerror}") from None
        self._opened.enter_context(hold_databases(settings))
        self.keys = OwnKeys(settings)
        outgoing = outgoing_tls(settings.tls.ca)
        self._open_peers(outgoing)
        await self._open_stores()
        self._open_services(outgoing)
        self.listener = Listener(settings, self.keys.ring, self.peers, self._recorder, outgoing)
        self._opened.push_async_callback(self.listener.close)
        self.peers.publish(self.keys.document(self._clock()))
        self._housekeeping = asyncio.create_task(self._keep_house(), name="housekeeping")
        self._mount()
        return self.listener.application(self.documents.routes())

    def stopping(self) -> None:
        """Refuse new requests, fail health checks, end long polls and sockets; other requests are finished."""
        self.queues.stopping()
        self.listener.stop()

    async def finished(self) -> None:
        """Wait, after `stopping`, until no request is in flight or their time is over."""
        await self.listener.finished()

    async def close(self) -> None:
        """Stop the workers, then close their databases and connections; safe to call after a failed start."""
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        await self._opened.aclose()

    def reload_trust(self) -> None:
        """Read `trust_dir` again; the old roots stay in use, and the log says so, if the new ones can't be used."""
        try:
            self.keys.reload_trust()
        except ConfigError:
            log.error("the roots in trust_dir are refused, the old ones stay in use")  # noqa: TRY400
        else:
            log.info("the roots in trust_dir were read again")

    # --- parts ---------------------------------------------------------------------------------------

    def _open_peers(self, outgoing: ssl.SSLContext | None) -> None:
        settings = self.settings
        self.peers = Peers(
            settings.domain,
            settings.peers,
            self.keys.trust,
            self.keys.signing,
            ssl_context=outgoing,
            source_address=settings.source_address,
            recorder=self._recorder,
            clock=self._clock,
        )
        self._opened.push_async_callback(self.peers.close)
        if not settings.peers:
            log.warning("no peers: clients need a second provider, as a relay, and can't use this one alone")

    async def _open_stores(self) -> None:
        settings, databases = self.settings, self._databases
        for role in ROLES:
            databases[role] = await open_database(settings, role)
            self._opened.push_async_callback(databases[role].close)
        self.hub_store = HubStore(databases["hub"], settings.domain)
        self.account_store = AccountStore(databases["accounts"])
        self.delivery_store = DeliveryStore(
            databases["deliveries"],
            settings.max_queue_bytes,
            settings.max_queues,
            settings.max_page_bytes,
            settings.max_pages_bytes,
        )

    def _open_services(self, outgoing: ssl.SSLContext | None) -> None:
        settings, keys, clock, recorder = self.settings, self.keys, self._clock, self._recorder
        domain = settings.domain
        self.queues = QueueService(self.delivery_store, keys.queues, recorder, clock)
        self.shelves = ShelfService(domain, self.delivery_store, keys.key_material, recorder, clock)
        self.outbox = OutboxWorker(self.hub_store, self._fan_out)
        self.hub = HubService(domain, self.hub_store, self.outbox, self.peers, self.shelves.claim, clock)
        self.accounts = AccountService(domain, self.account_store, keys.ca, keys.trust, clock)
        self.assets = AssetService(settings.asset_host, outgoing)
        self._opened.push_async_callback(self.assets.close)
        self.documents = DocumentService(domain, settings.base_url, self.peers)
        self.outbox.start()
        self._opened.push_async_callback(self.outbox.close)

    def _mount(self) -> None:
        """Mount every part's endpoints on the router for the way by which clients reach them."""
        direct, oblivious = self.listener.direct, self.listener.oblivious
        self.accounts.mount_direct(direct)
        self.documents.mount_direct(direct)
        self.queues.mount_direct(direct, self.peers)
        self.shelves.mount_direct(direct, self.peers)
        self.hub.mount_oblivious(oblivious)
        self.queues.mount_oblivious(oblivious)
        self.shelves.mount_oblivious(oblivious)
        self.accounts.mount_oblivious(oblivious)
        self.assets.mount_oblivious(oblivious)

    # --- work ----------------------------------------------------------------------------------------

    async def _fan_out(self, domain: str, body: bytes) -> None:
        """Deliver the hub's notification to a peer, or to this provider's own queues."""
        if domain == self.settings.domain:
            await self.queues.notify(domain, NOTIFY.read_request(body), body)
        else:
            await self.peers.send(domain, NOTIFY, body)

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            try:
                await self._tidy()
            except Exception as error:  # the next round tries again
                log.error("housekeeping failed: %s", type(error).__name__)  # noqa: TRY400

    async def _tidy(self) -> None:
        self.keys.rotate()
        self.peers.publish(self.keys.document(self._clock()))  # signed again, with a later expiry
        await self.delivery_store.expire(self._clock())
        await self.account_store.expire(self._clock())
        await self._empty_logs()

    async def _empty_logs(self) -> None:
        """Empty the databases' write-ahead logs. If requests are in the way, try again a few times."""
        full = list(self._databases)
        for _ in range(LOG_ATTEMPTS):
            full = [role for role in full if not await self._databases[role].empty_log()]
            if not full:
                return
            await asyncio.sleep(LOG_SECONDS)
        for role in full:
            log.warning("database %s: what was deleted is still in its write-ahead log", role)
