"""What a new process makes of the vault that an old one left, whenever that one ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.errors import PrivatePathFailed, StateError
from mimi_mmr.member.whois import Standing
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch, until_keyed


async def heard(client: Client, joined: Membership, text: str) -> None:
    """Until this text has come, which is then read."""
    while not joined.messages:
        await client.rooms.sync(joined, wait=5)
    assert joined.messages.popleft().text == text


async def room_of_two(live: LiveWorld) -> tuple[Client, Client, Membership, Membership]:
    """Alice's room with Bob in it, at different providers."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    await bob.key_packages.publish(to_alice)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    return alice, bob, room, await invited(bob)


async def test_rooms_contacts_and_unread_messages_are_there_again(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await room_of_two(live)
    await alice.rooms.send(room, "before")
    while not at_bob.messages:
        await bob.rooms.sync(at_bob, wait=5)

    bob = live.restarted(bob)
    alice = live.restarted(alice)
    at_bob, room = bob.rooms[at_bob.uri], alice.rooms[room.uri]
    await heard(bob, at_bob, "before")
    await bob.rooms.send(at_bob, "after")
    await heard(alice, room, "after")
    await alice.rooms.heal(room)
    await until_epoch(bob, at_bob, room.room.epoch)
    assert at_bob.room.tree_hash == room.room.tree_hash
    assert {entry.standing for entry in bob.rooms.who(at_bob)} == {Standing.VERIFIED}
    assert set(bob.people.contacts) == {alice.user}
    assert bob.contact_code == live.restarted(bob).contact_code


async def test_what_was_sent_while_the_client_was_away_comes_once(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await room_of_two(live)
    for number in range(3):
        await alice.rooms.send(room, f"message {number}")
    bob = live.restarted(bob)
    at_bob = bob.rooms[at_bob.uri]
    page = await Queues(bob.path).collect(at_bob.queue.token, at_bob.queue.acknowledged, 5)
    assert page.messages
    bob = live.restarted(bob)  # collected, and not processed: it comes again
    at_bob = bob.rooms[at_bob.uri]
    while len(at_bob.messages) < 3:
        await bob.rooms.sync(at_bob, wait=5)
    bob = live.restarted(bob)  # processed, and not yet acknowledged at the provider
    at_bob = bob.rooms[at_bob.uri]
    await bob.rooms.sync(at_bob)
    assert [message.text for message in at_bob.messages] == [f"message {number}" for number in range(3)]
    assert [message.number for message in at_bob.messages.since(0)] == [1, 2, 3]


async def test_a_page_that_fails_half_way_is_as_if_it_had_not_been_read(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await room_of_two(live)
    await alice.rooms.send(room, "one")
    await alice.rooms.send(room, "two")
    keep, kept = bob.rooms.memberships.save, []

    def dying(joined: Membership) -> None:
        keep(joined)
        kept.append(joined)
        raise KeyboardInterrupt

    bob.rooms.memberships.save = dying  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        while not kept:
            await bob.rooms.sync(at_bob, wait=5)
    bob = live.restarted(bob)
    at_bob = bob.rooms[at_bob.uri]
    await heard(bob, at_bob, "one")
    await heard(bob, at_bob, "two")


@pytest.mark.parametrize("reaches_the_hub", [False, True])
async def test_a_commit_on_its_way_is_settled_by_the_next_process(
    live: LiveWorld, reaches_the_hub: bool
) -> None:
    alice, bob, room, at_bob = await room_of_two(live)
    before, send = room.room.epoch, alice.rooms.delivery.send

    async def lost(joined: Membership, pending: Any) -> None:
        if reaches_the_hub:
            await send(joined, pending)
        raise PrivatePathFailed("the process ends here")

    alice.rooms.delivery.send = lost  # type: ignore[method-assign]
    with pytest.raises(PrivatePathFailed):
        await alice.rooms.heal(room)
    alice = live.restarted(alice)
    room = alice.rooms[room.uri]
    assert (room.room.epoch, room.place.pending is not None) == (before, True)
    await alice.rooms.send(room, "settled")
    assert room.room.epoch == before + 1
    await heard(bob, at_bob, "settled")
    assert at_bob.room.tree_hash == room.room.tree_hash


async def test_unclaimed_sets_are_taken_back_and_replaced(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    await bob.tend()
    old = {waiting.serial for waiting in bob.key_packages.outstanding}
    bob = live.restarted(bob)
    assert all(waiting.keys_are_lost for waiting in bob.key_packages.outstanding)
    await bob.tend()
    assert bob.refusals.texts() == []
    new = {waiting.serial for waiting in bob.key_packages.outstanding}
    assert len(new) == len(old) == 4
    assert not old & new
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    assert (await invited(bob)).uri == room.uri


async def test_a_welcome_for_lost_keys_leads_to_a_visible_request_to_be_added_again(live: LiveWorld) -> None:
    alice, bob, *_ = await room_of_two(live)
    to_bob, to_alice = alice.people.contacts[bob.user], bob.people.contacts[alice.user]
    await bob.tend()
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    bob = live.restarted(bob)  # the Welcome is in a queue, its keys were in the old process
    assert await bob.rooms.check_invitations(wait=5) == []
    assert any("asked to be added again" in notice.text for notice in bob.notices)
    await bob.tend()
    connection = alice.rooms[to_bob.room]  # type: ignore[index]
    while not alice.rooms.adding_again.requests():
        await alice.rooms.sync(connection, wait=5)
    await alice.tend()
    assert any("added again" in notice.text for notice in alice.notices)
    joined = await invited(bob)
    assert joined.uri == room.uri
    await alice.rooms.send(room, "here you are")
    await heard(bob, joined, "here you are")
    assert len(alice.rooms.who(room)) == 2  # the leaf whose keys were lost is gone
    assert to_alice.user == alice.user


async def test_a_connection_whose_keys_were_lost_is_asked_for_anew(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    outgoing = await alice.people.request_connection(bob.contact_code)
    (incoming,) = await bob.people.connection_requests()
    await bob.people.accept(incoming)
    bob = live.restarted(bob)  # with the KeyPackage in the response
    to_bob = await alice.people.complete_connection(outgoing)
    assert to_bob is not None
    assert await bob.rooms.check_invitations(wait=5) == []
    assert list(bob.people.outgoing) == [alice.user]
    await alice.tend()  # Bob is a contact already, and his identity key is the known one
    await bob.tend()
    while not await alice.rooms.check_invitations(wait=5):
        pass
    to_alice = bob.people.contacts[alice.user]
    await until_keyed(bob, to_alice)
    await until_keyed(alice, alice.people.contacts[bob.user])
    assert alice.people.contacts[bob.user].pinned
    assert alice.people.contacts[bob.user].room == to_alice.room


async def test_a_vault_is_one_clients(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    with pytest.raises(StateError, match="that of mimi://a"):
        live.client("mallory", "a.example", vault=alice.vault)
    with pytest.raises(StateError, match="no account"):
        Client.restore(Vault.in_memory(), live.world.trust())


async def test_registration_is_repeated_after_its_answer_was_lost(live: LiveWorld) -> None:
    alice = live.client("alice", "a.example")
    account, calls = alice.path.account, []

    async def losing(method: str, path: str, *rest: Any, **more: Any) -> bytes:
        answer = await account(method, path, *rest, **more)
        calls.append(path)
        if len(calls) == 1:
            raise PrivatePathFailed("the answer is lost")
        return answer

    alice.path.account = losing  # type: ignore[method-assign]
    with pytest.raises(PrivatePathFailed):
        await alice.register()
    alice = live.restarted(alice)
    await alice.register()
    assert await alice.account.registered_devices() == ["alice-phone"]


async def test_two_syncs_at_once_process_a_page_once(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await room_of_two(live)
    await alice.rooms.send(room, "once")
    while not at_bob.messages:  # a page of its own may come before: the commit that added him
        await asyncio.gather(*(bob.rooms.sync(at_bob, wait=5) for _ in range(3)))
    assert [message.text for message in at_bob.messages] == ["once"]


async def test_a_room_is_followed_over_a_websocket_across_processes(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await room_of_two(live)
    for number in range(3):
        await alice.rooms.send(room, f"message {number}")
        async for _ in bob.rooms.follow(at_bob):
            if at_bob.messages:
                break
        bob = live.restarted(bob)
        at_bob = bob.rooms[at_bob.uri]
        assert at_bob.messages.popleft().text == f"message {number}"
    await alice.rooms.remove(room, [at_bob.room.own_leaf])
    async for _ in bob.rooms.follow(at_bob):
        pass
    assert at_bob.room.removed
