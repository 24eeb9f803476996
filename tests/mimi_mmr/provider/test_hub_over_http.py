"""Rooms over HTTP: lost races, restarts, peers that are away; nothing lost, nothing out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import HubRefusal, MmrError, NotAllowed, PrivatePathFailed, UnknownRoom, WrongEpoch
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.endpoints import Endpoint
from mimi_mmr.provider import outbox
from mimi_mmr.provider.app import Provider
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.client.inside import known_providers
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch

NOWHERE = "https://127.0.0.1:1"


class Three:
    """Alice's room on a.example with Bob of b.example; Dave, whom Alice knows."""

    alice: Client
    bob: Client
    dave: Client
    to_bob: Contact
    to_dave: Contact
    room: Membership
    at_bob: Membership


async def a_room_of_two(live: LiveWorld, *, with_dave: bool = False) -> Three:
    three = Three()
    three.alice = await live.person("alice", "a.example")
    three.bob = await live.person("bob", "b.example")
    three.to_bob, bobs = await connect(three.alice, three.bob)
    await three.bob.key_packages.publish(bobs, 2)
    if with_dave:
        three.dave = await live.person("dave", "a.example")
        _, three.to_dave = await connect(three.dave, three.alice)
        await three.dave.key_packages.publish(three.dave.people.contacts[three.alice.user], 2)
    three.room = await three.alice.rooms.create()
    await three.alice.rooms.add(three.room, [three.to_bob])
    three.at_bob = await invited(three.bob)
    await until_epoch(three.bob, three.at_bob, three.room.room.epoch)
    return three


async def texts(client: Client, joined: Membership, count: int) -> list[str]:
    while len(joined.messages) < count:
        await client.rooms.sync(joined, wait=5)
    return [joined.messages.popleft().text for _ in range(count)]


def meet(monkeypatch: pytest.MonkeyPatch, *clients: Client) -> list[int]:
    """Let the clients' first commits leave only when all are made; gives the epochs that were tried."""
    barrier, tried = asyncio.Barrier(len(clients)), []

    def watch(client: Client) -> Callable[..., Coroutine[Any, Any, None]]:
        update, first = client.rooms.delivery.send, iter([True])

        async def together(joined: Membership, pending: Any) -> None:
            tried.append(joined.room.epoch)
            if next(first, False):
                await barrier.wait()
            await update(joined, pending)

        return together

    for client in clients:
        monkeypatch.setattr(client.rooms.delivery, "send", watch(client))
    return tried


def names(client: Client, joined: Membership) -> set[str]:
    return {entry.member.device.user.name for entry in client.rooms.who(joined) if entry.member}


async def test_of_two_commits_at_once_one_is_made_again_and_both_take_effect(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = await a_room_of_two(live, with_dave=True)
    before = three.room.room.epoch
    tried = meet(monkeypatch, three.alice, three.bob)
    await asyncio.gather(
        three.alice.rooms.add(three.room, [three.to_dave]), three.bob.rooms.heal(three.at_bob)
    )
    assert tried.count(before) == 2
    assert len(tried) >= 4  # Alice's add and its heal, Bob's update, and at least one of them once more
    for client, joined in ((three.alice, three.room), (three.bob, three.at_bob)):
        await until_epoch(client, joined, before + 3)
        assert joined.problems == ()
        assert names(client, joined) == {"alice", "bob", "dave"}
    assert three.room.room.tree_hash == three.at_bob.room.tree_hash
    at_dave = await invited(three.dave)
    await until_epoch(three.dave, at_dave, before + 3)
    assert at_dave.room.tree_hash == three.room.room.tree_hash


async def test_a_removal_that_comes_second_removes_nobody_who_took_the_leaf(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = await a_room_of_two(live, with_dave=True)
    alice, room = three.alice, three.room
    (bobs,) = [
        entry.leaf
        for entry in alice.rooms.who(room)
        if entry.member and entry.member.device.user == three.bob.user
    ]

    async def losing(joined: Membership, pending: object) -> None:
        raise WrongEpoch(joined.room.epoch + 1)

    async def meanwhile(joined: Membership, wait: float = 0.0) -> int:
        monkeypatch.undo()
        await alice.rooms.remove(joined, [bobs])
        await alice.rooms.add(joined, [three.to_dave])
        return 0

    monkeypatch.setattr(alice.rooms.delivery, "send", losing)
    monkeypatch.setattr(alice.rooms.reading, "sync", meanwhile)
    await alice.rooms.remove(room, [bobs])
    (daves,) = [
        entry.leaf
        for entry in alice.rooms.who(room)
        if entry.member and entry.member.device.user == three.dave.user
    ]
    assert daves == bobs
    assert names(alice, room) == {"alice", "dave"}


async def test_a_message_for_an_epoch_that_is_over_is_encrypted_anew(live: LiveWorld) -> None:
    three = await a_room_of_two(live)
    await three.alice.rooms.heal(three.room)
    await three.bob.rooms.send(three.at_bob, "late, but there")
    assert await texts(three.alice, three.room, 1) == ["late, but there"]


async def test_a_hub_that_restarts_delivers_what_was_not_confirmed(live: LiveWorld) -> None:
    three = await a_room_of_two(live)
    hub = live.providers["a.example"]
    urls, hub.peers.urls["b.example"] = dict(hub.peers.urls), NOWHERE
    for text in ("one", "two"):
        await three.alice.rooms.send(three.room, text)
    assert await three.bob.rooms.sync(three.at_bob) == 0
    await live.stop("a.example")
    started = await live.start("a.example")
    assert started.peers.urls == urls
    assert await texts(three.bob, three.at_bob, 2) == ["one", "two"]
    assert await drained(started) == []


async def drained(provider: Provider) -> list[str]:
    """Wait until the workers are done; what is left then."""
    await asyncio.gather(*provider.outbox._workers.values())
    return await provider.hub_store.destinations()


async def test_a_peer_that_is_away_gets_everything_in_order_when_it_is_back(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_DELAY", 0.01)
    three = await a_room_of_two(live, with_dave=True)
    await three.alice.rooms.add(three.room, [three.to_dave])
    at_dave = await invited(three.dave)
    await until_epoch(three.dave, at_dave, three.room.room.epoch)
    await until_epoch(three.bob, three.at_bob, three.room.room.epoch)
    hub = live.providers["a.example"]
    url, hub.peers.urls["b.example"] = hub.peers.urls["b.example"], NOWHERE
    said = [f"number {number}" for number in range(6)]
    for number, text in enumerate(said):
        await three.alice.rooms.send(three.room, text)
        if number == 2:
            await three.alice.rooms.heal(three.room)
    assert await texts(three.dave, at_dave, len(said)) == said  # one who is away holds up nobody else
    assert await hub.hub_store.destinations() == ["b.example"]
    hub.peers.urls["b.example"] = url
    assert await texts(three.bob, three.at_bob, len(said)) == said
    assert three.at_bob.problems == ()
    assert three.at_bob.lost == 0


async def test_fan_out_outlives_an_error_that_nobody_foresaw(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_DELAY", 0.01)
    three = await a_room_of_two(live)
    worker, failed = live.providers["a.example"].outbox, asyncio.Event()
    send = worker._send
    faults = iter([RuntimeError("a bug"), OSError("a disk")])

    async def fragile(domain: str, body: bytes) -> object:
        fault = next(faults, None)
        if fault is not None:
            failed.set()
            raise fault
        return await send(domain, body)

    monkeypatch.setattr(worker, "_send", fragile)
    await three.alice.rooms.send(three.room, "still there")
    await failed.wait()
    assert await texts(three.bob, three.at_bob, 1) == ["still there"]


async def test_the_outbox_outlives_a_database_that_fails_for_a_while(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_DELAY", 0.01)
    three = await a_room_of_two(live)
    store = live.providers["a.example"].hub_store
    destinations, faults = store.destinations, iter([OSError("a disk"), RuntimeError("a lock")])

    async def fragile() -> list[str]:
        fault = next(faults, None)
        if fault is not None:
            raise fault
        return await destinations()

    monkeypatch.setattr(store, "destinations", fragile)
    await three.alice.rooms.send(three.room, "still there")
    assert await texts(three.bob, three.at_bob, 1) == ["still there"]


async def test_what_a_peer_refuses_for_good_holds_up_nothing(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = await a_room_of_two(live)
    hub = live.providers["a.example"]
    sign, first = hub.peers.send, iter([True])

    async def garbled(domain: str, endpoint: Endpoint[Any, Any], body: bytes) -> bytes:
        """The first notification can't be read by its provider."""
        return await sign(domain, endpoint, b"rubbish" if next(first, False) else body)

    monkeypatch.setattr(hub.peers, "send", garbled)
    for text in ("lost", "heard"):
        await three.alice.rooms.send(three.room, text)
    assert await texts(three.bob, three.at_bob, 1) == ["heard"]
    assert await drained(hub) == []


async def test_a_relay_that_is_dead_is_left_for_another(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = await live.person("bob", "b.example")
    known = known_providers(bob.path)
    known["c.example"] = replace(known["c.example"], base_url=NOWHERE)
    choices = iter(["c.example", "a.example"])
    monkeypatch.setattr("mimi_mmr.client.transport.private_path.secrets.choice", lambda _: next(choices))
    with pytest.raises(PrivatePathFailed):
        await Queues(bob.path).create(AccessToken.generate(), accepts_deposits=False)
    await Queues(bob.path).create(AccessToken.generate(), accepts_deposits=False)


async def test_a_room_that_is_unknown_is_said_to_be_and_leaves_nothing_behind(live: LiveWorld) -> None:
    three = await a_room_of_two(live)
    hub = live.providers["a.example"].hub
    unknown = MimiUri("a.example", Kind.ROOM, "none")
    with pytest.raises(UnknownRoom):
        await hub._state(unknown)
    request = three.room.room.encrypt(Content.text("hello")).to_bytes()
    for number in range(20):
        answer = await three.bob.path.call("a.example", "POST", f"/v1/submitMessage/none-{number}", request)
        assert b"unknown-room" in answer
    assert len(hub._locks) <= 1


async def test_the_hub_says_what_is_wrong_with_a_request(live: LiveWorld) -> None:
    three = await a_room_of_two(live)
    other = await three.bob.rooms.create()
    with pytest.raises(MmrError):  # a room of another hub
        await three.bob.path.call("a.example", "POST", f"/v1/snapshot/{other.uri.name}", b"")
    stolen = three.at_bob.room.encrypt(Content.text("x")).to_bytes()
    forged = bytearray(stolen)
    forged[-1] ^= 1
    answer = await three.bob.path.call(
        "a.example", "POST", f"/v1/submitMessage/{three.room.uri.name}", bytes(forged)
    )
    assert b"wrong-signer" in answer


async def test_a_member_may_not_remove_and_somebody_else_may_not_take_a_rooms_name(live: LiveWorld) -> None:
    three = await a_room_of_two(live)
    with pytest.raises(HubRefusal):
        await three.bob.rooms.remove(three.at_bob, [0])
    assert names(three.bob, three.at_bob) == {"alice", "bob"}
    await three.bob.rooms.send(three.at_bob, "still a member")
    assert await texts(three.alice, three.room, 1) == ["still a member"]


async def test_a_room_is_created_once(live: LiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = await live.person("alice", "a.example")
    sent: list[bytes] = []
    call = alice.path.call

    async def listening(domain: str, method: str, path: str, body: bytes = b"") -> bytes:
        if path == "/v1/rooms":
            sent.append(body)
        return await call(domain, method, path, body)

    monkeypatch.setattr(alice.path, "call", listening)
    await alice.rooms.create()
    with pytest.raises(NotAllowed, match="exists"):
        await call("a.example", "POST", "/v1/rooms", sent[0])
