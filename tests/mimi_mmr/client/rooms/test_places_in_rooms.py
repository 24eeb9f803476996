"""Leaving, names, links, and pseudonyms that change: what members do about themselves and for one another."""

from __future__ import annotations

import asyncio

import pytest

from mimi_mmr.client import Client, Membership, account
from mimi_mmr.client.rooms import pseudonyms
from mimi_mmr.client.rooms.membership import MAX_PROBLEMS
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.errors import InvalidUri, JoinRefused, NotAllowed, RoomError
from mimi_mmr.member.room import Room
from mimi_mmr.member.whois import Standing
from mimi_mmr.protocol.room.policy import Identities, Role
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch


async def room_of(
    live: LiveWorld, identities: Identities = Identities.EVERYONE
) -> tuple[list[Client], list[Membership]]:
    """Alice, who made the room, Bob and Cathy, of three providers."""
    alice = await live.person("alice", "a.example")
    bob, cathy = await live.person("bob", "b.example"), await live.person("cathy", "c.example")
    room = await alice.rooms.create(identities)
    rooms = [room]
    for other in (bob, cathy):
        ours, theirs = await connect(alice, other)
        await other.key_packages.publish(theirs)
        await alice.rooms.add(room, [ours])
        rooms.append(await invited(other))
    await until_epoch(bob, rooms[1], room.room.epoch)
    await until_epoch(cathy, rooms[2], room.room.epoch)
    return [alice, bob, cathy], rooms


async def until_members(client: Client, joined: Membership, count: int) -> None:
    while len(joined.room.members.identities) != count:
        await client.rooms.sync(joined, wait=5)


async def test_who_leaves_is_taken_out_by_another_member(live: LiveWorld) -> None:
    (alice, bob, cathy), (room, at_bob, at_cathy) = await room_of(live)
    await bob.rooms.leave(at_bob)
    await until_members(cathy, at_cathy, 3)
    await until_members(alice, room, 2)
    await until_members(cathy, at_cathy, 2)
    while not at_bob.room.removed:
        await bob.rooms.sync(at_bob, wait=5)
    assert at_cathy.problems == ()
    assert at_cathy.room.tree_hash == room.room.tree_hash
    await bob.rooms.forget(at_bob)
    assert at_bob.uri not in bob.rooms
    with pytest.raises(NotAllowed, match="only admin"):
        await alice.rooms.leave(room)
    await alice.rooms.make_admin(room, at_cathy.leaf.identity.credential.user_pseudonym)
    await until_epoch(cathy, at_cathy, room.room.epoch)
    await alice.rooms.leave(room)
    await until_members(cathy, at_cathy, 1)
    await cathy.rooms.leave(at_cathy)
    assert at_cathy.uri not in cathy.rooms


async def test_a_departure_is_answered_by_whoever_comes_first(live: LiveWorld) -> None:
    (alice, bob, cathy), (room, at_bob, at_cathy) = await room_of(live)
    await bob.rooms.leave(at_bob)
    while not at_cathy.departures:
        await cathy.rooms.sync(at_cathy, wait=5)
    assert len(at_cathy.room.members.identities) == 3  # it falls to Alice, who is away
    await cathy.tend()
    assert len(at_cathy.room.members.identities) == 2
    await until_members(alice, room, 2)
    assert (room.departures, room.problems) == ({}, ())


async def test_a_room_full_of_members_who_cannot_be_read_is_joined_all_the_same(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    await bob.key_packages.publish(to_alice)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    malformed = dict.fromkeys(range(2, 1500), "the credential is malformed")
    monkeypatch.setattr(Room, "problems", property(lambda _: malformed))
    at_bob = await invited(bob)
    assert len(at_bob.problems) == MAX_PROBLEMS
    assert at_bob.problems[-1] == "leaf 1499: the credential is malformed"
    again = live.restarted(bob).rooms[room.uri]
    assert again.problems == at_bob.problems


async def test_a_name_is_for_members_only(live: LiveWorld) -> None:
    (alice, bob, _), (room, at_bob, _) = await room_of(live)
    await alice.rooms.rename(room, "the garden", topic="bulbs")
    while at_bob.room.members_only.state.name != "the garden":
        await bob.rooms.sync(at_bob, wait=5)
    await bob.rooms.rename(at_bob, "the orchard")
    while room.room.members_only.state.name != "the orchard":
        await alice.rooms.sync(room, wait=5)
    assert room.room.members_only.state.topic == "bulbs"
    state = await live.providers["a.example"].hub_store.load(room.uri)
    assert b"orchard" not in repr(state).encode()
    restarted = live.restarted(bob)
    assert restarted.rooms[room.uri].room.members_only.state.name == "the orchard"


async def test_somebody_joins_by_a_link(live: LiveWorld) -> None:
    alice, dave = await live.person("alice", "a.example"), await live.person("dave", "b.example")
    room = await alice.rooms.create(name="open house")
    link = await alice.rooms.links.create(room, lifetime=3600, uses=1)

    async def at_home() -> None:
        while len(room.room.members.identities) < 2:
            await alice.rooms.sync(room, wait=5)

    joined, _ = await asyncio.gather(dave.rooms.join(link.uri, wait=30), at_home())
    assert joined.room.members_only.state.name == "open house"
    assert [entry.standing for entry in alice.rooms.who(room)] == [Standing.VERIFIED] * 2
    await dave.rooms.send(joined, "hello")
    while not room.messages:
        await alice.rooms.sync(room, wait=5)
    sender = room.messages.popleft().sender.member
    assert sender is not None
    assert sender.device.user == dave.user
    with pytest.raises(RoomError, match="already"):
        await dave.rooms.join(link)
    erin = await live.person("erin", "c.example")
    with pytest.raises(JoinRefused):
        await erin.rooms.join(link, wait=1)
    with pytest.raises(InvalidUri):
        await erin.rooms.join("mimi-join:nonsense")


async def test_links_end_when_they_are_revoked_and_when_somebody_is_removed(live: LiveWorld) -> None:
    (alice, bob, _), (room, at_bob, at_cathy) = await room_of(live)
    erin = await live.person("erin", "c.example")
    revoked = await bob.rooms.links.create(at_bob, uses=5)
    await bob.rooms.links.revoke(at_bob)
    ended = await bob.rooms.links.create(at_bob, uses=5)
    await until_epoch(alice, room, at_bob.room.epoch)
    await alice.rooms.remove(room, [at_cathy.room.own_leaf])
    for link in (revoked, ended):
        with pytest.raises(JoinRefused):
            await erin.rooms.join(link, wait=1)
    assert room.room.members_only.state.links == ()


@pytest.mark.parametrize("who", ["a member", "the admin"])
async def test_a_pseudonym_changes_and_the_person_stays(live: LiveWorld, who: str) -> None:
    (alice, bob, cathy), (room, at_bob, at_cathy) = await room_of(live)
    client, joined = (alice, room) if who == "the admin" else (bob, at_bob)
    old = joined.leaf.identity.credential.user_pseudonym
    role = joined.room.policy.policy.role(old)
    await cathy.rooms.send(at_cathy, "before")
    await client.rooms.change_pseudonym(joined)
    new = joined.leaf.identity.credential.user_pseudonym
    await until_epoch(cathy, at_cathy, joined.room.epoch)
    people = {entry.member.device.user: entry for entry in cathy.rooms.who(at_cathy) if entry.member}
    assert set(people) == {alice.user, bob.user, cathy.user}
    assert (old != new, people[client.user].user, people[client.user].role) == (True, new, role)
    assert joined.room.policy.policy.role(old) is Role.MEMBER
    assert [message.text for message in joined.messages] == ["before"]
    assert at_cathy.problems == ()
    await client.rooms.send(joined, "still me")
    while "still me" not in [message.text for message in at_cathy.messages]:
        await cathy.rooms.sync(at_cathy, wait=5)
    restarted = live.restarted(client)
    await restarted.rooms.send(restarted.rooms[room.uri], "and again")
    while "and again" not in [message.text for message in at_cathy.messages]:
        await cathy.rooms.sync(at_cathy, wait=5)


async def two_rooms_by_a_last_resort(alice: Client, bob: Client) -> tuple[list[Membership], list[Membership]]:
    """Rooms of Alice's that Bob is in by one KeyPackage: as she has them, and as he has them, in any order."""
    to_bob, to_alice = await connect(alice, bob)
    await bob.key_packages.publish(to_alice, last_resort=True)
    rooms = [await alice.rooms.create() for _ in range(2)]
    for room in rooms:
        await alice.rooms.add(room, [to_bob])
    (used,) = (item for item in bob.key_packages.outstanding if item.last_resort)
    welcomes = 0
    while welcomes < 2:  # both rooms have to be joined before one of them is stored
        welcomes = len((await Queues(bob.path).collect(used.queue.token, 0, 5)).messages)
    joined = await bob.rooms.check_invitations()
    assert len(joined) == 2
    return rooms, joined


async def test_a_last_resort_that_was_used_twice_is_replaced_and_its_rooms_told_apart(
    live: LiveWorld,
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    rooms, joined = await two_rooms_by_a_last_resort(alice, bob)
    first, second = joined
    assert first.leaf.identity == second.leaf.identity  # what two hubs could compare
    assert first.place.change_pseudonym
    assert second.place.change_pseudonym
    await alice.rooms.send(rooms[0], "in one")
    await alice.rooms.send(rooms[1], "in the other")
    while not (first.messages and second.messages):
        await bob.rooms.sync(first, wait=5)
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
        assert {entry.member.device.user for entry in alice.rooms.who(room) if entry.member} == {
            alice.user,
            bob.user,
        }
        assert len(alice.rooms.who(room)) == 2
        await bob.rooms.send(at_bob, "moved")
        while not room.messages:
            await alice.rooms.sync(room, wait=5)
        assert room.messages.popleft().text == "moved"


async def test_a_hidden_member_shows_itself_when_it_wants_to(live: LiveWorld) -> None:
    (alice, bob, _), (room, at_bob, _) = await room_of(live, Identities.NOBODY)
    assert {entry.standing for entry in alice.rooms.who(room)} == {Standing.HIDDEN}
    await bob.rooms.reveal(at_bob)
    await until_epoch(alice, room, at_bob.room.epoch)
    shown = {entry.leaf: entry for entry in alice.rooms.who(room)}
    assert [entry.standing for entry in shown.values()].count(Standing.VERIFIED) == 1
    member = shown[at_bob.room.own_leaf].member
    assert member is not None
    assert member.device.user == bob.user


async def test_a_name_is_renewed_before_it_expires(live: LiveWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    (alice, bob, _), (room, at_bob, _) = await room_of(live)
    old, chain = at_bob.leaf.identity.credential, bob.account.me.credential.chain
    await bob.tend()
    assert (at_bob.leaf.identity.credential, bob.account.me.credential.chain) == (old, chain)
    monkeypatch.setattr(account, "CERTIFICATE_RENEWAL", 100 * 86400)  # as if most of its time were over
    monkeypatch.setattr(pseudonyms, "CREDENTIAL_RENEWAL", 100 * 86400)
    await bob.account.renew_certificate()
    await bob.rooms.pseudonyms.change_due()
    assert bob.account.me.credential.chain != chain
    assert at_bob.leaf.identity.credential.user_pseudonym != old.user_pseudonym
    await until_epoch(alice, room, at_bob.room.epoch)
    assert {entry.standing for entry in alice.rooms.who(room)} == {Standing.VERIFIED}
