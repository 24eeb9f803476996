"""One user, several devices: one pseudonym in every room, the same contacts, and a way to shut one out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.devices.device_code import DeviceCode
from mimi_mmr.errors import InvalidUri, MmrError, NoKeyPackages, RoomError, Unauthorized, UnknownQueue
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.room.policy import Identities
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch


class Rounds:
    """What agents do for their clients, round after round; something may be awaited after each."""

    def __init__(self, *clients: Client) -> None:
        self._tasks = [asyncio.create_task(self._follow(client)) for client in clients]
        self._done = asyncio.Condition()

    async def _follow(self, client: Client) -> None:
        while True:
            await client.rooms.check_invitations()
            for joined in list(client.rooms.values()):
                if not joined.room.removed:
                    await client.rooms.sync(joined)
            await client.tend()
            async with self._done:
                self._done.notify_all()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait for something; an error in an agent is raised here."""
        async with self._done:
            while not holds():
                for task in self._tasks:
                    if task.done():
                        task.result()
                await self._done.wait()

    async def until_in(self, client: Client, room: Membership) -> Membership:
        """Until a client is in a room that others have."""
        await self.until(lambda: room.uri in client.rooms)
        return client.rooms[room.uri]

    async def until_heard(self, joined: Membership, text: str) -> None:
        await self.until(lambda: text in heard(joined))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def running(*clients: Client) -> AsyncIterator[Rounds]:
    rounds = Rounds(*clients)
    try:
        yield rounds
    finally:
        await rounds.close()


async def second_device(live: LiveWorld, first: Client, name: str = "tablet", **options: Any) -> Client:
    """A further device of the user of `first`, by a code."""
    invitation = await first.devices.invite()
    second = live.client(first.user.name, first.user.domain, device=name, **options)

    async def existing() -> None:
        while not await first.devices.tend_invitation(invitation, wait=5):
            pass

    await asyncio.gather(existing(), second.devices.join_account(invitation.code, wait=30))
    assert invitation.device == second.device.name
    return second


def heard(joined: Membership) -> list[str]:
    return [message.text for message in joined.messages.since(0)]


async def test_a_device_is_enrolled_with_a_code_and_knows_what_the_first_knows(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    tablet = await second_device(live, alice)
    assert tablet.contact_code == alice.contact_code
    assert await alice.account.registered_devices() == ["alice-phone", "alice-tablet"]
    room = tablet.devices.room
    assert room is not None
    while bob.user not in tablet.people.contacts:
        await tablet.rooms.sync(room, wait=5)
    same = tablet.people.contacts[bob.user]
    assert (same.own_key, same.theirs) == (to_bob.own_key, to_bob.theirs)
    assert alice.devices.names() == tablet.devices.names() == ["alice-phone", "alice-tablet"]


async def test_all_devices_are_in_a_room_under_one_pseudonym(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    before = await alice.rooms.create(name="before")
    tablet = await second_device(live, alice)
    async with running(alice, tablet) as agents:
        at_tablet = await agents.until_in(tablet, before)  # a room that was there before the device
        connection = await agents.until_in(tablet, alice.rooms[to_bob.room])  # type: ignore[index]
        assert connection.uri == to_alice.room
        made = await tablet.rooms.create()
        await agents.until_in(alice, made)
        await agents.until(
            lambda: not (len(alice.rooms.who(before)) < 2 or before.room.epoch != at_tablet.room.epoch)
        )
    assert at_tablet.room.members_only.state.name == "before"
    users = {entry.user for entry in alice.rooms.who(before)}
    people = {entry.member.device.device.name for entry in alice.rooms.who(before) if entry.member}
    assert (len(users), people) == (1, {"alice-phone", "alice-tablet"})


async def test_a_set_is_completed_device_by_device_and_its_claimer_adds_them_all(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    _, to_alice = await connect(alice, bob)
    tablet = await second_device(live, alice)
    async with running(alice, tablet) as agents:
        await agents.until(lambda: len(alice.people.contacts) == len(tablet.people.contacts))
        await alice.key_packages.publish(alice.people.contacts[bob.user])
        room = await bob.rooms.create()
        while True:
            packages = await bob.key_packages.claim(to_alice, "b.example")
            if len(packages) == 2:  # an earlier set may be of one device only
                break
        await bob.rooms.commits.commit(room, CommitIntent(adds=tuple(packages)))
        at_phone, at_tablet = await agents.until_in(alice, room), await agents.until_in(tablet, room)
        await bob.rooms.send(room, "to both")
        await agents.until_heard(at_phone, "to both")
        await agents.until_heard(at_tablet, "to both")
        await tablet.rooms.send(at_tablet, "from one")
        await agents.until_heard(at_phone, "from one")
    while "from one" not in heard(room):
        await bob.rooms.sync(room, wait=5)
    assert len({entry.user for entry in bob.rooms.who(room)}) == 2
    assert len(bob.rooms.who(room)) == 3


@pytest.mark.parametrize("identities", [Identities.EVERYONE, Identities.NOBODY])
async def test_a_lost_device_is_shut_out_everywhere(live: LiveWorld, identities: Identities) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    tablet = await second_device(live, alice)
    room = await alice.rooms.create(identities)
    async with running(alice, tablet) as agents:
        at_tablet = await agents.until_in(tablet, room)
        await agents.until(lambda: not (len(alice.rooms.who(room)) < 2))
        await agents.until_in(tablet, alice.rooms[to_bob.room])  # type: ignore[index]
    known = tablet.people.contacts[bob.user].own_key
    old = to_alice.theirs
    assert old is not None
    await alice.devices.remove("alice-tablet")

    assert alice.devices.names() == ["alice-phone"]
    with pytest.raises(Unauthorized):
        await tablet.account.registered_devices()
    for joined in list(tablet.rooms.values()):
        while not joined.room.removed:
            await tablet.rooms.sync(joined, wait=5)
    assert at_tablet.room.removed
    assert [entry.client for entry in alice.rooms.who(room)] == [
        room.leaf.identity.credential.client_pseudonym
    ]
    assert to_bob.own_key != known
    connection = bob.rooms[to_alice.room]  # type: ignore[index]
    while to_alice.theirs == old:
        await bob.rooms.sync(connection, wait=5)
    to_alice.theirs, new = old, to_alice.theirs
    with pytest.raises(NoKeyPackages):  # the shelf that the lost device could fill or read
        await bob.key_packages.claim(to_alice, "b.example")
    to_alice.theirs = new
    joined = await bob.rooms.create()
    await bob.rooms.add(joined, [to_alice])
    assert (await invited(alice)).uri == joined.uri


async def test_a_device_code_is_good_for_one_device(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    invitation = await alice.devices.invite()
    with pytest.raises(InvalidUri):
        DeviceCode.parse(invitation.code[:-1] + ("A" if invitation.code[-1] != "A" else "B"))
    with pytest.raises(InvalidUri):
        DeviceCode.parse("not a code")
    stranger = live.client("alice", "a.example", device="other")
    with pytest.raises(UnknownQueue):
        await stranger.devices.join_account(DeviceCode.generate().reveal(), wait=1)
    mistyped = invitation.code.lower().replace("-", " ")
    assert DeviceCode.parse(mistyped).bits == DeviceCode.parse(invitation.code).bits
    tablet = live.client("alice", "a.example", device="tablet")
    joining = asyncio.create_task(tablet.devices.join_account(mistyped, wait=30))
    while not await alice.devices.tend_invitation(invitation, wait=5):
        pass
    await joining
    with pytest.raises(MmrError):
        await live.client("alice", "a.example", device="third").devices.join_account(invitation.code, wait=1)


async def test_a_device_that_restarts_goes_on(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    await connect(alice, bob)
    tablet = await second_device(live, alice)
    tablet, alice = live.restarted(tablet), live.restarted(alice)
    async with running(alice, tablet) as agents:
        room = await alice.rooms.create()
        at_tablet = await agents.until_in(tablet, room)
        await tablet.rooms.send(at_tablet, "still here")
        await agents.until_heard(room, "still here")
    with pytest.raises(RoomError):
        await alice.devices.remove("alice-phone")
    with pytest.raises(RoomError):
        await alice.devices.remove("alice-watch")


async def test_contacts_made_on_one_device_are_known_on_the_other(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    tablet = await second_device(live, alice)
    async with running(alice, tablet, bob) as agents:
        outgoing = await bob.people.request_connection(alice.contact_code)
        while not (requests := await tablet.people.connection_requests()):
            pass
        contact = await tablet.people.accept(requests[0])
        await agents.until(
            lambda: not (bob.user not in alice.people.contacts or alice.user not in bob.people.contacts)
        )
        await agents.until(
            lambda: not (alice.people.contacts[bob.user].theirs is None or contact.room not in alice.rooms)
        )
    assert outgoing.recipient.user == alice.user
    alice.people.only_contacts = True
    await alice.devices.share()
    room = tablet.devices.room
    assert room is not None
    while not tablet.people.only_contacts:
        await tablet.rooms.sync(room, wait=5)
    await until_epoch(tablet, room, alice.devices.room.room.epoch)  # type: ignore[union-attr]
