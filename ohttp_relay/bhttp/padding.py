"""Padding of messages to size buckets.

A message may end in any number of zero bytes (RFC 9292, section 3.8).  An observer then learns the bucket, not
the size.
"""

from __future__ import annotations

from collections.abc import Callable

Padding = Callable[[int], int]
"""Takes a message's length in bytes, returns the length to pad it to."""

SMALLEST_BUCKET = 512


def buckets(length: int) -> int:
    """Return the bucket of a message of `length` bytes.

    512, 1024, 2048, 4096 bytes; beyond that four buckets an octave (5120, 6144, 7168, 8192, 10240,
    ...), so that a large message grows by a quarter at most.
    """
    bucket = SMALLEST_BUCKET
    while bucket < length and bucket < 4096:
        bucket *= 2
    if length <= bucket:
        return bucket
    step = 1 << ((length - 1).bit_length() - 3)
    return -(-length // step) * step


def unpadded(length: int) -> int:
    """Return `length`: no padding."""
    return length


def stream_buckets(length: int) -> int:
    """Return the bucket of a streamed message: as `buckets` up to 64 KiB, then multiples of 16 KiB.

    A long stream shows its rough length in any case, and padding of a quarter would cost too much.
    """
    return buckets(length) if length <= 65_536 else -(-length // 16_384) * 16_384
