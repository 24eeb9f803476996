"""What a client asks by the table goes by the endpoint's own way, or not at all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mimi_mmr.client.transport.private_path import PathSocket, PrivatePath, Purpose, Route
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import ParseError
from mimi_mmr.protocol.accounts import DeviceList
from mimi_mmr.protocol.endpoints import (
    COLLECT,
    CREATE_QUEUE,
    ENDPOINTS,
    LIST_DEVICES,
    PROVIDERS,
    REMOVE_DEVICE,
    Endpoint,
    Way,
)
from mimi_mmr.protocol.provider_keys import ProviderList
from mimi_mmr.protocol.queues import CollectRequest, QueueOrder, QueuePage

TOKEN = AccessToken(bytes(32))


class Told(PrivatePath):
    """A path that sends nothing: it keeps what it was to send, and gives the answer it was told to give."""

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__("a.example", "https://a.example", TrustAnchors({}))
        self.answer = answer
        self.sent: list[tuple[Any, ...]] = []

    async def account(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        token: AccessToken | None = None,
        purpose: Purpose = Purpose.ACCOUNT,
    ) -> bytes:
        assert token is None or purpose is Purpose.ACCOUNT
        self.sent.append((method, path, body, token))
        return self.answer

    async def call(self, domain: str, method: str, path: str, body: bytes = b"") -> bytes:
        self.sent.append((domain, method, path, body))
        return self.answer


@pytest.fixture
async def path() -> AsyncIterator[Told]:
    made = Told()
    yield made
    await made.close()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: f"{row.method} {row.template}")
async def test_no_endpoint_is_asked_by_another_way_than_its_own(
    path: Told, endpoint: Endpoint[Any, Any]
) -> None:
    names = dict.fromkeys(endpoint.names, "x")
    socket: Any = object()  # nothing may be sent on it
    ways = {
        Way.OBLIVIOUS: lambda: path.ask(endpoint, "b.example", None, **names),
        Way.ACCOUNT: lambda: path.ask_account(endpoint, TOKEN, None, **names),
        Way.DIRECT: lambda: path.ask_directly(endpoint, None, **names),
    }
    for way, ask in ways.items():
        if way is not endpoint.way:
            with pytest.raises(ValueError, match=f"by the way {endpoint.way.name}, not {way.name}"):
                await ask()
    if endpoint.way is not Way.OBLIVIOUS:
        with pytest.raises(ValueError, match="not OBLIVIOUS"):
            await PathSocket(path, Route("a.example", "b.example", ""), socket).ask(endpoint, None, **names)
    assert path.sent == []


async def test_a_request_travels_as_the_table_says_and_its_answer_is_parsed(path: Told) -> None:
    asked, page = CollectRequest(bytes(32), 0, 10, 0), QueuePage(0, ())
    path.answer = page.to_bytes()
    assert await path.ask(COLLECT, "b.example", asked) == page
    assert path.sent.pop() == ("b.example", "POST", "/v1/queues/collect", asked.to_bytes())
    path.answer += b"\0"
    with pytest.raises(ParseError):
        await path.ask(COLLECT, "b.example", asked)


async def test_an_account_asks_with_its_token_and_nobody_else_with_any(path: Told) -> None:
    path.answer = DeviceList(("phone",)).to_bytes()
    assert (await path.ask_account(LIST_DEVICES, TOKEN, user="alice")).devices == ("phone",)
    assert path.sent.pop() == ("GET", "/v1/account/alice/devices", b"", TOKEN)
    await path.ask_account(REMOVE_DEVICE, TOKEN, user="alice", device="old-phone")
    assert path.sent.pop() == ("DELETE", "/v1/account/alice/devices/old-phone", b"", TOKEN)
    path.answer = ProviderList(()).to_bytes()
    assert (await path.ask_directly(PROVIDERS)).providers == ()
    assert path.sent.pop() == ("GET", "/v1/providers", b"", None)


async def test_names_that_are_not_the_paths_send_nothing(path: Told) -> None:
    with pytest.raises(ValueError, match="expected the names none, got queue"):
        await path.ask(CREATE_QUEUE, "b.example", QueueOrder(bytes(32), True), queue="x")
    assert path.sent == []
