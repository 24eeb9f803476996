"""The parts of Binary HTTP messages (RFC 9292, section 3): writing them, and reading whole messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ohttp_relay.bhttp.fields import Field, Fields, check_field, check_order, is_token, is_usual
from ohttp_relay.bhttp.varint import decode_varint, encode_varint
from ohttp_relay.errors import BodyTooLarge, InvalidMessage, TruncatedMessage

KNOWN_REQUEST, KNOWN_RESPONSE, STREAMED_REQUEST, STREAMED_RESPONSE = range(4)

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
_PATH: Final = re.compile(r"/[\x21\x22\x24-\x7e]*|\*")
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:%\[\]]*")
# Nearly every target: a method other than CONNECT, scheme, authority, path, none of them with a space.
_USUAL_TARGET: Final = re.compile(
    r"(?!CONNECT )[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [A-Za-z][A-Za-z0-9+.\-]* "
    r"[A-Za-z0-9\-._~!$&'()*+,;=:%\[\]]* /[\x21\x22\x24-\x7e]*"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a decoder: fields in a section, bytes of a section, bytes of content, interim responses."""

    fields: int = 256
    section: int = 64 * 1024
    content: int = 64 * 1024 * 1024
    informational: int = 16


DEFAULT_LIMITS: Final = Limits()

RESPONSE_FIELDS: Final = 1000
"""Fields in a section of a response that a gateway passes on and a client reads."""

RESPONSE_SECTION: Final = 256 * 1024
"""Bytes of a section of a response that a gateway passes on and a client reads."""


def response_limits(content: int) -> Limits:
    """Return the limits of a client for a response of at most `content` bytes."""
    return Limits(fields=RESPONSE_FIELDS, section=RESPONSE_SECTION, content=content)


DEFAULT_RESPONSE_LIMITS: Final = response_limits(DEFAULT_LIMITS.content)


@dataclass(frozen=True, slots=True)
class Informational:
    """An interim response: status 100..199 and its own fields (RFC 9292, section 3.5.1)."""

    status: int
    fields: Fields = ()


def encode_status(status: int, *, interim: bool = False) -> bytes:
    """Return the response's control data.  Raises InvalidMessage outside 200..599 (interim: 100..199)."""
    low, high = (100, 199) if interim else (200, 599)
    if not low <= status <= high:
        raise InvalidMessage(f"status is {low}..{high} here, got {status}")
    return encode_varint(status)


def check_target(method: str, scheme: str, authority: str, path: str, offset: int | None = None) -> None:
    """Raise InvalidMessage unless control data follows RFC 9113, section 8.3.1."""
    if _USUAL_TARGET.fullmatch(f"{method} {scheme} {authority} {path}") is not None:
        return
    if not is_token(method):
        raise InvalidMessage("method is not a token", offset)
    if _AUTHORITY.fullmatch(authority) is None:
        raise InvalidMessage("authority has a forbidden character, or user information", offset)
    if method == "CONNECT":
        if scheme or path or not authority:
            raise InvalidMessage("CONNECT has an authority and neither scheme nor path", offset)
        return
    if _SCHEME.fullmatch(scheme) is None:
        raise InvalidMessage("scheme is not a URI scheme", offset)
    if _PATH.fullmatch(path) is None or (path == "*" and method != "OPTIONS"):
        raise InvalidMessage("path does not start with '/' or has a forbidden character", offset)


def encode_section(fields: Fields, *, trailers: bool = False) -> bytes:
    """Return the field lines of a section without length or terminator.  Raises InvalidMessage."""
    lines, ordinary = [], True
    for name, value in fields:
        name = name.lower()
        if not is_usual(name, value):
            check_field(name, value)
            ordinary = False
        lines.append(f"{_length(name)}{name}{_length(value)}{value}")
    if not ordinary:
        check_order(fields, trailers=trailers)
    return octets("".join(lines))


def _length(text: str) -> str:
    """Return the encoded length of a text, as characters of ISO 8859-1."""
    size = len(text)
    return chr(size) if size < 0x40 else encode_varint(size).decode("latin-1")


def section(fields: Fields, *, trailers: bool = False) -> bytes:
    """Return a field section after its length.  Raises InvalidMessage."""
    return prefixed(encode_section(fields, trailers=trailers)) if fields else b"\0"


def known_rest(fields: Fields, content: bytes, trailers: Fields) -> list[bytes]:
    """Return header section, content and trailer section of a message of known length, in full."""
    return [section(fields), encode_varint(len(content)), content, section(trailers, trailers=True)]


def octets(text: str) -> bytes:
    """Return the octets of a text.  Raises InvalidMessage for a character outside ISO 8859-1."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise InvalidMessage("text has a character outside ISO 8859-1") from None


def prefixed(data: bytes) -> bytes:
    """Return `data` after its length."""
    return encode_varint(len(data)) + data


class Reader:
    """A reader of one whole message, front to back; every method advances or raises."""

    __slots__ = ("_data", "_limits", "_offset")

    def __init__(self, data: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
        self._data = data
        self._offset = 0
        self._limits = limits

    def at_end(self) -> bool:
        """Tell whether all bytes are read."""
        return self._offset >= len(self._data)

    def varint(self, what: str) -> int:
        """Read an integer."""
        offset, data = self._offset, self._data
        if offset < len(data) and data[offset] < 0x40:  # one byte, the usual case
            self._offset = offset + 1
            return data[offset]
        found = decode_varint(data, offset)
        if found is None:
            raise TruncatedMessage(f"message ends inside {what}", offset)
        value, self._offset = found
        return value

    def take(self, length: int, what: str) -> bytes:
        """Read `length` bytes."""
        start, end = self._offset, self._offset + length
        if end > len(self._data):
            raise TruncatedMessage(f"{what} says {length} bytes, {len(self._data) - start} are left", start)
        self._offset = end
        return self._data[start:end]

    def texts(self, end: int, most: int = -1) -> list[str]:
        """Read texts with their lengths: all up to offset `end`, or the first `most`."""
        data, at = self._data, self._offset
        texts: list[str] = []
        while at < end and len(texts) != most:
            length = data[at]
            if length < 0x40:  # one byte, the usual case
                at += 1
            else:
                self._offset = at
                length, at = self.varint("a length"), self._offset
            stop = at + length
            if stop > end:
                raise TruncatedMessage(f"a text of {length} bytes, {end - at} are left", at)
            texts.append(data[at:stop].decode("latin-1"))
            at = stop
        self._offset = at
        return texts

    def request_control(self) -> tuple[str, str, str, str]:
        """Read method, scheme, authority, path."""
        start = self._offset
        texts = self.texts(len(self._data), 4)
        if len(texts) < 4:
            raise TruncatedMessage("message ends inside its control data", self._offset)
        method, scheme, authority, path = texts
        check_target(method, scheme, authority, path, offset=start)
        return method, scheme, authority, path

    def response_control(self, *, known: bool) -> tuple[tuple[Informational, ...], int]:
        """Read interim responses and the final status."""
        interim: list[Informational] = []
        while True:
            start = self._offset
            status = self.varint("status")
            if 200 <= status <= 599:
                return tuple(interim), status
            if not 100 <= status <= 199:
                raise InvalidMessage(f"status is 100..599, got {status}", start)
            if len(interim) >= self._limits.informational:
                raise InvalidMessage("too many informational responses", start)
            interim.append(Informational(status, self.section(known=known, may_miss=False)))

    def rest(self, *, known: bool) -> tuple[tuple[Field, ...], bytes, tuple[Field, ...]]:
        """Read header section, content, trailer section and padding; missing ones at the end are empty."""
        fields = self.section(known=known)
        content = self._known_content() if known else self._streamed_content()
        trailers = self.section(known=known, trailers=True)
        padding = len(self._data) - self._offset
        if padding and self._data[self._offset :] != bytes(padding):
            raise InvalidMessage("padding is not zero", self._offset)
        return fields, content, trailers

    def section(self, *, known: bool, trailers: bool = False, may_miss: bool = True) -> tuple[Field, ...]:
        """Read a field section."""
        start, data = self._offset, self._data
        if start >= len(data):
            if may_miss:
                return ()
        elif data[start] == 0:  # no fields, in either form
            self._offset = start + 1
            return ()
        texts = self._known_section() if known else self._streamed_section()
        if len(texts) > 2 * self._limits.fields:
            raise BodyTooLarge(f"more than {self._limits.fields} fields in a section")
        fields, ordinary = [], True
        for at in range(0, len(texts), 2):
            name, value = texts[at].lower(), texts[at + 1]
            if not is_usual(name, value):
                check_field(name, value, offset=start)
                ordinary = False
            fields.append((name, value))
        if not ordinary:
            check_order(fields, trailers=trailers, offset=start)
        return tuple(fields)

    def _known_section(self) -> list[str]:
        length = self.varint("field section length")
        end = self._offset + length
        if end > len(self._data):
            raise TruncatedMessage("field section is longer than the message", self._offset)
        self._check_section(length)
        texts = self.texts(end)
        if len(texts) % 2:
            raise InvalidMessage("field line goes over the end of its section", self._offset)
        return texts

    def _streamed_section(self) -> list[str]:
        start = self._offset
        texts: list[str] = []
        while length := self.varint("name length or section end"):
            texts.append(self.take(length, "field name").decode("latin-1"))
            value = self.texts(len(self._data), 1)
            if not value:
                raise TruncatedMessage("message ends inside a field line", self._offset)
            texts += value
            self._check_section(self._offset - start)
            if len(texts) > 2 * self._limits.fields:
                break  # `section` refuses it
        return texts

    def _check_section(self, length: int) -> None:
        if length > self._limits.section:
            raise BodyTooLarge(f"field section of {length} bytes, at most {self._limits.section} accepted")

    def _known_content(self) -> bytes:
        if self.at_end():
            return b""
        length = self.varint("content length")
        self._check_content(length)
        return self.take(length, "content")

    def _streamed_content(self) -> bytes:
        if self.at_end():
            return b""
        chunks: list[bytes] = []
        total = 0
        while length := self.varint("chunk length or content end"):
            total += length
            self._check_content(total)
            chunks.append(self.take(length, "content chunk"))
        return b"".join(chunks)

    def _check_content(self, length: int) -> None:
        if length > self._limits.content:
            raise BodyTooLarge(f"content of {length} bytes, at most {self._limits.content} are accepted")
