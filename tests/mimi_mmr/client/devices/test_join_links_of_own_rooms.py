"""A device opens a join link of a room that its user's other device is in: the user keeps one pseudonym there."""

from __future__ import annotations

import asyncio
import time

import pytest

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.devices import package_requests
from mimi_mmr.client.rooms import join_links
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.room.join_links import JoinLink
from mimi_mmr.protocol.room.link_orders import JoinRequest
from mimi_mmr.protocol.room.policy import Identities, Role
from tests.mimi_mmr.client.devices.test_several_devices import running, second_device
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch

SHOWN_OR_NOT = pytest.mark.parametrize(
    "identities", [pytest.param(Identities.EVERYONE, marks=pytest.mark.nightly), Identities.NOBODY]
)


async def room_with_bob(
    live: LiveWorld, identities: Identities
) -> tuple[Client, Client, Client, Membership, Membership]:
    """Alice with a phone and a tablet, and Bob; the phone, an admin, and Bob are in a room."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    await bob.key_packages.publish(to_alice)
    tablet = await second_device(live, alice)
    room = await alice.rooms.create(identities)
    await alice.rooms.add(room, [to_bob])
    return alice, tablet, bob, room, await invited(bob)


async def asks(
    patch: pytest.MonkeyPatch, tablet: Client, link: JoinLink, member: Client, joined: Membership
) -> asyncio.Task[Membership]:
    """The tablet, whose other device is not there, asks to join, until a member has its request."""
    patch.setattr(join_links, "WAIT_SECONDS", 0.5)
    arrived: list[JoinRequest] = []
    member.rooms.reading.join_request.append(lambda _, request: arrived.append(request))
    with patch.context() as away:
        away.setattr(package_requests, "ANSWER_SECONDS", 0.0)
        member.rooms.reading.join_request.append(lambda *_: away.undo())
        joining = asyncio.create_task(tablet.rooms.join(link.uri, wait=60))
        while not arrived:
            await member.rooms.sync(joined, wait=5)
    return joining


async def until_together(alice: Client, room: Membership, tablet: Client, others: int = 0) -> Membership:
    """Until both devices are in the room under the admin's pseudonym, and nobody else but `others`."""
    pseudonym = room.pseudonym
    async with running(alice, tablet) as agents:
        at_tablet = await agents.until_in(tablet, room)
        await agents.until(lambda: at_tablet.pseudonym == pseudonym)
        await agents.until(lambda: len(room.room.members.readable) == 2 + others)
        await agents.until(lambda: at_tablet.room.epoch == room.room.epoch)
        await tablet.rooms.send(at_tablet, "from the tablet")
        await agents.until_heard(room, "from the tablet")
        await alice.rooms.send(room, "from the phone")
        await agents.until_heard(at_tablet, "from the phone")
    assert room.pseudonym == pseudonym
    assert len(room.own_leaves) == 2
    assert room.room.policy.policy.role(pseudonym) is Role.ADMIN
    assert not room.older_copy and not at_tablet.older_copy
    return at_tablet


@SHOWN_OR_NOT
async def test_a_device_that_opens_a_link_is_added_by_the_other_one(
    live: LiveWorld, identities: Identities
) -> None:
    alice = await live.person("alice", "a.example")
    tablet = await second_device(live, alice)
    room = await alice.rooms.create(identities)
    link = await alice.rooms.links.create(room, uses=4)
    async with running(alice):
        at_tablet = await tablet.rooms.join(link.uri, wait=60)
    assert at_tablet.pseudonym == room.pseudonym
    await until_together(alice, room, tablet)
    assert room.room.members_only.state.links[0].uses_left == 4


@SHOWN_OR_NOT
async def test_a_device_knows_the_request_of_another_one(
    live: LiveWorld, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await live.person("alice", "a.example")
    tablet = await second_device(live, alice)
    room = await alice.rooms.create(identities)
    link = await alice.rooms.links.create(room)
    joining = await asks(monkeypatch, tablet, link, alice, room)
    assert {one.user for one in alice.rooms.who(room)} == {room.pseudonym}
    await until_together(alice, room, tablet)
    assert (await joining).pseudonym == room.pseudonym


async def test_a_member_who_sees_who_asks_adds_nobody_twice(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, tablet, bob, room, at_bob = await room_with_bob(live, Identities.EVERYONE)
    link = await alice.rooms.links.create(room)
    await until_epoch(bob, at_bob, room.room.epoch)
    joining = await asks(monkeypatch, tablet, link, bob, at_bob)
    await bob.rooms.links.answer(at_bob)
    assert f"{alice.user} is in the room already" in at_bob.problems[-1]
    assert len(at_bob.room.members.readable) == 2
    await until_together(alice, room, tablet, others=1)
    assert (await joining).pseudonym == room.pseudonym


async def test_of_two_pseudonyms_a_user_keeps_the_admin(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names are hidden, a member who does not see who asks may be the first to answer."""
    alice, tablet, bob, room, at_bob = await room_with_bob(live, Identities.NOBODY)
    link = await alice.rooms.links.create(room)
    await until_epoch(bob, at_bob, room.room.epoch)
    joining = await asks(monkeypatch, tablet, link, bob, at_bob)
    await bob.rooms.links.answer(at_bob)
    at_tablet = await joining
    assert at_tablet.pseudonym != room.pseudonym
    async with running(bob):
        await until_together(alice, room, tablet, others=1)
    assert tablet.rooms[room.uri] is at_tablet


@SHOWN_OR_NOT
async def test_a_removed_device_is_removed_under_every_pseudonym(
    live: LiveWorld, identities: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, tablet, bob, room, at_bob = await room_with_bob(live, identities)
    link = await alice.rooms.links.create(room)
    await until_epoch(bob, at_bob, room.room.epoch)
    joining = await asks(monkeypatch, tablet, link, bob, at_bob)
    (row,) = bob.rooms.links.requests(at_bob).values()
    packages = at_bob.room.join_links.open_request(JoinRequest.from_bytes(row), time.time())
    await bob.rooms.commits.commit(
        at_bob, CommitIntent(adds=tuple(packages))
    )  # as a version without the rule
    at_tablet = await joining
    await tablet.devices.share()
    monkeypatch.setattr(package_requests, "ANSWER_SECONDS", 0.0)  # the tablet does not answer any more
    devices = alice.devices.room
    assert devices is not None
    await alice.rooms.read_all(devices)
    await alice.rooms.read_all(room)
    assert len(room.room.members.readable) == 3
    await alice.devices.remove("alice-tablet")
    assert len(room.room.members.readable) == 2
    while not at_tablet.removed:
        await tablet.rooms.sync(at_tablet, wait=5)


async def test_a_device_never_moves_to_a_leaf_with_a_lower_role(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    room = await alice.rooms.create()
    pseudonym = room.pseudonym
    (package,) = await alice.key_packages.maker.make([SigningKey.generate()])
    alice.key_packages.outstanding.watch(package, room=room.uri)
    await alice.rooms.commits.commit(room, CommitIntent(adds=(package.open,)))
    assert len(room.room.members.readable) == 2
    assert await alice.rooms.check_invitations(wait=5) == []
    assert room.pseudonym == pseudonym
    await alice.tend()
    assert [one.user for one in alice.rooms.who(room)] == [pseudonym]
    await alice.rooms.send(room, "still an admin")
    assert not room.left


async def test_a_device_says_that_it_has_left_a_room(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    tablet = await second_device(live, alice)
    room = await alice.rooms.create()
    assert alice.devices.known.leaf_in(room.uri, "alice-phone") is not None
    await alice.rooms.leave(room)
    await alice.tend()
    devices = tablet.devices.room
    assert devices is not None
    await tablet.rooms.read_all(devices)
    assert tablet.devices.known.leaf_in(room.uri, "alice-phone") is None
    assert "alice-phone" in tablet.devices.names()
