"""HTTP on aiohttp, as all hops use it: sessions, bodies, fields."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable
from io import BytesIO
from itertools import chain
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy, istr

from ohttp_relay.bhttp.fields import Field, without_connection_fields
from ohttp_relay.bhttp.parts import RESPONSE_FIELDS, RESPONSE_SECTION
from ohttp_relay.errors import BodyTooLarge, InvalidAnswer, InvalidMessage

AUTO_HEADERS: Final[Collection[str]] = tuple(
    map(istr, ("Accept", "Accept-Encoding", "Content-Type", "User-Agent"))
)
"""Fields that aiohttp adds to a request by itself, and that must not be sent here."""

FIELD_LINE: Final = 64 * 1024
"""Bytes of one field line, or of the first line, that an answer may have."""

FIELD_LINES: Final = RESPONSE_FIELDS
"""Field lines that an answer may have."""

Hold = Callable[[int], Awaitable[None]]
"""Called with a number of bytes before so many more are kept in memory."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_INCREMENTAL: Final = re.compile(r" *\?1 *(?:;.*)?")


def header_pairs(headers: Iterable[tuple[str, str]]) -> tuple[Field, ...]:
    """Return headers as pairs with lower-case names."""
    return tuple((name.lower(), value) for name, value in headers)


def open_session(
    *, ssl_context: ssl.SSLContext | None = None, timeout: float = 30.0, limit: int = 512
) -> aiohttp.ClientSession:
    """Return a session for a hop: no cookies, no decompression, no proxies from the environment.

    `timeout` is in seconds, for connecting and between reads; `limit` is the number of connections.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=ssl_context or True, limit=limit),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
        max_line_size=FIELD_LINE,
        max_field_size=FIELD_LINE,
        max_headers=FIELD_LINES,
    )


async def read_limited(
    stream: aiohttp.StreamReader,
    limit: int,
    declared: int | None = None,
    idle: float | None = None,
    hold: Hold | None = None,
) -> bytes:
    """Return a body of at most `limit` bytes; stop reading at the first byte over the limit.

    `hold` is called with the number of bytes of each piece before the next one is read.  Raises BodyTooLarge, and
    TimeoutError if `idle` seconds pass without a byte.
    """
    if declared is not None and declared > limit:
        raise BodyTooLarge(f"body of {declared} bytes, at most {limit} are accepted")
    if stream.is_eof():  # small bodies have usually arrived whole
        whole = stream.read_nowait()
        if len(whole) > limit:
            raise BodyTooLarge(f"body of more than {limit} bytes")
        if hold is not None:
            await hold(len(whole))
        return whole
    chunks: list[bytes] = []
    total = 0
    while True:
        async with asyncio.timeout(idle):
            chunk = await stream.readany()
        if not chunk:
            break
        total += len(chunk)
        if total > limit:
            raise BodyTooLarge(f"body of more than {limit} bytes")
        if hold is not None:
            await hold(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def payload(data: bytes) -> bytes | BytesIO:
    """Return a body for the HTTP library: from a megabyte on as a file, since it warns of large bytes objects."""
    return data if len(data) < 1 << 20 else BytesIO(data)


def media_type(header: str | None) -> str:
    """Return the media type of a Content-Type value, without parameters, lower case."""
    return (header or "").partition(";")[0].strip().lower()


def is_incremental(header: str | None) -> bool:
    """Tell whether an Incremental field is true; other types and parameters are ignored.

    Source: draft-ietf-httpbis-incremental, section 3 (a Structured Fields boolean).
    """
    return _INCREMENTAL.fullmatch(header or "") is not None


def invalid_answer(whose: str) -> InvalidAnswer:
    """Return the error for an answer that the HTTP library could not parse; `whose` begins its message."""
    return InvalidAnswer(
        f"{whose} gave an answer that is not valid HTTP, or that has more than {FIELD_LINES} field lines or a line "
        f"of more than {FIELD_LINE} bytes"
    )


def has_coding(headers: CIMultiDictProxy[str]) -> bool:
    """Tell whether a message's content is coded (gzip and the like).

    This package decodes no content, so that nobody can make it hold or forward other bytes than it got.
    """
    content = _tokens(headers, "Content-Encoding") - {"identity"}
    return bool(content) or _has_transfer_coding(headers)


def _has_transfer_coding(headers: CIMultiDictProxy[str]) -> bool:
    """Tell whether a message has a transfer coding other than chunked, which is framing."""
    return bool(_tokens(headers, "Transfer-Encoding") - {"chunked"})


def _tokens(headers: CIMultiDictProxy[str], name: str) -> set[str]:
    texts = ",".join(headers.getall(name, ())).lower().split(",")
    return {text.strip(" \t") for text in texts} - {""}


async def hide_server(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Remove the Server field of the HTTP library (an `on_response_prepare` signal)."""
    response.headers.popall("Server", None)


def to_library(fields: list[Field]) -> CIMultiDict[str]:
    """Return fields for aiohttp.  It writes text as UTF-8, so only octets that are UTF-8 pass unchanged.

    Raises InvalidMessage for a value that is not UTF-8, or has a control character, which Binary HTTP permits and
    HTTP/1.1 does not (RFC 9110, section 5.5).
    """
    for name, value in fields:
        if _CONTROL.search(value) is not None:
            raise InvalidMessage(f"the value of the field {name} has a control character")
    try:
        return CIMultiDict(
            [(name, v if v.isascii() else v.encode("latin-1").decode("utf-8")) for name, v in fields]
        )
    except UnicodeDecodeError:
        raise InvalidMessage("a field value is not UTF-8 and cannot be forwarded") from None


def from_library(response: aiohttp.ClientResponse) -> tuple[Field, ...]:
    """Return the fields of a target's answer, repeated ones kept apart, connection fields dropped.

    Raises InvalidAnswer if they have more than `RESPONSE_SECTION` bytes, or if the content has a transfer coding,
    which would be lost.
    """
    if "Transfer-Encoding" in response.headers and _has_transfer_coding(response.headers):
        raise InvalidAnswer("the answer has a transfer coding that nobody asked for")
    octets = response.raw_headers
    if sum(map(len, chain.from_iterable(octets))) > RESPONSE_SECTION:
        raise InvalidAnswer(f"the header section of the answer has more than {RESPONSE_SECTION} bytes")
    pairs = [(name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in octets]
    return tuple(without_connection_fields(pairs))
