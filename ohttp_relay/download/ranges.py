"""Byte ranges (RFC 9110, section 14): one range of a representation whose size is known."""

from __future__ import annotations

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE)


class Unsatisfiable(Exception):
    """The range lies outside the representation: answer 416."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` up to and not including `stop`."""

    start: int
    stop: int


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Return the requested range; None, for the whole, if there is no range, or several, or a malformed one.

    Raises Unsatisfiable.
    """
    found = _RANGE.fullmatch(header or "")
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = int(found[2])
        if not length or not size:
            raise Unsatisfiable
        return ByteRange(max(0, size - length), size)
    start, stop = int(found[1]), int(found[2]) + 1 if found[2] else size
    if found[2] and stop <= start:
        return None  # malformed, and so ignored
    if start >= size:
        raise Unsatisfiable
    return ByteRange(start, min(stop, size))
