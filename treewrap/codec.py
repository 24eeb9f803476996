"""TLS presentation language as RFC 9420 uses it: big-endian integers and <V> vectors, strictly read."""

from __future__ import annotations

import io
import struct
from typing import Protocol

from treewrap.errors import ParseError

_SHORT, _MEDIUM, VECTOR_LIMIT = 1 << 6, 1 << 14, 1 << 30
VECTOR_MAX = VECTOR_LIMIT - 1
_U16, _U32, _U64 = struct.Struct(">H"), struct.Struct(">I"), struct.Struct(">Q")


class Source(Protocol):
    """Anything that is read like a binary file: a download in progress, or `io.BytesIO`."""

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, or fewer at the end."""


def varint(number: int) -> bytes:
    """Encode a vector length, in 1, 2 or 4 bytes (RFC 9420, section 2.1.2). Raises ValueError from 2^30."""
    if number < _SHORT:
        return bytes((number,))
    if number < _MEDIUM:
        return _U16.pack(number | 0x4000)
    if number < VECTOR_LIMIT:
        return _U32.pack(number | 0x80000000)
    raise ValueError(f"a vector holds less than {VECTOR_LIMIT} bytes, not {number}")


def vector(content: bytes) -> bytes:
    """Encode `opaque<V>`: length, then content."""
    size = len(content)
    return (bytes((size,)) if size < _SHORT else varint(size)) + content


class Reader:
    """A reader of structures from bytes or a stream. Malformed input raises a `ParseError` with the offset."""

    __slots__ = ("offset", "read")

    def __init__(self, source: bytes | Source, offset: int = 0) -> None:
        self.read = (io.BytesIO(source) if isinstance(source, bytes) else source).read
        self.offset = offset

    def take(self, size: int, what: str) -> bytes:
        """Read exactly `size` bytes."""
        content = self.read(size)
        if len(content) != size:
            raise ParseError(f"{what}: expected {size} bytes, got {len(content)}", self.offset)
        self.offset += size
        return content

    def u8(self, what: str) -> int:
        """Read uint8."""
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        """Read uint16."""
        return int(_U16.unpack(self.take(2, what))[0])

    def u32(self, what: str) -> int:
        """Read uint32."""
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        """Read uint64."""
        return int(_U64.unpack(self.take(8, what))[0])

    def vector(self, what: str, limit: int) -> bytes:
        """Read `opaque<V>` of at most `limit` bytes; the length must be in its shortest form."""
        start = self.offset
        size = self._varint(what)
        if size > limit:
            raise ParseError(f"{what}: {size} bytes, the limit is {limit}", start)
        return self.take(size, what)

    def items(self, what: str, limit: int) -> Items:
        """Read a vector and return a reader of its content: `while items.more(): ...`."""
        content = self.vector(what, limit)
        return Items(content, self.offset - len(content))

    def end(self, what: str) -> None:
        """Check that nothing is left. Raises ParseError."""
        if self.read(1):
            raise ParseError(f"{what}: trailing bytes", self.offset)

    def fail(self, what: str) -> ParseError:
        """Return the error to raise for the field that was read last."""
        return ParseError(what, self.offset)

    def _varint(self, what: str) -> int:
        first = self.u8(what)
        prefix, value = first >> 6, first & 0x3F
        if prefix == 3:
            raise ParseError(f"{what}: a length of 8 bytes is not allowed", self.offset - 1)
        for byte in self.take((1 << prefix) - 1, what):
            value = value << 8 | byte
        if prefix and value < (_SHORT if prefix == 1 else _MEDIUM):
            raise ParseError(f"{what}: length not in its shortest form", self.offset)
        return value


class Items(Reader):
    """A reader of one vector's content. It knows where the content ends."""

    __slots__ = ("_end",)

    def __init__(self, content: bytes, offset: int) -> None:
        super().__init__(content, offset)
        self._end = offset + len(content)

    def more(self) -> bool:
        """Return True while anything is left."""
        return self.offset < self._end
