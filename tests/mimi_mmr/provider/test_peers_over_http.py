"""Requests between providers: signed, addressed, fresh, from a configured peer; and what they deliver."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mimi_mmr.client import Client
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import PeerError, UnknownQueue
from mimi_mmr.protocol.deposits import ReplyDeposit
from mimi_mmr.protocol.endpoints import CLAIM, NOTIFY
from mimi_mmr.protocol.peers import PeerRequest, PeerRequestTBS, sign_peer_request
from mimi_mmr.protocol.queues import QueuePage, leaf_binding, queue_id, seal_queue_id
from mimi_mmr.protocol.room.deliveries import Delivery, NotifyRequest
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.provider.queues import Arrivals
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.doors import straight

PATIENCE = 20.0  # how long a poll may last; nothing here waits for its end


def provider_key(live: LiveWorld, domain: str) -> SigningKey:
    directory = live.world.providers[domain].directory
    return SigningKey.from_seed((directory / "data" / "provider.key").read_bytes())


def signed(key: SigningKey, content: PeerRequestTBS) -> str:
    return sign_peer_request(content, key).to_text()


async def a_queue(client: Client) -> tuple[AccessToken, Delivery]:
    """A queue of the client's, and its address as a leaf has it."""
    token, leaf = AccessToken.generate(), secrets.token_bytes(32)
    await Queues(client.path).create(token, accepts_deposits=False)
    keys = await client.path.provider(client.user.domain)
    address = seal_queue_id(client.user.domain, keys.queue_key, queue_id(token), leaf)
    return token, Delivery(address.encrypted_queue_id, leaf_binding(leaf))


def notification(hub: str, *deliveries: Delivery, message: bytes = b"hello") -> bytes:
    event = FanoutMessage(MimiUri(hub, Kind.ROOM, "room"), 1, 0, EventKind.APPLICATION, message)
    return NotifyRequest(hub, secrets.token_bytes(16), deliveries, event.to_bytes()).to_bytes()


def heard(page: QueuePage) -> list[bytes]:
    return [FanoutMessage.from_bytes(queued.message).event for queued in page.messages]


async def waiting(client: Client, token: AccessToken) -> list[bytes]:
    return heard(await Queues(client.path).collect(token, 0, 0))


async def test_a_peers_request_is_refused_unless_all_of_it_is_right(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    now = int(alice.context.clock())
    body = notification("b.example", delivery)
    b, c = provider_key(live, "b.example"), provider_key(live, "c.example")

    def tbs(
        sender: str = "b.example", to: str = "a.example", what: str = "notify", at: int = now
    ) -> PeerRequestTBS:
        return PeerRequestTBS.of(sender, to, what, at, body)

    refused = {
        "without a head": "",
        "cut": signed(b, tbs())[:-4],
        "longer": signed(b, tbs()) + "AAAA",
        "not base64": "!" + signed(b, tbs()),
        "of another body": signed(b, replace(tbs(), body_hash=bytes(32))),
        "of another size": signed(b, replace(tbs(), body_size=len(body) + 1)),
        "unsigned": PeerRequest(tbs(), bytes(64)).to_text(),
        "signed by another provider": signed(c, tbs()),
        "of another provider": signed(b, tbs(sender="c.example")),
        "for another recipient": signed(b, tbs(to="c.example")),
        "for another endpoint": signed(b, tbs(what="claim")),
        "too old": signed(b, tbs(at=now - 400)),
        "from the future": signed(b, tbs(at=now + 400)),
        "from an unconfigured peer": signed(b, tbs(sender="d.example")),
        "from itself": signed(provider_key(live, "a.example"), tbs(sender="a.example")),
    }
    for why, head in refused.items():
        answer = await straight(live, "a.example", "/v1/notify", body, peer=head)
        assert (answer.status, answer.code) == (401, "unauthorized"), why
    for wrong in (b"", body[:-1]):
        answer = await straight(live, "a.example", "/v1/notify", wrong, peer=signed(b, tbs()))
        assert (answer.status, answer.code) == (401, "unauthorized")
    answer = await straight(live, "a.example", "/v1/notify", body + b"x", peer=signed(b, tbs()))
    assert (answer.status, answer.code) == (413, "too-large")  # read no further than what is signed
    assert await waiting(alice, token) == []
    assert (await straight(live, "a.example", "/v1/notify", body, peer=signed(b, tbs()))).status == 201
    assert await waiting(alice, token) == [b"hello"]


@pytest.mark.parametrize("path", ["/v1/notify", "/v1/claim", "/v1/account/alice/packages"])
async def test_no_body_is_read_before_it_is_known_who_asks(live: LiveWorld, path: str) -> None:
    """The head comes and the body does not: the answer comes all the same."""
    url = live.world.providers["a.example"].url
    host, _, port = url.removeprefix("https://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=live.world.tls())
    writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000000\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE / 2):
        assert (await reader.readline()).split()[1] == b"401"
    writer.close()


async def test_a_peer_may_not_sign_for_more_than_the_limit(live: LiveWorld) -> None:
    now = int(live.providers["a.example"]._clock())
    tbs = PeerRequestTBS("b.example", "a.example", "claim", now, CLAIM.limit + 1, bytes(32))
    head = signed(provider_key(live, "b.example"), tbs)
    answer = await straight(live, "a.example", "/v1/claim", b"", peer=head)
    assert (answer.status, answer.code) == (413, "too-large")


async def test_a_hub_can_not_speak_for_another(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    body = notification("c.example", delivery)
    content = PeerRequestTBS.of("b.example", "a.example", "notify", int(alice.context.clock()), body)
    head = signed(provider_key(live, "b.example"), content)
    answer = await straight(live, "a.example", "/v1/notify", body, peer=head)
    assert (answer.status, answer.code) == (403, "not-allowed")
    assert await waiting(alice, token) == []


async def test_a_hub_can_deliver_events_of_its_own_rooms_only(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    elsewhere = FanoutMessage(MimiUri("c.example", Kind.ROOM, "room"), 1, 0, EventKind.APPLICATION, b"x")
    for message in (elsewhere.to_bytes(), b"", b"rubbish"):
        body = NotifyRequest("b.example", secrets.token_bytes(16), (delivery,), message).to_bytes()
        with pytest.raises(PeerError):
            await live.providers["b.example"].peers.send("a.example", NOTIFY, body)
    assert await waiting(alice, token) == []


async def test_a_repeated_notification_is_delivered_once(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    first, second = notification("b.example", delivery), notification("b.example", delivery, message=b"two")
    for body in (first, first, second, first):
        await live.providers["b.example"].peers.send("a.example", NOTIFY, body)
    assert await waiting(alice, token) == [b"hello", b"two"]


async def test_a_queue_address_that_was_copied_to_another_leaf_reaches_nobody(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    other_token, other = await a_queue(alice)
    copied = Delivery(delivery.encrypted_queue_id, other.leaf_binding)
    await live.providers["b.example"].peers.send(
        "a.example", NOTIFY, notification("b.example", copied, other)
    )
    assert await waiting(alice, token) == []
    assert await waiting(alice, other_token) == [b"hello"]  # the others lose nothing by it


async def test_a_full_queue_says_how_many_were_lost(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    await live.stop("a.example")
    await live.start("a.example", max_queue_bytes=200)
    token, delivery = await a_queue(alice)
    for number in range(4):
        body = notification("b.example", delivery, message=bytes([number]) * 40)
        await live.providers["b.example"].peers.send("a.example", NOTIFY, body)
    page = await Queues(alice.path).collect(token, 0, 0)
    assert [event[0] for event in heard(page)] == [0, 1]
    assert page.lost == 2
    await Queues(alice.path).collect(token, page.messages[-1].sequence, 0)
    await live.providers["b.example"].peers.send("a.example", NOTIFY, notification("b.example", delivery))
    assert await waiting(alice, token) == [b"hello"]  # what is acknowledged makes room


async def test_a_queue_opens_to_its_token_only(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    with pytest.raises(UnknownQueue):
        await Queues(alice.path).collect(AccessToken.generate(), 0, 0)


async def test_a_queue_of_a_room_is_no_reply_inbox(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    body = ReplyDeposit(queue_id(token), delivery.encrypted_queue_id).to_bytes()
    with pytest.raises(UnknownQueue):
        await alice.path.call("a.example", "POST", "/v1/replyInbox", body)


class Polls:
    """Tells when somebody waits in a long poll."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = asyncio.Event()
        wait: Callable[..., Any] = Arrivals.wait

        async def watched(*args: Any) -> None:
            self.begun.set()
            await wait(*args)

        monkeypatch.setattr(Arrivals, "wait", watched)


async def test_a_long_poll_returns_when_something_arrives(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = Polls(monkeypatch)
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    poll = asyncio.create_task(Queues(alice.path).collect(token, 0, PATIENCE))
    await polls.begun.wait()
    async with asyncio.timeout(PATIENCE / 2):
        await live.providers["b.example"].peers.send("a.example", NOTIFY, notification("b.example", delivery))
        assert heard(await poll) == [b"hello"]


async def test_a_long_poll_ends_with_an_answer_when_the_provider_stops(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls = Polls(monkeypatch)
    alice = await live.person("alice", "a.example")
    token, _ = await a_queue(alice)
    poll = asyncio.create_task(Queues(alice.path).collect(token, 0, PATIENCE))
    await polls.begun.wait()
    async with asyncio.timeout(PATIENCE / 2):
        await live.stop("a.example")
        assert (await poll).messages == ()


async def test_two_who_wait_for_one_queue_both_hear(live: LiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    polls = Polls(monkeypatch)
    alice = await live.person("alice", "a.example")
    token, delivery = await a_queue(alice)
    both = [asyncio.create_task(Queues(alice.path).collect(token, 0, PATIENCE)) for _ in range(2)]
    await polls.begun.wait()
    async with asyncio.timeout(PATIENCE / 2):
        await live.providers["b.example"].peers.send("a.example", NOTIFY, notification("b.example", delivery))
        for page in await asyncio.gather(*both):
            assert len(page.messages) == 1
