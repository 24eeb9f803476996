"""What a request goes through before its handler: way, size, admission, parsing; and what becomes of the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mimi_mmr.errors import MmrError, NotAllowed, Unauthorized
from mimi_mmr.protocol.accounts import PublishRequest
from mimi_mmr.protocol.endpoints import (
    COLLECT,
    CREATE_QUEUE,
    ENDPOINTS,
    PUBLISH_CONNECTION_PACKAGES,
    SUBMIT_MESSAGE,
    UPDATE_ROOM,
    Endpoint,
    Way,
)
from mimi_mmr.protocol.problems import PROBLEM, PROBLEM_URN
from mimi_mmr.protocol.queues import CollectRequest, QueueOrder, QueuePage
from mimi_mmr.protocol.room.requests import (
    SubmitMessageRequest,
    UpdateCode,
    UpdateRequest,
    UpdateRoomResponse,
)
from mimi_mmr.provider.http import Arrival, Call, Encoded, Router
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.replies import Reply
from ohttp_relay.errors import Overloaded

ORDER = QueueOrder(bytes(32), True)


def router() -> Router:
    return Router(Recorder(), *Way)


def code(reply: Reply) -> str:
    assert reply.content_type == PROBLEM
    return str(json.loads(reply.body)["type"]).removeprefix(PROBLEM_URN)


async def never(call: Call[Any, Any]) -> Any:
    raise AssertionError(f"it was called: {call}")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: f"{row.method} {row.template}")
def test_a_router_serves_the_ways_that_it_is_for_and_no_others(endpoint: Endpoint[Any, Any]) -> None:
    others = Router(Recorder(), *[way for way in Way if way is not endpoint.way])
    with pytest.raises(ValueError, match="is not reached by"):
        others.serve(endpoint, never)
    assert others.endpoints == []


@pytest.mark.parametrize("endpoint", [row for row in ENDPOINTS if row.way in (Way.ACCOUNT, Way.PEER)])
def test_what_is_for_accounts_and_peers_is_not_mounted_without_a_check(endpoint: Endpoint[Any, Any]) -> None:
    with pytest.raises(ValueError, match="has to check who asks"):
        router().serve(endpoint, never)


def test_an_endpoint_is_mounted_once() -> None:
    made = router()
    made.serve(CREATE_QUEUE, never)
    with pytest.raises(ValueError, match="is mounted already"):
        made.serve(CREATE_QUEUE, never)
    assert made.endpoints == [CREATE_QUEUE]


async def test_a_handler_gets_a_parsed_request_and_its_answer_travels_with_the_status_of_the_table() -> None:
    made, seen = router(), []

    async def create(call: Call[None, QueueOrder]) -> None:
        seen.append(call)

    async def collect(call: Call[None, CollectRequest]) -> QueuePage:
        return QueuePage(call.request.acknowledged, ())

    made.serve(CREATE_QUEUE, create)
    made.serve(COLLECT, collect)
    reply = await made.dispatch("POST", "/v1/queues", ORDER.to_bytes())
    assert (reply.status, reply.body) == (201, b"")
    assert seen == [Call(None, ORDER, {}, ORDER.to_bytes())]
    asked = CollectRequest(bytes(32), 7, 1, 0)
    reply = await made.dispatch("POST", "/v1/queues/collect", asked.to_bytes())
    assert (reply.status, QueuePage.from_bytes(reply.body)) == (200, QueuePage(7, ()))


@pytest.mark.parametrize("body", [b"", ORDER.to_bytes()[:-1], ORDER.to_bytes() + b"\0"])
async def test_a_handler_is_not_called_with_what_does_not_parse(body: bytes) -> None:
    made = router()
    made.serve(CREATE_QUEUE, never)
    reply = await made.dispatch("POST", "/v1/queues", body)
    assert (reply.status, code(reply)) == (400, "malformed")


async def test_nothing_is_read_or_parsed_of_a_request_that_is_not_admitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, asked, read = router(), [], []

    async def nobody(arrival: Arrival) -> tuple[None, bytes]:
        asked.append((arrival.names, arrival.bearer, arrival.peer, arrival.limit))
        raise Unauthorized("nobody is admitted")

    async def somebody(arrival: Arrival) -> tuple[None, bytes]:
        return None, await arrival.body()

    async def body(limit: int) -> bytes:
        read.append(limit)
        return bytes(limit + 1)

    def unread(body: bytes) -> PublishRequest:
        raise AssertionError("it was parsed")

    monkeypatch.setattr(PublishRequest, "from_bytes", unread)
    made.serve(PUBLISH_CONNECTION_PACKAGES, never, admit=nobody)
    path, limit = "/v1/account/al%2Fice/packages", PUBLISH_CONNECTION_PACKAGES.limit
    reply = await made.dispatch("POST", path, body, "token", "peer")
    assert (reply.status, code(reply)) == (401, "unauthorized")
    assert asked == [({"user": "al/ice"}, "token", "peer", limit)]
    assert read == []
    other = router()
    other.serve(PUBLISH_CONNECTION_PACKAGES, never, admit=somebody)
    reply = await other.dispatch("POST", path, body, "token")
    assert (reply.status, code(reply), read) == (413, "too-large", [limit])


async def test_a_request_that_finds_no_room_is_told_to_come_again() -> None:
    made = router()

    async def body(_: int) -> bytes:
        raise Overloaded("try again")

    made.serve(CREATE_QUEUE, never)
    reply = await made.dispatch("POST", "/v1/queues", body)
    assert (reply.status, code(reply)) == (503, "overloaded")


async def test_what_is_left_after_admission_is_parsed() -> None:
    made, seen = router(), []

    async def unwrap(arrival: Arrival) -> tuple[str, bytes]:
        return "b.example", (await arrival.body()).removeprefix(b"signed ")

    async def create(call: Call[str, QueueOrder]) -> None:
        seen.append((call.subject, call.request, call.body))

    made.serve(CREATE_QUEUE, create, admit=unwrap)
    assert (await made.dispatch("POST", "/v1/queues", b"signed " + ORDER.to_bytes())).status == 201
    assert seen == [("b.example", ORDER, ORDER.to_bytes())]


async def test_an_answer_with_a_place_for_errors_tells_them_itself_but_not_those_of_admission() -> None:
    made = router()

    def refuse(error: MmrError) -> UpdateRoomResponse:
        return UpdateRoomResponse(UpdateCode.NOT_ALLOWED, str(error), error.code)

    async def admit(arrival: Arrival) -> tuple[str, bytes]:
        if arrival.names["room"] == "closed":
            raise NotAllowed("not this room")
        return arrival.names["room"], await arrival.body()

    async def update(call: Call[str, UpdateRequest]) -> UpdateRoomResponse:
        raise AssertionError("it was called")

    async def submit(call: Call[str, SubmitMessageRequest]) -> UpdateRoomResponse:
        raise AssertionError("it was called")

    made.serve(UPDATE_ROOM, update, admit=admit, refuse=refuse)
    made.serve(SUBMIT_MESSAGE, submit, admit=admit)
    reply = await made.dispatch("POST", "/v1/update/open", b"rubbish")
    answer = UpdateRoomResponse.from_bytes(reply.body)
    assert (reply.status, answer.code, answer.error_code) == (200, UpdateCode.NOT_ALLOWED, "malformed")
    reply = await made.dispatch("POST", "/v1/update/closed", b"rubbish")
    assert (reply.status, code(reply)) == (403, "not-allowed")
    reply = await made.dispatch("POST", "/v1/submitMessage/open", b"rubbish")
    assert (reply.status, code(reply)) == (400, "malformed")


async def test_an_answer_that_was_encoded_elsewhere_is_passed_on_as_it_is() -> None:
    made = router()

    async def collect(call: Call[None, CollectRequest]) -> Encoded[QueuePage]:
        return Encoded(b"as it came")

    made.serve(COLLECT, collect)
    asked = CollectRequest(bytes(32), 0, 1, 0).to_bytes()
    assert await made.dispatch("POST", "/v1/queues/collect", asked) == Reply(200, b"as it came")
