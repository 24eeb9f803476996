"""Chunked encapsulated messages: the draft's example, truncation, reordering, limits."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohttp_relay.capsule.chunked import (
    CHUNK_SIZE,
    ChunkedRequest,
    ChunkReader,
    ChunkWriter,
    chunked_header_size,
    start_chunked_request,
)
from ohttp_relay.errors import (
    BodyTooLarge,
    OhttpError,
    OpenFailed,
    TruncatedCapsule,
    UnknownKey,
)
from ohttp_relay.hpke import KEMS, KemId, KemSecret, Suite
from ohttp_relay.keys import DEFAULT_SUITES, GatewayKey, KeyConfig, KeyRing
from tests.ohttp_relay.pieces import cuts, split

# The format

RING = KeyRing.generate()


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
