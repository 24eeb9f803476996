"""The codec's own rules: shortest lengths, bounds, text, enums, presence."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimi_mmr.errors import ParseError
from mimi_mmr.presentation import (
    BOOL,
    MAX_VECTOR,
    U8,
    U16,
    Code,
    Fixed,
    Maybe,
    Opaque,
    Reader,
    Struct,
    Text,
    Vector,
    vec,
    write_varint,
)
from tests.mimi_mmr.protocol.wire import MANY


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 7


@dataclass(frozen=True, slots=True)
class Everything(Struct):
    colour: Annotated[Colour, Code(Colour, 2)]
    flag: Annotated[bool, BOOL]
    text: Annotated[str, Text(8)]
    data: Annotated[bytes, Opaque(6, 2)]
    numbers: Annotated[tuple[int, ...], Vector(U16, 12, 3)]
    maybe: Annotated[int | None, Maybe(U8)]
    fixed: Annotated[bytes, Fixed(2)]


GOOD = Everything(Colour.BLUE, True, "né", b"abc", (1, 2), 9, b"ff")


def varint(value: int) -> bytes:
    out = bytearray()
    write_varint(out, value)
    return bytes(out)


@given(st.integers(0, MAX_VECTOR - 1))
@MANY
def test_a_length_has_one_encoding_the_shortest(value: int) -> None:
    encoded = varint(value)
    assert Reader(encoded).varint("length") == value
    assert len(encoded) == (1 if value < 64 else 2 if value < 16384 else 4)
    for width, prefix in ((2, 1), (4, 2)):
        if width > len(encoded) and value < 1 << (8 * width - 2):
            padded = (value | prefix << (8 * width - 2)).to_bytes(width, "big")
            with pytest.raises(ParseError, match="not minimal"):
                Reader(padded).varint("length")


@pytest.mark.parametrize("value", [0, 63, 64, 16383, 16384, MAX_VECTOR - 1])
def test_lengths_at_the_edges_round_trip(value: int) -> None:
    assert Reader(varint(value)).varint("length") == value


@given(st.binary(min_size=7, max_size=7))
@MANY
def test_the_eight_byte_length_of_quic_is_not_spoken(rest: bytes) -> None:
    with pytest.raises(ParseError, match="invalid length prefix"):
        Reader(bytes([0xC0 | rest[0] & 0x3F]) + rest).varint("length")


def test_a_length_that_does_not_fit_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        varint(MAX_VECTOR)


def test_the_good_one_round_trips() -> None:
    assert Everything.from_bytes(GOOD.to_bytes()) == GOOD


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"\x00\x07", b"\x00\x02", "unknown Colour 2"),
        (b"\x00\x07\x01", b"\x00\x07\x02", "expected 0 or 1"),
        (vec("né".encode()), vec(b"n\xff\xfe"), "not UTF-8"),
        (vec("né".encode()), vec(b"123456789"), "9 bytes, at most 8 allowed"),
        (vec(b"abc"), vec(b"a"), "1 bytes, at least 2 expected"),
        (vec(b"abc"), vec(b"abcdefg"), "7 bytes, at most 6 allowed"),
        (vec(b"abc"), b"\x40\x03abc", "not minimal"),
        (vec(b"\0\1\0\2"), vec(bytes(14)), "14 bytes, at most 12 allowed"),
        (vec(b"\0\1\0\2"), vec(bytes(8)), "more than 3 items"),
        (vec(b"\0\1\0\2"), vec(bytes(3)), "expected 2 bytes"),
        (b"\x01\x09", b"\x02\x09", "presence"),
    ],
)
def test_each_broken_rule_is_named_with_its_place(old: bytes, new: bytes, why: str) -> None:
    encoded = GOOD.to_bytes()
    assert encoded.count(old) == 1
    with pytest.raises(ParseError, match=why) as refused:
        Everything.from_bytes(encoded.replace(old, new))
    assert refused.value.code == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "123456789"},
        {"data": b"1"},
        {"numbers": (1, 2, 3, 4)},
        {"numbers": (1 << 16,)},
        {"fixed": b"1"},
    ],
)
def test_what_could_not_be_read_back_is_not_written(changes: dict[str, object]) -> None:
    values = {
        name: getattr(GOOD, name) for name in ("colour", "flag", "text", "data", "numbers", "maybe", "fixed")
    }
    with pytest.raises(ValueError, match=rf"Everything\.{next(iter(changes))}"):
        Everything(**(values | changes)).to_bytes()  # type: ignore[arg-type]


def test_a_vector_can_not_reach_beyond_the_one_around_it() -> None:
    inner = Reader(vec(b"\x05ab") + b"cde").vector(10, "outer")
    with pytest.raises(ParseError, match="expected 5 bytes of inner, 2 left"):
        inner.vector(10, "inner")
