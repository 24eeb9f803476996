"""Plain HTTP replies, sent by the HTTP library or by the fast path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple

import aiohttp
from aiohttp import web

from ohttp_relay.bhttp.fields import Field
from ohttp_relay.errors import OhttpError
from ohttp_relay.transport.streams import OwnedStream, abort

NO_CODING: Final = ("Accept-Encoding", "identity")
"""The field of a 415 for coded content (RFC 9110, section 12.5.3)."""

_KNOWN: Final = frozenset(HTTPStatus)


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """A reply whose body comes in pieces: status, fields, length of the body in bytes if known, the pieces.

    The pieces raise unless the body comes whole; the reader closes them.
    """

    status: int
    fields: tuple[Field, ...]
    length: int | None
    pieces: OwnedStream

    def head(self, date: bytes, *, close: bool = False) -> bytes:
        """Return the head of the reply; without a length, its body is chunked."""
        framing = (
            b"Transfer-Encoding: chunked" if self.length is None else b"Content-Length: %d" % self.length
        )
        return b"%b%b\r\nDate: %b\r\n\r\n" % (_head(self.status, self.fields, close), framing, date)

    def frame(self, piece: bytes) -> bytes:
        """Return a piece as it is written to the connection."""
        return piece if self.length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)

    async def send(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of the HTTP library."""
        response = web.StreamResponse(status=self.status, headers=self.fields)
        response.content_length = self.length
        try:
            await response.prepare(request)
            async for piece in self.pieces:
                await response.write(piece)
            await response.write_eof()
        except (aiohttp.ClientError, OSError, OhttpError):
            abort(request)  # the head is out: only a broken connection tells that the reply is not whole
        finally:
            await self.pieces.aclose()
        return response


class Reply(NamedTuple):
    """A whole reply: status, fields besides those of framing and Date, body."""

    status: int
    fields: tuple[Field, ...]
    body: bytes

    @classmethod
    def text(cls, status: int, text: str, *fields: Field) -> Reply:
        """Return a reply that is a line of plain text."""
        return cls(status, (("Content-Type", "text/plain; charset=utf-8"), *fields), text.encode())

    def to_library(self) -> web.Response:
        """Return the reply as a response of the HTTP library."""
        return web.Response(status=self.status, headers=self.fields, body=self.body)

    def to_bytes(self, date: bytes, *, close: bool = False) -> bytes:
        """Return the reply as HTTP/1.1 (RFC 9112); with `close`, the last one of its connection."""
        head = _head(self.status, self.fields, close)
        return b"%bContent-Length: %d\r\nDate: %b\r\n\r\n%b" % (head, len(self.body), date, self.body)


@lru_cache(maxsize=256)  # nearly all replies have one of few heads
def _head(status: int, fields: tuple[Field, ...], close: bool) -> bytes:
    phrase = HTTPStatus(status).phrase if status in _KNOWN else ""  # a gateway may answer with any number
    lines = [f"HTTP/1.1 {status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += ["Connection: close"] if close else []
    # The inverse of how the library decodes fields, so that every octet passes unchanged.
    return "\r\n".join([*lines, ""]).encode("utf-8", "surrogateescape")
