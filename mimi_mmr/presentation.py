"""TLS presentation language (RFC 8446, section 3) with RFC 9420's variable-size vectors, as declarations.

A struct is a frozen dataclass whose fields declare their encoding:

    @dataclass(frozen=True, slots=True)
    class QueueAddress(Struct):
        domain: Annotated[str, Text(255)]
        encrypted_queue_id: Annotated[bytes, Opaque(256)]

`from_bytes` is strict and total: every byte is read, vector lengths are minimal (RFC 9420, section 2.1.2) and
within their bound, enums are known, text is UTF-8; anything else is a `ParseError` with the offset.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, ClassVar, Protocol, Self, TypeVar, cast, get_type_hints

from mimi_mmr.errors import InvalidUri, ParseError

MAX_VECTOR = 1 << 30
_T = TypeVar("_T")
_S = TypeVar("_S", bound="Struct")


class Reader:
    """A cursor over bytes that never reads past its end."""

    __slots__ = ("data", "end", "offset")

    def __init__(self, data: bytes, offset: int = 0, end: int | None = None) -> None:
        """Read `data[offset:end]`."""
        self.data = data
        self.offset = offset
        self.end = len(data) if end is None else end

    def take(self, count: int, what: str) -> bytes:
        """Read the next `count` bytes."""
        start = self.offset
        if count > self.end - start:
            raise ParseError(f"expected {count} bytes of {what}, {self.end - start} left", start)
        self.offset = start + count
        return self.data[start : self.offset]

    def uint(self, width: int, what: str) -> int:
        """Read an unsigned big-endian integer of `width` bytes."""
        start = self.offset
        stop = start + width
        if stop > self.end:
            self.take(width, what)  # raises the error
        self.offset = stop
        return int.from_bytes(self.data[start:stop], "big")

    def varint(self, what: str, limit: int = MAX_VECTOR) -> int:
        """Read a vector length (RFC 9420, section 2.1.2): 1, 2 or 4 bytes, minimal, of at most `limit`."""
        start = self.offset
        first = self.uint(1, what)
        if first <= limit and first < 1 << 6:
            return first
        prefix = first >> 6
        if prefix == 3:
            raise ParseError(f"invalid length prefix of {what}", start)
        length = (1 << prefix) - 1
        value = ((first & 0x3F) << (8 * length)) | self.uint(length, what)
        if prefix and value < (1 << (6, 14)[prefix - 1]):
            raise ParseError(f"length of {what} is not minimal", start)
        if value > limit:
            raise ParseError(f"{what} of {value} bytes, at most {limit} allowed", start)
        return value

    def vector(self, limit: int, what: str) -> Reader:
        """Return a reader over the next variable-size vector, without copying; this reader skips the vector."""
        size = self.varint(what, limit)
        if size > self.end - self.offset:
            raise ParseError(f"expected {size} bytes of {what}, {self.end - self.offset} left", self.offset)
        inner = Reader(self.data, self.offset, self.offset + size)
        self.offset += size
        return inner

    def rest(self) -> bytes:
        """Read all remaining bytes."""
        return self.take(self.end - self.offset, "rest")

    @property
    def empty(self) -> bool:
        """Whether everything has been read."""
        return self.offset == self.end

    def done(self, what: str) -> None:
        """Check that no bytes are left; raise `ParseError`."""
        if not self.empty:
            raise ParseError(f"{self.end - self.offset} bytes too many after {what}", self.offset)


def read_whole(data: bytes, limit: int, what: str, read: Callable[[Reader], _T]) -> _T:
    """Parse all of `data`, at most `limit` bytes, with `read`; raise `ParseError` for bytes left over."""
    if len(data) > limit:
        raise ParseError(f"{what} of {len(data)} bytes, at most {limit} allowed", 0)
    reader = Reader(data)
    value = read(reader)
    reader.done(what)
    return value


def write_varint(out: bytearray, value: int) -> None:
    """Append a vector length in its shortest form (RFC 9420, section 2.1.2)."""
    if value < 1 << 6:
        out.append(value)
    elif value < 1 << 14:
        out += (value | 1 << 14).to_bytes(2, "big")
    elif value < MAX_VECTOR:
        out += (value | 2 << 30).to_bytes(4, "big")
    else:
        raise ValueError(f"a vector of {value} bytes does not fit its length field")


def vec(data: bytes) -> bytes:
    """Encode `opaque data<V>`: length, then bytes."""
    size = len(data)
    if size < 1 << 6:
        return bytes((size,)) + data
    if size < 1 << 14:
        return (size | 1 << 14).to_bytes(2, "big") + data
    out = bytearray()
    write_varint(out, size)
    return bytes(out) + data


def vec_size(data: bytes) -> int:
    """Return the length of `vec(data)`."""
    size = len(data)
    return size + (1 if size < 1 << 6 else 2 if size < 1 << 14 else 4)


class Codec(Protocol):
    """The encoding of one field's values."""

    def write(self, out: bytearray, value: Any) -> None:
        """Append the value."""

    def read(self, reader: Reader, what: str) -> Any:
        """Read one value, or raise `ParseError`."""


@dataclass(frozen=True, slots=True)
class Uint:
    """`uint8` to `uint64`: unsigned, big-endian."""

    width: int

    def write(self, out: bytearray, value: int) -> None:
        """Append the value."""
        out += value.to_bytes(self.width, "big")

    def read(self, reader: Reader, what: str) -> int:
        """Read one value."""
        return reader.uint(self.width, what)


U8, U16, U32, U64 = Uint(1), Uint(2), Uint(4), Uint(8)


@dataclass(frozen=True, slots=True)
class Fixed:
    """`opaque x[size]`."""

    size: int

    def write(self, out: bytearray, value: bytes) -> None:
        """Append the value."""
        if len(value) != self.size:
            raise ValueError(f"expected {self.size} bytes, got {len(value)}")
        out += value

    def read(self, reader: Reader, what: str) -> bytes:
        """Read one value."""
        return reader.take(self.size, what)


@dataclass(frozen=True, slots=True)
class Opaque:
    """`opaque x<V>` of at most `limit` bytes."""

    limit: int
    least: int = 0

    def write(self, out: bytearray, value: bytes) -> None:
        """Append the value."""
        if not self.least <= len(value) <= self.limit:
            raise ValueError(f"expected {self.least} to {self.limit} bytes, got {len(value)}")
        out += vec(value)

    def read(self, reader: Reader, what: str) -> bytes:
        """Read one value."""
        # Nearly all vectors have less than 16 KiB and are read here, in one call. The others, and all errors, are
        # left to `varint` and `take`.
        data, at = reader.data, reader.offset
        if at + 1 < reader.end:
            size, start = data[at], at + 1
            if size >= 1 << 6:
                size, start = (size << 8 | data[start]) - (1 << 14), start + 1
                size = size if 1 << 6 <= size < 1 << 14 else MAX_VECTOR
            stop = start + size
            if self.least <= size <= self.limit and stop <= reader.end and size < MAX_VECTOR:
                reader.offset = stop
                return data[start:stop]
        found = reader.take(reader.varint(what, self.limit), what)
        if len(found) < self.least:
            raise ParseError(f"{what} of {len(found)} bytes, at least {self.least} expected", at)
        return found


@cache
def _opaque(limit: int) -> Opaque:
    return Opaque(limit)


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 text in an `opaque<V>` of at most `limit` bytes."""

    limit: int

    def write(self, out: bytearray, value: str) -> None:
        """Append the value."""
        data = value.encode()
        if len(data) > self.limit:
            raise ValueError(f"expected at most {self.limit} bytes, got {len(data)}")
        out += vec(data)

    def read(self, reader: Reader, what: str) -> str:
        """Read one value."""
        start = reader.offset
        try:
            return _opaque(self.limit).read(reader, what).decode()
        except UnicodeDecodeError:
            raise ParseError(f"{what} is not UTF-8", start) from None


@dataclass(frozen=True, slots=True)
class Vector:
    """`T x<V>` of at most `limit` bytes and `count` items."""

    item: Codec
    limit: int = 1 << 24
    count: int = 1 << 20

    def write(self, out: bytearray, value: Sequence[Any]) -> None:
        """Append the value."""
        body = bytearray()
        for item in value:
            self.item.write(body, item)
        if len(body) > self.limit or len(value) > self.count:
            raise ValueError(f"vector of {len(value)} items, {len(body)} bytes, is above its limit")
        write_varint(out, len(body))
        out += body

    def read(self, reader: Reader, what: str) -> tuple[Any, ...]:
        """Read one value."""
        inner = reader.vector(self.limit, what)
        items: list[Any] = []
        read = self.item.read
        while inner.offset < inner.end:
            if len(items) == self.count:
                raise ParseError(f"more than {self.count} items in {what}", inner.offset)
            items.append(read(inner, what))
        return tuple(items)


@dataclass(frozen=True, slots=True)
class Maybe:
    """`optional<T>`: one byte 0 or 1, then the value if 1."""

    item: Codec

    def write(self, out: bytearray, value: Any) -> None:
        """Append the value."""
        out.append(value is not None)
        if value is not None:
            self.item.write(out, value)

    def read(self, reader: Reader, what: str) -> Any:
        """Read one value."""
        start = reader.offset
        present = reader.uint(1, what)
        if present > 1:
            raise ParseError(f"presence of {what} is {present}, expected 0 or 1", start)
        return self.item.read(reader, what) if present else None


@dataclass(frozen=True, slots=True)
class Code:
    """An `enum` of the given width; unknown values are refused."""

    kind: type[enum.IntEnum]
    width: int = 1

    def write(self, out: bytearray, value: enum.IntEnum) -> None:
        """Append the value."""
        out += int(value).to_bytes(self.width, "big")

    def read(self, reader: Reader, what: str) -> enum.IntEnum:
        """Read one value."""
        start = reader.offset
        value = reader.uint(self.width, what)
        found = _members(self.kind).get(value)
        if found is None:
            raise ParseError(f"unknown {self.kind.__name__} {value}", start)
        return found


@cache
def _members(kind: type[enum.IntEnum]) -> Mapping[int, enum.IntEnum]:
    return {int(member): member for member in kind}


@dataclass(frozen=True, slots=True)
class Boolean:
    """One byte, 0 or 1."""

    def write(self, out: bytearray, value: bool) -> None:
        """Append the value."""
        out.append(value)

    def read(self, reader: Reader, what: str) -> bool:
        """Read one value."""
        start = reader.offset
        value = reader.uint(1, what)
        if value > 1:
            raise ParseError(f"{what} is {value}, expected 0 or 1", start)
        return value == 1


BOOL = Boolean()


@dataclass(frozen=True, slots=True)
class Nested:
    """A struct inside a struct."""

    kind: type[Struct]

    def write(self, out: bytearray, value: Struct) -> None:
        """Append the value."""
        value.write_to(out)

    def read(self, reader: Reader, what: str) -> Struct:
        """Read one value."""
        return self.kind.read_from(reader)


class Struct:
    """A wire struct: the encodings of its fields, in order. Subclass it as a frozen, slotted dataclass."""

    __slots__ = ()
    LIMIT: ClassVar[int] = 1 << 24

    def write_to(self, out: bytearray) -> None:
        """Append every field."""
        for name, codec in layout(type(self)):
            try:
                codec.write(out, getattr(self, name))
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{type(self).__name__}.{name}: {error}") from None

    def to_bytes(self) -> bytes:
        """Encode the struct."""
        out = bytearray()
        self.write_to(out)
        return bytes(out)

    @classmethod
    def read_from(cls, reader: Reader) -> Self:
        """Read every field, without the bytes after the struct; raise `ParseError`."""
        return read_struct(cls, reader)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse one struct; raise `ParseError`, also if bytes follow it."""
        return read_whole(data, cls.LIMIT, cls.__name__, cls.read_from)


# For each field: its setter, its read function, its name in errors. Then the struct's check, if it has one.
_Reads = tuple[
    tuple[tuple[Callable[[Struct, Any], None], Callable[[Reader, str], Any], str], ...],
    Callable[[Struct], None] | None,
]
_LAYOUTS: dict[type, tuple[tuple[str, Codec], ...]] = {}
_READS: dict[type[Struct], _Reads] = {}
_WRITES: dict[type[Struct], tuple[Callable[[bytearray, Any], None], ...]] = {}


def layout(kind: type[Struct]) -> tuple[tuple[str, Codec], ...]:
    """Return field names and codecs of a struct, in wire order."""
    found = _LAYOUTS.get(kind)
    if found is None:
        hints = get_type_hints(kind, include_extras=True)
        names = [field.name for field in fields(cast("Any", kind))]
        found = _LAYOUTS[kind] = tuple((name, _codec(kind, name, hints[name])) for name in names)
    return found


def slot(kind: type, name: str) -> Callable[[Any, Any], None]:
    """Return the setter of a slot. It also works on a new instance of a frozen dataclass."""
    return cast("Callable[[Any, Any], None]", getattr(kind, name).__set__)


def _reads(kind: type[Struct]) -> _Reads:
    """Prepare reading into slots, which is faster than `__init__` of a frozen dataclass."""
    reads = tuple((slot(kind, name), codec.read, f"{kind.__name__}.{name}") for name, codec in layout(kind))
    _READS[kind] = reads, getattr(kind, "__post_init__", None)
    return _READS[kind]


def read_struct(kind: type[_S], reader: Reader) -> _S:
    """Read every field of a struct, without the bytes after it; raise `ParseError`."""
    reads, check = _READS.get(kind) or _reads(kind)
    made = object.__new__(kind)
    for put, read, what in reads:
        put(made, read(reader, what))
    if check is not None:
        try:
            check(made)
        except (ValueError, InvalidUri) as error:
            raise ParseError(f"{kind.__name__}: {error}", reader.offset) from None
    return made


def _writes(kind: type[Struct]) -> tuple[Callable[[bytearray, Any], None], ...]:
    _WRITES[kind] = tuple(codec.write for _, codec in layout(kind))
    return _WRITES[kind]


def encode(kind: type[Struct], *values: Any) -> bytes:
    """Return `kind(*values).to_bytes()` without making the struct, for values that were checked before."""
    out = bytearray()
    for write, value in zip(_WRITES.get(kind) or _writes(kind), values, strict=True):
        write(out, value)
    return bytes(out)


def _codec(kind: type[Struct], name: str, hint: Any) -> Codec:
    for extra in getattr(hint, "__metadata__", ()):
        return cast("Codec", extra)
    if isinstance(hint, type) and issubclass(hint, Struct):
        return Nested(hint)
    raise TypeError(f"{kind.__name__}.{name} does not say how it travels")
