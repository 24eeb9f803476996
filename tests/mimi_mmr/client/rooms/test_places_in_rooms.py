"""Leaving, names, links, and pseudonyms that change: what members do about themselves and for one another."""

from __future__ import annotations

import asyncio

import pytest

from mimi_mmr.client import Client, Joined, account
from mimi_mmr.client import client as person
from mimi_mmr.errors import InvalidUri, JoinRefused, NotAllowed, RoomError
from mimi_mmr.member.whois import Standing
from mimi_mmr.protocol.room.policy import Identities, Role
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch


async def room_of(
    live: LiveWorld, identities: Identities = Identities.EVERYONE
) -> tuple[list[Client], list[Joined]]:
    """Alice, who made the room, Bob and Cathy, of three providers."""
    alice = await live.person("alice", "a.example")
    bob, cathy = await live.person("bob", "b.example"), await live.person("cathy", "c.example")
    room = await alice.create_room(identities)
    rooms = [room]
    for other in (bob, cathy):
        ours, theirs = await connect(alice, other)
        await other.publish_key_packages(theirs)
        await alice.add(room, [ours])
        rooms.append(await invited(other))
    await until_epoch(bob, rooms[1], room.room.epoch)
    await until_epoch(cathy, rooms[2], room.room.epoch)
    return [alice, bob, cathy], rooms


async def until_members(client: Client, joined: Joined, count: int) -> None:
    while len(joined.room.participants()) != count:
        await client.sync(joined, wait=5)


async def test_who_leaves_is_taken_out_by_another_member(live: LiveWorld) -> None:
    (alice, bob, cathy), (room, at_bob, at_cathy) = await room_of(live)
    await bob.leave(at_bob)
    await until_members(cathy, at_cathy, 3)
    await until_members(alice, room, 2)
    await until_members(cathy, at_cathy, 2)
    while not at_bob.room.removed:
        await bob.sync(at_bob, wait=5)
    assert at_cathy.problems == []
    assert at_cathy.room.tree_hash == room.room.tree_hash
    await bob.forget(at_bob)
    assert at_bob.uri not in bob.rooms
    with pytest.raises(NotAllowed, match="only admin"):
        await alice.leave(room)
    await alice.make_admin(room, at_cathy.leaf.identity.credential.user_pseudonym)
    await until_epoch(cathy, at_cathy, room.room.epoch)
    await alice.leave(room)
    await until_members(cathy, at_cathy, 1)
    await cathy.leave(at_cathy)
    assert at_cathy.uri not in cathy.rooms


async def test_a_departure_is_answered_by_whoever_comes_first(live: LiveWorld) -> None:
    (alice, bob, cathy), (room, at_bob, at_cathy) = await room_of(live)
    await bob.leave(at_bob)
    while not at_cathy.departures:
        await cathy.sync(at_cathy, wait=5)
    assert len(at_cathy.room.participants()) == 3  # it falls to Alice, who is away
    await cathy.tend()
    assert len(at_cathy.room.participants()) == 2
    await until_members(alice, room, 2)
    assert (room.departures, room.problems) == ({}, [])


async def test_a_name_is_for_members_only(live: LiveWorld) -> None:
    (alice, bob, _), (room, at_bob, _) = await room_of(live)
    await alice.rename(room, "the garden", topic="bulbs")
    while at_bob.room.members_only.state.name != "the garden":
        await bob.sync(at_bob, wait=5)
    await bob.rename(at_bob, "the orchard")
    while room.room.members_only.state.name != "the orchard":
        await alice.sync(room, wait=5)
    assert room.room.members_only.state.topic == "bulbs"
    state = await live.providers["a.example"].hub_store.load(room.uri)
    assert b"orchard" not in repr(state).encode()
    restarted = live.restarted(bob)
    assert restarted.rooms[room.uri].room.members_only.state.name == "the orchard"


async def test_somebody_joins_by_a_link(live: LiveWorld) -> None:
    alice, dave = await live.person("alice", "a.example"), await live.person("dave", "b.example")
    room = await alice.create_room(name="open house")
    link = await alice.create_link(room, lifetime=3600, uses=1)

    async def at_home() -> None:
        while len(room.room.participants()) < 2:
            await alice.sync(room, wait=5)

    joined, _ = await asyncio.gather(dave.join_by_link(link.uri, wait=30), at_home())
    assert joined.room.members_only.state.name == "open house"
    assert [entry.standing for entry in alice.who(room)] == [Standing.VERIFIED] * 2
    await dave.send(joined, "hello")
    while not room.messages:
        await alice.sync(room, wait=5)
    sender = room.messages.popleft().sender.member
    assert sender is not None
    assert sender.device.user == dave.user
    with pytest.raises(RoomError, match="already"):
        await dave.join_by_link(link)
    erin = await live.person("erin", "c.example")
    with pytest.raises(JoinRefused):
        await erin.join_by_link(link, wait=1)
    with pytest.raises(InvalidUri):
        await erin.join_by_link("mimi-join:nonsense")


async def test_links_end_when_they_are_revoked_and_when_somebody_is_removed(live: LiveWorld) -> None:
    (alice, bob, _), (room, at_bob, at_cathy) = await room_of(live)
    erin = await live.person("erin", "c.example")
    revoked = await bob.create_link(at_bob, uses=5)
    await bob.revoke_links(at_bob)
    ended = await bob.create_link(at_bob, uses=5)
    await until_epoch(alice, room, at_bob.room.epoch)
    await alice.remove(room, [at_cathy.room.own_leaf])
    for link in (revoked, ended):
        with pytest.raises(JoinRefused):
            await erin.join_by_link(link, wait=1)
    assert room.room.members_only.state.links == ()


@pytest.mark.parametrize("who", ["a member", "the admin"])
async def test_a_pseudonym_changes_and_the_person_stays(live: LiveWorld, who: str) -> None:
    (alice, bob, cathy), (room, at_bob, at_cathy) = await room_of(live)
    client, joined = (alice, room) if who == "the admin" else (bob, at_bob)
    old = joined.leaf.identity.credential.user_pseudonym
    role = joined.room.policy.policy.role(old)
    await cathy.send(at_cathy, "before")
    await client.change_pseudonym(joined)
    new = joined.leaf.identity.credential.user_pseudonym
    await until_epoch(cathy, at_cathy, joined.room.epoch)
    people = {entry.member.device.user: entry for entry in cathy.who(at_cathy) if entry.member}
    assert set(people) == {alice.user, bob.user, cathy.user}
    assert (old != new, people[client.user].user, people[client.user].role) == (True, new, role)
    assert joined.room.policy.policy.role(old) is Role.MEMBER
    assert [message.text for message in joined.messages] == ["before"]
    assert at_cathy.problems == []
    await client.send(joined, "still me")
    while "still me" not in [message.text for message in at_cathy.messages]:
        await cathy.sync(at_cathy, wait=5)
    restarted = live.restarted(client)
    await restarted.send(restarted.rooms[room.uri], "and again")
    while "and again" not in [message.text for message in at_cathy.messages]:
        await cathy.sync(at_cathy, wait=5)


async def two_rooms_by_a_last_resort(alice: Client, bob: Client) -> tuple[list[Joined], list[Joined]]:
    """Rooms of Alice's that Bob is in by one KeyPackage: as she has them, and as he has them, in any order."""
    to_bob, to_alice = await connect(alice, bob)
    await bob.publish_key_packages(to_alice, last_resort=True)
    rooms = [await alice.create_room() for _ in range(2)]
    for room in rooms:
        await alice.add(room, [to_bob])
    joined: list[Joined] = []
    while len(joined) < 2:
        joined += await bob.check_invitations(wait=5)
    return rooms, joined


async def test_a_last_resort_that_was_used_twice_is_replaced_and_its_rooms_told_apart(
    live: LiveWorld,
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    rooms, joined = await two_rooms_by_a_last_resort(alice, bob)
    first, second = joined
    assert first.leaf.identity == second.leaf.identity  # what two hubs could compare
    assert first.rotate
    assert second.rotate
    await alice.send(rooms[0], "in one")
    await alice.send(rooms[1], "in the other")
    while not (first.messages and second.messages):
        await bob.sync(first, wait=5)
    texts = {one.uri: [message.text for message in one.messages] for one in joined}
    assert texts == {rooms[0].uri: ["in one"], rooms[1].uri: ["in the other"]}

    await bob.tend()
    assert any("used 2 times" in notice.text for notice in bob.notices)
    one, other = (one.leaf.identity.credential for one in joined)
    assert one.user_pseudonym != other.user_pseudonym
    assert one.signature_public_key != other.signature_public_key
    assert first.leaf.queue != second.leaf.queue
    for room, at_bob in zip(rooms, (bob.rooms[room.uri] for room in rooms), strict=True):
        await until_epoch(alice, room, at_bob.room.epoch)
        assert {entry.member.device.user for entry in alice.who(room) if entry.member} == {
            alice.user,
            bob.user,
        }
        assert len(alice.who(room)) == 2
        await bob.send(at_bob, "moved")
        while not room.messages:
            await alice.sync(room, wait=5)
        assert room.messages.popleft().text == "moved"


async def test_a_hidden_member_shows_itself_when_it_wants_to(live: LiveWorld) -> None:
    (alice, bob, _), (room, at_bob, _) = await room_of(live, Identities.NOBODY)
    assert {entry.standing for entry in alice.who(room)} == {Standing.HIDDEN}
    await bob.reveal(at_bob)
    await until_epoch(alice, room, at_bob.room.epoch)
    shown = {entry.leaf: entry for entry in alice.who(room)}
    assert [entry.standing for entry in shown.values()].count(Standing.VERIFIED) == 1
    member = shown[at_bob.room.own_leaf].member
    assert member is not None
    assert member.device.user == bob.user


async def test_a_name_is_renewed_before_it_expires(live: LiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    (alice, bob, _), (room, at_bob, _) = await room_of(live)
    old, chain = at_bob.leaf.identity.credential, bob.me.credential.chain
    await bob.tend()
    assert (at_bob.leaf.identity.credential, bob.me.credential.chain) == (old, chain)
    monkeypatch.setattr(account, "CERTIFICATE_RENEWAL", 100 * 86400)  # as if most of its time were over
    monkeypatch.setattr(person, "CREDENTIAL_RENEWAL", 100 * 86400)
    await bob.tend_certificate()
    await bob._change_pseudonyms()
    assert bob.me.credential.chain != chain
    assert at_bob.leaf.identity.credential.user_pseudonym != old.user_pseudonym
    await until_epoch(alice, room, at_bob.room.epoch)
    assert {entry.standing for entry in alice.who(room)} == {Standing.VERIFIED}
