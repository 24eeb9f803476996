"""Coded content (gzip and the like): bytes pass as they came or are refused, and nobody decodes them."""

from __future__ import annotations

import asyncio
import gzip

import aiohttp
import pytest
from aiohttp import web

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.capsule import decapsulate_request, encapsulate_request
from ohttp_relay.capsule.chunked import CHUNKED_REQUEST_TYPE
from ohttp_relay.client import OhttpClient, PinnedKeys
from ohttp_relay.errors import ExchangeFailed
from ohttp_relay.relay import Relay
from ohttp_relay.transport import TargetPolicy
from tests.ohttp_relay.world import LOOPBACK, World

WHOLE = "message/ohttp-req"


async def post(world: World, url: str, body: bytes, **headers: str) -> aiohttp.ClientResponse:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(url, data=body, headers=fields, ssl=world.tls) as answer,
    ):
        await answer.read()
        return answer


async def test_relay_and_gateway_refuse_a_request_with_a_content_coding(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.start()
    capsule, _ = encapsulate_request(
        world.keyring.public_configs()[0],
        Request("POST", "https", world.origin.removeprefix("https://"), "/", (), bytes(100_000)).to_bytes(),
    )
    for url in (world.relay_url, world.gateway_url):
        for kind in (WHOLE, CHUNKED_REQUEST_TYPE):
            for body in (gzip.compress(capsule), gzip.compress(b"small"), b"not gzip at all"):
                answer = await post(world, url, body, Content_Type=kind, Content_Encoding="gzip")
                assert (answer.status, answer.headers["Accept-Encoding"]) == (415, "identity")
        answer = await post(world, url, b"x", Content_Type=WHOLE, Content_Encoding="identity, br")
        assert answer.status == 415
    assert world.events("relay.forwarded") == []
    assert world.events("gateway.received") == []
    assert [record for record in caplog.records if record.name.startswith("ohttp_relay")] == []
    answer = await post(world, world.relay_url, capsule, Content_Type=WHOLE, Content_Encoding="identity")
    assert answer.status == 200  # this one is no coding


async def test_the_relay_refuses_a_gateways_answer_with_a_content_coding(world: World) -> None:
    async def coded(_: web.Request) -> web.Response:
        body = gzip.compress(world.keyring.public_list())
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    await world.start()
    app = web.Application()
    app.add_routes([web.post("/g", coded), web.get("/g", coded)])
    gateway = await world.serve(app) + "/g"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=world.tls)) as decoding:
        for session in (None, decoding):
            relay = Relay({"gw": gateway}, session, ssl_context=world.tls)
            url = await world.serve(relay.app()) + "/gw"
            assert (await post(world, url, b"x", Content_Type=WHOLE)).status == 502
            async with (
                aiohttp.ClientSession() as client,
                client.get(url, ssl=world.tls) as answer,
            ):
                assert answer.status == 502


async def test_the_client_refuses_an_answer_with_a_content_coding_whatever_its_session_does(
    world: World,
) -> None:
    async def coded(request: web.Request) -> web.Response:
        opened = decapsulate_request(world.keyring, await request.read())
        sealed = gzip.compress(opened.seal(Response(200, (), b"decoded").to_bytes()))
        return web.Response(
            body=sealed, content_type="message/ohttp-res", headers={"Content-Encoding": "gzip"}
        )

    app = web.Application()
    app.add_routes([web.post("/gw", coded)])
    url = await world.serve(app) + "/gw"
    keys = PinnedKeys(world.keyring.public_list())
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=world.tls)) as session:
        client = OhttpClient(url, keys, session)
        with pytest.raises(ExchangeFailed, match="content coding"):
            async with client.get("https://a.example/"):
                pass


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_targets_coded_content_passes_in_its_own_bytes(world: World, chunked: bool) -> None:
    body = gzip.compress(b"content of the target")

    async def coded(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "gzip"
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    client = await world.start(client={"chunked": chunked})
    world.target.answer = coded
    async with client.get(world.origin, headers={"Accept-Encoding": "gzip"}) as response:
        assert (response.status, await response.read()) == (200, body)
        assert response.headers["Content-Encoding"] == "gzip"


async def test_a_transfer_coding_that_nobody_asked_for_is_a_502(world: World) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        coded = gzip.compress(b"content")
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n"
        writer.write(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(coded), coded))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        client = await world.start(gateway={"targets": TargetPolicy.of([origin], LOOPBACK)})
        async with client.get(origin) as response:
            assert response.status == 502
