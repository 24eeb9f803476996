"""What is wired: every kind of message has a place, and what the vault does not take is in no part's memory."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest

from mimi_mmr import StateError
from mimi_mmr.client.context import MAX_REFUSALS, Refusals
from mimi_mmr.client.rooms.reading import HISTORY
from mimi_mmr.client.storage.records import SavedShelf
from mimi_mmr.client.storage.shared_state import SharedKind
from mimi_mmr.client.transport.errands import Errand
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import ParseError, PrivatePathFailed, RoomError, UnknownQueue
from mimi_mmr.protocol.content import ContentKind
from mimi_mmr.uris import Kind, random_uri
from tests.mimi_mmr.conftest import LiveWorld, connect


async def test_every_kind_of_message_is_history_or_has_one_who_takes_it(live: LiveWorld) -> None:
    alice = live.client("alice", "a.example")
    handlers = alice.rooms.reading.handlers
    assert set(handlers) | set(HISTORY) == set(ContentKind)
    assert not set(handlers) & set(HISTORY)


def in_memory(client: Any) -> dict[str, Any]:
    """What a client's parts hold of what its vault has."""
    return {
        "shared": list(client.devices.shared.items(SharedKind.CONTACT)),
        "contacts": {
            user: (one.blocked, one.key_version, one.room) for user, one in client.people.contacts.items()
        },
        "packages": set(client.people.connection_packages),
        "outgoing": {user: one.request.hash for user, one in client.people.outgoing.items()},
        "outstanding": [one.package.ref for one in client.key_packages.outstanding],
        "rooms": {uri: (one.place.room.epoch, one.queue.position) for uri, one in client.rooms.items()},
    }


async def test_what_the_vault_does_not_take_is_not_in_memory_either(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    await alice.key_packages.publish(to_bob)
    outgoing = await alice.people.request_connection(bob.contact_code)
    before = in_memory(alice)
    assert all(before.values())
    membership = alice.rooms[to_bob.room]  # type: ignore[index]
    with pytest.raises(StateError), alice.rooms.memberships.changing(membership):
        to_bob.rotate()
        to_bob.blocked, to_bob.room = True, None
        alice.people.contacts.save(to_bob)
        for package in list(alice.people.connection_packages):
            alice.people.connection_packages.forget(package)
        alice.people.outgoing.save(outgoing)
        for item in alice.key_packages.outstanding:
            alice.key_packages.outstanding.forget(item)
        membership.queue.acknowledge(1 << 40)
        membership.note("what was wrong")
        raise StateError("no room left")
    assert in_memory(alice) == before
    assert "what was wrong" not in membership.problems
    assert in_memory(live.restarted(alice)) == before
    await alice.rooms.send(membership, "the room goes on")


async def test_a_room_that_the_vault_does_not_take_is_not_entered(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    await bob.key_packages.publish(to_alice)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    before = in_memory(bob)

    def full(_: object) -> None:
        raise StateError("no room left")

    with monkeypatch.context() as patch, pytest.raises(StateError):
        patch.setattr(bob.rooms.memberships, "save", full)
        while True:
            await bob.rooms.check_invitations(wait=5)
    assert in_memory(bob) == before
    async with asyncio.timeout(60):
        while room.uri not in bob.rooms:
            await bob.rooms.check_invitations(wait=5)
    await bob.rooms.send(bob.rooms[room.uri], "here")


async def test_every_errand_has_one_who_runs_it(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    queues, token = Queues(alice.path), AccessToken.generate()
    await queues.create(token, accepts_deposits=False)
    errands = alice.vault.table("errands")
    errands[bytes([Errand.DELETE_QUEUE]) + token.reveal()] = b""
    nobodys = SavedShelf(bytes(32), SigningKey.generate().seed())
    errands[bytes([Errand.CLOSE_SHELF]) + nobodys.shelf] = nobodys.to_bytes()
    assert len(errands) == len(Errand)
    await alice.tend()
    assert dict(errands) == {}
    assert alice.refusals.texts() == []  # to close a shelf that there is not is no error
    with pytest.raises(UnknownQueue):
        await queues.collect(token, 0, 0)


def test_refusals_are_as_many_as_may_be_and_the_newest() -> None:
    refusals = Refusals()
    uri = random_uri("a.example", Kind.ROOM, bytes(16))
    for number in range(MAX_REFUSALS + 7):
        refusals.add(f"the room {uri}", RoomError(str(number)))
    assert len(refusals) == MAX_REFUSALS
    assert refusals.texts()[0] == f"the room {uri}: 7"
    assert [type(one.error) for one in refusals][-1] is RoomError


class Snapshot:
    """Something large that was being read when it failed."""


def test_a_refusal_holds_nothing_of_what_was_being_worked_on() -> None:
    refusals, read = Refusals(), []

    def parse() -> None:
        snapshot = Snapshot()
        read.append(weakref.ref(snapshot))
        raise ParseError("a snapshot", 3)

    def fetch() -> None:
        try:
            parse()
        except ParseError as error:
            raise PrivatePathFailed("no answer") from error

    for work in (parse, fetch):
        try:
            work()
        except (ParseError, PrivatePathFailed) as error:
            refusals.add("an invitation", error)
    assert [one() for one in read] == [None, None]
    assert refusals.texts() == ["an invitation: a snapshot, at byte 3", "an invitation: no answer"]
    malformed = next(iter(refusals)).error
    assert isinstance(malformed, ParseError)
    assert (malformed.what, malformed.offset) == ("a snapshot", 3)
