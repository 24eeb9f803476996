"""HTTP fields as pairs of str: checks, lookup, and removal of connection fields.

Names and values are `str` whose characters are the octets on the wire (ISO 8859-1), so that every
octet has one form and none is lost.  Names are lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ohttp_relay.errors import InvalidMessage

Field = tuple[str, str]
Fields = Sequence[Field]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TOKEN_OR_PSEUDO = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"(?:[^\0\r\n\t ](?:[^\0\r\n]*[^\0\r\n\t ])?)?")
# Nearly every field: an ordinary name, then a value, neither of which may hold a NUL.
_USUAL = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\0(?:[^\0\r\n\t ](?:[^\0\r\n]*[^\0\r\n\t ])?)?")
_CONTROL_FIELDS = frozenset({":method", ":scheme", ":authority", ":path", ":status"})

CONNECTION_FIELDS = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields about one connection (RFC 9110, section 7.6.1; TE and Trailer are named there too)."""


def is_token(text: str) -> bool:
    """Tell whether `text` is an RFC 9110 token (section 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def is_usual(name: str, value: str) -> bool:
    """Tell whether `check_field` accepts the field and it may stand anywhere in a section."""
    return _USUAL.fullmatch(f"{name}\0{value}") is not None


def check_field(name: str, value: str, *, offset: int | None = None) -> None:
    """Check a field (RFC 9292, section 3.6).  Raises InvalidMessage.

    Values follow RFC 9113, section 8.2.1: no NUL, CR or LF, no white space at either end.
    """
    if _TOKEN_OR_PSEUDO.fullmatch(name) is None:
        raise InvalidMessage("field name is not a token", offset)
    if name in _CONTROL_FIELDS:
        raise InvalidMessage(f"field {name} belongs to the control data", offset)
    if _VALUE.fullmatch(value) is None:
        raise InvalidMessage("field value has a control character or white space at its edge", offset)


def check_order(fields: Iterable[Field], *, trailers: bool = False, offset: int | None = None) -> None:
    """Check the order of fields.  Raises InvalidMessage for a pseudo-field after others or in a trailer section."""
    ordinary_seen = trailers
    for name, _ in fields:
        if not name.startswith(":"):
            ordinary_seen = True
        elif ordinary_seen:
            raise InvalidMessage("pseudo-field after an ordinary field or in a trailer section", offset)


def get_field(fields: Iterable[Field], name: str) -> str | None:
    """Return the value of `name`, repeated values joined (RFC 9110, section 5.2).

    Cookie is joined with "; " (RFC 9292, section 3.6).  None if there is no such field.
    """
    wanted = name.lower()
    values = [value for key, value in fields if key == wanted or key.lower() == wanted]
    if not values:
        return None
    return ("; " if wanted == "cookie" else ", ").join(values)


def without_connection_fields(fields: Iterable[Field]) -> list[Field]:
    """Return the fields that are not about one connection, names lower-cased.

    Fields that a Connection field nominates go too (RFC 9110, section 7.6.1).
    """
    lowered = [(name.lower(), value) for name, value in fields]
    kept = [pair for pair in lowered if pair[0] not in CONNECTION_FIELDS]
    if len(kept) == len(lowered):
        return kept
    nominated = {
        token.strip().lower() for name, value in lowered if name == "connection" for token in value.split(",")
    }
    return [pair for pair in kept if pair[0] not in nominated]


def join_cookies(fields: Iterable[Field]) -> list[Field]:
    """Return the fields with all Cookie fields joined into one, with "; " (RFC 9113, section 8.2.3)."""
    pairs = list(fields)
    cookies = [value for name, value in pairs if name == "cookie"]
    if len(cookies) < 2:
        return pairs
    first = next(i for i, (name, _) in enumerate(pairs) if name == "cookie")
    joined = ("cookie", "; ".join(cookies))
    return [
        joined if i == first else pair for i, pair in enumerate(pairs) if i == first or pair[0] != "cookie"
    ]
