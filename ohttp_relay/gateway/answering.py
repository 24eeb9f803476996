"""What a gateway does with an opened request: check it, have a target answer it, or refuse it.

The result is a response that only the client can read.  An error is a status of that response.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ohttp_relay.bhttp.fields import Fields
from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.errors import (
    BodyTooLarge,
    CapsuleError,
    DateRejected,
    ExpectationRefused,
    InvalidAnswer,
    InvalidMessage,
    OhttpError,
    Overloaded,
    ReplayedRequest,
    ReplayStoreFull,
    TargetRefused,
    TargetUnreachable,
)
from ohttp_relay.gateway.fetch import Fetcher
from ohttp_relay.gateway.replay import ReplayGuard
from ohttp_relay.server.budget import ByteBudget
from ohttp_relay.transport import problems
from ohttp_relay.transport.dates import format_date
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.streams import AnyResponse, Handler, StreamedResponse
from ohttp_relay.transport.targets import Origin

log = logging.getLogger(__name__)

_ANSWERS: Final[Mapping[type[OhttpError], tuple[int, str]]] = MappingProxyType(
    {
        DateRejected: (400, problems.DATE),
        ReplayedRequest: (400, problems.BLANK),
        InvalidMessage: (400, problems.BLANK),
        CapsuleError: (400, problems.BLANK),  # the first chunk opened, a later one did not
        TargetRefused: (403, problems.BLANK),
        BodyTooLarge: (413, problems.BLANK),
        ExpectationRefused: (417, problems.BLANK),
        InvalidAnswer: (502, problems.BLANK),
        ReplayStoreFull: (503, problems.BLANK),
        Overloaded: (503, problems.BLANK),
        TargetUnreachable: (504, problems.BLANK),
    }
)


def problem(status: int, title: str, kind: str = problems.BLANK) -> Response:
    """Return a response with problem details."""
    return Response(status, (("content-type", problems.MEDIA_TYPE),), problems.encode_problem(kind, title))


_TOO_LARGE: Final = problem(502, "the target's answer is too large")


@dataclass(frozen=True, slots=True)
class RequestAnswerer:
    """Checks and answers requests.  Limits are bytes of whole messages; a target has `seconds` to answer.

    `budget` bounds what all chunked requests for in-process targets hold together, from their first byte to their
    answer.  `local` are the in-process targets; `local_names` are the same by the spelling of their configuration,
    which saves parsing.
    """

    local: Mapping[Origin, Handler]
    local_names: Mapping[str, Handler]
    fetcher: Callable[[], Fetcher]
    replay: ReplayGuard
    clock: Callable[[], float]
    request_limit: int
    response_limit: int
    budget: ByteBudget
    seconds: float
    observe: Observer | None = None
    refused: Callable[[str], None] | None = None

    def whole(self, request: Request, enc: bytes) -> Response | Awaitable[Response]:
        """Return the response to a whole request, or an awaitable of it that raises only CancelledError.

        An in-process target that is a plain function costs no task and no timer.
        """
        try:
            waiting = self._check(request, enc)
            handler = self._local(request)
            if waiting is None and handler is not None:
                answer = handler(request)
                return answer if isinstance(answer, Response) else self._later(request, answer)
        except OhttpError as error:
            return self.refusal(error)
        except (Exception, asyncio.CancelledError) as error:
            return self._failure(error)  # raised by the target itself: nothing is awaited here
        return self._later(request, None, waiting, handler)

    async def _later(
        self,
        request: Request,
        answer: AnyResponse | Awaitable[AnyResponse] | None,
        waiting: Awaitable[None] | None = None,
        handler: Handler | None = None,
    ) -> Response:
        try:
            async with asyncio.timeout(self.seconds):
                if waiting is not None:
                    await waiting
                if answer is None:
                    answer = self._fetch_whole(request) if handler is None else handler(request)
                response = await answer if isinstance(answer, Awaitable) else answer
                return response if isinstance(response, Response) else await self._collect(response)
        except TimeoutError:
            return self.refusal(TargetUnreachable("the target gave no whole answer in time"))
        except OhttpError as error:
            return self.refusal(error)
        except Exception as error:
            return self._failure(error)

    async def streamed(
        self,
        request: Request,
        enc: bytes,
        body: AsyncIterator[bytes] | None,
        trailers: Callable[[], Fields] = tuple,
    ) -> AnyResponse:
        """Return the response when it begins.  Raises nothing itself.

        `body` is the content still to come; `trailers` returns the trailer section when the content was read.
        """
        try:
            return await self._serve(request, enc, body, trailers)
        except TimeoutError:
            return self.refusal(TargetUnreachable("the target gave no answer in time"))
        except OhttpError as error:
            return self.refusal(error)
        except Exception as error:
            return self._failure(error)

    def refusal(self, error: OhttpError) -> Response:
        """Return the response that tells the client of an error."""
        if self.refused is not None:
            self.refused(type(error).__name__)
        status, kind = next(
            (a for cls, a in _ANSWERS.items() if isinstance(error, cls)), (500, problems.BLANK)
        )
        response = problem(status, str(error), kind)
        if isinstance(error, DateRejected):  # the client may correct its date, once (section 6.5.2)
            return response.with_fields(("date", format_date(self.clock())), ("cache-control", "no-store"))
        return response

    async def _serve(
        self,
        request: Request,
        enc: bytes,
        body: AsyncIterator[bytes] | None,
        trailers: Callable[[], Fields],
    ) -> AnyResponse:
        waiting = self._check(request, enc)
        if waiting is not None:
            await waiting
        handler = self._local(request)
        if handler is None:
            return await self._fetch(request, body)
        if body is None:
            return await self._answer(handler, request._replace(trailers=trailers()))
        async with self.budget.growing() as held:  # as for a request that is not chunked
            whole = await StreamedResponse(200, (), body).collect(self.request_limit, held.grow)
            return await self._answer(handler, request._replace(content=whole.content, trailers=trailers()))

    async def _answer(self, handler: Handler, request: Request) -> AnyResponse:
        answer = handler(request)
        if not isinstance(answer, Awaitable):
            return answer
        async with asyncio.timeout(self.seconds):
            return await answer

    def _check(self, request: Request, enc: bytes) -> Awaitable[None] | None:
        """Raise if the request must not be served; an awaitable that is returned raises likewise."""
        fields = dict(request.fields)
        expected, date = fields.get("expect"), fields.get("date")
        if len(fields) < len(request.fields):  # repeated fields: these two may be among them
            expected, date = request.header("expect"), request.header("date")
        if expected is not None and "100-continue" in expected.lower():
            raise ExpectationRefused("100-continue cannot be used (RFC 9458, section 5.1)")
        return self.replay.check(enc, date, self.clock())

    async def _fetch_whole(self, request: Request) -> Response:
        self._note_fetch(request)
        try:
            return await self.fetcher().whole(request, self.response_limit)
        except BodyTooLarge:
            return _TOO_LARGE

    async def _fetch(self, request: Request, body: AsyncIterator[bytes] | None) -> StreamedResponse:
        self._note_fetch(request)
        return await self.fetcher().streamed(request, body)

    def _note_fetch(self, request: Request) -> None:
        if self.observe is not None:
            self.observe("gateway.fetched", Seen(method=request.method, target=request.origin + request.path))

    def _local(self, request: Request) -> Handler | None:
        if not self.local:
            return None
        text = f"{request.scheme}://{request.host}"
        if text in self.local_names:
            return self.local_names[text]
        return self.local.get(Origin.of_request(request.scheme, request.host))

    async def _collect(self, response: StreamedResponse) -> Response:
        try:
            return await response.collect(self.response_limit)
        except BodyTooLarge:
            return _TOO_LARGE

    @staticmethod
    def _failure(error: BaseException) -> Response:
        # Details of a target's failure go neither to the client nor into the log.
        log.error("a target failed: %s", type(error).__name__)
        return problem(500, "the target failed")
