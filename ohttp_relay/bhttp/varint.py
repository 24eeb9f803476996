"""Variable-length integers (RFC 9000, section 16): 1, 2, 4 or 8 bytes, up to 2**62 - 1."""

from __future__ import annotations

MAX_VARINT = (1 << 62) - 1


def encode_varint(value: int) -> bytes:
    """Return the shortest encoding of `value`.  Raises ValueError outside 0..2**62-1."""
    if 0 <= value < 0x40:
        return value.to_bytes(1, "big")
    if 0 <= value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if 0 <= value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if 0 <= value <= MAX_VARINT:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise ValueError(f"a variable-length integer is 0..2**62-1, got {value}")


def decode_varint(data: bytes | bytearray, offset: int = 0) -> tuple[int, int] | None:
    """Return (value, offset after it), or None if the bytes end before the integer does.

    Encodings longer than needed are accepted: RFC 9292, section 3, does not ask for the shortest.
    """
    if offset >= len(data):
        return None
    first = data[offset]
    if first < 0x40:
        return first, offset + 1
    end = offset + (1 << (first >> 6))
    if end > len(data):
        return None
    size = end - offset
    return int.from_bytes(data[offset:end], "big") & ((1 << (8 * size - 2)) - 1), end
