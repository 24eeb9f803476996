"""Queues over HTTP: made, read, deleted by their token; a hub that tries again delivers once."""

from __future__ import annotations

import asyncio
import secrets

import pytest

from mimi_mmr.client import Client
from mimi_mmr.crypto.sealing import Kem, SealedBox
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import PeerError, UnknownQueue
from mimi_mmr.protocol.deposits import ReplyDeposit
from mimi_mmr.protocol.endpoints import NOTIFY
from mimi_mmr.protocol.queues import (
    CollectRequest,
    QueueOrder,
    QueuePage,
    QueueRemoval,
    leaf_binding,
    queue_id,
    seal_queue_id,
)
from mimi_mmr.protocol.room.deliveries import Delivery, NotifyRequest
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.provider.queues import Arrivals, QueueService
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.doors import obliviously

HOME = "b.example"


async def make(client: Client, *, accepts_deposits: bool = False) -> AccessToken:
    token = AccessToken.generate()
    order = QueueOrder(token.reveal(), accepts_deposits).to_bytes()
    await client.path.call(HOME, "POST", "/v1/queues", order)
    return token


async def collect(client: Client, token: AccessToken, acknowledged: int = 0, wait: int = 0) -> QueuePage:
    request = CollectRequest(token.reveal(), acknowledged, 64, wait).to_bytes()
    return QueuePage.from_bytes(await client.path.call(HOME, "POST", "/v1/queues/collect", request))


async def delete(client: Client, token: AccessToken) -> int:
    body = QueueRemoval(token.reveal()).to_bytes()
    return (await obliviously(client, HOME, "/v1/queues/delete", body)).status


async def test_a_deleted_queue_is_gone_and_deleting_it_again_is_no_error(live: LiveWorld) -> None:
    bob = await live.person("bob", HOME)
    token = await make(bob, accepts_deposits=True)
    deposit = ReplyDeposit(queue_id(token), SealedBox(Kem.X25519, b"hello")).to_bytes()
    await bob.path.call(HOME, "POST", "/v1/replyInbox", deposit)
    assert len((await collect(bob, token)).messages) == 1
    assert [await delete(bob, token) for _ in range(2)] == [200, 200]
    assert await delete(bob, AccessToken.generate()) == 200
    with pytest.raises(UnknownQueue):
        await collect(bob, token)
    with pytest.raises(UnknownQueue):
        await bob.path.call(HOME, "POST", "/v1/replyInbox", deposit)


async def test_who_waits_for_a_queue_learns_that_it_was_deleted(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await live.person("bob", HOME)
    token = await make(bob)
    begun, wait = asyncio.Event(), Arrivals.wait

    async def watched(self: Arrivals, queue: bytes, arrival: asyncio.Event, seconds: float) -> None:
        begun.set()
        await wait(self, queue, arrival, seconds)

    monkeypatch.setattr(Arrivals, "wait", watched)
    waiting = asyncio.create_task(collect(bob, token, wait=25_000))
    await begun.wait()
    assert await delete(bob, token) == 200
    with pytest.raises(UnknownQueue):
        await asyncio.wait_for(waiting, 10)


async def notification(live: LiveWorld, token: AccessToken, hub: str, text: bytes) -> bytes:
    """A hub's notification for one queue, as its outbox has it: the same bytes at every attempt."""
    leaf = secrets.token_bytes(32)
    keys = live.providers[HOME].peers.own.keys
    address = seal_queue_id(HOME, keys.queue_key, queue_id(token), leaf)
    room = MimiUri(hub, Kind.ROOM, "room")
    message = FanoutMessage(room, 1, 0, EventKind.APPLICATION, text).to_bytes()
    delivery = Delivery(address.encrypted_queue_id, leaf_binding(leaf))
    return NotifyRequest(hub, secrets.token_bytes(16), (delivery,), message).to_bytes()


async def test_a_notification_that_is_sent_again_arrives_once(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first answer is lost, and the provider dies before, in the midst and after it has put the message."""
    bob, hub = await live.person("bob", HOME), live.providers["a.example"]
    token = await make(bob)
    body = await notification(live, token, "a.example", b"hello")
    notify, faults = QueueService.notify, iter(["before", "after", "after"])

    async def fragile(self: QueueService, sender: str, request: NotifyRequest, content: bytes) -> None:
        fault = next(faults, None)
        if fault != "before":
            await notify(self, sender, request, content)
        if fault is not None:
            raise RuntimeError("it fell over")

    monkeypatch.setattr(QueueService, "notify", fragile)
    for _ in range(3):
        with pytest.raises(PeerError):
            await hub.peers.send(HOME, NOTIFY, body)
    for _ in range(2):
        await hub.peers.send(HOME, NOTIFY, body)
    assert [one.sequence for one in (await collect(bob, token)).messages] == [1]
    await hub.peers.send(HOME, NOTIFY, await notification(live, token, "a.example", b"more"))
    page = await collect(bob, token, acknowledged=1)
    assert [FanoutMessage.from_bytes(one.message).event for one in page.messages] == [b"more"]


async def test_what_was_not_acknowledged_is_given_again_after_a_restart(live: LiveWorld) -> None:
    """The client dies with a page in its hands; the provider stops; the acknowledgement's answer is lost."""
    bob, hub = await live.person("bob", HOME), live.providers["a.example"]
    token = await make(bob)
    for text in (b"one", b"two"):
        await hub.peers.send(HOME, NOTIFY, await notification(live, token, "a.example", text))
    page = await collect(bob, token)
    await live.stop(HOME)
    await live.start(HOME)
    assert await collect(bob, token) == page
    for _ in range(2):
        rest = await collect(bob, token, acknowledged=1)
        assert rest.messages == page.messages[1:]
