"""Bodies with a content coding (gzip and the like) are refused: no endpoint decodes, or stores other bytes."""

from __future__ import annotations

import gzip
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mimi_mmr.protocol.endpoints import ENDPOINTS, Way
from mimi_mmr.provider.asset_host import AssetHost
from mimi_mmr.provider.record import Recorder
from tests.mimi_mmr.conftest import LiveWorld

BODIES = (gzip.compress(bytes(1000)), b"not gzip at all")
CODED = {"Content-Encoding": "gzip", "Authorization": "Bearer token"}


async def test_no_endpoint_of_a_provider_takes_a_body_with_a_content_coding(
    live: LiveWorld, caplog: pytest.LogCaptureFixture
) -> None:
    url = live.world.providers["a.example"].url
    connector = aiohttp.TCPConnector(ssl=live.world.tls())
    async with aiohttp.ClientSession(connector=connector) as session:
        for row in ENDPOINTS:
            if row.way is Way.OBLIVIOUS or row.method == "GET":
                continue
            path = url + row.path(dict.fromkeys(row.names, "1"))
            for body in BODIES:
                async with session.request(row.method, path, data=body, headers=CODED) as answer:
                    assert answer.status == 415, row
    assert caplog.records == []


async def test_the_asset_host_stores_nothing_that_has_a_content_coding(tmp_path: Path) -> None:
    runner = web.AppRunner(AssetHost(tmp_path, "token", 10_000, Recorder(None)).app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/" + "0" * 32
    try:
        async with aiohttp.ClientSession() as session:
            for body in BODIES:
                async with session.put(url, data=body, headers=CODED) as answer:
                    assert answer.status == 415
            async with session.get(url) as answer:
                assert answer.status == 404
            async with session.put(url, data=b"x", headers={"Authorization": "Bearer token"}) as answer:
                assert answer.status == 201
    finally:
        await runner.cleanup()
