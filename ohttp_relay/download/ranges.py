"""Byte ranges (RFC 9110, section 14): one range of a representation whose size is known."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ohttp_relay.transport.dates import parse_date

_UNSATISFIED = re.compile(r"bytes \*/(\d{1,18})", re.IGNORECASE)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)
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


def is_range(header: str | None) -> bool:
    """Tell whether a Range field is one well-formed byte range; others are ignored."""
    found = _RANGE.fullmatch(header or "")
    if found is None or not (found[1] or found[2]):
        return False
    return not (found[1] and found[2]) or int(found[1]) <= int(found[2])


def is_part_of(wanted: str, content_range: str | None) -> bool:
    """Tell whether a Content-Range is what the Range field `wanted` asked for, or begins like it."""
    found = _CONTENT_RANGE.fullmatch(content_range or "")
    if found is None or int(found[2]) < int(found[1]):
        return False
    start, stop = int(found[1]), int(found[2]) + 1
    if found[3] == "*":  # the size is not known: enough to check what does not depend on it
        asked = _RANGE.fullmatch(wanted)
        return asked is not None and asked[1] != "" and int(asked[1]) == start
    try:
        span = parse_range(wanted, int(found[3]))
    except Unsatisfiable:
        return False
    return span is not None and span.start == start and stop <= span.stop


def is_current(if_range: str | None, etag: str | None, modified: str | None, date: str | None) -> bool:
    """Tell whether a range may be served: there is no If-Range, or it names this very version.

    An entity tag must be strong and equal, a date be the Last-Modified of this version (RFC 9110, section 13.1.5).
    A date names one version only if the version was at least a second old when it was sent, at the time `date`
    (section 8.8.2.2): it may have changed again within that second.
    """
    if if_range is None:
        return True
    given = if_range.strip(" \t")
    if not given or given.startswith("W/"):
        return False
    return given == etag or (given == modified and _is_strong(modified, date))


def unsatisfied(content_range: str | None) -> str | None:
    """Return the Content-Range of a 416 if it is well formed; else None (RFC 9110, section 14.4)."""
    found = _UNSATISFIED.fullmatch(content_range or "")
    return None if found is None else f"bytes */{found[1]}"


def _is_strong(modified: str, date: str | None) -> bool:
    changed, sent = parse_date(modified), parse_date(date or "")
    return changed is not None and sent is not None and changed + 1 <= sent
