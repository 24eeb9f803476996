"""Assets: the endpoint that stores one on the provider's asset host, and the hosts that gateways fetch from.

The sender encrypts each asset under its own key and sends it in a capsule. The provider stores it on the asset
host, and gateways fetch it. So the host sees neither who stores an asset nor who reads it.
"""

from __future__ import annotations

import io
import secrets
import ssl
from collections.abc import Container, Iterable, Iterator

import aiohttp

from mimi_mmr.errors import InvalidUri, NotAllowed, PeerError, QueueFull
from mimi_mmr.protocol.assets import AssetLocation
from mimi_mmr.protocol.endpoints import PUT_ASSET
from mimi_mmr.provider.http import Call, Router
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.settings import AssetStorage
from mimi_mmr.uris import https_origin
from ohttp_relay.transport import AUTO_HEADERS, cause_of


class AssetService:
    """Puts assets on the provider's asset host."""

    def __init__(self, storage: AssetStorage | None, ssl_context: ssl.SSLContext | None) -> None:
        """Store assets in `storage`; if it is None, the endpoint answers that the provider has no asset host."""
        self._storage = storage
        connector = aiohttp.TCPConnector(ssl=ssl_context or True)
        timeout = aiohttp.ClientTimeout(total=60)
        jar = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=jar, auto_decompress=False
        )

    def mount_oblivious(self, router: Router) -> None:
        """Mount the endpoint; it answers through the gateway only."""
        router.serve(PUT_ASSET, self.put)

    async def close(self) -> None:
        """Close the connection to the asset host."""
        await self._session.close()

    async def put(self, call: Call[None, bytes]) -> AssetLocation:
        """Store an encrypted asset on the asset host; return its location."""
        if self._storage is None:
            raise NotAllowed("this provider has no asset host")
        url = f"{self._storage.origin}/{secrets.token_hex(16)}"
        headers = {"Authorization": f"Bearer {self._storage.upload_token}"}
        try:
            async with self._session.put(
                url, data=io.BytesIO(call.request), headers=headers, skip_auto_headers=AUTO_HEADERS
            ) as answer:
                if answer.status == 507:
                    raise QueueFull("the asset host has no room left; nothing was stored")
                if answer.status != 201:
                    raise PeerError(f"the asset host answered with status {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PeerError(f"the asset host can't be asked: {cause_of(error)}") from None
        return AssetLocation(url)


class AssetHosts(Container[str]):
    """Hosts that this hub's download proxy may fetch from: its own and its peers' (-06, "Download Files")."""

    def __init__(self, peers: Peers) -> None:
        """Read the hosts from the providers' signed documents."""
        self._peers = peers

    def __contains__(self, host: object) -> bool:
        """Return whether `host` is an allowed asset host; it includes the port unless that is 443."""
        try:
            wanted = https_origin(f"https://{host}")
        except InvalidUri:
            return False
        return wanted in _readable(self._peers.asset_origins())


def _readable(origins: Iterable[str]) -> Iterator[str]:
    """Yield origins of signed documents in their one spelling, without those that are none."""
    for origin in origins:
        try:
            yield https_origin(origin)
        except InvalidUri:
            continue
