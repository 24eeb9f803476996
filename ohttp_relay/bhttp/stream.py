"""Binary HTTP in pieces (RFC 9292): a decoder of bytes as they come, and the parts of the streamed form.

`feed` and `finish` of the decoder return events.  It reads known- and indeterminate-length messages and the
truncations of section 3.8.  A message is complete only when `finish` has returned `End`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from ohttp_relay.bhttp.fields import Field, Fields, check_field, check_order
from ohttp_relay.bhttp.message import Request, encode_request_control
from ohttp_relay.bhttp.parts import (
    DEFAULT_LIMITS,
    DEFAULT_RESPONSE_LIMITS,
    KNOWN_REQUEST,
    KNOWN_RESPONSE,
    STREAMED_REQUEST,
    STREAMED_RESPONSE,
    Informational,
    Limits,
    check_target,
    encode_section,
    encode_status,
)
from ohttp_relay.bhttp.varint import decode_varint, encode_varint
from ohttp_relay.errors import BodyTooLarge, InvalidMessage, TruncatedMessage


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status and header section of a final response."""

    status: int
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of content, at least one byte."""

    content: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The message is whole; its trailer section."""

    trailers: tuple[Field, ...]


Event = Request | Informational | ResponseHead | Data | End
"""An event of a decoder: a Request without content, or interim responses and a ResponseHead; Data; End."""

_Step = Generator["Event | None", None, None]


class Decoder:
    """A decoder of one message from bytes that are split anywhere."""

    def __init__(self, *, request: bool, limits: Limits | None = None) -> None:
        self._limits = limits or (DEFAULT_LIMITS if request else DEFAULT_RESPONSE_LIMITS)
        self._request = request
        self._buffer = bytearray()
        self._offset = 0
        self._ended = False
        self._steps = self._message()

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes; return the events that follow.  Raises InvalidMessage or BodyTooLarge."""
        self._buffer += data
        return self._run()

    def finish(self) -> list[Event]:
        """Take the end of the bytes; return the last events, `End` among them.  Raises TruncatedMessage."""
        self._ended = True
        return self._run()

    def _run(self) -> list[Event]:
        events: list[Event] = []
        for event in self._steps:
            if event is None:
                break
            events.append(event)
        del self._buffer[: self._offset]
        self._offset = 0
        return events

    # Steps: generators that yield None when they need more bytes

    def _message(self) -> _Step:
        framing = yield from self._varint("framing indicator")
        kinds = (KNOWN_REQUEST, STREAMED_REQUEST) if self._request else (KNOWN_RESPONSE, STREAMED_RESPONSE)
        if framing not in kinds:
            raise InvalidMessage(f"framing indicator is {kinds[0]} or {kinds[1]} here, got {framing}")
        known = framing == kinds[0]
        yield from self._request_head(known) if self._request else self._response_head(known)
        yield from self._known_content() if known else self._streamed_content()
        trailers = yield from self._section(known, trailers=True)
        yield from self._padding()
        yield End(trailers)

    def _request_head(self, known: bool) -> _Step:
        parts: list[str] = []
        for what in ("method", "scheme", "authority", "path"):
            length = yield from self._varint(what)
            parts.append((yield from self._take(length, what)).decode("latin-1"))
        method, scheme, authority, path = parts
        check_target(method, scheme, authority, path)
        fields = yield from self._section(known)
        yield Request(method, scheme, authority, path, fields)

    def _response_head(self, known: bool) -> _Step:
        for _ in range(self._limits.informational + 1):
            status = yield from self._varint("status")
            if 200 <= status <= 599:
                yield ResponseHead(status, (yield from self._section(known)))
                return
            if not 100 <= status <= 199:
                raise InvalidMessage(f"status is 100..599, got {status}")
            yield Informational(status, (yield from self._section(known, may_miss=False)))
        raise InvalidMessage("too many informational responses")

    def _known_content(self) -> _Step:
        if (yield from self._at_end()):
            return
        left = yield from self._varint("content length")
        if left > self._limits.content:
            raise BodyTooLarge(f"content of {left} bytes, at most {self._limits.content} are accepted")
        yield from self._data(left)

    def _streamed_content(self) -> _Step:
        if (yield from self._at_end()):
            return
        total = 0
        while length := (yield from self._varint("chunk length or content end")):
            total += length
            if total > self._limits.content:
                raise BodyTooLarge(f"content of more than {self._limits.content} bytes")
            yield from self._data(length)

    def _data(self, left: int) -> _Step:
        while left:
            yield from self._wait(1, "content")
            stop = min(len(self._buffer), self._offset + left)
            piece = bytes(memoryview(self._buffer)[self._offset : stop])
            self._offset = stop
            left -= len(piece)
            yield Data(piece)

    def _section(
        self, known: bool, *, trailers: bool = False, may_miss: bool = True
    ) -> Generator[Event | None, None, tuple[Field, ...]]:
        if may_miss and (yield from self._at_end()):
            return ()
        fields = yield from self._known_lines() if known else self._streamed_lines()
        check_order(fields, trailers=trailers)
        return tuple(fields)

    def _known_lines(self) -> Generator[Event | None, None, list[Field]]:
        left = yield from self._varint("field section length")
        self._check_section(left)
        yield from self._wait(left, "field section")  # the whole section: its length is limited
        fields: list[Field] = []
        while left > 0:
            length = yield from self._varint("name length")
            fields.append((yield from self._line(length, len(fields))))
            left -= self._line_size
        if left:
            raise InvalidMessage("field line goes over the end of its section")
        return fields

    def _streamed_lines(self) -> Generator[Event | None, None, list[Field]]:
        fields: list[Field] = []
        size = 0
        while length := (yield from self._varint("name length or section end")):
            fields.append((yield from self._line(length, len(fields))))
            size += self._line_size
            self._check_section(size)
        return fields

    def _line(self, name_length: int, count: int) -> Generator[Event | None, None, Field]:
        if count >= self._limits.fields:
            raise BodyTooLarge(f"more than {self._limits.fields} fields in a section")
        self._line_size = self._last_size + name_length
        self._check_section(self._line_size)
        name = (yield from self._take(name_length, "field name")).decode("latin-1").lower()
        value_length = yield from self._varint("value length")
        self._line_size += self._last_size + value_length
        self._check_section(self._line_size)
        value = (yield from self._take(value_length, "field value")).decode("latin-1")
        check_field(name, value)
        return name, value

    def _check_section(self, size: int) -> None:
        if size > self._limits.section:
            raise BodyTooLarge(f"field section of {size} bytes, at most {self._limits.section} accepted")

    def _padding(self) -> _Step:
        while not (yield from self._at_end()):
            if self._buffer.count(0, self._offset) != len(self._buffer) - self._offset:
                raise InvalidMessage("padding is not zero")
            self._offset = len(self._buffer)

    # Bytes

    _last_size = 0
    _line_size = 0

    def _wait(self, count: int, what: str) -> _Step:
        while len(self._buffer) - self._offset < count:
            if self._ended:
                raise TruncatedMessage(f"message ends inside {what}")
            yield None

    def _at_end(self) -> Generator[Event | None, None, bool]:
        while self._offset == len(self._buffer):
            if self._ended:
                return True
            yield None
        return False

    def _varint(self, what: str) -> Generator[Event | None, None, int]:
        while (found := decode_varint(self._buffer, self._offset)) is None:
            yield from self._wait(len(self._buffer) - self._offset + 1, what)
        value, after = found
        self._last_size = after - self._offset
        self._offset = after
        return value

    def _take(self, count: int, what: str) -> Generator[Event | None, None, bytes]:
        if count > self._limits.section:
            raise BodyTooLarge(f"{what} of {count} bytes, at most {self._limits.section} accepted")
        yield from self._wait(count, what)
        taken = bytes(memoryview(self._buffer)[self._offset : self._offset + count])
        self._offset += count
        return taken


# The parts of an indeterminate-length message, in order


def start_request(request: Request) -> bytes:
    """Return framing indicator, control data and header section; the content of `request` is ignored."""
    return b"\x02" + encode_request_control(request) + encode_section(request.fields) + b"\0"


def start_response(status: int, fields: Fields, informational: tuple[Informational, ...] = ()) -> bytes:
    """Return framing indicator, interim responses, status and header section."""
    interim = [
        encode_status(i.status, interim=True) + encode_section(i.fields) + b"\0" for i in informational
    ]
    return b"\x03" + b"".join(interim) + encode_status(status) + encode_section(fields) + b"\0"


def content_piece(piece: bytes) -> bytes:
    """Return a content chunk; no bytes for an empty piece, which would end the content."""
    return encode_varint(len(piece)) + piece if piece else b""


def end_message(trailers: Fields = ()) -> bytes:
    """Return the end of the content and the trailer section, both in full."""
    return b"\0" + encode_section(trailers, trailers=True) + b"\0"
