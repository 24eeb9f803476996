"""Sizes of RFC 9420's fields in this profile's only cipher suite, and the limit of each vector."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Final

from mimi_mmr.errors import ParseError
from mimi_mmr.presentation import U16, Nested, Opaque, Reader, Struct, Vector, write_varint

MLS10: Final = 1
CIPHER_SUITE: Final = 0x0001  # MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519
BASIC: Final = 1

MAX_MESSAGE: Final = 1 << 24
MAX_TREE: Final = 1 << 28
MAX_IDENTITY: Final = 1 << 16
MAX_EXTENSIONS: Final = 1 << 16
MAX_GROUP_ID: Final = 1 << 10

KEY: Final = Opaque(32, 32)  # an X25519 or Ed25519 public key
HASH: Final = Opaque(32, 32)
TAG: Final = Opaque(32, 32)  # HMAC-SHA256
SIGNATURE: Final = Opaque(64, 64)
GROUP_ID: Final = Opaque(MAX_GROUP_ID)
AUTHENTICATED_DATA: Final = Opaque(1 << 16)


class WireFormat(enum.IntEnum):
    """WireFormat (RFC 9420, section 6)."""

    PUBLIC_MESSAGE = 1
    PRIVATE_MESSAGE = 2
    WELCOME = 3
    GROUP_INFO = 4
    KEY_PACKAGE = 5


class ContentType(enum.IntEnum):
    """ContentType (RFC 9420, section 6)."""

    APPLICATION = 1
    PROPOSAL = 2
    COMMIT = 3


@dataclass(frozen=True, slots=True)
class CodePoints:
    """`uint16 x<V>`: a list of IANA code points, of at most 512 bytes."""

    def write(self, out: bytearray, value: tuple[int, ...]) -> None:
        """Append the value."""
        write_varint(out, 2 * len(value))
        out += struct.pack(f">{len(value)}H", *value)

    def read(self, reader: Reader, what: str) -> tuple[int, ...]:
        """Read one value."""
        start = reader.offset
        data = _CODE_POINTS.read(reader, what)
        if len(data) % 2:
            raise ParseError(f"{what} of {len(data)} bytes is no list of 16-bit values", start)
        return _code_points(data)


_CODE_POINTS = Opaque(512)


@lru_cache(256)
def _code_points(data: bytes) -> tuple[int, ...]:
    """Return one shared tuple for equal lists, since most clients have the same capabilities."""
    return struct.unpack(f">{len(data) // 2}H", data)


@dataclass(frozen=True, slots=True)
class Extension(Struct):
    """Extension (RFC 9420, section 13.4); its data stays opaque here."""

    extension_type: Annotated[int, U16]
    data: Annotated[bytes, Opaque(MAX_EXTENSIONS)]


_EXTENSIONS: Final = Vector(Nested(Extension), MAX_EXTENSIONS, 64)


def read_extensions(reader: Reader, what: str) -> tuple[Extension, ...]:
    """Read `Extension extensions<V>`; no type may occur twice (RFC 9420, section 13.4)."""
    start = reader.offset
    found: tuple[Extension, ...] = _EXTENSIONS.read(reader, what)
    if len({extension.extension_type for extension in found}) != len(found):
        raise ParseError(f"an extension type comes twice in {what}", start)
    return found
