"""Fetching a target for a client: from a Binary HTTP request to HTTP/1.1 and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack

import aiohttp

from ohttp_relay.bhttp.fields import Field, join_cookies, without_connection_fields
from ohttp_relay.bhttp.message import Request
from ohttp_relay.errors import TargetRefused, TargetUnreachable
from ohttp_relay.transport.http import (
    AUTO_HEADERS,
    from_library,
    invalid_answer,
    payload,
    to_library,
)
from ohttp_relay.transport.streams import OwnedStream, StreamedResponse
from ohttp_relay.transport.targets import TargetPolicy

# The HTTP library does the framing; Expect must never be forwarded (RFC 9458, section 5.1).
_NOT_FORWARDED = frozenset({"host", "content-length", "expect"})


def forwarded_fields(request: Request) -> list[Field]:
    """Return the fields to forward to the target: no connection fields, cookies joined."""
    fields = without_connection_fields(request.fields)
    return join_cookies(pair for pair in fields if pair[0] not in _NOT_FORWARDED and pair[0][0] != ":")


class Fetcher:
    """Fetches targets that a policy allows.  `timeout`: seconds until an answer begins."""

    def __init__(self, policy: TargetPolicy, session: aiohttp.ClientSession, *, timeout: float) -> None:
        self._policy = policy
        self._session = session
        self._timeout = timeout

    async def fetch(self, request: Request, body: AsyncIterator[bytes] | None = None) -> StreamedResponse:
        """Send the request, with `body` in place of its content if given; return the answer as a stream.

        Redirects are not followed.  Raises TargetRefused, InvalidMessage, InvalidAnswer, or TargetUnreachable; the
        answer's content raises the last one too, if it does not come whole.
        """
        stack = AsyncExitStack()
        try:
            answer = await self._start(stack, request, body)
            fields = from_library(answer)
        except aiohttp.ClientResponseError:
            await stack.aclose()
            raise invalid_answer("the target") from None
        except (aiohttp.ClientError, OSError, TimeoutError):
            await stack.aclose()
            raise TargetUnreachable("the target gave no answer") from None
        except BaseException:
            await stack.aclose()
            raise
        content = OwnedStream(pieces_of(answer), stack)
        return StreamedResponse(answer.status, fields, content)

    async def _start(
        self, stack: AsyncExitStack, request: Request, body: AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        if request.method == "CONNECT":
            raise TargetRefused("CONNECT is not served")
        origin = self._policy.check_origin(request.scheme, request.host)
        context = self._session.request(
            request.method,
            origin.url(request.path),
            data=body or payload(request.content) or None,
            headers=to_library([("Host", request.host), *forwarded_fields(request)]),
            skip_auto_headers=AUTO_HEADERS,
            allow_redirects=False,
            auto_decompress=False,
        )
        # An upload may take long; the session's own time-outs apply to it.
        async with asyncio.timeout(None if body else self._timeout):
            return await stack.enter_async_context(context)


async def pieces_of(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Yield an answer's content as it comes.  Raises TargetUnreachable if it does not come whole."""
    try:
        async for piece in answer.content.iter_any():
            yield piece
    except (aiohttp.ClientError, OSError, TimeoutError):
        raise TargetUnreachable("the target's answer did not come whole") from None
