"""Binary HTTP (RFC 9292): vectors, round trips, truncation, and everything that must be refused."""

from __future__ import annotations

import contextlib
import itertools
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohttp_relay.bhttp import Informational, Limits, Request, Response, buckets
from ohttp_relay.bhttp.fields import join_cookies, without_connection_fields
from ohttp_relay.bhttp.parts import encode_section
from ohttp_relay.bhttp.varint import MAX_VARINT, decode_varint, encode_varint
from ohttp_relay.errors import BodyTooLarge, InvalidMessage, ParseError, TruncatedMessage

TOKEN = "!#$%&'*+-.^_`|~" + string.digits + string.ascii_lowercase
names = st.text(TOKEN, min_size=1, max_size=20)
inner = st.characters(min_codepoint=1, max_codepoint=255, exclude_characters="\r\n")
values = st.text(inner, max_size=40).map(lambda text: text.strip(" \t"))
fields = st.lists(st.tuples(names, values), max_size=6).map(tuple)
contents = st.binary(max_size=300)
paths = st.text(string.ascii_letters + string.digits + "/?%&=~.-", max_size=60).map(lambda text: "/" + text)
authorities = st.one_of(st.just(""), st.from_regex(r"[a-z0-9.-]{1,30}(:[0-9]{1,5})?", fullmatch=True))
requests = st.builds(
    Request,
    st.sampled_from(["GET", "POST", "PUT", "M-SEARCH"]),
    st.sampled_from(["https", "http"]),
    authorities,
    paths,
    fields,
    contents,
    fields,
)
interims = st.lists(st.builds(Informational, st.integers(100, 199), fields), max_size=3).map(tuple)
responses = st.builds(Response, st.integers(200, 599), fields, contents, fields, interims)


def streamed(message: Request | Response, cuts: list[int]) -> bytes:
    """The indeterminate-length form of a message, its content cut at `cuts`."""
    head = message.to_bytes()
    if isinstance(message, Request):
        parts = (message.method, message.scheme, message.authority, message.path)
        start = b"\x02" + b"".join(encode_varint(len(p)) + p.encode() for p in parts)
    else:
        assert head[0] == 1
        start = b"\x03"
        for interim in message.informational:
            start += encode_varint(interim.status) + encode_section(interim.fields) + b"\0"
        start += encode_varint(message.status)
    content, at = b"", 0
    for cut in [*sorted({c for c in cuts if 0 < c < len(message.content)}), len(message.content)]:
        if cut > at:
            content += encode_varint(cut - at) + message.content[at:cut]
        at = cut
    trailers = encode_section(message.trailers, trailers=True)
    return start + encode_section(message.fields) + b"\0" + content + b"\0" + trailers + b"\0"


@given(st.integers(0, MAX_VARINT))
def test_integers_round_trip(value: int) -> None:
    data = encode_varint(value)
    assert decode_varint(data) == (value, len(data))
    assert all(decode_varint(data[:n]) is None for n in range(len(data)))


def test_integers_need_not_be_minimal_and_have_a_range() -> None:
    assert decode_varint(b"\x40\x01") == (1, 2)
    assert decode_varint(b"\xc0" + bytes(6) + b"\x01") == (1, 8)
    for value in (-1, MAX_VARINT + 1):
        with pytest.raises(ValueError, match="variable-length"):
            encode_varint(value)


@given(requests)
def test_requests_round_trip(request: Request) -> None:
    assert Request.from_bytes(request.to_bytes()) == request
    assert Request.from_bytes(request.to_bytes(buckets)) == request


@given(responses)
def test_responses_round_trip(response: Response) -> None:
    assert Response.from_bytes(response.to_bytes()) == response
    assert Response.from_bytes(response.to_bytes(buckets)) == response


@given(st.one_of(requests, responses), st.lists(st.integers(0, 300), max_size=4))
def test_indeterminate_length_messages_are_read_however_they_are_cut(
    message: Request | Response, cuts: list[int]
) -> None:
    assert type(message).from_bytes(streamed(message, cuts)) == message


def check_truncations(data: bytes, message: Request | Response, bounds: list[tuple[int, int]]) -> None:
    """Only at the three bounds (section 3.8) may bytes end; what is missing there is empty.

    `bounds` are (offset, how many of header section, content and trailer section end before it).
    """
    sections = (message.fields, message.content, message.trailers)
    for length in range(len(data)):
        kept = [count for offset, count in bounds if offset == length]
        if not kept:
            with pytest.raises(TruncatedMessage):
                type(message).from_bytes(data[:length])
            continue
        found = type(message).from_bytes(data[:length])
        assert (found.fields, found.content, found.trailers) == (
            *sections[: kept[0]],
            *((), b"", ())[kept[0] :],
        )


def bounds_of(data: bytes, message: Request | Response, cuts: list[int] | None) -> list[tuple[int, int]]:
    lines = len(encode_section(message.trailers, trailers=True))
    trailers = lines + (1 if cuts is not None else len(encode_varint(lines)))
    size = len(message.content)
    chunks = [end - start for start, end in itertools.pairwise([0, *(cuts or []), size]) if end > start]
    if cuts is None:
        content = len(encode_varint(size)) + size
    else:
        content = 1 + sum(len(encode_varint(chunk)) + chunk for chunk in chunks)
    lines = len(encode_section(message.fields))
    header = lines + (1 if cuts is not None else len(encode_varint(lines)))
    ends = len(data) - trailers, len(data) - trailers - content, len(data) - trailers - content - header
    return [(ends[0], 2), (ends[1], 1), (ends[2], 0)]


@given(st.one_of(requests, responses))
def test_every_allowed_truncation_is_read_and_every_other_refused(message: Request | Response) -> None:
    data = message.to_bytes()
    check_truncations(data, message, bounds_of(data, message, None))


@given(st.one_of(requests, responses))
def test_truncation_of_indeterminate_length_messages(message: Request | Response) -> None:
    cuts = [cut for cut in (7,) if cut < len(message.content)]
    data = streamed(message, cuts)
    check_truncations(data, message, bounds_of(data, message, cuts))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_parse_error(data: bytes) -> None:
    for kind, framing in ((Request, b"\0"), (Request, b"\2"), (Response, b"\1"), (Response, b"\3")):
        with contextlib.suppress(ParseError, BodyTooLarge):
            kind.from_bytes(framing + data)


def test_the_examples_of_the_rfc(vectors) -> None:
    by_name = {v["name"]: bytes.fromhex(v["hex"]) for v in vectors("rfc9292-section5.json")["vectors"]}
    known = Request.from_bytes(by_name["ex-bink-request"])
    assert (known.method, known.scheme, known.authority, known.path) == ("GET", "https", "", "/hello.txt")
    assert known.host == "www.example.com"
    assert known.header("Accept-Language") == "en, mi"
    assert known.to_bytes() == by_name["ex-bink-request"]
    for cut in (1, 2):
        assert Request.from_bytes(by_name["ex-bink-request"][:-cut]) == known
    data = by_name["ex-bini-request"]
    for cut in range(13):
        assert Request.from_bytes(data[: len(data) - cut]) == known
    with pytest.raises(TruncatedMessage):
        Request.from_bytes(data[:-13])
    response = Response.from_bytes(by_name["ex-bini-response"])
    assert [interim.status for interim in response.informational] == [102, 103]
    assert len(response.informational[1].fields) == 2
    assert response.status == 200
    assert response.content == b"Hello World! My content includes a trailing CRLF.\r\n"
    chunked = Response.from_bytes(by_name["ex-bink-chunked"])
    assert chunked.content == b"This content contains CRLF.\r\n"
    assert chunked.trailers == (("trailer", "text"),)
    assert chunked.to_bytes() == by_name["ex-bink-chunked"]


def test_the_cases_of_other_implementations(vectors) -> None:
    for vector in vectors("martinthomson-bhttp.json")["vectors"]:
        data = bytes.fromhex(vector["hex"])
        kind = Request if data[0] in (0, 2) else Response
        if vector.get("invalid"):
            with pytest.raises(InvalidMessage):
                kind.from_bytes(data)
        else:
            kind.from_bytes(data)
    full, body, cut, odd = (bytes.fromhex(v) for v in vectors("ohttp-go-bhttp-truncated.json")["vectors"])
    assert Request.from_bytes(cut) == Request.from_bytes(full)
    assert Request.from_bytes(full).header("accept") == "application/json"  # upper case on the wire
    assert Request.from_bytes(body).content == b"body"
    assert Request.from_bytes(odd).trailers == (("testtrailer", "bar"),)


def test_the_form_written_is_the_full_one() -> None:
    assert Request("GET", "https", "a", "/").to_bytes()[-3:] == b"\0\0\0"
    assert Response(204).to_bytes() == b"\x01\x40\xcc\0\0\0"


def line(name: bytes, value: bytes) -> bytes:
    return encode_varint(len(name)) + name + encode_varint(len(value)) + value


def known(*lines: bytes, trailers: tuple[bytes, ...] = ()) -> bytes:
    head, tail = b"".join(lines), b"".join(trailers)
    return b"\x01\x40\xc8" + encode_varint(len(head)) + head + b"\0" + encode_varint(len(tail)) + tail


BAD_LINES = [
    line(b"", b"x"),
    line(b"a b", b"x"),
    line(b"a:", b"x"),
    line(b"a\0", b"x"),
    line(b"\xe9", b"x"),
    line(b"a", b"x\r"),
    line(b"a", b"x\ny"),
    line(b"a", b"\0"),
    line(b"a", b" x"),
    line(b"a", b"x\t"),
    line(b":method", b"GET"),
    line(b":scheme", b"https"),
    line(b":authority", b"a"),
    line(b":path", b"/"),
    line(b":status", b"200"),
    line(b":STATUS", b"200"),
]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_fields_that_http_forbids_are_refused(bad: bytes) -> None:
    indeterminate = b"\x03\x40\xc8" + bad + b"\0\0\0"
    for data in (known(bad), known(trailers=(bad,)), *([indeterminate] if bad[0] else [])):
        with pytest.raises(InvalidMessage):
            Response.from_bytes(data)


def test_pseudo_fields_come_first_and_never_in_trailers() -> None:
    assert Response.from_bytes(known(line(b":x", b"1"), line(b"a", b"2"))).fields == ((":x", "1"), ("a", "2"))
    with pytest.raises(InvalidMessage):
        Response.from_bytes(known(line(b"a", b"2"), line(b":x", b"1")))
    with pytest.raises(InvalidMessage):
        Response.from_bytes(known(trailers=(line(b":x", b"1"),)))
    with pytest.raises(InvalidMessage):
        Response(200, trailers=((":x", "1"),)).to_bytes()


@pytest.mark.parametrize("status", [0, 99, 600, 1000])
def test_statuses_outside_the_ranges_are_refused(status: int) -> None:
    with pytest.raises(InvalidMessage):
        Response.from_bytes(b"\x01" + encode_varint(status) + b"\0\0\0")
    with pytest.raises(InvalidMessage):
        Response(status).to_bytes()


@pytest.mark.parametrize("framing", [4, 5, 63])
def test_other_framings_are_refused(framing: int) -> None:
    for kind in (Request, Response):
        with pytest.raises(InvalidMessage):
            kind.from_bytes(bytes([framing]) + b"\x40\xc8")
    with pytest.raises(InvalidMessage):
        Request.from_bytes(Response(200).to_bytes())
    with pytest.raises(InvalidMessage):
        Response.from_bytes(Request("GET", "https", "a", "/").to_bytes())


@pytest.mark.parametrize(
    "target",
    [
        ("", "https", "a", "/"),
        ("G ET", "https", "a", "/"),
        ("GET", "", "a", "/"),
        ("GET", "ht tp", "a", "/"),
        ("GET", "https", "user@a", "/"),
        ("GET", "https", "a b", "/"),
        ("GET", "https", "a/b", "/"),
        ("GET", "https", "a", ""),
        ("GET", "https", "a", "x"),
        ("GET", "https", "a", "*"),
        ("GET", "https", "a", "/ x"),
        ("GET", "https", "a", "/\r\n"),
        ("GET", "https", "a", "/#f"),
        ("GET", "https", "a", "/\xe9"),
        ("CONNECT", "https", "a", "/"),
    ],
)
def test_targets_that_http_forbids_are_refused(target: tuple[str, str, str, str]) -> None:
    data = b"\0" + b"".join(encode_varint(len(p)) + p.encode("latin-1") for p in target)
    with pytest.raises(InvalidMessage):
        Request.from_bytes(data)
    with pytest.raises(InvalidMessage):
        Request(*target).to_bytes()


def test_padding_that_is_not_zero_is_refused() -> None:
    with pytest.raises(InvalidMessage):
        Response.from_bytes(Response(200).to_bytes() + b"\0\x01")


def test_long_integers_are_read_everywhere() -> None:
    long = lambda n: (n | 0xC0 << 56).to_bytes(8, "big")  # noqa: E731
    data = long(1) + long(200) + long(18) + long(1) + b"a" + long(1) + b"b" + long(2) + b"hi" + long(0)
    assert Response.from_bytes(data) == Response(200, (("a", "b"),), b"hi")


def test_limits_hold() -> None:
    limits = Limits(fields=2, section=100, content=10, informational=1)
    for response in (
        Response(200, (("a", "1"),) * 3),
        Response(200, (("a", "1" * 200),)),
        Response(200, (), b"x" * 11),
        Response(200, (), b"", (("a", "1"),) * 3),
    ):
        for data in (response.to_bytes(), streamed(response, [5])):
            with pytest.raises(BodyTooLarge):
                Response.from_bytes(data, limits)
    with pytest.raises(InvalidMessage):
        Response.from_bytes(Response(200, informational=(Informational(103),) * 2).to_bytes(), limits)


def test_connection_fields_do_not_invalidate_and_are_dropped_when_forwarding() -> None:
    response = Response(200, (("connection", "x-hop"), ("x-hop", "1"), ("te", "trailers"), ("a", "b")))
    assert Response.from_bytes(response.to_bytes()) == response
    assert without_connection_fields(response.fields) == [("a", "b")]


FOUR = (("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("x", "2"))


def test_cookies_join_with_semicolons_and_other_fields_with_commas() -> None:
    request = Request(
        "GET", "https", "a", "/", (("cookie", "a=1"), ("x", "1"), ("cookie", "b=2"), ("x", "2"))
    )
    assert request.header("Cookie") == "a=1; b=2"
    assert request.header("X") == "1, 2"
    assert request.header("y") is None
    assert join_cookies(request.fields) == [("cookie", "a=1; b=2"), ("x", "1"), ("x", "2")]


def test_the_authority_is_not_copied_from_host_nor_host_from_it() -> None:
    assert Request("GET", "https", "a.example", "/", (("host", "b.example"),)).host == "a.example"
    data = Request("GET", "https", "", "/", (("host", "b.example"),)).to_bytes()
    assert Request.from_bytes(data).authority == ""
    assert Request.from_bytes(data).origin == "https://b.example"


@given(st.integers(0, 10_000_000))
def test_buckets_cover_and_waste_little(length: int) -> None:
    bucket = buckets(length)
    assert bucket >= length
    assert buckets(bucket) == bucket
    assert bucket <= max(512, length * 2) if length <= 4096 else bucket <= length * 1.25


@pytest.mark.parametrize("zero", [b"\0", b"\x40\0", b"\x80\0\0\0", b"\xc0" + bytes(7)])
def test_the_end_of_a_section_may_be_written_at_any_length(zero: bytes) -> None:
    control = b"\3GET\5https\7a.b.exa\1/"
    line = b"\1a\1b"
    streamed = b"\2" + control + line + zero + b"\2xy" + zero + line + zero + bytes(5)
    known = b"\0" + control + b"\4" + line + b"\2xy" + b"\4" + line + bytes(5)
    empty = b"\0" + control + zero + zero + zero
    assert Request.from_bytes(streamed) == Request.from_bytes(known)
    assert Request.from_bytes(known).trailers == (("a", "b"),)
    assert Request.from_bytes(empty) == Request("GET", "https", "a.b.exa", "/")
