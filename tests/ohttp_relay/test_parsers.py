"""Every parser fed with valid input gone wrong: it returns or raises an error of this package, nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ohttp_relay.bhttp import Decoder, Informational, Request, Response
from ohttp_relay.bhttp.stream import content_piece, end_message, start_request, start_response
from ohttp_relay.capsule import decapsulate_request, encapsulate_request
from ohttp_relay.capsule.chunked import ChunkedRequest, chunked_header_size, start_chunked_request
from ohttp_relay.download.freshness import directives, judge
from ohttp_relay.download.proxy import parse_download_url
from ohttp_relay.download.ranges import Unsatisfiable, is_part_of, parse_range
from ohttp_relay.errors import OhttpError
from ohttp_relay.keys import KeyRing, decode_key_list
from ohttp_relay.server.fast_http import RequestHead
from ohttp_relay.transport import Origin
from ohttp_relay.transport.dates import parse_date
from ohttp_relay.transport.problems import decode_problem
from ohttp_relay.transport.urls import split_target

RING = KeyRing.generate([0x20, 0x10, 0x647A])
CONFIGS = RING.public_configs()
FIELDS = (("accept", "a/b"), ("x-y", "z" * 70), ("cookie", "a=1"))
REQUEST = Request("POST", "https", "a.example:8443", "/p?q=%20", FIELDS, b"content" * 20, (("t", "1"),))
RESPONSE = Response(200, FIELDS, b"content" * 20, (("t", "1"),), (Informational(103, FIELDS),))
STREAMS = (
    start_request(REQUEST) + content_piece(REQUEST.content) * 2 + end_message(REQUEST.trailers),
    start_response(200, FIELDS, RESPONSE.informational) + content_piece(b"x" * 99) + end_message(),
)


def chunked_capsule() -> bytes:
    head, writer, _ = start_chunked_request(CONFIGS[0])
    return head + writer.write(b"x" * 99) + writer.finish(b"y" * 9)


def open_chunked(data: bytes) -> None:
    size = chunked_header_size(data)
    request = ChunkedRequest(RING, data[:size])
    request.reader.feed(data[size:])
    request.reader.finish()


def decode(data: bytes, *, request: bool) -> None:
    decoder = Decoder(request=request)
    for at in range(0, len(data), 7):
        decoder.feed(data[at : at + 7])
    decoder.finish()


def text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode("latin-1"))


TARGETS: dict[str, tuple[Callable[[bytes], object], list[bytes]]] = {
    "request": (Request.from_bytes, [REQUEST.to_bytes(), STREAMS[0]]),
    "response": (Response.from_bytes, [RESPONSE.to_bytes(), STREAMS[1]]),
    "request in pieces": (lambda data: decode(data, request=True), [REQUEST.to_bytes(), STREAMS[0]]),
    "response in pieces": (lambda data: decode(data, request=False), [RESPONSE.to_bytes(), STREAMS[1]]),
    "key list": (decode_key_list, [RING.public_list(), CONFIGS[0].to_bytes()]),
    "capsule": (
        lambda data: decapsulate_request(RING, data),
        [encapsulate_request(config, b"x" * 99)[0] for config in CONFIGS],
    ),
    "chunked capsule": (open_chunked, [chunked_capsule()]),
    "download url": (text(parse_download_url), [b"/proxyDownload/https%3A%2F%2Fa.example%2Fx%3Fy%3Dz"]),
    "origin": (text(Origin.parse), [b"https://a.example:8443", b"https://[2001:db8::1]:443/"]),
    "authority": (
        text(lambda value: Origin.of_request("https", value).url("/").raw_path),
        [b"a.example:8443", b"[2001:db8::1]:443"],
    ),
    "target": (text(split_target), [b"https://a.example:443/a/../b?c=%20#d", b"http://[::1]"]),
    "content range": (
        text(lambda value: is_part_of("bytes=5-", value)),
        [b"bytes 5-99/100", b"bytes 5-99/*"],
    ),
    "date": (text(parse_date), [b"Sun, 06 Nov 1994 08:49:37 GMT"]),
    "range": (text(lambda value: parse_range(value, 1000)), [b"bytes=0-99", b"bytes=-5", b"bytes=999-"]),
    "cache control": (text(directives), [b'max-age=5, private="x", no-store, s-maxage="7"']),
    "freshness": (
        text(
            lambda v: judge(200, tuple((k, v) for k in ("cache-control", "age", "date", "expires")), 1.0, 2.0)
        ),
        [b"max-age=5", b"17", b"Sun, 06 Nov 1994 08:49:37 GMT"],
    ),
    "head on the fast path": (
        RequestHead.parse,
        [b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: message/ohttp-req\r\nContent-Length: 99\r\n\r\n"],
    ),
    "problem": (lambda data: decode_problem("application/problem+json", data), [b'{"type": "about:blank"}']),
}


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, drop, repeat, cut, or blow up a length."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(6):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changed):
                changed[at] = rng.choice((0, 1, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFF))
            case 2:
                del changed[at : at + rng.randint(1, 16)]
            case 3:
                changed[at:at] = changed[at : at + rng.randint(1, 16)]
            case 4:
                del changed[at:]
            case _:
                changed[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(changed)


def fuzz(name: str, rounds: int) -> None:
    parse, seeds = TARGETS[name]
    rng = random.Random(name)
    for _ in range(rounds):
        data = mutate(rng.choice(seeds), rng)
        try:
            parse(data)
        except (OhttpError, Unsatisfiable):
            continue
        except Exception as error:
            error.add_note(f"{name}: {data.hex()}")
            raise


@pytest.mark.parametrize("name", list(TARGETS))
def test_parsers_stand_what_is_thrown_at_them(name: str) -> None:
    fuzz(name, 300 if "capsule" in name else 1500)


@pytest.mark.nightly
@pytest.mark.parametrize("name", list(TARGETS))
def test_parsers_stand_much_more(name: str) -> None:
    fuzz(name, 200_000)


def test_stored_rings_stand_damage(tmp_path: Path) -> None:
    folder = tmp_path / "k"
    RING.save(folder)
    file = folder / "keyring.json"
    good = file.read_bytes()
    rng = random.Random(1)
    for _ in range(200):
        file.write_bytes(mutate(good, rng))
        try:
            loaded = KeyRing.load(folder)
        except OhttpError:
            continue
        assert json.loads(file.read_bytes())["format"] == 1
        assert loaded.keys is not None
