"""Assets: the endpoint that puts one on the provider's asset host, and a small asset host.

What lies there is encrypted by the sender under a key of its own; it is put by the provider, out of a capsule,
and fetched by gateways, so the host sees neither who put it nor who reads it.
"""

from __future__ import annotations

import io
import re
import secrets
import ssl
from collections.abc import Container
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from mimi_mmr.errors import ConfigError, NotAllowed, PeerError
from mimi_mmr.protocol.assets import MAX_ASSET, AssetLocation
from mimi_mmr.provider.http import Call, Reply, Router
from mimi_mmr.provider.peers import Peers
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.run import HEALTH, Drain, health
from ohttp_relay.targets import AUTO_HEADERS
from ohttp_relay.transport import hide_server

ROLE = "assets"
_NAME = re.compile(r"[0-9a-f]{32}\Z")


class AssetService:
    """Puts assets on the provider's asset host."""

    def __init__(
        self, origin: str | None, upload_token: str, ssl_context: ssl.SSLContext | None, recorder: Recorder
    ) -> None:
        """Without an origin, the endpoint says that there is none."""
        self._origin = origin
        self._token = upload_token
        self._recorder = recorder
        connector = aiohttp.TCPConnector(ssl=ssl_context or True)
        timeout = aiohttp.ClientTimeout(total=60)
        jar = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar)

    def mount(self, router: Router) -> None:
        """Add the endpoint that answers through the gateway only."""
        router.add("POST", "/v1/assets", self.put, role=ROLE, limit=MAX_ASSET)

    async def close(self) -> None:
        """Close the connection to the asset host."""
        await self._session.close()

    async def put(self, call: Call) -> Reply:
        """POST /v1/assets: an encrypted asset; answers its URL."""
        if self._origin is None:
            raise NotAllowed("this provider has no asset host")
        url = f"{self._origin}/{secrets.token_hex(16)}"
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with self._session.put(
                url, data=io.BytesIO(call.body), headers=headers, skip_auto_headers=AUTO_HEADERS
            ) as answer:
                if answer.status != 201:
                    raise PeerError(f"the asset host answered with status {answer.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise PeerError(f"the asset host does not answer ({type(error).__name__})") from None
        return Reply(201, AssetLocation(url).to_bytes())


class AssetHosts(Container[str]):
    """Where this hub's download proxy fetches from: its own asset host, and its peers' (-06, "Download Files")."""

    def __init__(self, peers: Peers) -> None:
        """As the providers' signed documents name them."""
        self._peers = peers

    def __contains__(self, host: object) -> bool:
        """Whether `host` (with a port that is not 443) is one of them."""
        return host in {urlsplit(origin).netloc for origin in self._peers.asset_origins()}


class AssetHost:
    """PUT with the upload token, GET for anybody who knows the name; names are random and say nothing."""

    def __init__(self, directory: Path, upload_token: str, max_bytes: int, recorder: Recorder) -> None:
        """Keep assets as files in `directory`."""
        self._directory = directory
        self._token = upload_token
        self._max_bytes = max_bytes
        self._recorder = recorder
        self.drain = Drain()
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"data_dir: {directory}: {error.strerror}") from None

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(client_max_size=self._max_bytes, middlewares=[self.drain.watch])
        app.router.add_get(HEALTH, health(self.drain))  # first: its path looks like a name
        app.add_routes([web.get("/{name}", self.get), web.put("/{name}", self.put)])
        app.on_response_prepare.append(hide_server)
        return app

    async def put(self, request: web.Request) -> web.Response:
        """PUT /{name}."""
        name = request.match_info["name"]
        wanted = f"Bearer {self._token}"
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not secrets.compare_digest(given, wanted.encode()):
            return web.Response(status=401)
        if not _NAME.match(name) or (self._directory / name).exists():
            return web.Response(status=409)
        body = await request.read()
        self._see(request, body)
        partial = self._directory / f"{name}.part"
        partial.write_bytes(body)
        partial.rename(self._directory / name)
        return web.Response(status=201)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """GET /{name}: the asset, with range requests (RFC 9110, section 14)."""
        self._see(request, b"")
        name = request.match_info["name"]
        path = self._directory / name
        if not _NAME.match(name) or not path.is_file():
            return web.Response(status=404)
        headers = {"Content-Type": "application/octet-stream", "Cache-Control": "max-age=604800, immutable"}
        return web.FileResponse(path, headers=headers)

    def _see(self, request: web.Request, body: bytes) -> None:
        headers = list(request.headers.items())
        peer = request.remote or ""
        method, path = request.method, request.path
        self._recorder.write(ROLE, "in", peer=peer, method=method, path=path, headers=headers, body=body)
