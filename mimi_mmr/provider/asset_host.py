"""A small asset host: a separate server that stores encrypted assets as files."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from mimi_mmr.errors import ConfigError
from mimi_mmr.protocol.endpoints import HEALTH, ProviderRole
from mimi_mmr.provider.asset_files import NAME, AssetFiles, StorageFull
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.run import Drain, health
from ohttp_relay.transport import has_coding, hide_server

SWEEP_SECONDS = 600.0
log = logging.getLogger(__name__)


class AssetHost:
    """The asset host: PUT needs the upload token; GET needs the asset's random name only."""

    def __init__(self, directory: Path, upload_token: str, max_bytes: int, recorder: Recorder) -> None:
        """Store assets as files in `directory`."""
        self._token = upload_token
        self._max_bytes = max_bytes
        self._recorder = recorder
        self.drain = Drain()
        try:
            self._files = AssetFiles(directory)
        except OSError as error:
            raise ConfigError(f"data_dir: {directory}: {error.strerror}") from None

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=self._max_bytes, middlewares=[self.drain.watch])
        app.router.add_get(HEALTH.template, health(self.drain))  # first: `/{name}` would match its path
        app.add_routes([web.get("/{name}", self.get), web.put("/{name}", self.put)])
        app.on_response_prepare.append(hide_server)
        app.cleanup_ctx.append(self._sweeping)
        return app

    async def _sweeping(self, _: web.Application) -> AsyncIterator[None]:
        """Delete what killed uploads left, at the start and from time to time."""
        await self._sweep()
        task = asyncio.create_task(self._sweep_on(), name="asset host's sweeping")
        yield
        task.cancel()
        await asyncio.wait({task})

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            await self._sweep()

    async def _sweep(self) -> None:
        try:
            swept = await asyncio.to_thread(self._files.sweep)
        except OSError as error:  # the next round tries again
            log.error("unfinished assets could not be deleted: %s", type(error).__name__)  # noqa: TRY400
            return
        if swept:
            log.warning("unfinished assets were deleted")

    async def put(self, request: web.Request) -> web.Response:
        """Store the body of `PUT /{name}` as an asset, if the request has the upload token."""
        name = request.match_info["name"]
        wanted = f"Bearer {self._token}"
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if not secrets.compare_digest(given, wanted.encode()):
            return web.Response(status=401)
        if not NAME.fullmatch(name) or self._files.find(name):
            return web.Response(status=409)
        if has_coding(request.headers):  # other bytes than those sent would be stored
            return web.Response(status=415)
        body = await request.read()
        self._see(request, body)
        try:
            await asyncio.to_thread(self._files.store, name, body)
        except StorageFull:
            log.error("the disk is full: an asset was refused")  # noqa: TRY400
            return web.Response(status=507, text="the asset host's disk is full; nothing was stored")
        return web.Response(status=201)

    async def get(self, request: web.Request) -> web.StreamResponse:
        """Answer `GET /{name}` with the asset, or a range of it (RFC 9110, section 14)."""
        self._see(request, b"")
        path = self._files.find(request.match_info["name"])
        if path is None:
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
