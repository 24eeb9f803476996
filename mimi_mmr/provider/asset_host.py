"""A small asset host: a separate server that stores encrypted assets as files."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from aiohttp import web

from mimi_mmr.errors import ConfigError
from mimi_mmr.protocol.endpoints import HEALTH, ProviderRole
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.run import Drain, health
from ohttp_relay.transport import has_coding, hide_server

_NAME = re.compile(r"[0-9a-f]{32}\Z")


class AssetHost:
    """The asset host: PUT needs the upload token; GET needs the asset's random name only."""

    def __init__(self, directory: Path, upload_token: str, max_bytes: int, recorder: Recorder) -> None:
        """Store assets as files in `directory`."""
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
        """Return the application."""
        app = web.Application(client_max_size=self._max_bytes, middlewares=[self.drain.watch])
        app.router.add_get(HEALTH.template, health(self.drain))  # first: `/{name}` would match its path
        app.add_routes([web.get("/{name}", self.get), web.put("/{name}", self.put)])
        app.on_response_prepare.append(hide_server)
        return app

    async def put(self, request: web.Request) -> web.Response:
        """Store the body of `PUT /{name}` as an asset, if the request has the upload token."""
        name = request.match_info["name"]
        wanted = f"Bearer {self._token}"
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not secrets.compare_digest(given, wanted.encode()):
            return web.Response(status=401)
        if not _NAME.match(name) or (self._directory / name).exists():
            return web.Response(status=409)
        if has_coding(request.headers):  # other bytes than those sent would be stored
            return web.Response(status=415)
        body = await request.read()
        self._see(request, body)
        partial = self._directory / f"{name}.part"
        partial.write_bytes(body)
        partial.rename(self._directory / name)
        return web.Response(status=201)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer `GET /{name}` with the asset, or a range of it (RFC 9110, section 14)."""
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
        self._recorder.write(
            ProviderRole.ASSETS, "in", peer=peer, method=method, path=path, headers=headers, body=body
        )
