"""What a shared cache may keep and for how long (RFC 9111), for complete 200 answers to GET."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ohttp_relay.bhttp.fields import Fields, get_field
from ohttp_relay.transport.dates import parse_date

_DIRECTIVE = re.compile(r'([A-Za-z0-9!#$%&\'*+.^_`|~-]+)(?:=(?:"((?:[^"\\]|\\.)*)"|([^\s,;"]*)))?')


def directives(header: str | None) -> Mapping[str, str]:
    """Return the directives of a Cache-Control value, names lower-cased."""
    return {name.lower(): quoted or plain for name, quoted, plain in _DIRECTIVE.findall(header or "")}


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() and len(text) < 12 else None


@dataclass(frozen=True, slots=True)
class Freshness:
    """Whether an answer may be stored; its lifetime and the age it came with, in seconds."""

    storable: bool
    lifetime: float
    age: float


def judge(status: int, fields: Fields, now: float, heuristic: float) -> Freshness:
    """Judge an answer received at `now` (RFC 9111, sections 3 and 4.2).

    Without an explicit lifetime it is a tenth of the time since Last-Modified, at most `heuristic` seconds.
    """
    control = directives(get_field(fields, "cache-control"))
    forbidden = "no-store" in control or "private" in control or get_field(fields, "vary") == "*"
    date = parse_date(get_field(fields, "date") or "")
    age = max(_seconds(get_field(fields, "age")) or 0.0, now - date if date is not None else 0.0, 0.0)
    lifetime = 0.0 if "no-cache" in control else _lifetime(control, fields, date or now, heuristic)
    return Freshness(status == 200 and not forbidden, lifetime, age)


def _lifetime(control: Mapping[str, str], fields: Fields, date: float, heuristic: float) -> float:
    for name in ("s-maxage", "max-age"):
        if name in control:
            return _seconds(control[name]) or 0.0
    expires = get_field(fields, "expires")
    if expires is not None:
        return max(0.0, (parse_date(expires) or 0.0) - date)
    modified = parse_date(get_field(fields, "last-modified") or "")
    return heuristic if modified is None else min(heuristic, max(0.0, date - modified) / 10)
