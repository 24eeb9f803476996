"""Contacts, members and hubs that turn bad, vaults that fail, and processes that end between two steps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from mimi_mmr.client import Client, History, Membership
from mimi_mmr.client.rooms.commits import HEAL
from mimi_mmr.client.rooms.lost_keys import MOST_STRAYS, AddAgain
from mimi_mmr.client.rooms.membership import Occurrence
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.client.transport.read_queues import Position
from mimi_mmr.errors import (
    MmrError,
    NotAllowed,
    PeerError,
    PrivatePathFailed,
    RoomError,
    StateError,
    UnknownQueue,
)
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.whois import Standing, Whois
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.queues import QueuedMessage, QueuePage
from mimi_mmr.protocol.room.departures import Departure, sign_departure
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.protocol.room.policy import Identities, Role
from mimi_mmr.uris import Kind, random_uri
from tests.mimi_mmr.client.rooms.test_places_in_rooms import (
    room_of,
    two_rooms_by_a_last_resort,
    until_members,
)
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch


async def pair(
    live: LiveWorld, identities: Identities = Identities.EVERYONE
) -> tuple[Client, Client, Membership, Membership]:
    """Alice's room with Bob in it, whose shelf is full."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    await bob.tend()
    room = await alice.rooms.create(identities)
    await alice.rooms.add(room, [to_bob])
    return alice, bob, room, await invited(bob)


def pseudonym(joined: Membership) -> Any:
    return joined.leaf.identity.credential.user_pseudonym


async def asks_to_be_added(who: Client, whom: Client, room: Membership, departure: Departure) -> None:
    """Send such a request in the room of the two, and have it read there."""
    connection = who.rooms[who.people.contacts[whom.user].room]  # type: ignore[index]
    request = AddAgain(room.uri, departure)
    await who.rooms.send(connection, Content(ContentKind.ADD_AGAIN, request.to_bytes()))
    await who.rooms.send(connection, "sent")
    there = whom.rooms[connection.uri]
    while not there.messages:
        await whom.rooms.sync(there, wait=5)
    there.messages.popleft()


def losing(client: Client, count: int, *, answered: bool = True) -> None:
    """The first `count` commits of a client have no answer, whether or not the hub takes them."""
    update, lost = client.rooms.delivery.send, list[Any]()

    async def loses(joined: Membership, pending: Any) -> None:
        if len(lost) < count:
            lost.append(pending)
            if answered:
                await update(joined, pending)
            raise PrivatePathFailed("the answer is lost")
        await update(joined, pending)

    client.rooms.delivery.send = loses  # type: ignore[method-assign]


# --- contacts who want to be added again ---------------------------------------------------------------------


async def test_nobody_gets_into_a_room_by_asking_to_be_added_again(live: LiveWorld) -> None:
    alice, mallory, room, at_mallory = await pair(live)
    departure = at_mallory.room.departure()
    await alice.rooms.remove(room, [at_mallory.room.own_leaf])
    other = await alice.rooms.create()
    client = other.leaf.identity.credential.client_pseudonym
    forged = sign_departure(other.uri, client, at_mallory.leaf.key)
    await asks_to_be_added(mallory, alice, room, departure)  # removed: its leaf is gone
    await asks_to_be_added(mallory, alice, other, forged)  # never there
    assert not alice.rooms.adding_again.requests()
    connection = alice.rooms[alice.people.contacts[mallory.user].room]  # type: ignore[index]
    assert len(connection.problems) == 2
    await alice.tend()
    assert [len(one.room.members.identities) for one in (room, other)] == [1, 1]


async def test_a_contact_asks_for_no_leaf_but_its_own_and_in_no_other_room(live: LiveWorld) -> None:
    (alice, _, cathy), (room, at_bob, at_cathy) = await room_of(live)
    await asks_to_be_added(cathy, alice, room, at_bob.room.departure())
    request = AddAgain(room.uri, at_cathy.room.departure())
    await cathy.rooms.send(at_cathy, Content(ContentKind.ADD_AGAIN, request.to_bytes()))
    while not room.problems:
        await alice.rooms.sync(room, wait=5)
    assert not alice.rooms.adding_again.requests()
    await alice.tend()
    assert len(room.room.members.identities) == 3


@pytest.mark.parametrize("identities", [Identities.EVERYONE, Identities.NOBODY])
async def test_who_was_added_is_added_again_once_whenever_the_process_ends(
    live: LiveWorld, identities: Identities
) -> None:
    alice, bob, room, at_bob = await pair(live, identities)
    departure = at_bob.room.departure()
    await bob.rooms.forget(at_bob)  # as if its keys were lost
    await asks_to_be_added(bob, alice, room, departure)
    assert alice.rooms.adding_again.requests()
    losing(alice, 1)
    await alice.rooms.adding_again.add_again()  # the leaf is out, and nobody knows
    alice = live.restarted(alice)
    add = alice.rooms.adding.add

    async def dies(joined: Membership, contacts: Any) -> None:
        await add(joined, contacts)
        raise KeyboardInterrupt

    alice.rooms.adding.add = dies  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        await alice.rooms.adding_again.add_again()
    alice = live.restarted(alice)
    room = alice.rooms[room.uri]
    await alice.tend()
    assert not alice.rooms.adding_again.requests()
    assert len(room.room.members.identities) == 2
    assert (await invited(bob)).uri == room.uri
    assert any("was added again" in notice.text for notice in alice.notices)


async def test_who_was_removed_meanwhile_is_not_added_again(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    await asks_to_be_added(bob, alice, room, at_bob.room.departure())
    await alice.rooms.remove(room, [at_bob.room.own_leaf])
    await alice.tend()
    assert len(room.room.members.identities) == 1
    assert any("which failed" in notice.text for notice in alice.notices)


async def test_who_was_added_is_not_added_twice_after_a_lost_answer(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    await bob.tend()
    for identities in (Identities.EVERYONE, Identities.NOBODY):
        room = await alice.rooms.create(identities)
        losing(alice, 1)
        with pytest.raises(PrivatePathFailed):
            await alice.rooms.add(room, [to_bob])
        await alice.rooms.add(room, [to_bob])
        assert len(room.room.members.identities) == 2


# --- changing a pseudonym ------------------------------------------------------------------------------------


async def test_an_admin_changes_its_pseudonym_while_the_background_looks(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    commit, looks = alice.rooms.commits.commit, []

    async def beside(joined: Membership, intent: CommitIntent = HEAL) -> bool:
        done = await commit(joined, intent)
        if intent.adds:  # a look that begins between two steps
            looks.append(asyncio.create_task(alice.rooms.check_invitations(wait=5)))
            await asyncio.sleep(0)
        return done

    alice.rooms.commits.commit = beside  # type: ignore[method-assign]
    old = pseudonym(room)
    await alice.rooms.change_pseudonym(room)
    await asyncio.gather(*looks)
    assert pseudonym(room) != old
    assert [room.room.policy.policy.role(one) for one in (old, pseudonym(room))] == [Role.MEMBER, Role.ADMIN]
    assert len(room.room.members.identities) == 2
    await until_epoch(bob, at_bob, room.room.epoch)
    assert at_bob.problems == ()


async def test_a_late_welcome_is_followed_and_the_old_leaf_goes(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob, room, at_bob = await pair(live)
    look = bob.rooms.invitations.look

    async def late(waiting: Any, wait: float) -> list[Any]:
        return []

    bob.rooms.invitations.look = late  # type: ignore[method-assign]
    with pytest.raises(RoomError, match="has not come"):
        await bob.rooms.change_pseudonym(at_bob)
    bob.rooms.invitations.look = look  # type: ignore[method-assign]
    while not await bob.rooms.check_invitations(wait=5):
        pass
    bob = live.restarted(bob)
    at_bob = bob.rooms[at_bob.uri]
    await bob.rooms.leaving.answer(at_bob)
    assert len(at_bob.room.members.identities) == 2
    await until_members(alice, room, 2)


async def test_the_old_leaf_goes_although_the_process_ended_before(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    old = pseudonym(at_bob)

    def dies(joined: Membership) -> None:
        raise KeyboardInterrupt

    bob.rooms.memberships.entered.insert(0, dies)
    with pytest.raises(KeyboardInterrupt):
        await bob.rooms.change_pseudonym(at_bob)
    bob = live.restarted(bob)
    at_bob = bob.rooms[at_bob.uri]
    assert pseudonym(at_bob) != old
    await bob.tend()
    assert len(at_bob.room.members.identities) == 2
    await until_members(alice, room, 2)


# --- roles of those who have gone ----------------------------------------------------------------------------


async def test_a_removed_admin_is_no_admin_when_it_comes_back(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    await alice.rooms.make_admin(room, pseudonym(at_bob))
    await alice.rooms.remove(room, [at_bob.room.own_leaf])
    assert room.room.policy.policy.role(pseudonym(at_bob)) is Role.MEMBER
    (package,) = await bob.key_packages.maker.make([at_bob.leaf.set_key])
    await alice.rooms.commits.commit(room, CommitIntent(adds=(package.open,)))
    assert len(room.room.members.identities) == 2
    assert room.room.policy.policy.role(pseudonym(at_bob)) is Role.MEMBER


async def test_an_admin_whom_a_member_took_out_comes_back_by_an_admin_only(live: LiveWorld) -> None:
    (alice, bob, cathy), (room, at_bob, at_cathy) = await room_of(live)
    await alice.rooms.make_admin(room, pseudonym(at_bob))
    for client, joined in ((bob, at_bob), (cathy, at_cathy)):
        await until_epoch(client, joined, room.room.epoch)
    await cathy.rooms.commits.commit(at_cathy, CommitIntent(departures=(at_bob.room.departure(),)))
    assert at_cathy.room.policy.policy.role(pseudonym(at_bob)) is Role.ADMIN  # Cathy may not change that
    packages = await bob.key_packages.maker.make([at_bob.leaf.set_key] * 2)
    with pytest.raises(NotAllowed, match="has a role already"):
        await cathy.rooms.commits.commit(at_cathy, CommitIntent(adds=(packages[0].open,)))
    await until_epoch(alice, room, at_cathy.room.epoch)
    await alice.rooms.commits.commit(room, CommitIntent(adds=(packages[1].open,)))
    assert room.room.policy.policy.role(pseudonym(at_bob)) is Role.MEMBER


async def test_an_admin_who_leaves_gives_its_role_up(live: LiveWorld) -> None:
    (alice, bob, _), (room, at_bob, _) = await room_of(live)
    await alice.rooms.make_admin(room, pseudonym(at_bob))
    await until_epoch(bob, at_bob, room.room.epoch)
    await bob.rooms.leave(at_bob)
    await until_members(alice, room, 2)
    assert room.room.policy.policy.privileged == {pseudonym(room)}


# --- members and hubs that say too much ----------------------------------------------------------------------


async def test_copies_of_a_departure_count_once(live: LiveWorld) -> None:
    (_, bob, cathy), (_, at_bob, at_cathy) = await room_of(live)
    departure = at_bob.room.departure()
    for _ in range(3):
        await bob.rooms.send(at_bob, Content(ContentKind.DEPARTURE, departure.to_bytes()))
    await bob.rooms.send(at_bob, "gone")
    while not at_cathy.messages:
        await cathy.rooms.sync(at_cathy, wait=5)
    assert list(at_cathy.departures.values()) == [departure]


@pytest.mark.parametrize("last_resort", [False, True])
async def test_a_hub_makes_nobody_speak_in_another_room_at_once(live: LiveWorld, last_resort: bool) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    await bob.key_packages.publish(to_alice, last_resort=last_resort)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    at_bob = await invited(bob)
    assert at_bob.place.last_resort == last_resort
    sent, send = [], bob.rooms.sending.send

    async def spy(joined: Membership, content: Content | str) -> None:
        sent.append(joined.uri)
        await send(joined, content)

    bob.rooms.sending.send = spy  # type: ignore[method-assign]
    elsewhere = [random_uri("a.example", Kind.ROOM, bytes([n] * 16)) for n in range(MOST_STRAYS + 4)]
    for uri in [*elsewhere, *elsewhere]:
        stray = FanoutMessage(uri, 1, 0, EventKind.WELCOME, b"").to_bytes()
        await bob.rooms.take_page(at_bob, QueuePage(0, (QueuedMessage(at_bob.acknowledged + 1, stray),)))
    assert sent == []
    bob = live.restarted(bob)
    bob.rooms.sending.send = spy  # type: ignore[method-assign]
    for _ in range(2):
        await bob.rooms.lost_keys.ask_for_strays()
    assert sent == ([to_alice.room] * MOST_STRAYS if last_resort else [])


async def test_garbage_of_a_hub_does_not_end_a_membership(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    garbage = FanoutMessage(room.uri, 1 << 40, 0, EventKind.COMMIT, b"garbage").to_bytes()
    await bob.rooms.take_page(at_bob, QueuePage(0, (QueuedMessage(at_bob.acknowledged + 1, garbage),)))
    assert at_bob.desynchronised
    at_bob.queue.position = Position(at_bob.acknowledged - 1)
    await alice.rooms.heal(room)
    await until_epoch(bob, at_bob, room.room.epoch)
    assert not at_bob.desynchronised


async def test_a_lost_place_is_not_taken_by_any_contact(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    await bob.rooms.sync(at_bob)
    at_bob.occurred(Occurrence.COMMIT_MISSED)
    strange = await alice.rooms.create()
    assert at_bob.room.knows(room.room, room.room.own_leaf)
    assert not at_bob.room.knows(strange.room, strange.room.own_leaf)
    await alice.rooms.remove(room, [at_bob.room.own_leaf])
    await alice.rooms.add(room, [alice.people.contacts[bob.user]])
    assert await invited(bob) is at_bob  # Alice is known from there
    assert not at_bob.desynchronised


@pytest.mark.parametrize("reaches_the_hub", [False, True])
async def test_a_hub_that_does_not_answer_stops_its_own_room_only(
    live: LiveWorld, reaches_the_hub: bool
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    rooms, _ = await two_rooms_by_a_last_resort(alice, bob)
    stuck, other = (bob.rooms[room.uri] for room in rooms)
    for room, at_bob in zip(rooms, (stuck, other), strict=True):
        await until_epoch(bob, at_bob, room.room.epoch)
    losing(bob, 1, answered=reaches_the_hub)
    with pytest.raises(PrivatePathFailed):
        await bob.rooms.heal(stuck)

    async def away(joined: Membership, pending: Any) -> None:
        raise PeerError("internal", "no answer")

    update, bob.rooms.delivery.send = bob.rooms.delivery.send, away  # type: ignore[method-assign]
    if reaches_the_hub:
        await until_epoch(alice, rooms[0], stuck.room.epoch + 1)
    else:
        await alice.rooms.heal(rooms[0])
    await alice.rooms.send(rooms[0], "in the one")
    await alice.rooms.send(rooms[1], "in the other")
    while not other.messages:
        await bob.rooms.sync(stuck, wait=5)
    assert (stuck.place.pending is not None) == reaches_the_hub
    bob.rooms.delivery.send = update  # type: ignore[method-assign]
    while not stuck.messages:
        await bob.rooms.sync(other, wait=5)
    assert [[message.text for message in one.messages] for one in (stuck, other)] == [
        ["in the one"],
        ["in the other"],
    ]
    assert stuck.place.pending is None
    assert not stuck.desynchronised


async def test_a_request_to_join_waits_until_the_hub_is_there(live: LiveWorld) -> None:
    alice, dave = await live.person("alice", "a.example"), await live.person("dave", "b.example")
    room = await alice.rooms.create()
    link = await alice.rooms.links.create(room, lifetime=3600, uses=1)
    losing(alice, 1, answered=False)
    joining = asyncio.create_task(dave.rooms.join(link.uri, wait=30))
    while not alice.rooms.links.requests(room):
        await alice.rooms.sync(room, wait=5)
    assert len(room.room.members.identities) == 1
    alice = live.restarted(alice)
    room = alice.rooms[room.uri]
    await alice.tend()
    assert (await joining).uri == room.uri
    assert not alice.rooms.links.requests(room)
    await alice.rooms.forget(room)
    assert not alice.rooms.links.requests(room)


# --- a vault that fails --------------------------------------------------------------------------------------


async def test_what_the_vault_did_not_take_comes_again(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    await alice.rooms.send(room, "one")
    await alice.rooms.heal(room)
    keep, failures = bob.rooms.memberships.queues.save, []

    def full(inbox: Any) -> None:
        failures.append(inbox)
        bob.rooms.memberships.queues.save = keep  # type: ignore[method-assign]
        raise StateError("no room left")

    bob.rooms.memberships.queues.save = full  # type: ignore[method-assign]
    with pytest.raises(StateError):
        while not failures:
            await bob.rooms.sync(at_bob, wait=5)
    assert len(at_bob.messages) == 0
    await alice.rooms.send(room, "two")
    while len(at_bob.messages) < 2:
        await bob.rooms.sync(at_bob, wait=5)
    await bob.rooms.send(at_bob, "three")
    bob = live.restarted(bob)
    at_bob = bob.rooms[room.uri]
    assert [message.text for message in at_bob.messages.since(0)] == ["one", "two", "three"]
    assert at_bob.problems == ()
    await alice.rooms.send(room, "four")
    while len(at_bob.messages) < 3:
        await bob.rooms.sync(at_bob, wait=5)


async def test_a_commit_that_the_vault_did_not_take_is_as_if_it_had_not_been_made(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    keep, before = alice.rooms.memberships.save, room.room.epoch

    for place in (1, 2):  # as it is staged, and as its answer comes
        calls: list[Membership] = []

        def full(joined: Membership, place: int = place, calls: list[Membership] = calls) -> None:
            calls.append(joined)
            if len(calls) == place:
                raise StateError("no room left")
            keep(joined)

        alice.rooms.memberships.save = full  # type: ignore[method-assign]
        with pytest.raises(StateError):
            await alice.rooms.heal(room)
        assert room.room.epoch == before
        alice.rooms.memberships.save = keep  # type: ignore[method-assign]
    await alice.rooms.send(room, "settled")
    assert room.room.epoch == before + 1
    while not at_bob.messages:
        await bob.rooms.sync(at_bob, wait=5)
    assert at_bob.room.tree_hash == room.room.tree_hash


async def test_a_client_whose_vault_can_not_be_read_any_more_goes_no_further(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    await alice.rooms.send(room, "one")
    acknowledged = at_bob.acknowledged

    def broken(inbox: Any) -> None:
        bob.vault.close()
        raise StateError("no such disk")

    bob.rooms.memberships.queues.save = broken  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(MmrError):
            while True:
                await bob.rooms.sync(at_bob, wait=5)
        assert at_bob.acknowledged == acknowledged


def test_numbers_of_discarded_messages_are_not_given_again() -> None:
    vault, room = Vault.in_memory(), random_uri("a.example", Kind.ROOM, bytes(16))
    user, client = (
        random_uri("a.example", kind, bytes(16)) for kind in (Kind.USER_PSEUDONYM, Kind.CLIENT_PSEUDONYM)
    )
    who = Whois(0, user, client, Role.MEMBER, Standing.HIDDEN)
    history = History(vault, room)
    for number in range(3):
        history.append(who, Content.text(str(number)), number)
    history.discard(3)
    assert History(vault, room).append(who, Content.text("new"), 9).number == 4
    assert [message.text for message in History(vault, room)] == ["new"]


# --- packages and requests to connect ------------------------------------------------------------------------


async def test_connection_packages_are_published_once_before_the_old_ones_expire(live: LiveWorld) -> None:
    ahead = 0.0
    alice = live.client("alice", "a.example", clock=lambda: time.time() + ahead)
    await alice.register()
    ahead = 24 * 86400
    made = []
    for _ in range(3):
        await alice.people.connection_packages.tend()
        made.append(len(alice.people.connection_packages))
    assert made == [10, 10, 10]


async def test_a_second_request_to_connect_takes_the_place_of_the_first(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    first = await alice.people.request_connection(bob.contact_code)
    second = await alice.people.request_connection(bob.contact_code)
    assert alice.people.outgoing == {bob.user: second}
    assert list(alice.vault.table("outgoing")) == [second.request.hash]
    assert second.request.content.expiry % 300 == 0
    with pytest.raises(UnknownQueue):
        await Queues(alice.path).collect(first.inbox, 0, 0.0)


async def test_a_hub_whose_times_are_of_the_far_future_stops_no_reading(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    live.providers[to_bob.room.domain].hub._clock = lambda: 2.0**53  # type: ignore[union-attr]
    await alice.rooms.send(alice.rooms[to_bob.room], Content.text("hello"))  # type: ignore[index]
    room = bob.rooms[to_alice.room]  # type: ignore[index]
    while not len(room.messages):
        await bob.rooms.sync(room, wait=5)
    assert [message.received <= time.time() for message in room.messages] == [True]
