"""What client, relay and gateway share about HTTP around the protocol: URLs, bodies, observation."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from io import BytesIO

import aiohttp
from aiohttp import web
from yarl import URL

from .errors import BodyTooLarge, ConfigurationError
from .fields import Field

_INCREMENTAL = re.compile(r" *\?1 *(?:;.*)?")
LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


@dataclass(frozen=True, slots=True)
class Seen:
    """What one party saw at one step: the peer's address, the target, fields, body."""

    peer: str = ""
    method: str = ""
    target: str = ""
    status: int = 0
    fields: tuple[Field, ...] = ()
    body: bytes = field(default=b"", repr=False)


Observer = Callable[[str, Seen], None]
"""Called with an event name and what was seen, for a record of exactly what each party saw.

`relay.keys`, `relay.received`, `relay.forwarded`, `relay.answered`; `gateway.keys`, `gateway.received`,
`gateway.decapsulated`, `gateway.fetched`; `download.fetched`.  A body that passes in pieces comes after its
event as `relay.received.piece`, `relay.answered.piece`, `gateway.decapsulated.piece`.  A WebSocket's handshake
is `relay.socket`, `gateway.socket`; its frames come as bodies do.
"""


def header_pairs(headers: Iterable[tuple[str, str]]) -> tuple[Field, ...]:
    """Return headers as pairs with lower-case names."""
    return tuple((name.lower(), value) for name, value in headers)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine by name or literal address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") in LOOPBACK_NAMES


def parse_url(text: str, *, encoded: bool = False) -> URL:
    """Return `text` as a URL; `encoded`: it needs no quoting.  Raises ValueError for whatever is none."""
    try:
        return URL(text, encoded=encoded)
    except IndexError:  # the library's, for an authority that ends in "@"
        raise ValueError("the URL's authority has no host") from None


def check_url(text: str | URL, *, allow_insecure_loopback: bool = False) -> URL:
    """Return the URL of a hop.  Raises ConfigurationError unless it is https (RFC 9458, section 6).

    With `allow_insecure_loopback`, http to this machine passes: for tests, and behind a TLS proxy.
    """
    try:
        url = text if isinstance(text, URL) else parse_url(text)
    except ValueError:
        raise ConfigurationError("a hop needs an absolute https URL") from None
    if url.scheme == "https" and url.raw_host:
        return url
    if url.scheme == "http" and allow_insecure_loopback and url.raw_host and is_loopback(url.raw_host):
        return url
    raise ConfigurationError(f"both hops need https, got {url.scheme or 'no scheme'}://{url.raw_host or ''}")


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
    )


async def read_limited(
    stream: aiohttp.StreamReader, limit: int, declared: int | None = None, idle: float | None = None
) -> bytes:
    """Read a body of at most `limit` bytes; stop reading at the first byte too many.

    Raises BodyTooLarge, and TimeoutError if `idle` seconds pass without a byte.
    """
    if declared is not None and declared > limit:
        raise BodyTooLarge(f"body of {declared} bytes, at most {limit} are accepted")
    if stream.is_eof():  # all there, as small bodies are
        whole = stream.read_nowait()
        if len(whole) > limit:
            raise BodyTooLarge(f"body of more than {limit} bytes")
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
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def payload(data: bytes) -> bytes | BytesIO:
    """Return a body as the HTTP library wants it: beyond a megabyte, something to read in pieces."""
    return data if len(data) < 1 << 20 else BytesIO(data)


def media_type(header: str | None) -> str:
    """Return the media type of a Content-Type value, without parameters, lower case."""
    return (header or "").partition(";")[0].strip().lower()


def is_incremental(header: str | None) -> bool:
    """Tell whether an Incremental field says true; other types, and parameters, mean nothing.

    Source: draft-ietf-httpbis-incremental, section 3 (a Structured Fields boolean).
    """
    return _INCREMENTAL.fullmatch(header or "") is not None


async def hide_server(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Drop what the server library says of itself (an `on_response_prepare` signal)."""
    response.headers.popall("Server", None)
