"""Chunked messages over sockets: streaming both ways, and everything that can break off."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from ohttp_relay.bhttp import Fields, Informational, Request, Response
from ohttp_relay.bhttp.stream import (
    content_piece,
    end_message,
    start_request,
)
from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.capsule.chunked import CHUNKED_REQUEST_TYPE, CHUNKED_RESPONSE_TYPE, start_chunked_request
from ohttp_relay.client import PinnedKeys
from ohttp_relay.errors import (
    CapsuleError,
    ConfigurationError,
    ExchangeFailed,
    KeyRejected,
    TruncatedCapsule,
)
from ohttp_relay.gateway import GatewayLimits
from ohttp_relay.keys import KeyRing
from ohttp_relay.transport import StreamedResponse, TargetPolicy
from ohttp_relay.transport.dates import format_date
from tests.ohttp_relay.world import LOOPBACK, World, break_off

RING = KeyRing.generate()


# Over sockets


async def body_of(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_small_exchanges_work_chunked_as_well(world: World) -> None:
    client = await world.start(client={"chunked": True})
    async with client.post(f"{world.origin}/x?y", data=b"hi") as response:
        assert (response.status, await response.read()) == (200, b"echo:hi")
        assert response.headers["x-path"] == "/x?y"
    async with client.get("https://other.example/") as response:
        assert response.status == 403
    (received, _) = world.events("gateway.received")
    assert dict(received.fields)["content-type"] == CHUNKED_REQUEST_TYPE
    assert dict(received.fields)["incremental"] == "?1"
    (answered, _) = world.events("relay.answered")
    assert dict(answered.fields)["content-type"] == CHUNKED_RESPONSE_TYPE
    assert dict(answered.fields)["incremental"] == "?1"
    assert {n for n, _ in received.fields} <= {"host", "content-type", "incremental", "transfer-encoding"}


async def test_large_bodies_stream_both_ways(world: World) -> None:
    client = await world.start(client={"chunked": True})
    pieces = [os.urandom(50_000) for _ in range(20)]
    async with client.post(world.origin, data=body_of(*pieces)) as response:
        assert await response.read() == b"echo:" + b"".join(pieces)
    assert world.target.requests[0].body == b"".join(pieces)
    assert b"".join(seen.body for seen in world.events("gateway.decapsulated.piece")) == b"".join(pieces)


async def test_what_was_sent_arrives_before_the_stream_ends(world: World) -> None:
    """Full duplex, and nothing held back: each piece is answered before the next one is sent."""

    async def talk(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        async for piece in request.content.iter_any():
            await answer.write(b"<" + piece + b">")
        return answer

    app = web.Application()
    app.router.add_post("/", talk)
    origin = await world.serve(app)
    client = await world.start(
        client={"chunked": True}, gateway={"targets": TargetPolicy.of([origin], LOOPBACK)}
    )
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    async def say() -> AsyncIterator[bytes]:
        while piece := await queue.get():
            yield piece

    queue.put_nowait(b"one")
    async with client.post(origin, data=say()) as response:
        pieces = response.iter_any()
        heard = b""
        for word, following in ((b"one", b"two"), (b"two", b"")):
            while not heard.endswith(b"<" + word + b">"):
                heard += await anext(pieces)
            queue.put_nowait(following)
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)


async def test_a_target_that_dies_inside_its_answer_is_an_error_for_the_reader(world: World) -> None:
    client = await world.start(client={"chunked": True})
    world.target.answer = break_off
    with pytest.raises((ExchangeFailed, TruncatedCapsule)):
        async with client.get(world.origin) as response:
            await response.read()


@pytest.mark.parametrize("keep", [0, 10, 40, 500, -1, -40])
async def test_an_answer_cut_short_by_the_relay_is_an_error(world: World, keep: int) -> None:
    await world.start()

    async def meddle(request: web.Request) -> web.Response:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                world.gateway_url,
                data=await request.read(),
                ssl=world.tls,
                headers={"Content-Type": CHUNKED_REQUEST_TYPE},
            ) as answer,
        ):
            body = await answer.read()
        return web.Response(body=body[:keep], content_type=CHUNKED_RESPONSE_TYPE)

    app = web.Application()
    app.router.add_post("/gw", meddle)
    world.relay_url = await world.serve(app) + "/gw"
    client = world.client(chunked=True, key_source=PinnedKeys(world.keyring.public_list()))
    with pytest.raises(CapsuleError):
        async with client.post(world.origin, data=b"x" * 40_000) as response:
            await response.read()


async def raw(world: World, body: bytes, kind: str = CHUNKED_REQUEST_TYPE) -> tuple[int, str, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(world.gateway_url, data=body, ssl=world.tls, headers={"Content-Type": kind}) as answer,
    ):
        return answer.status, answer.content_type, await answer.read()


def message(world: World, *fields: tuple[str, str], content: bytes = b"") -> Request:
    return Request("POST", "https", world.origin.removeprefix("https://"), "/", fields, content)


async def test_a_request_without_its_final_chunk_never_reaches_a_target_as_whole(world: World) -> None:
    await world.start()
    config = world.keyring.public_configs()[0]
    for content in (b"", b"body"):
        head, writer, reader = start_chunked_request(config)
        whole = start_request(message(world)) + content_piece(content) + end_message()
        status, kind, body = await raw(world, head + writer.write(whole))
        assert (status, kind) == (200, CHUNKED_RESPONSE_TYPE)
        plain = [*reader.feed(body), reader.finish()]
        assert Response.from_bytes(b"".join(plain)).status == 400
    assert [seen.body for seen in world.target.requests if seen.body] == []


async def test_chunked_requests_that_do_not_open_are_told_so_plainly(world: World) -> None:
    await world.start()
    head, writer, _ = start_chunked_request(KeyRing.generate().public_configs()[0])
    good, _, _ = start_chunked_request(world.keyring.public_configs()[0])
    for body in (head + writer.finish(b"x"), b"\xfe" + good[1:] + b"\0", good + b"\0" + bytes(20)):
        status, kind, text = await raw(world, body)
        assert (status, kind) == (400, "application/problem+json")
        assert b"ohttp-key" in text
    for body in (b"", good[:5], good[:20], good, good + b"\x40"):
        status, kind, text = await raw(world, body)
        assert (status, kind) == (400, "application/problem+json")
        assert b"ohttp-key" not in text


async def test_a_chunked_request_is_not_answered_as_whole_nor_the_other_way_round(world: World) -> None:
    await world.start()
    config = world.keyring.public_configs()[0]
    capsule, _ = encapsulate_request(config, message(world).to_bytes())
    assert (await raw(world, capsule))[0] in (400, 413)  # what follows the key is not chunks
    head, writer, _ = start_chunked_request(config)
    assert (await raw(world, head + writer.finish(message(world).to_bytes()), "message/ohttp-req"))[0] == 400


async def test_replays_and_dates_are_checked_in_chunked_requests_too(world: World) -> None:
    await world.start()
    config = world.keyring.public_configs()[0]
    head, writer, reader = start_chunked_request(config)
    capsule = head + writer.finish(message(world).to_bytes())
    statuses = []
    for _ in range(2):
        _, _, body = await raw(world, capsule)
        fresh = type(reader)(reader._context, reader._enc)
        statuses.append(Response.from_bytes(b"".join([*fresh.feed(body), fresh.finish()])).status)
    assert statuses == [200, 400]
    client = world.client(chunked=True, clock=lambda: 1e9)
    async with client.get(world.origin) as response:
        assert response.status == 200  # corrected once
    async with client.post(world.origin, data=body_of(b"x")) as response:
        assert response.status == 400  # a stream cannot be sent again
        assert b"date" in await response.read()
    async with client.get(world.origin, headers={"Date": format_date(1e9)}) as response:
        assert response.status == 400  # a date of the caller's is left alone


async def test_an_old_key_is_replaced_and_a_stream_is_not_sent_twice(world: World) -> None:
    lists = [KeyRing.generate().public_list(), world.keyring.public_list()]

    async def source() -> bytes:
        return lists[0] if len(lists) == 1 else lists.pop(0)

    await world.start()
    client = world.client(chunked=True, key_source=source, refresh_interval=0.0)
    with pytest.raises(KeyRejected):
        async with client.post(world.origin, data=body_of(b"x")):
            pass
    async with client.get(world.origin) as response:
        assert response.status == 200


async def test_a_chunked_client_does_not_fall_back(world: World) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=415)

    await world.start()
    app = web.Application()
    app.router.add_post("/gw", refuse)
    world.relay_url = await world.serve(app) + "/gw"
    client = world.client(chunked=True, key_source=PinnedKeys(world.keyring.public_list()))
    with pytest.raises(ExchangeFailed):
        async with client.get(world.origin):
            pass
    with pytest.raises(ConfigurationError):
        async with world.client(key_source=PinnedKeys(b"")).post(world.origin, data=body_of(b"x")):
            pass


async def test_an_upload_that_breaks_off_breaks_off_at_the_target(world: World) -> None:
    class Stop(Exception):
        pass

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await begun.wait()
        raise Stop

    begun = asyncio.Event()
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def watch(request: web.Request) -> web.StreamResponse:
        begun.set()
        try:
            await request.read()
        except (Exception, asyncio.CancelledError) as error:  # a server may cancel its handler for that
            outcome.set_result(type(error).__name__)
            raise
        outcome.set_result("whole")
        return web.Response()

    app = web.Application()
    app.router.add_post("/", watch)
    origin = await world.serve(app)
    client = await world.start(
        client={"chunked": True}, gateway={"targets": TargetPolicy.of([origin], LOOPBACK)}
    )
    with pytest.raises((ExchangeFailed, Stop)):
        async with client.post(origin, data=breaks()):
            pass
    assert await asyncio.wait_for(outcome, 5) != "whole"


async def test_a_client_that_stops_sending_is_cut_off(world: World) -> None:
    stop = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield b"x"
        await stop.wait()

    client = await world.start(client={"chunked": True}, gateway={"limits": GatewayLimits(idle_seconds=0.1)})
    async with client.post(world.origin, data=stalls()) as response:
        assert response.status == 400
    stop.set()


async def test_local_targets_stream_their_answers_and_get_requests_whole(world: World) -> None:
    async def hub(request: Request) -> StreamedResponse:
        async def trailers() -> tuple[tuple[str, str], ...]:
            return (("x-sum", "3"),)

        content = body_of(b"a" * 70_000, b"", request.content, b"c")
        return StreamedResponse(
            200, (("x-a", "1"),), content, (Informational(103, (("link", "x"),)),), trailers
        )

    client = await world.start(client={"chunked": True}, gateway={"local": {"https://hub.example": hub}})
    async with client.post("https://hub.example/", data=body_of(b"b", b"b")) as response:
        assert await response.read() == b"a" * 70_000 + b"bbc"
        assert response.trailers == (("x-sum", "3"),)
        assert [interim.status for interim in response.informational] == [103]
    async with world.client().get("https://hub.example/") as response:  # the same, whole
        assert await response.read() == b"a" * 70_000 + b"c"
        assert response.trailers == (("x-sum", "3"),)


async def test_trailers_of_a_request_reach_a_target_in_process(world: World) -> None:
    seen: list[Fields] = []

    async def hub(request: Request) -> Response:
        seen.append(request.trailers)
        return Response(200)

    await world.start(gateway={"local": {"https://hub.example": hub}})
    trailers = (("x-sum", "3"),)
    for content in (b"", b"body"):
        asked = Request("POST", "https", "hub.example", "/", (), content)
        head, writer, _ = start_chunked_request(world.keyring.public_configs()[0])
        plain = start_request(asked) + content_piece(content) + end_message(trailers)
        assert (await raw(world, head + writer.finish(plain)))[0] == 200
        capsule, _ = encapsulate_request(
            world.keyring.public_configs()[0], asked._replace(trailers=trailers).to_bytes()
        )
        assert (await raw(world, capsule, "message/ohttp-req"))[0] == 200
    assert seen == [trailers] * 4


async def test_a_local_target_that_fails_inside_its_answer_is_an_error_for_the_reader(world: World) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise TruncatedCapsule("broken")

    async def hub(_: Request) -> StreamedResponse:
        return StreamedResponse(200, (), broken())

    client = await world.start(client={"chunked": True}, gateway={"local": {"https://hub.example": hub}})
    with pytest.raises((ExchangeFailed, TruncatedCapsule)):
        async with client.get("https://hub.example/") as response:
            await response.read()


async def test_a_request_body_over_the_limit_is_refused_for_local_targets(world: World) -> None:
    async def hub(_: Request) -> Response:
        return Response(200)

    client = await world.start(
        client={"chunked": True},
        gateway={"local": {"https://hub.example": hub}, "limits": GatewayLimits(request=1000)},
    )
    async with client.post("https://hub.example/", data=body_of(b"x" * 600, b"x" * 600)) as response:
        assert response.status == 413
