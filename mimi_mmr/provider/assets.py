"""Assets: the endpoint that puts one on the provider's asset host, and the hosts that gateways fetch from.

An asset is encrypted by the sender under a key of its own; it is put by the provider, out of a capsule, and
fetched by gateways, so the host sees neither who put it nor who reads it.
"""

from __future__ import annotations

import io
import secrets
import ssl
from collections.abc import Container
from urllib.parse import urlsplit

import aiohttp

from mimi_mmr.errors import NotAllowed, PeerError
from mimi_mmr.protocol.assets import AssetLocation
from mimi_mmr.protocol.endpoints import PUT_ASSET
from mimi_mmr.provider.http import Call, Router
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.settings import AssetStorage
from ohttp_relay.transport import AUTO_HEADERS


class AssetService:
    """Puts assets on the provider's asset host."""

    def __init__(self, storage: AssetStorage | None, ssl_context: ssl.SSLContext | None) -> None:
        """Put them into `storage`; without one, the endpoint says that there is none."""
        self._storage = storage
        connector = aiohttp.TCPConnector(ssl=ssl_context or True)
        timeout = aiohttp.ClientTimeout(total=60)
        jar = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar)

    def mount_oblivious(self, router: Router) -> None:
        """Mount the endpoint, which answers through the gateway only."""
        router.serve(PUT_ASSET, self.put)

    async def close(self) -> None:
        """Close the connection to the asset host."""
        await self._session.close()

    async def put(self, call: Call[None, bytes]) -> AssetLocation:
        """Put an encrypted asset on the asset host; return where it is."""
        if self._storage is None:
            raise NotAllowed("this provider has no asset host")
        url = f"{self._storage.origin}/{secrets.token_hex(16)}"
        headers = {"Authorization": f"Bearer {self._storage.upload_token}"}
        try:
            async with self._session.put(
                url, data=io.BytesIO(call.request), headers=headers, skip_auto_headers=AUTO_HEADERS
            ) as answer:
                if answer.status != 201:
                    raise PeerError(f"the asset host answered with status {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PeerError(f"the asset host does not answer ({type(error).__name__})") from None
        return AssetLocation(url)


class AssetHosts(Container[str]):
    """Where this hub's download proxy fetches from: its own asset host, and its peers' (-06, "Download Files")."""

    def __init__(self, peers: Peers) -> None:
        """Take them from the providers' signed documents."""
        self._peers = peers

    def __contains__(self, host: object) -> bool:
        """Return whether `host` (with a port that is not 443) is one of them."""
        return host in {urlsplit(origin).netloc for origin in self._peers.asset_origins()}
