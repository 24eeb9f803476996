"""Asking, taking back, refusing, blocking; and what the other side, and its provider, can tell of it."""

from __future__ import annotations

from typing import Any

import pytest

from mimi_mmr.client import Client
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.errors import BindingRejected, ConnectionRefused, NoKeyPackages, RoomError, UnknownQueue
from mimi_mmr.protocol.connections import ContactCode
from mimi_mmr.protocol.credentials import fingerprint
from mimi_mmr.protocol.endpoints import FORGET_CONNECTION_REQUEST, LIST_CONNECTION_REQUESTS
from tests.mimi_mmr.client.inside import as_if_last_resorts
from tests.mimi_mmr.conftest import LiveWorld, connect, invited


async def two(live: LiveWorld) -> tuple[Client, Client]:
    return await live.person("alice", "a.example"), await live.person("bob", "b.example")


async def waiting(client: Client) -> int:
    """Deposits that lie at a client's provider."""
    return len((await client.account.ask(LIST_CONNECTION_REQUESTS)).deposits)


async def test_a_request_that_was_taken_back_is_not_seen(live: LiveWorld) -> None:
    alice, bob = await two(live)
    outgoing = await alice.people.request_connection(bob.contact_code)
    await alice.people.cancel(outgoing)
    assert alice.people.outgoing == {}
    assert await waiting(bob) == 2
    assert await bob.people.connection_requests() == []
    assert (await waiting(bob), bob.refusals.texts()) == (0, [])
    with pytest.raises(UnknownQueue):
        await alice.people.complete_connection(outgoing, wait=0)


async def test_nobody_takes_anothers_request_back(live: LiveWorld) -> None:
    alice, bob = await two(live)
    mallory = await live.person("mallory", "c.example")
    outgoing = await alice.people.request_connection(bob.contact_code)
    mallory.people.outgoing.drop = lambda _: _nothing()  # type: ignore[method-assign, assignment]
    await mallory.people.cancel(outgoing)
    (incoming,) = await bob.people.connection_requests()
    assert incoming.device.user == alice.user
    assert any("cancel" in reason for reason in bob.refusals.texts())


async def _nothing() -> None:
    return None


async def test_with_a_bare_uri_trust_is_on_first_use_and_shown_as_such(live: LiveWorld) -> None:
    alice, bob = await two(live)
    outgoing = await alice.people.request_connection(bob.user)
    (incoming,) = await bob.people.connection_requests()
    await bob.people.accept(incoming)
    contact = await alice.people.complete_connection(outgoing)
    assert contact is not None
    assert not contact.pinned
    assert not live.restarted(alice).people.contacts[bob.user].pinned
    wrong = ContactCode(bob.user, bytes(32))
    with pytest.raises(BindingRejected):
        await alice.people.request_connection(wrong)
    with pytest.raises(ConnectionRefused):
        await alice.people.request_connection(alice.contact_code)


async def test_strangers_are_refused_in_silence_and_contacts_are_not(live: LiveWorld) -> None:
    alice, bob = await two(live)
    await connect(alice, bob)
    bob.people.only_contacts = True
    erin = await live.person("erin", "c.example")
    outgoing = await erin.people.request_connection(bob.contact_code)
    await alice.people.request_connection(bob.contact_code)
    assert [incoming.device.user for incoming in await bob.people.connection_requests()] == [alice.user]
    assert bob.refusals.texts() == []
    assert await erin.people.complete_connection(outgoing, wait=0) is None  # as of somebody who is away
    assert live.restarted(bob).people.only_contacts


async def test_who_is_blocked_gets_what_a_stranger_gets(live: LiveWorld) -> None:
    alice, bob = await two(live)
    cathy = await live.person("cathy", "c.example")
    to_bob, to_alice = await connect(alice, bob)
    of_bob, of_cathy = await connect(bob, cathy)
    for client in (alice, bob, cathy):
        await client.tend()
    old, before = to_alice.own_key, cathy.people.contacts[bob.user].theirs
    connection = alice.rooms[to_bob.room]  # type: ignore[index]

    await bob.people.block(to_alice)
    with pytest.raises(NoKeyPackages) as blocked:
        await alice.key_packages.claim(to_bob, "a.example")
    unknown = Contact(to_bob.device, pinned=True, theirs=Contact(to_bob.device, pinned=True).offer())
    with pytest.raises(NoKeyPackages) as stranger:
        await alice.key_packages.claim(unknown, "a.example")
    assert str(blocked.value) == str(stranger.value)
    await alice.rooms.send(connection, "are you there?")  # goes nowhere, and nothing says so
    await alice.people.request_connection(bob.contact_code)
    assert await bob.people.connection_requests() == []

    assert before is not None
    while of_cathy.theirs == before:  # every other connection room brings a new key
        await cathy.rooms.sync(cathy.rooms[of_cathy.room], wait=5)  # type: ignore[index]
    assert of_cathy.theirs is not None
    assert of_cathy.theirs.key_version == before.key_version + 1
    room = await cathy.rooms.create()
    await cathy.rooms.add(room, [of_cathy])
    assert (await invited(bob)).uri == room.uri

    restarted = live.restarted(bob)
    assert restarted.people.contacts[alice.user].blocked
    assert restarted.people.contacts[alice.user].own_key != old
    await restarted.people.unblock(alice.user)
    assert [one.device.user for one in await restarted.people.connection_requests()] == []
    await alice.people.request_connection(bob.contact_code)
    assert [one.device.user for one in await restarted.people.connection_requests()] == [alice.user]
    with pytest.raises(RoomError):
        await restarted.people.unblock(alice.user)
    assert of_bob.user == cathy.user


async def test_an_add_says_whom_it_added(live: LiveWorld) -> None:
    alice, bob = await two(live)
    to_bob, _ = await connect(alice, bob)
    await bob.tend()
    room = await alice.rooms.create()
    assert await alice.rooms.add(room, [to_bob]) == [bob.user]
    assert await alice.rooms.add(room, [to_bob]) == []


async def test_sets_are_kept_in_stock_and_counted(live: LiveWorld) -> None:
    alice, bob = await two(live)
    to_bob, _ = await connect(alice, bob)
    await bob.tend()
    taken = [await alice.key_packages.claim(to_bob, "a.example") for _ in range(5)]
    keys = [package.key_package for packages in taken for package in packages]
    assert len(set(keys[:2])) == 2
    assert set(keys[2:]).isdisjoint(keys[:2])
    assert len(set(keys[2:])) <= 2  # two last resorts, given away three times
    await bob.tend()
    used = [notice.text for notice in bob.notices if "last-resort" in notice.text]
    assert sum("once" in text or "2 times" in text or "3 times" in text for text in used) == len(used) > 0
    fresh = await alice.key_packages.claim(to_bob, "a.example")
    assert fresh[0].key_package not in keys


async def test_what_a_client_publishes_is_kept_up(live: LiveWorld) -> None:
    alice, bob = await two(live)
    for _ in range(3):
        await alice.people.request_connection(bob.user)
    published = len(bob.people.connection_packages)
    await bob.tend()
    assert len(bob.people.connection_packages) > published
    assert fingerprint(bob.account.keys.identity.public) == bob.contact_code.fingerprint


async def test_a_request_that_a_provider_says_again_is_no_new_one(live: LiveWorld) -> None:
    alice, bob = await two(live)
    await alice.people.request_connection(bob.user)
    ask, told = bob.account.ask, []

    async def repeating(endpoint: Any, *request: Any, **names: str) -> Any:
        if endpoint is FORGET_CONNECTION_REQUEST:
            return None
        answer = await ask(endpoint, *request, **names)
        if endpoint is not LIST_CONNECTION_REQUESTS:
            return answer
        told.append(answer)
        return told[0]

    bob.account.ask = repeating  # type: ignore[method-assign, assignment]
    (incoming,) = await bob.people.connection_requests()
    as_if_last_resorts(bob)
    await bob.people.refuse(incoming)
    assert await bob.people.connection_requests() == []
    assert len(told) == 2
