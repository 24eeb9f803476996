"""Contacts, and answers that are lost: what one of them does keeps nobody else, and nothing is done by halves."""

from __future__ import annotations

from typing import Any

import pytest

from mimi_mmr.client import Client
from mimi_mmr.errors import BindingRejected, ConnectionRefused, NoKeyPackages, PrivatePathFailed
from mimi_mmr.member.whois import Standing
from mimi_mmr.protocol.content import Content, ContentKind
from tests.mimi_mmr.client.devices.test_several_devices import running, second_device
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_keyed


async def two(live: LiveWorld) -> tuple[Client, Client]:
    return await live.person("alice", "a.example"), await live.person("bob", "b.example")


def losing(client: Client, name: str, *, times: int = 1, first: int = 1) -> None:
    """The answers of some calls of a method are lost: what was asked for is done all the same."""
    method, calls = getattr(client, name), []

    async def lost(*arguments: Any, **options: Any) -> Any:
        answer = await method(*arguments, **options)
        calls.append(name)
        if first <= len(calls) < first + times:
            raise PrivatePathFailed("the answer is lost")
        return answer

    setattr(client, name, lost)


async def test_a_request_without_an_inbox_costs_nothing_but_itself(live: LiveWorld) -> None:
    alice, bob = await two(live)
    mallory = await live.person("mallory", "c.example")
    outgoing = await mallory.request_connection(bob.contact_code)
    await mallory._queues.delete(outgoing.inbox)
    await alice.request_connection(bob.contact_code)
    waiting = len(bob._waiting)
    requests = {incoming.device.user: incoming for incoming in await bob.connection_requests()}
    with pytest.raises(ConnectionRefused, match="no longer waits"):
        await bob.accept(requests[mallory.user])
    assert len(bob._waiting) == waiting
    assert [one.device.user for one in await bob.connection_requests()] == [alice.user]
    await bob.accept(requests[alice.user])


async def test_a_contact_who_removes_us_at_once_keeps_nobody_else_from_us(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    mallory, cathy = await live.person("mallory", "a.example"), await live.person("cathy", "c.example")
    _, of_cathy = await connect(cathy, bob)
    await bob.publish_key_packages(of_cathy)
    outgoing = await mallory.request_connection(bob.contact_code)
    (incoming,) = await bob.connection_requests()
    await bob.accept(incoming)
    contact = await mallory.complete_connection(outgoing)
    assert contact is not None
    connection = mallory.rooms[contact.room]  # type: ignore[index]
    await mallory.remove(connection, [leaf for leaf in connection.room.participants() if leaf])
    await bob.check_invitations(wait=2)

    room = await cathy.create_room()
    await cathy.add(room, [cathy.contacts[bob.user]])
    assert (await invited(bob)).uri == room.uri
    await bob.tend()
    assert list(bob._due_offers) == []


async def test_who_is_blocked_does_not_come_in_by_an_earlier_answer(live: LiveWorld) -> None:
    bob, mallory = await live.person("bob", "b.example"), await live.person("mallory", "a.example")
    to_mallory, _ = await connect(bob, mallory)
    again = await mallory.request_connection(bob.contact_code)
    (incoming,) = await bob.connection_requests()  # a connection lives: this is for Bob himself to answer
    await bob.accept(incoming)
    await bob.block(to_mallory)
    contact = await mallory.complete_connection(again)
    assert contact is not None
    assert await bob.check_invitations(wait=1) == []
    await bob.tend()
    assert (to_mallory.room, to_mallory.blocked, bob.rooms) == (None, True, {})
    with pytest.raises(ConnectionRefused, match="unblock"):
        await bob.accept(incoming)
    with pytest.raises(ConnectionRefused, match="unblock"):
        await bob.request_connection(mallory.contact_code)


@pytest.mark.parametrize("call", range(1, 4))
async def test_a_connection_whose_answers_are_lost_is_one_connection(live: LiveWorld, call: int) -> None:
    alice, bob = await two(live)
    await alice.request_connection(bob.contact_code)
    (incoming,) = await bob.connection_requests()
    await bob.accept(incoming)
    losing(alice, "_update", first=call)
    for _ in range(3):
        await alice.tend()
        await bob.check_invitations(wait=1)
        for client in (alice, bob):
            for joined in list(client.rooms.values()):
                await client.sync(joined)
    assert len(alice.rooms) == len(bob.rooms) == 1
    ours, theirs = alice.contacts[bob.user], bob.contacts[alice.user]
    assert ours.room == theirs.room
    await until_keyed(alice, ours)
    await until_keyed(bob, theirs)
    assert alice.outgoing == {}


async def test_two_who_ask_each_other_at_once_are_connected(live: LiveWorld) -> None:
    alice, bob = await two(live)
    await alice.request_connection(bob.contact_code)
    await bob.request_connection(alice.contact_code)
    for asked in (alice, bob):
        (incoming,) = await asked.connection_requests()
        await asked.accept(incoming)
    for _ in range(3):
        for client in (alice, bob):
            await client.tend()
            await client.check_invitations(wait=1)
            for joined in list(client.rooms.values()):
                await client.sync(joined)
    ours, theirs = alice.contacts[bob.user], bob.contacts[alice.user]
    assert ours.room == theirs.room
    await bob.rotate_connection_key(theirs)
    while ours.theirs != theirs.offer():
        await alice.sync(alice.rooms[ours.room], wait=5)  # type: ignore[index]
    room = await alice.create_room()
    await alice.add(room, [ours])
    assert (await invited(bob)).uri == room.uri


async def test_the_process_may_end_between_the_welcome_and_the_introduction(live: LiveWorld) -> None:
    alice, bob = await two(live)
    outgoing = await alice.request_connection(bob.contact_code)
    (incoming,) = await bob.connection_requests()
    await bob.accept(incoming)
    await alice.complete_connection(outgoing)

    async def dying(*_: Any) -> None:
        raise KeyboardInterrupt

    bob._arrived = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        while True:
            await bob.check_invitations(wait=5)
    bob = live.restarted(bob)
    await bob.check_invitations()
    await until_keyed(alice, alice.contacts[bob.user])
    await until_keyed(bob, bob.contacts[alice.user])


@pytest.mark.parametrize("dies_at", ["_part_from", "run_errands", "rotate_due_keys"])
async def test_a_block_that_is_interrupted_holds_and_is_finished(live: LiveWorld, dies_at: str) -> None:
    alice, bob = await two(live)
    cathy = await live.person("cathy", "c.example")
    to_bob, to_alice = await connect(alice, bob)
    of_bob, _ = await connect(cathy, bob)
    await bob.tend()
    known = of_bob.theirs

    async def dying(*_: Any) -> None:
        raise KeyboardInterrupt

    setattr(bob, dies_at, dying)
    with pytest.raises(KeyboardInterrupt):
        await bob.block(to_alice)
    bob = live.restarted(bob)
    assert bob.contacts[alice.user].blocked
    await bob.tend()
    with pytest.raises(NoKeyPackages):
        await alice.claim(to_bob, "a.example")
    assert bob.contacts[alice.user].room is None
    assert len(bob.rooms) == 1
    while of_bob.theirs == known:
        await cathy.sync(cathy.rooms[of_bob.room], wait=5)  # type: ignore[index]
    await cathy.claim(of_bob, "c.example")


async def test_a_shelf_that_was_closed_unheard_is_replaced(live: LiveWorld) -> None:
    alice, bob = await two(live)
    to_bob, to_alice = await connect(alice, bob)
    await alice.tend()
    known = to_alice.theirs
    losing(alice, "_close")
    await alice.rotate_connection_key(to_bob)
    waiting = []
    for _ in range(3):
        await alice.tend()
        waiting.append(len(alice._waiting))
    assert len(set(waiting)) == 1  # nothing is made over and over
    while to_alice.theirs == known:
        await bob.sync(bob.rooms[to_alice.room], wait=5)  # type: ignore[index]
    room = await bob.create_room()
    await bob.add(room, [to_alice])
    assert (await invited(alice)).uri == room.uri


async def test_a_device_that_a_contact_has_lost_is_nobodys(live: LiveWorld) -> None:
    alice, bob = await two(live)
    to_bob, to_alice = await connect(alice, bob)
    thief = alice.me.key.public
    assert to_alice.device.device_key == thief
    await alice.send(alice.rooms[to_bob.room], Content(ContentKind.DEVICE_REMOVED, thief))  # type: ignore[index]
    room = bob.rooms[to_alice.room]  # type: ignore[index]
    while not any("says so itself" in problem for problem in room.problems):
        await bob.sync(room, wait=5)
    assert to_alice.removed_devices == ()
    to_alice.removed_devices = (thief,)
    with pytest.raises(BindingRejected, match="removed"):
        bob._check_known(to_alice.device)
    assert {entry.standing for entry in bob.who(room)} == {Standing.VERIFIED, Standing.UNVERIFIED}
    await alice.request_connection(bob.contact_code)
    assert await bob.connection_requests() == []
    assert to_bob.user == bob.user


async def test_a_removed_device_does_not_take_its_users_place(live: LiveWorld) -> None:
    alice, bob = await two(live)
    _, to_alice = await connect(alice, bob)
    tablet = await second_device(live, alice)
    async with running(alice, tablet) as agents:
        await agents.until_in(tablet, alice.rooms[alice.contacts[bob.user].room])  # type: ignore[index]
    lost = alice.me.key.public  # the device that the connection was made with
    outgoing = await alice.request_connection(bob.contact_code)
    await bob.tend()
    assert len(await bob.connection_requests()) == 1  # a connection lives: for Bob himself to answer
    await tablet.remove_device(alice.device.name)
    room = bob.rooms[to_alice.room]  # type: ignore[index]
    while lost not in to_alice.removed_devices:
        await bob.sync(room, wait=5)
    assert await bob.connection_requests() == []
    assert await alice.complete_connection(outgoing, wait=0) is None
    await bob.publish_key_packages(to_alice)
    await until_keyed(tablet, tablet.contacts[bob.user])
    assert to_alice.device.device == tablet.device
    joined = await tablet.create_room()
    await tablet.add(joined, [tablet.contacts[bob.user]])
    assert (await invited(bob)).uri == joined.uri
