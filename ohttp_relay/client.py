"""An Oblivious HTTP client (RFC 9458) with an interface like aiohttp's.

Every request gets a fresh HPKE context, a Date, and padding to a size bucket.  If the way through the relay
fails, the request fails: it is never sent directly.
"""

from __future__ import annotations

import json as jsonlib
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from . import problems
from .bhttp import Informational, Limits, Request, Response
from .capsule import REQUEST_TYPE, RESPONSE_TYPE, encapsulate_request
from .errors import BodyTooLarge, ConfigurationError, ExchangeFailed, KeyRejected, RelayRefused
from .fields import Field, without_connection_fields
from .hpke import Suite
from .keyconfig import KeyConfig
from .keysource import KeyCache, KeyCallable, KeySource, PinnedKeys, RelayKeys, as_key_source
from .padding import Padding, buckets
from .replay import format_date, parse_date
from .targets import AUTO_HEADERS
from .transport import check_url, open_session, read_limited

__all__ = ["OhttpClient", "OhttpResponse", "PinnedKeys", "RelayKeys"]

_ERROR_LIMIT: Final = 16 * 1024
_WRITTEN_URL: Final = re.compile(r"[!$%&'()*+,\-./0-9:;=?@A-Z_a-z~\[\]]+")
Headers = Mapping[str, str] | Iterable[Field]


@dataclass(frozen=True, slots=True)
class OhttpResponse:
    """The target's answer, out of its capsule."""

    status: int
    headers: CIMultiDictProxy[str]
    content: bytes
    trailers: tuple[Field, ...] = ()
    informational: tuple[Informational, ...] = ()

    async def read(self) -> bytes:
        """Return the content."""
        return self.content

    async def text(self, encoding: str = "utf-8") -> str:
        """Return the content as text."""
        return (await self.read()).decode(encoding)

    async def json(self) -> object:
        """Return the content parsed as JSON."""
        return jsonlib.loads(await self.read())


class OhttpClient:
    """Sends requests through a relay to the gateway behind it.

    `key_source` gives the gateway's key list.  `max_response` is in bytes.  `kems` are the KEMs to use in
    order of preference (default: X-Wing, X25519, P-256).
    """

    def __init__(
        self,
        relay_url: str | URL,
        key_source: KeySource | KeyCallable,
        session: aiohttp.ClientSession | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        relay_headers: Mapping[str, str] | None = None,
        allow_insecure_loopback: bool = False,
        padding: Padding = buckets,
        max_response: int = 80 * 1024 * 1024,
        kems: tuple[int, ...] = (),
        refresh_interval: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._relay = check_url(relay_url, allow_insecure_loopback=allow_insecure_loopback)
        self._keys = KeyCache(as_key_source(key_source), interval=refresh_interval, kems=kems)
        self._session = session
        self._owned: aiohttp.ClientSession | None = None
        self._ssl = ssl_context
        self._relay_headers = dict(relay_headers or {})
        self._padding = padding
        self._max_response = max_response
        self._limits = Limits(content=max_response)
        self._clock = clock

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session that the client opened itself."""
        if self._owned is not None:
            await self._owned.close()
            self._owned = None

    def get(self, url: str | URL, *, headers: Headers = ()) -> AbstractAsyncContextManager[OhttpResponse]:
        """GET `url`; see `request`."""
        return self.request("GET", url, headers=headers)

    def post(
        self, url: str | URL, *, data: bytes = b"", headers: Headers = ()
    ) -> AbstractAsyncContextManager[OhttpResponse]:
        """POST `data` to `url`; see `request`."""
        return self.request("POST", url, data=data, headers=headers)

    @asynccontextmanager
    async def request(
        self, method: str, url: str | URL, *, data: bytes = b"", headers: Headers = ()
    ) -> AsyncIterator[OhttpResponse]:
        """Send a request and give the target's response, whatever its status.

        Raises KeyRejected or RelayRefused for an answer that is not encapsulated, ExchangeFailed if there
        is none, OpenFailed or TruncatedCapsule if it does not open, BodyTooLarge, InvalidMessage.
        """
        request = build_request(method, as_url(url), data, headers)
        yield _to_public(await self._exchange_dated(request))

    # One exchange, and the two repetitions that the RFC permits

    async def _exchange_dated(self, request: Request) -> Response:
        supplied = request.header("date") is not None
        response = await self._exchange_keyed(request if supplied else _dated(request, self._clock()))
        correction = None if supplied else _corrected_date(response)
        if correction is None:
            return response
        # Once, and the corrected date is used for nothing else (RFC 9458, section 6.5.2).
        return await self._exchange_keyed(_dated(request, correction))

    async def _exchange_keyed(self, request: Request) -> Response:
        session = self._transport()
        config, suite = await self._keys.current(session)
        try:
            return await self._exchange(session, request, config, suite)
        except KeyRejected:
            # The gateway says that it could not open the request, so it did not process it.
            if not await self._keys.refreshed(session, config):
                raise
        except RelayRefused:
            self._keys.expire()
            raise
        return await self._exchange(session, request, *await self._keys.current(session))

    async def _exchange(
        self, session: aiohttp.ClientSession, request: Request, config: KeyConfig, suite: Suite
    ) -> Response:
        capsule, opener = encapsulate_request(config, request.to_bytes(self._padding), suite)
        return Response.from_bytes(opener.open(await self._send(session, capsule)), self._limits)

    async def _send(self, session: aiohttp.ClientSession, capsule: bytes) -> bytes:
        try:
            async with session.post(
                self._relay,
                data=capsule,
                headers={**self._relay_headers, "Content-Type": REQUEST_TYPE},
                skip_auto_headers=AUTO_HEADERS,
                allow_redirects=False,
            ) as answer:
                if answer.status != 200 or answer.content_type != RESPONSE_TYPE:
                    raise await _refusal(answer)
                return await read_limited(answer.content, self._max_response, answer.content_length)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ExchangeFailed(f"no whole answer from the relay: {type(error).__name__}") from error

    def _transport(self) -> aiohttp.ClientSession:
        session = self._session or self._owned
        if session is None:
            session = self._owned = open_session(ssl_context=self._ssl)
        return session


def as_url(text: str | URL) -> URL:
    """Return a URL that says what `text` says: text that needs no quoting is not requoted."""
    if isinstance(text, URL):
        return text
    return URL(text, encoded=_WRITTEN_URL.fullmatch(text) is not None)


def build_request(method: str, url: URL, data: bytes, headers: Headers) -> Request:
    """Return a Binary HTTP request for an absolute URL.  Raises ConfigurationError."""
    if not url.absolute or url.scheme not in ("https", "http") or not url.raw_host:
        raise ConfigurationError("a target is an absolute http or https URL")
    if url.raw_user is not None:
        raise ConfigurationError("a target's URL must not hold user information")
    pairs = without_connection_fields(headers.items() if isinstance(headers, Mapping) else headers)
    if any(name == "expect" for name, _ in pairs):
        raise ConfigurationError("Expect cannot be used (RFC 9458, section 5.1)")
    return Request(method, url.scheme, url.raw_authority, url.raw_path_qs or "/", tuple(pairs), data)


def _dated(request: Request, now: float) -> Request:
    fields = (*request.fields, ("date", format_date(now)))
    parts = request.method, request.scheme, request.authority, request.path
    return Request(*parts, fields, request.content, request.trailers)


def _corrected_date(response: Response) -> float | None:
    if not 400 <= response.status < 500:
        return None
    if problems.decode_problem(response.header("content-type"), response.content) != problems.DATE:
        return None
    return parse_date(response.header("date") or "")


async def _refusal(answer: aiohttp.ClientResponse) -> RelayRefused:
    try:
        body = await read_limited(answer.content, _ERROR_LIMIT)
    except BodyTooLarge:
        body = b""
    problem = problems.decode_problem(answer.headers.get("Content-Type"), body)
    kind = KeyRejected if problem == problems.OHTTP_KEY else RelayRefused
    return kind(answer.status, problem)


def _to_public(response: Response) -> OhttpResponse:
    headers = CIMultiDictProxy(CIMultiDict(response.fields))
    return OhttpResponse(
        response.status, headers, response.content, tuple(response.trailers), response.informational
    )
