"""Binary HTTP messages (RFC 9292): requests and responses, whole, as values.

Text is `str` whose characters are the octets on the wire (ISO 8859-1), so that methods, targets and fields
keep every octet.  Field names are lower-cased, both ways.  `to_bytes` writes the known-length form in full,
with both zero lengths, because some decoders refuse truncated messages.  `from_bytes` reads known- and
indeterminate-length messages and every truncation that section 3.8 allows.
"""

from __future__ import annotations

from typing import NamedTuple

from ohttp_relay.bhttp.fields import Field, Fields, get_field
from ohttp_relay.bhttp.padding import Padding, unpadded
from ohttp_relay.bhttp.parts import (
    DEFAULT_LIMITS,
    DEFAULT_RESPONSE_LIMITS,
    KNOWN_REQUEST,
    KNOWN_RESPONSE,
    STREAMED_REQUEST,
    STREAMED_RESPONSE,
    Informational,
    Limits,
    Reader,
    check_target,
    encode_status,
    known_rest,
    octets,
    prefixed,
    section,
)
from ohttp_relay.errors import InvalidMessage

__all__ = ["Informational", "Limits", "Request", "Response", "encode_request_control", "pad"]


class Request(NamedTuple):
    """A request.  `authority` may be empty, then the Host field decides (RFC 9292, section 3.4)."""

    method: str
    scheme: str
    authority: str
    path: str
    fields: Fields = ()
    content: bytes = b""
    trailers: Fields = ()

    def to_bytes(self, padding: Padding = unpadded) -> bytes:
        """Return the known-length form, padded.  Raises InvalidMessage if a part is not valid HTTP."""
        parts = [b"\x00", encode_request_control(self)]
        parts += known_rest(self.fields, self.content, self.trailers)
        return pad(b"".join(parts), padding)

    @classmethod
    def from_bytes(cls, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Request:
        """Parse a whole message.

        Raises InvalidMessage, its subclass TruncatedMessage, or BodyTooLarge.
        """
        reader = Reader(data, limits)
        framing = reader.varint("framing indicator")
        if framing not in (KNOWN_REQUEST, STREAMED_REQUEST):
            raise InvalidMessage(f"framing indicator of a request is 0 or 2, got {framing}", 0)
        method, scheme, authority, path = reader.request_control()
        fields, content, trailers = reader.rest(known=framing == KNOWN_REQUEST)
        return cls(method, scheme, authority, path, fields, content, trailers)

    def header(self, name: str) -> str | None:
        """Return a header field's value, repeated ones joined; None if absent."""
        return get_field(self.fields, name)

    @property
    def host(self) -> str:
        """The authority of the target: from the control data, else from the Host field, else empty."""
        return self.authority or self.header("host") or ""

    @property
    def origin(self) -> str:
        """Scheme and authority as `https://host[:port]`, lower case."""
        return f"{self.scheme}://{self.host}".lower()


class Response(NamedTuple):
    """A response, with the interim responses that came before it."""

    status: int
    fields: Fields = ()
    content: bytes = b""
    trailers: Fields = ()
    informational: tuple[Informational, ...] = ()

    def to_bytes(self, padding: Padding = unpadded) -> bytes:
        """Return the known-length form, padded.  Raises InvalidMessage if a part is not valid HTTP."""
        parts = [b"\x01"]
        for interim in self.informational:
            parts.append(encode_status(interim.status, interim=True))
            parts.append(section(interim.fields))
        parts.append(encode_status(self.status))
        parts += known_rest(self.fields, self.content, self.trailers)
        return pad(b"".join(parts), padding)

    @classmethod
    def from_bytes(cls, data: bytes, limits: Limits = DEFAULT_RESPONSE_LIMITS) -> Response:
        """Parse a whole message.

        Raises InvalidMessage, its subclass TruncatedMessage, or BodyTooLarge.
        """
        reader = Reader(data, limits)
        framing = reader.varint("framing indicator")
        if framing not in (KNOWN_RESPONSE, STREAMED_RESPONSE):
            raise InvalidMessage(f"framing indicator of a response is 1 or 3, got {framing}", 0)
        known = framing == KNOWN_RESPONSE
        informational, status = reader.response_control(known=known)
        fields, content, trailers = reader.rest(known=known)
        return cls(status, fields, content, trailers, informational)

    def header(self, name: str) -> str | None:
        """Return a header field's value, repeated ones joined; None if absent."""
        return get_field(self.fields, name)

    def with_fields(self, *more: Field) -> Response:
        """Return a copy with `more` fields at the end."""
        return self._replace(fields=(*self.fields, *more))


def pad(message: bytes, padding: Padding) -> bytes:
    """Return `message` with zero bytes up to the length that `padding` returns."""
    return message.ljust(padding(len(message)), b"\x00")


def encode_request_control(request: Request) -> bytes:
    """Return the request's control data (RFC 9292, section 3.4), checked."""
    check_target(request.method, request.scheme, request.authority, request.path)
    parts = (request.method, request.scheme, request.authority, request.path)
    return b"".join(prefixed(octets(part)) for part in parts)
