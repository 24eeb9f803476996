"""Binary HTTP in pieces: the decoder gives the same message, however the bytes are split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohttp_relay.bhttp import Decoder, Informational, Limits, Request, Response, stream_buckets
from ohttp_relay.bhttp.stream import Data, End, ResponseHead, content_piece, end_message, start_response
from ohttp_relay.errors import (
    BodyTooLarge,
    InvalidMessage,
    ParseError,
    TruncatedMessage,
)
from tests.ohttp_relay.bhttp.test_messages import requests, responses, streamed
from tests.ohttp_relay.pieces import cuts, split

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


def test_streams_are_padded_to_buckets() -> None:
    assert stream_buckets(100) == 512
    assert stream_buckets(65_536) == 65_536
    assert stream_buckets(65_537) == 81_920
    assert stream_buckets(10**9) - 10**9 < 16_384


def test_a_response_that_a_gateway_passes_on_is_read_without_limits_given() -> None:
    response = Response(200, tuple((f"x-{number}", "v" * 200) for number in range(1000)))
    data = response.to_bytes()
    assert Response.from_bytes(data) == response
    decoder = Decoder(request=False)
    head, *_ = [*decoder.feed(data), *decoder.finish()]
    assert isinstance(head, ResponseHead)
    assert head.fields == response.fields
