"""Chunked Oblivious HTTP: vectors, splits, truncation; streaming over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.bhttp.padding import stream_buckets
from ohttp_relay.bhttp.parts import Informational, Limits
from ohttp_relay.bhttp.stream import (
    Data,
    Decoder,
    End,
    ResponseHead,
    content_piece,
    end_message,
    start_request,
    start_response,
)
from ohttp_relay.capsule.chunked import (
    CHUNK_SIZE,
    REQUEST_TYPE,
    RESPONSE_TYPE,
    ChunkedRequest,
    ChunkReader,
    ChunkWriter,
    chunked_header_size,
    start_chunked_request,
)
from ohttp_relay.capsule.client import encapsulate_request
from ohttp_relay.client.key_sources import PinnedKeys
from ohttp_relay.errors import (
    BodyTooLarge,
    CapsuleError,
    ConfigurationError,
    ExchangeFailed,
    InvalidMessage,
    KeyRejected,
    OhttpError,
    OpenFailed,
    ParseError,
    TruncatedCapsule,
    TruncatedMessage,
    UnknownKey,
)
from ohttp_relay.gateway.resource import GatewayLimits
from ohttp_relay.hpke.kem import KEMS, KemId, KemSecret
from ohttp_relay.hpke.suites import Suite
from ohttp_relay.keys.configuration import DEFAULT_SUITES, KeyConfig
from ohttp_relay.keys.ring import GatewayKey, KeyRing
from ohttp_relay.transport.dates import format_date
from ohttp_relay.transport.streams import StreamedResponse
from ohttp_relay.transport.targets import TargetPolicy

from ohttp_world import LOOPBACK, World, break_off  # isort: skip
from test_ohttp_bhttp import requests, responses, streamed  # isort: skip

RING = KeyRing.generate()


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


cuts = st.lists(st.integers(0, 10_000), max_size=8)


# The format


def test_the_drafts_example(vectors) -> None:
    vector = vectors("chunked-ohttp-draft-appendix.json")
    get = lambda name: bytes.fromhex(vector[name])  # noqa: E731
    config = KeyConfig.from_bytes(get("key_config"))
    private = KEMS[KemId.X25519].load(KemSecret(get("gateway_x25519_secret_key")))
    ring = KeyRing([GatewayKey(config, private, 0)])
    request, response = get("request_bhttp"), get("response_bhttp")
    head, writer, reader = start_chunked_request(
        config, ephemeral=KemSecret(get("client_ephemeral_secret_key"))
    )
    capsule = head + writer.write(request[:12]) + writer.write(request[12:]) + writer.finish()
    assert capsule == get("encapsulated_request")
    size = chunked_header_size(capsule)
    opened = ChunkedRequest(ring, capsule[:size])
    assert b"".join([*opened.reader.feed(capsule[size:]), opened.reader.finish()]) == request
    first, back = opened.respond(get("response_nonce"))
    sealed = first + back.write(response[:1]) + back.write(response[1:]) + back.finish()
    assert sealed == get("encapsulated_response")
    assert b"".join([*reader.feed(sealed), reader.finish()]) == response


@given(st.lists(st.binary(max_size=100), max_size=5), st.binary(max_size=100), cuts, st.integers(1, 60))
def test_chunks_come_back_however_they_are_cut_and_split(
    pieces: list[bytes], last: bytes, where: list[int], size: int
) -> None:
    _, writer, _ = start_chunked_request(RING.public_configs()[0])
    opener, sealer = contexts()
    writer = ChunkWriter(sealer, size)
    framed = b"".join(writer.write(piece) for piece in pieces) + writer.finish(last)
    reader = ChunkReader(opener)
    found = [plain for part in split(framed, where) for plain in reader.feed(part)]
    assert b"".join([*found, reader.finish()]) == b"".join(pieces) + last
    assert all(len(plain) <= size for plain in found)


def contexts(suite: Suite = DEFAULT_SUITES[0]):
    """Two ends of one context: (opener, sealer)."""
    head, writer, _ = start_chunked_request(RING.public_configs()[0], suite)
    return ChunkedRequest(RING, head)._context, writer._sealer


@pytest.mark.parametrize("kem", list(KEMS))
@pytest.mark.parametrize("suite", DEFAULT_SUITES)
def test_every_suite_streams_both_ways(kem: int, suite: Suite) -> None:
    ring = KeyRing.generate([kem])
    head, writer, reader = start_chunked_request(ring.public_configs()[0], suite)
    opened = ChunkedRequest(ring, head)
    assert opened.reader.feed(writer.write(b"one") + writer.write(b"two")) == [b"one", b"two"]
    assert opened.reader.feed(writer.finish(b"three")) == []
    assert opened.reader.finish() == b"three"
    first, back = opened.respond()
    assert reader.feed(first[:3]) == []
    assert reader.feed(first[3:] + back.write(b"four")) == [b"four"]
    reader.feed(back.finish())
    assert reader.finish() == b""


def test_every_truncation_is_found() -> None:
    opener, sealer = contexts()
    writer = ChunkWriter(sealer)
    framed = writer.write(b"first") + writer.write(b"second") + writer.finish(b"last")
    for length in range(len(framed)):
        fresh, again = contexts()
        reader = ChunkReader(fresh)
        other = ChunkWriter(again)
        data = other.write(b"first") + other.write(b"second") + other.finish(b"last")
        reader.feed(data[:length])
        with pytest.raises((TruncatedCapsule, OpenFailed)):
            reader.finish()
    assert ChunkReader(opener).feed(framed) == [b"first", b"second"]


def test_a_chunk_cannot_pass_as_final_nor_the_final_one_as_another() -> None:
    opener, sealer = contexts()
    reader = ChunkReader(opener)
    reader.feed(b"\0" + sealer.seal(b"x"))
    with pytest.raises(OpenFailed):
        reader.finish()
    opener, sealer = contexts()
    sealed = sealer.seal(b"x", b"final")
    with pytest.raises(OpenFailed):
        ChunkReader(opener).feed(bytes([len(sealed)]) + sealed)


def test_swapped_repeated_and_dropped_chunks_are_found() -> None:
    def frames() -> tuple[ChunkReader, list[bytes]]:
        opener, sealer = contexts()
        writer = ChunkWriter(sealer)
        return ChunkReader(opener), [writer.write(b"a"), writer.write(b"b"), writer.finish(b"c")]

    for order in ([1, 0, 2], [0, 0, 1, 2], [0, 2], [1, 2], [2]):
        reader, parts = frames()
        with pytest.raises(OpenFailed):
            reader.feed(b"".join(parts[i] for i in order))
            reader.finish()


def test_an_empty_chunk_that_is_not_final_is_a_decryption_error() -> None:
    opener, sealer = contexts()
    sealed = sealer.seal(b"")
    with pytest.raises(OpenFailed, match="empty"):
        ChunkReader(opener).feed(bytes([len(sealed)]) + sealed)


def test_an_empty_final_chunk_is_fine_and_lengths_need_not_be_minimal() -> None:
    opener, sealer = contexts()
    sealed = sealer.seal(b"x")
    framed = b"\xc0" + len(sealed).to_bytes(7, "big") + sealed + b"\x80\0\0\0" + sealer.seal(b"", b"final")
    reader = ChunkReader(opener)
    assert reader.feed(framed) == [b"x"]
    assert reader.finish() == b""


def test_chunks_of_16384_bytes_are_accepted_larger_ones_up_to_the_limit() -> None:
    opener, sealer = contexts()
    writer = ChunkWriter(sealer)
    data = os.urandom(3 * CHUNK_SIZE)
    reader = ChunkReader(opener)
    assert [len(p) for p in reader.feed(writer.write(data))] == [CHUNK_SIZE] * 3
    with pytest.raises(BodyTooLarge):
        ChunkReader(opener, max_chunk=100).feed(b"\x40\x75")
    reader = ChunkReader(opener, max_chunk=100)
    with pytest.raises(BodyTooLarge):
        reader.feed(b"\0" + bytes(117))


def test_a_message_under_aes_gcm_has_a_byte_limit_and_chacha_does_not() -> None:
    for suite, limited in zip(DEFAULT_SUITES, (True, True, False), strict=True):
        _, sealer = contexts(suite)
        writer = ChunkWriter(sealer)
        writer.total = 1 << 30
        with pytest.raises(BodyTooLarge) if limited else contextlib.nullcontext():
            writer.write(b"x")


@given(st.binary(max_size=120), cuts)
def test_any_bytes_after_the_header_give_an_error(data: bytes, where: list[int]) -> None:
    opener, _ = contexts()
    reader = ChunkReader(opener)
    with pytest.raises(OhttpError):
        for part in split(data, where):
            reader.feed(part)
        reader.finish()


def test_headers_that_name_nothing_known_are_refused() -> None:
    config = RING.public_configs()[0]
    head, _, _ = start_chunked_request(config)
    for length in range(len(head)):
        with pytest.raises((TruncatedCapsule, UnknownKey)):
            ChunkedRequest(RING, head[:length])
    with pytest.raises(TruncatedCapsule):
        chunked_header_size(b"123")
    with pytest.raises(UnknownKey):
        chunked_header_size(b"\1\x99\x99" + bytes(4))
    with pytest.raises(UnknownKey):
        ChunkedRequest(RING, b"\xfe" + head[1:])


# Binary HTTP in pieces


def decode(
    data: bytes, where: list[int], *, request: bool, limits: Limits | None = None
) -> Request | Response:
    decoder = Decoder(request=request, limits=limits or Limits())
    events = [event for part in split(data, where) for event in decoder.feed(part)] + decoder.finish()
    end = events.pop()
    assert isinstance(end, End)
    content = b"".join(event.content for event in events if isinstance(event, Data))
    interim = tuple(event for event in events if isinstance(event, Informational))
    for head in events:
        if isinstance(head, Request):
            target = head.method, head.scheme, head.authority, head.path
            return Request(*target, head.fields, content, end.trailers)
        if isinstance(head, ResponseHead):
            return Response(head.status, head.fields, content, end.trailers, interim)
    raise AssertionError


@given(st.one_of(requests, responses), st.booleans(), cuts, cuts)
def test_pieces_and_wholes_give_the_same_message(
    message: Request | Response, known: bool, inner: list[int], where: list[int]
) -> None:
    data = message.to_bytes() if known else streamed(message, inner)
    assert decode(data + bytes(7), where, request=isinstance(message, Request)) == message


STARTS = [b"\0\3GET\5https\0\1/", b"\2\3GET\5https\0\1/", b"\1\x40\xc8", b"\3\x40\xc8", b""]


@given(st.binary(max_size=200), st.sampled_from(STARTS), cuts)
def test_pieces_and_wholes_refuse_the_same_bytes(data: bytes, start: bytes, where: list[int]) -> None:
    for kind in (Request, Response):
        try:
            expected = kind.from_bytes(start + data)
        except (ParseError, BodyTooLarge):  # which of the two depends on how much is there to see
            with pytest.raises((BodyTooLarge, ParseError)):
                decode(start + data, where, request=kind is Request)
        else:
            assert decode(start + data, where, request=kind is Request) == expected


def test_events_come_as_soon_as_their_bytes() -> None:
    decoder = Decoder(request=False)
    data = start_response(200, (("a", "b"),), (Informational(103),))
    assert decoder.feed(data) == [Informational(103), ResponseHead(200, (("a", "b"),))]
    assert decoder.feed(content_piece(b"hello")[:4]) == [Data(b"hel")]
    assert decoder.feed(b"lo") == [Data(b"lo")]
    assert content_piece(b"") == b""
    assert decoder.feed(end_message((("t", "1"),)) + bytes(3)) == []  # not before the outer end
    assert decoder.finish() == [End((("t", "1"),))]


def test_limits_hold_while_bytes_come() -> None:
    limits = Limits(fields=2, section=100, content=10)
    for data in (
        Response(200, (("a", "1"),) * 3).to_bytes(),
        Response(200, (("a", "1" * 200),)).to_bytes(),
        Response(200, (), b"x" * 11).to_bytes(),
        start_response(200, (("a", "1" * 200),)),
        start_response(200, ()) + content_piece(b"x" * 6) * 2,
        b"\3\x40\xc8\x80\xff\xff\xff",
    ):
        with pytest.raises(BodyTooLarge):
            Decoder(request=False, limits=limits).feed(data)
    with pytest.raises(InvalidMessage):
        Decoder(request=False).feed(b"\3" + b"\x40\x67\0" * 17)
    with pytest.raises(TruncatedMessage):
        decode(start_response(200, ())[:-2], [], request=False)


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
    assert dict(received.fields)["content-type"] == REQUEST_TYPE
    assert dict(received.fields)["incremental"] == "?1"
    (answered, _) = world.events("relay.answered")
    assert dict(answered.fields)["content-type"] == RESPONSE_TYPE
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
                headers={"Content-Type": REQUEST_TYPE},
            ) as answer,
        ):
            body = await answer.read()
        return web.Response(body=body[:keep], content_type=RESPONSE_TYPE)

    app = web.Application()
    app.router.add_post("/gw", meddle)
    world.relay_url = await world.serve(app) + "/gw"
    client = world.client(chunked=True, key_source=PinnedKeys(world.keyring.public_list()))
    with pytest.raises(CapsuleError):
        async with client.post(world.origin, data=b"x" * 40_000) as response:
            await response.read()


async def raw(world: World, body: bytes, kind: str = REQUEST_TYPE) -> tuple[int, str, bytes]:
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
        assert (status, kind) == (200, RESPONSE_TYPE)
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


def test_streams_are_padded_to_buckets() -> None:
    assert stream_buckets(100) == 512
    assert stream_buckets(65_536) == 65_536
    assert stream_buckets(65_537) == 81_920
    assert stream_buckets(10**9) - 10**9 < 16_384
