"""Fetching a target for a client: from a Binary HTTP request to HTTP/1.1 and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from io import BytesIO

import aiohttp

from ohttp_relay.bhttp.fields import Field, join_cookies, without_connection_fields
from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.errors import TargetRefused, TargetUnreachable
from ohttp_relay.transport.http import (
    AUTO_HEADERS,
    from_library,
    invalid_answer,
    payload,
    read_limited,
    to_library,
)
from ohttp_relay.transport.streams import OwnedStream, StreamedResponse
from ohttp_relay.transport.targets import TargetPolicy

# The HTTP library does the framing; Expect must never be forwarded (RFC 9458, section 5.1).
_NOT_FORWARDED = frozenset({"host", "content-length", "expect"})


def forwarded_fields(request: Request) -> list[Field]:
    """Return the fields to forward to the target: no connection fields, cookies joined."""
    fields = without_connection_fields(request.fields)
    return join_cookies([pair for pair in fields if pair[0] not in _NOT_FORWARDED and pair[0][0] != ":"])


class Fetcher:
    """Fetches targets that a policy allows.  `timeout`: seconds until an answer begins, if it is streamed."""

    def __init__(self, policy: TargetPolicy, session: aiohttp.ClientSession, *, timeout: float) -> None:
        self._policy = policy
        self._session = session
        self._timeout = timeout

    async def whole(self, request: Request, limit: int) -> Response:
        """Send the request; return the answer whole.  The time limit is the caller's.

        Redirects are not followed.  Raises TargetRefused, InvalidMessage, InvalidAnswer, TargetUnreachable, or
        BodyTooLarge for content of more than `limit` bytes.
        """
        answer = await self._send(request, payload(request.content) or None)
        try:
            fields = from_library(answer)
            content = await read_limited(answer.content, limit)
        except (aiohttp.ClientError, OSError, TimeoutError):
            answer.close()
            raise _not_whole() from None
        except BaseException:
            answer.close()
            raise
        return Response(answer.status, fields, content)  # at its end the connection went back to the pool

    async def streamed(self, request: Request, body: AsyncIterator[bytes] | None = None) -> StreamedResponse:
        """Send the request, with `body` in place of its content if given; return the answer as a stream.

        Redirects are not followed.  Raises TargetRefused, InvalidMessage, InvalidAnswer, or TargetUnreachable; the
        answer's content raises the last one too, if it does not come whole.
        """
        # An upload may take long; the session's own time-outs apply to it.
        try:
            async with asyncio.timeout(None if body else self._timeout):
                answer = await self._send(request, body or payload(request.content) or None)
        except TimeoutError:
            raise _no_answer() from None
        stack = AsyncExitStack()
        await stack.enter_async_context(answer)
        try:
            fields = from_library(answer)
        except BaseException:
            await stack.aclose()
            raise
        return StreamedResponse(answer.status, fields, OwnedStream(pieces_of(answer), stack))

    async def _send(
        self, request: Request, body: AsyncIterator[bytes] | bytes | BytesIO | None
    ) -> aiohttp.ClientResponse:
        """Return the answer when its head has come."""
        if request.method == "CONNECT":
            raise TargetRefused("CONNECT is not served")
        origin = self._policy.check_origin(request.scheme, request.host)
        headers = to_library([("Host", request.host), *forwarded_fields(request)])
        try:
            return await self._session.request(
                request.method,
                origin.url(request.path),
                data=body,
                headers=headers,
                skip_auto_headers=AUTO_HEADERS,
                allow_redirects=False,
                auto_decompress=False,
            )
        except aiohttp.ClientResponseError:
            raise invalid_answer("the target") from None
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise _no_answer() from None


async def pieces_of(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Yield an answer's content as it comes.  Raises TargetUnreachable if it does not come whole."""
    try:
        async for piece in answer.content.iter_any():
            yield piece
    except (aiohttp.ClientError, OSError, TimeoutError):
        raise _not_whole() from None


def _no_answer() -> TargetUnreachable:
    return TargetUnreachable("the target gave no answer")


def _not_whole() -> TargetUnreachable:
    return TargetUnreachable("the target's answer did not come whole")
