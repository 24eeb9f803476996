"""Fetching a target on a client's behalf: from a Binary HTTP request to HTTP/1.1 and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from .bhttp import Request, Response
from .errors import InvalidMessage, TargetRefused, TargetUnreachable
from .fields import Field, join_cookies, without_connection_fields
from .targets import AUTO_HEADERS, CheckedConnector, TargetPolicy
from .transport import read_limited

# Framing of the new hop is the HTTP library's; Expect must never be forwarded (RFC 9458, section 5.1).
_NOT_FORWARDED = frozenset({"host", "content-length", "expect"})


def forwarded_fields(request: Request) -> list[Field]:
    """Return the fields of a request that go to the target: no connection fields, cookies joined."""
    kept = without_connection_fields(request.fields)
    return join_cookies(pair for pair in kept if pair[0] not in _NOT_FORWARDED and pair[0][0] != ":")


def to_library(fields: list[Field]) -> CIMultiDict[str]:
    """Return fields as aiohttp takes them: it writes UTF-8, so octets must be UTF-8 to pass unchanged.

    Raises InvalidMessage for a value that is not.
    """
    try:
        return CIMultiDict((name, value.encode("latin-1").decode("utf-8")) for name, value in fields)
    except UnicodeDecodeError:
        raise InvalidMessage("a field value is not UTF-8 and cannot be forwarded") from None


def from_library(response: aiohttp.ClientResponse) -> tuple[Field, ...]:
    """Return the fields of a target's answer, repeated ones kept apart, connection fields dropped."""
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers)
    return tuple(without_connection_fields((name, value.strip(" \t")) for name, value in pairs))


class Fetcher:
    """Fetches targets that a policy allows.  `limit` is in bytes, `timeout` in seconds."""

    def __init__(
        self,
        policy: TargetPolicy,
        session: aiohttp.ClientSession,
        *,
        limit: int,
        timeout: float,  # a setting, not this call's own deadline
    ) -> None:
        if not isinstance(session.connector, CheckedConnector):
            raise TypeError("targets are fetched over a session made by open_target_session")
        self._policy = policy
        self._session = session
        self._limit = limit
        self._timeout = timeout

    async def fetch(self, request: Request) -> Response:
        """Return the target's answer, whole.

        Raises TargetRefused, TargetUnreachable (no whole answer in time), BodyTooLarge or InvalidMessage.
        """
        try:
            async with asyncio.timeout(self._timeout), self.start(request) as answer:
                content = await read_limited(answer.content, self._limit, answer.content_length)
                return Response(answer.status, from_library(answer), content)
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise TargetUnreachable("the target gave no whole answer") from None

    @asynccontextmanager
    async def start(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send the request and give the answer, its body still unread.  Redirects are not followed."""
        if request.method == "CONNECT":
            raise TargetRefused("CONNECT is not served")
        self._policy.check_origin(request.scheme, request.host)
        url = URL(f"{request.scheme}://{request.host}{request.path}", encoded=True)
        async with self._session.request(
            request.method,
            url,
            data=request.content or None,
            headers=to_library(forwarded_fields(request)),
            skip_auto_headers=AUTO_HEADERS,
            allow_redirects=False,
        ) as answer:
            yield answer
