"""Contacts, and answers that are lost: what one of them does keeps nobody else, and nothing is done by halves."""

from __future__ import annotations

from typing import Any

import pytest

from mimi_mmr.client import Client
from mimi_mmr.client.people.blocking import Blocking
from mimi_mmr.client.people.connection_keys import ConnectionKeys
from mimi_mmr.client.transport.errands import Errands
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.errors import BindingRejected, ConnectionRefused, NoKeyPackages, PrivatePathFailed, StateError
from mimi_mmr.member.whois import Standing
from mimi_mmr.protocol.connections import MAX_KEY_STEP, ConnectionKeyOffer
from mimi_mmr.protocol.content import Content, ContentKind
from tests.mimi_mmr.client.devices.test_several_devices import running, second_device
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_keyed


async def two(live: LiveWorld) -> tuple[Client, Client]:
    return await live.person("alice", "a.example"), await live.person("bob", "b.example")


def losing(part: object, name: str, *, times: int = 1, first: int = 1) -> None:
    """The answers of some calls of a method are lost: what was asked for is done all the same."""
    method, calls = getattr(part, name), []

    async def lost(*arguments: Any, **options: Any) -> Any:
        answer = await method(*arguments, **options)
        calls.append(name)
        if first <= len(calls) < first + times:
            raise PrivatePathFailed("the answer is lost")
        return answer

    setattr(part, name, lost)


async def test_a_request_without_an_inbox_costs_nothing_but_itself(live: LiveWorld) -> None:
    alice, bob = await two(live)
    mallory = await live.person("mallory", "c.example")
    outgoing = await mallory.people.request_connection(bob.contact_code)
    await Queues(mallory.path).delete(outgoing.inbox)
    await alice.people.request_connection(bob.contact_code)
    waiting = len(bob.key_packages.outstanding)
    requests = {incoming.device.user: incoming for incoming in await bob.people.connection_requests()}
    with pytest.raises(ConnectionRefused, match="no longer waits"):
        await bob.people.accept(requests[mallory.user])
    assert len(bob.key_packages.outstanding) == waiting
    assert [one.device.user for one in await bob.people.connection_requests()] == [alice.user]
    await bob.people.accept(requests[alice.user])


async def test_a_contact_who_removes_us_at_once_keeps_nobody_else_from_us(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    mallory, cathy = await live.person("mallory", "a.example"), await live.person("cathy", "c.example")
    _, of_cathy = await connect(cathy, bob)
    await bob.key_packages.publish(of_cathy)
    outgoing = await mallory.people.request_connection(bob.contact_code)
    (incoming,) = await bob.people.connection_requests()
    await bob.people.accept(incoming)
    contact = await mallory.people.complete_connection(outgoing)
    assert contact is not None
    connection = mallory.rooms[contact.room]  # type: ignore[index]
    await mallory.rooms.remove(connection, [leaf for leaf in connection.room.members.identities if leaf])
    await bob.rooms.check_invitations(wait=2)

    room = await cathy.rooms.create()
    await cathy.rooms.add(room, [cathy.people.contacts[bob.user]])
    assert (await invited(bob)).uri == room.uri
    await bob.tend()
    assert bob.people.connection_keys.offers_due() == []


async def test_who_is_blocked_does_not_come_in_by_an_earlier_answer(live: LiveWorld) -> None:
    bob, mallory = await live.person("bob", "b.example"), await live.person("mallory", "a.example")
    to_mallory, _ = await connect(bob, mallory)
    again = await mallory.people.request_connection(bob.contact_code)
    (
        incoming,
    ) = await bob.people.connection_requests()  # a connection lives: this is for Bob himself to answer
    await bob.people.accept(incoming)
    await bob.people.block(to_mallory)
    contact = await mallory.people.complete_connection(again)
    assert contact is not None
    assert await bob.rooms.check_invitations(wait=1) == []
    await bob.tend()
    assert (to_mallory.room, to_mallory.blocked, bob.rooms) == (None, True, {})
    with pytest.raises(ConnectionRefused, match="unblock"):
        await bob.people.accept(incoming)
    with pytest.raises(ConnectionRefused, match="unblock"):
        await bob.people.request_connection(mallory.contact_code)


@pytest.mark.parametrize("call", range(1, 4))
async def test_a_connection_whose_answers_are_lost_is_one_connection(live: LiveWorld, call: int) -> None:
    alice, bob = await two(live)
    await alice.people.request_connection(bob.contact_code)
    (incoming,) = await bob.people.connection_requests()
    await bob.people.accept(incoming)
    losing(alice.rooms.delivery, "send", first=call)
    for _ in range(3):
        await alice.tend()
        await bob.rooms.check_invitations(wait=1)
        for client in (alice, bob):
            for joined in list(client.rooms.values()):
                await client.rooms.sync(joined)
    assert len(alice.rooms) == len(bob.rooms) == 1
    ours, theirs = alice.people.contacts[bob.user], bob.people.contacts[alice.user]
    assert ours.room == theirs.room
    await until_keyed(alice, ours)
    await until_keyed(bob, theirs)
    assert alice.people.outgoing == {}


async def test_two_who_ask_each_other_at_once_are_connected(live: LiveWorld) -> None:
    alice, bob = await two(live)
    await alice.people.request_connection(bob.contact_code)
    await bob.people.request_connection(alice.contact_code)
    for asked in (alice, bob):
        (incoming,) = await asked.people.connection_requests()
        await asked.people.accept(incoming)
    for _ in range(3):
        for client in (alice, bob):
            await client.tend()
            await client.rooms.check_invitations(wait=1)
            for joined in list(client.rooms.values()):
                await client.rooms.sync(joined)
    ours, theirs = alice.people.contacts[bob.user], bob.people.contacts[alice.user]
    assert ours.room == theirs.room
    await bob.people.rotate_connection_key(theirs)
    while ours.theirs != theirs.offer():
        await alice.rooms.sync(alice.rooms[ours.room], wait=5)  # type: ignore[index]
    room = await alice.rooms.create()
    await alice.rooms.add(room, [ours])
    assert (await invited(bob)).uri == room.uri


async def test_the_process_may_end_between_the_welcome_and_the_introduction(live: LiveWorld) -> None:
    alice, bob = await two(live)
    outgoing = await alice.people.request_connection(bob.contact_code)
    (incoming,) = await bob.people.connection_requests()
    await bob.people.accept(incoming)
    await alice.people.complete_connection(outgoing)

    async def dying(*_: Any) -> None:
        raise KeyboardInterrupt

    bob.rooms.invitations.arrived.insert(0, dying)
    with pytest.raises(KeyboardInterrupt):
        while True:
            await bob.rooms.check_invitations(wait=5)
    bob = live.restarted(bob)
    await bob.rooms.check_invitations()
    await until_keyed(alice, alice.people.contacts[bob.user])
    await until_keyed(bob, bob.people.contacts[alice.user])


@pytest.mark.parametrize(
    ("part", "dies_at"), [(Blocking, "part_from"), (Errands, "run"), (ConnectionKeys, "rotate_due")]
)
async def test_a_block_that_is_interrupted_holds_and_is_finished(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch, part: type, dies_at: str
) -> None:
    alice, bob = await two(live)
    cathy = await live.person("cathy", "c.example")
    to_bob, to_alice = await connect(alice, bob)
    of_bob, _ = await connect(cathy, bob)
    await bob.tend()
    known = of_bob.theirs

    async def dying(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(part, dies_at, dying)
        await bob.people.block(to_alice)
    bob = live.restarted(bob)
    assert bob.people.contacts[alice.user].blocked
    await bob.tend()
    with pytest.raises(NoKeyPackages):
        await alice.key_packages.claim(to_bob, "a.example")
    assert bob.people.contacts[alice.user].room is None
    assert len(bob.rooms) == 1
    while of_bob.theirs == known:
        await cathy.rooms.sync(cathy.rooms[of_bob.room], wait=5)  # type: ignore[index]
    await cathy.key_packages.claim(of_bob, "c.example")


async def test_a_shelf_that_was_closed_unheard_is_replaced(live: LiveWorld) -> None:
    alice, bob = await two(live)
    to_bob, to_alice = await connect(alice, bob)
    await alice.tend()
    known = to_alice.theirs
    losing(alice.key_packages.shelves, "send_order")
    await alice.people.rotate_connection_key(to_bob)
    waiting = []
    for _ in range(3):
        await alice.tend()
        waiting.append(len(alice.key_packages.outstanding))
    assert len(set(waiting)) == 1  # nothing is made over and over
    while to_alice.theirs == known:
        await bob.rooms.sync(bob.rooms[to_alice.room], wait=5)  # type: ignore[index]
    room = await bob.rooms.create()
    await bob.rooms.add(room, [to_alice])
    assert (await invited(alice)).uri == room.uri


async def test_a_connection_key_of_a_version_far_ahead_is_refused_and_the_contact_stays(
    live: LiveWorld,
) -> None:
    alice, bob = await two(live)
    to_bob, to_alice = await connect(alice, bob)
    known = to_bob.theirs
    room = alice.rooms[to_bob.room]  # type: ignore[index]
    for version in (1 << 63, 1 << 62, 2 + MAX_KEY_STEP):
        offer = ConnectionKeyOffer(version, bytes(32), bytes(32))
        content = Content(ContentKind.CONNECTION_KEY, offer.to_bytes())
        await bob.rooms.send(bob.rooms[to_alice.room], content)  # type: ignore[index]
    while sum("far ahead" in problem for problem in room.problems) < 3:
        await alice.rooms.sync(room, wait=5)
    assert to_bob.theirs == known
    with pytest.raises(StateError, match="CONTACT"):  # what could not be read again is not stored either
        to_bob.theirs = ConnectionKeyOffer(1 << 63, bytes(32), bytes(32))
        alice.people.contacts.save(to_bob)
    to_bob.theirs = known
    alice = live.restarted(alice)
    assert alice.people.contacts[bob.user].theirs == known
    await bob.people.rotate_connection_key(to_alice)
    while alice.people.contacts[bob.user].theirs == known:
        await alice.rooms.sync(alice.rooms[to_bob.room], wait=5)  # type: ignore[index]


async def test_after_a_device_was_lost_the_next_key_counts_whatever_version_that_device_gave_the_last(
    live: LiveWorld,
) -> None:
    alice, bob = await two(live)
    to_bob, to_alice = await connect(alice, bob)
    tablet = await second_device(live, alice)
    async with running(alice, tablet) as agents:
        await agents.until_in(tablet, alice.rooms[to_bob.room])  # type: ignore[index]
    room = bob.rooms[to_alice.room]  # type: ignore[index]
    stolen = ConnectionKeyOffer(MAX_KEY_STEP, b"e" * 32, b"e" * 32)
    await alice.rooms.send(alice.rooms[to_bob.room], Content(ContentKind.CONNECTION_KEY, stolen.to_bytes()))  # type: ignore[index]
    while to_alice.theirs != stolen:
        await bob.rooms.sync(room, wait=5)
    lost = alice.account.me.key.public
    await tablet.devices.remove(alice.device.name)
    while lost not in to_alice.removed_devices or to_alice.theirs is None or to_alice.theirs.key_version == 0:
        await bob.rooms.sync(room, wait=5)
    assert to_alice.theirs == tablet.people.contacts[bob.user].offer()


async def test_a_device_that_a_contact_has_lost_is_nobodys(live: LiveWorld) -> None:
    alice, bob = await two(live)
    to_bob, to_alice = await connect(alice, bob)
    thief = alice.account.me.key.public
    assert to_alice.device.device_key == thief
    await alice.rooms.send(alice.rooms[to_bob.room], Content(ContentKind.DEVICE_REMOVED, thief))  # type: ignore[index]
    room = bob.rooms[to_alice.room]  # type: ignore[index]
    while not any("says so itself" in problem for problem in room.problems):
        await bob.rooms.sync(room, wait=5)
    assert to_alice.removed_devices == ()
    to_alice.removed_devices = (thief,)
    with pytest.raises(BindingRejected, match="removed"):
        bob.people.contacts.check_known(to_alice.device)
    assert {entry.standing for entry in bob.rooms.who(room)} == {Standing.VERIFIED, Standing.UNVERIFIED}
    await alice.people.request_connection(bob.contact_code)
    assert await bob.people.connection_requests() == []
    assert to_bob.user == bob.user


async def test_a_removed_device_does_not_take_its_users_place(live: LiveWorld) -> None:
    alice, bob = await two(live)
    _, to_alice = await connect(alice, bob)
    tablet = await second_device(live, alice)
    async with running(alice, tablet) as agents:
        await agents.until_in(tablet, alice.rooms[alice.people.contacts[bob.user].room])  # type: ignore[index]
    lost = alice.account.me.key.public  # the device that the connection was made with
    outgoing = await alice.people.request_connection(bob.contact_code)
    await bob.tend()
    assert len(await bob.people.connection_requests()) == 1  # a connection lives: for Bob himself to answer
    await tablet.devices.remove(alice.device.name)
    room = bob.rooms[to_alice.room]  # type: ignore[index]
    while lost not in to_alice.removed_devices:
        await bob.rooms.sync(room, wait=5)
    assert await bob.people.connection_requests() == []
    assert await alice.people.complete_connection(outgoing, wait=0) is None
    await bob.key_packages.publish(to_alice)
    await until_keyed(tablet, tablet.people.contacts[bob.user])
    assert to_alice.device.device == tablet.device
    joined = await tablet.rooms.create()
    await tablet.rooms.add(joined, [tablet.people.contacts[bob.user]])
    assert (await invited(bob)).uri == joined.uri
