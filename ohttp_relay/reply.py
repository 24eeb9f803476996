"""Plain answers that may leave by either way: through the HTTP library, or straight from the door."""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

from aiohttp import web

from .fields import Field


class Reply(NamedTuple):
    """A whole answer: status, fields besides those of framing and Date, body."""

    status: int
    fields: tuple[Field, ...]
    body: bytes

    def to_library(self) -> web.Response:
        """Return the answer as the HTTP library sends it."""
        return web.Response(status=self.status, headers=self.fields, body=self.body)

    def to_bytes(self, date: bytes, *, close: bool = False) -> bytes:
        """Return the answer as HTTP/1.1 (RFC 9112); with `close`, the last one of its connection."""
        head = _head(self.status, self.fields, close)
        return b"%b%d\r\nDate: %b\r\n\r\n%b" % (head, len(self.body), date, self.body)


@lru_cache(maxsize=256)  # nearly all answers start the same
def _head(status: int, fields: tuple[Field, ...], close: bool) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields]
    lines += ["Connection: close"] if close else []
    return "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
