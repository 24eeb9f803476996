"""A queue followed over a WebSocket at real providers: by which way, seen by whom, through stops and restarts."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from mimi_mmr.client.transport import following
from mimi_mmr.client.transport.following import QueueFollower
from mimi_mmr.client.transport.private_path import PathSocket, PrivatePath
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.sealing import Kem, SealedBox
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import PrivatePathFailed, UnknownQueue
from mimi_mmr.lab.demo.world import loopback
from mimi_mmr.protocol.deposits import ReplyDeposit
from mimi_mmr.protocol.queues import CollectRequest, QueuePage, queue_id
from mimi_mmr.provider.http import Call
from tests.mimi_mmr.client.inside import own_relay, use_relay
from tests.mimi_mmr.conftest import LiveWorld

HOME = "a.example"
ADDRESS = loopback(10, 77)
PATIENCE = 30


@pytest.fixture
async def path(live: LiveWorld) -> AsyncIterator[PrivatePath]:
    """The ways of somebody at home at a.example, who has an address of its own."""
    url, tls = live.world.providers[HOME].url, live.world.tls()
    made = PrivatePath(HOME, url, live.world.trust(), ssl_context=tls, source_address=ADDRESS)
    yield made
    await made.close()


async def queue(path: PrivatePath) -> AccessToken:
    token = AccessToken.generate()
    await Queues(path).create(token, accepts_deposits=True)
    return token


async def put(path: PrivatePath, token: AccessToken, *messages: bytes) -> None:
    for message in messages:
        deposit = ReplyDeposit(queue_id(token), SealedBox(Kem.X25519, message))
        await path.call(HOME, "POST", "/v1/replyInbox", deposit.to_bytes())


def messages(page: QueuePage) -> list[bytes]:
    return [SealedBox.from_bytes(item.message).ciphertext for item in page.messages]


def recorded(live: LiveWorld, domain: str, role: str) -> list[dict[str, str]]:
    record = live.world.providers[domain].directory / "record" / f"{role}.frames.jsonl"
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def said(frames: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(frame).encode() + base64.b64decode(frame["body"]) for frame in frames)


async def test_what_comes_is_there_at_once_and_comes_once(path: PrivatePath) -> None:
    token = await queue(path)
    await put(path, token, b"one", b"two")
    async with asyncio.timeout(PATIENCE), QueueFollower(path, token) as pages:
        first = await anext(pages)
        assert messages(first) == [b"one", b"two"]
        pages.stored(first)
        waiting = asyncio.create_task(anext(pages))
        await put(path, token, b"three")
        third = await waiting
        assert messages(third) == [b"three"]
        pages.stored(third)
        assert pages.acknowledged == 3
    assert messages(await Queues(path).collect(token, 2, 0)) == [b"three"]
    assert messages(await Queues(path).collect(token, pages.acknowledged, 0)) == []


async def test_it_goes_by_anothers_relay_which_sees_no_queue_and_home_sees_no_address(
    live: LiveWorld, path: PrivatePath
) -> None:
    token = await queue(path)
    async with asyncio.timeout(PATIENCE), QueueFollower(path, token) as pages:
        await put(path, token, b"planted message")
        page = await anext(pages)
        assert messages(page) == [b"planted message"]
    relay = own_relay(path)
    assert relay not in (None, HOME)
    at_relay, at_home = recorded(live, str(relay), "relay"), recorded(live, HOME, "gateway")
    sockets = [frame for frame in at_home if frame["direction"] == "gateway.socket"]
    assert len(sockets) == len([frame for frame in at_relay if frame["direction"] == "relay.socket"]) == 1
    assert recorded(live, HOME, "relay") == []
    assert ADDRESS is not None
    assert ADDRESS.encode() in said(at_relay)
    assert ADDRESS.encode() not in said(at_home) + said(recorded(live, HOME, "deliveries"))
    for secret in (token.reveal(), queue_id(token), b"planted message", b"/v1/queues"):
        assert secret not in said(at_relay)
        assert secret in said(recorded(live, HOME, "deliveries"))
    assert {name.lower() for name, _ in sockets[0]["headers"]} == {  # type: ignore[str-unpack]
        "host",
        "upgrade",
        "connection",
        "sec-websocket-version",
        "sec-websocket-key",
        "sec-websocket-protocol",
    }


async def test_a_relay_that_is_the_gateways_is_refused(path: PrivatePath) -> None:
    token = await queue(path)
    use_relay(path, HOME)
    with pytest.raises(PrivatePathFailed, match="hides nothing"):
        await anext(QueueFollower(path, token))


async def test_to_another_provider_it_goes_by_ones_own_relay(live: LiveWorld, path: PrivatePath) -> None:
    async with asyncio.timeout(PATIENCE), path.socket("b.example") as socket:
        with pytest.raises(UnknownQueue):
            await collect(socket, AccessToken.generate())
    assert [frame["direction"] for frame in recorded(live, HOME, "relay")][:1] == ["connection"]
    assert ADDRESS is not None
    assert ADDRESS.encode() in said(recorded(live, HOME, "relay"))
    assert ADDRESS.encode() not in said(recorded(live, "b.example", "gateway"))


async def test_what_the_provider_answers_is_raised_and_the_socket_goes_on(path: PrivatePath) -> None:
    token = await queue(path)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(UnknownQueue):
            await anext(QueueFollower(path, AccessToken.generate()))
        async with path.socket(HOME) as socket:
            with pytest.raises(UnknownQueue):
                await collect(socket, AccessToken.generate())
            assert (await collect(socket, token)).messages == ()
            before = path.traffic.requests
            await collect(socket, token)
            assert path.traffic.requests == before + 1


async def collect(socket: PathSocket, token: AccessToken) -> QueuePage:
    request = CollectRequest(token.reveal(), 0, 64, 0).to_bytes()
    return QueuePage.from_bytes(await socket.call("POST", "/v1/queues/collect", request))


async def test_a_queue_that_is_deleted_ends_its_followers(path: PrivatePath) -> None:
    token = await queue(path)
    async with asyncio.timeout(PATIENCE), QueueFollower(path, token) as pages:
        waiting = asyncio.create_task(anext(pages))
        await put(path, token, b"one")
        pages.stored(await waiting)
        waiting = asyncio.create_task(anext(pages))
        await Queues(path).delete(token)
        with pytest.raises(UnknownQueue):
            await waiting


@pytest.mark.parametrize("whose", ["relay", "gateway"])
async def test_a_restart_loses_and_doubles_nothing(live: LiveWorld, path: PrivatePath, whose: str) -> None:
    token = await queue(path)
    wanted = [b"message %d" % number for number in range(12)]
    found: list[bytes] = []

    async def follow() -> None:
        async with QueueFollower(path, token, spread=0.1) as pages:
            while len(found) < len(wanted):
                try:
                    page = await anext(pages)
                except PrivatePathFailed:
                    continue  # there is none while one of them is away
                found.extend(messages(page))
                pages.stored(page)

    async with asyncio.timeout(2 * PATIENCE):
        following = asyncio.create_task(follow())
        for at in range(0, len(wanted), 4):
            if at:
                domain = HOME if whose == "gateway" else str(own_relay(path) or "b.example")
                await live.stop(domain)
                await live.start(domain)
            for message in wanted[at : at + 4]:
                deposit = ReplyDeposit(queue_id(token), SealedBox(Kem.X25519, message))
                await live.providers[HOME].queues.reply(Call(None, deposit))
        await following
    assert found == wanted


async def test_sockets_that_break_together_do_not_come_back_together(
    live: LiveWorld, path: PrivatePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [await queue(path) for _ in range(6)]
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(QueueFollower(path, token, spread=2.0)) for token in tokens
        ]
        for token in tokens:
            await put(path, token, b"one")
        for pages in followers:
            pages.stored(await anext(pages))
        monkeypatch.setattr(following.asyncio, "sleep", sleep)
        for sockets in live.providers[str(own_relay(path))].listener.sockets:
            sockets.stop()
            sockets._stopping = False
        asking = [asyncio.create_task(anext(pages)) for pages in followers]
        while len(waited) < len(tokens):
            await asyncio.wait(asking, timeout=0.01)
        monkeypatch.undo()
        for token in tokens:
            await put(path, token, b"two")
        assert [messages(page) for page in await asyncio.gather(*asking)] == [[b"two"]] * len(tokens)
    assert len(set(waited)) > 1
    assert all(0 <= seconds < 2 for seconds in waited)


async def test_a_provider_that_stops_answers_and_lets_its_sockets_go(
    live: LiveWorld, path: PrivatePath
) -> None:
    token = await queue(path)
    async with asyncio.timeout(PATIENCE), AsyncExitStack() as stack:
        followers = [await stack.enter_async_context(QueueFollower(path, token, spread=0)) for _ in range(3)]
        asking = [asyncio.create_task(anext(pages)) for pages in followers]
        home = live.providers[HOME]
        while len(home.queues._arrivals._waiting.get(queue_id(token), ())) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        home.stopping()
        await home.finished()
        assert not any(sockets._open for sockets in home.listener.sockets)
        for outcome in await asyncio.gather(*asking, return_exceptions=True):
            assert isinstance(outcome, PrivatePathFailed), outcome


async def test_nothing_is_tried_another_way_when_there_is_no_socket(
    live: LiveWorld, path: PrivatePath
) -> None:
    token = await queue(path)
    await put(path, token, b"one")
    for domain in ("b.example", "c.example"):
        live.providers[domain].listener.sockets[1].stop()
    before = len(recorded(live, HOME, "gateway")), len(recorded(live, HOME, "accounts"))
    async with QueueFollower(path, token) as pages:
        with pytest.raises(PrivatePathFailed):
            await anext(pages)
    assert (len(recorded(live, HOME, "gateway")), len(recorded(live, HOME, "accounts"))) == before
    assert messages(await Queues(path).collect(token, 0, 0)) == [b"one"]  # which the caller may decide to do
