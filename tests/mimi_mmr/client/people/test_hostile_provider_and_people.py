"""Hostile provider, relay, member or stranger against people: pins stay, who spoke is known, nobody is shut out.

Over real providers, since it is the client's own care that is proved here.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.membership import Occurrence
from mimi_mmr.crypto.sealing import Kem, SealedBox
from mimi_mmr.errors import HubRefusal, NotAllowed, PeerError, PrivatePathFailed, RoomError
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.room import Room
from mimi_mmr.member.whois import Standing
from mimi_mmr.mls.wire import PublicCommit, parse_message
from mimi_mmr.protocol.credentials import DeviceIdentity, RealCredential
from mimi_mmr.protocol.deposits import Deposit
from mimi_mmr.protocol.room.requests import UpdateCode, UpdateRoomResponse, digest, sign_commit
from mimi_mmr.provider.store.accounts import Device
from mimi_mmr.provider.store.tables import connection_packages
from mimi_mmr.uris import MimiUri
from tests.mimi_mmr.bench import RoomBench
from tests.mimi_mmr.client.inside import take_credential, take_token
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch

Call = Callable[..., Awaitable[bytes]]


async def impostor_of(live: LiveWorld, victim: Client) -> Client:
    """A device under the victim's name, certified by their own provider, with another identity key."""
    fake = live.client(victim.user.name, victim.user.domain)
    take_token(fake, victim.account.keys.token)
    store = live.providers[victim.user.domain].accounts._store
    register = store.register

    async def lenient(_: MimiUri, device: Device) -> MimiUri:
        """The provider looks away."""
        return device.uri

    store.register = lenient  # type: ignore[method-assign]
    async with store._database.write() as connection:
        await connection.execute(sa.delete(connection_packages))
    await fake.register()
    store.register = register  # type: ignore[method-assign]
    return fake


async def room_of(host: Client, guests: dict[Client, Contact]) -> tuple[Membership, list[Membership]]:
    """A room that everybody is in, in one epoch."""
    for guest in guests:
        await guest.key_packages.publish(guest.people.contacts[host.user])
    room = await host.rooms.create()
    await host.rooms.add(room, list(guests.values()))
    joined = [await invited(guest) for guest in guests]
    for guest, at_guest in zip(guests, joined, strict=True):
        await until_epoch(guest, at_guest, room.room.epoch)
    return room, joined


async def test_a_device_that_a_provider_slips_in_is_unverified_to_who_pinned_the_person(
    live: LiveWorld,
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    mallory = await live.person("mallory", "c.example")
    await connect(bob, alice)  # Bob pins Alice's identity key
    to_bob, _ = await connect(mallory, bob)
    fake = await impostor_of(live, alice)
    to_fake, _ = await connect(mallory, fake)
    _, (at_bob, _) = await room_of(mallory, {bob: to_bob, fake: to_fake})
    entries = {entry.leaf: entry for entry in bob.rooms.who(at_bob)}
    assert entries[2].standing is Standing.UNVERIFIED
    assert "leaf 2: a contact of this name has another identity key" in entries[2].why
    assert entries[0].standing is Standing.VERIFIED


async def test_a_second_request_under_a_contacts_name_does_not_replace_the_contact(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    fake = await impostor_of(live, alice)
    first = await alice.people.request_connection(bob.contact_code)
    second = await fake.people.request_connection(bob.contact_code)
    for incoming in await bob.people.connection_requests():  # both are pending, and Bob says yes to both
        await bob.people.accept(incoming)
    assert await alice.people.complete_connection(first)
    await bob.rooms.check_invitations(wait=5)
    assert await fake.people.complete_connection(second)
    while not any("another identity key" in line for line in bob.refusals.texts()):
        await bob.rooms.check_invitations(wait=5)
    assert bob.people.contacts[alice.user].device.identity_key == alice.account.keys.identity.public


async def test_a_lost_answer_to_a_commit_costs_nobody_the_room(live: LiveWorld) -> None:
    """Every answer is dropped for a while, by a relay or the network: the commit stays on its way."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    room, (at_bob,) = await room_of(alice, {bob: to_bob})
    call: Call = bob.path.call

    async def dropping(domain: str, method: str, path: str, body: bytes = b"") -> bytes:
        answer = await call(domain, method, path, body)
        if path.startswith("/v1/update/"):
            raise PrivatePathFailed("the answer was lost")
        return answer

    bob.path.call = dropping  # type: ignore[method-assign]
    with pytest.raises(PrivatePathFailed):
        await bob.rooms.heal(at_bob)
    bob.path.call = call  # type: ignore[method-assign]
    await until_epoch(alice, room, 3)
    await alice.rooms.heal(room)  # the room moves on meanwhile
    await bob.rooms.send(at_bob, "here I am")
    while not room.messages:
        await alice.rooms.sync(room, wait=5)
    assert room.messages.popleft().text == "here I am"
    assert (at_bob.problems, at_bob.desynchronised, at_bob.place.pending) == ((), False, None)
    assert room.room.tree_hash == at_bob.room.tree_hash


async def test_a_refusal_for_an_unknown_reason_is_an_answer_and_not_a_lost_one(live: LiveWorld) -> None:
    """The commit is dropped: it is not sent again for ever, before anything else can be done."""
    alice = await live.person("alice", "a.example")
    room = await alice.rooms.create()
    call: Call = alice.path.call

    async def refusing(domain: str, method: str, path: str, body: bytes = b"") -> bytes:
        if path.startswith("/v1/update/"):
            return UpdateRoomResponse(UpdateCode.NOT_ALLOWED, "no", "a-reason-of-tomorrow").to_bytes()
        return await call(domain, method, path, body)

    alice.path.call = refusing  # type: ignore[method-assign]
    with pytest.raises(HubRefusal):
        await alice.rooms.heal(room)
    alice.path.call = call  # type: ignore[method-assign]
    assert room.place.pending is None
    await alice.rooms.heal(room)
    assert room.room.epoch == 1


def spoiled(room: Room) -> Callable[[CommitIntent, float], PendingCommit]:
    """A member who stages commits that a hub can't tell from good ones: the MLS confirmation tag is wrong."""
    stage = partial(Room.stage, room)

    def bad(intent: CommitIntent, now: float) -> PendingCommit:
        pending = stage(intent, now)
        message = parse_message(pending.request.commit)
        assert isinstance(message, PublicCommit)
        tag = message.confirmation_tag
        commit = pending.request.commit.replace(tag, bytes([tag[0] ^ 1]) + tag[1:])
        content = replace(pending.request.auth.content, commit_hash=digest(commit))
        request = replace(pending.request, commit=commit, auth=sign_commit(content, room.signing_key))
        return replace(pending, request=request)

    return bad


async def test_a_commit_that_nobody_can_process_is_undone_by_an_admin(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    cathy = await live.person("cathy", "c.example")
    to_bob, _ = await connect(alice, bob)
    to_cathy, _ = await connect(alice, cathy)
    room, (at_bob, at_cathy) = await room_of(alice, {bob: to_bob, cathy: to_cathy})
    with pytest.raises(RoomError, match="no commit that this member could not process"):
        await alice.rooms.reopen(room)
    with monkeypatch.context() as patched:
        bad = spoiled(at_bob.room)
        patched.setattr(Room, "stage", lambda _, intent, now: bad(intent, now))
        await bob.rooms.heal(at_bob)
    for client, joined in ((alice, room), (cathy, at_cathy)):
        while not joined.blocked:
            await client.rooms.sync(joined, wait=5)
        assert joined.room.epoch == 2
    with pytest.raises(NotAllowed, match="an admin both before and after"):
        await cathy.rooms.reopen(at_cathy)
    await alice.rooms.reopen(room)
    await until_epoch(cathy, at_cathy, 3)
    await alice.rooms.send(room, "on we go")
    while not at_cathy.messages:
        await cathy.rooms.sync(at_cathy, wait=5)
    assert at_cathy.messages.popleft().text == "on we go"
    assert room.room.tree_hash == at_cathy.room.tree_hash
    while not at_bob.desynchronised:
        await bob.rooms.sync(at_bob, wait=5)
    assert "the hub has undone, for an admin, a commit that this client has followed" in at_bob.problems[0]
    await alice.rooms.remove(room, [at_bob.room.own_leaf])


async def test_who_has_missed_an_event_reports_no_good_commit(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob has followed a commit that was undone; a report of his would help an admin to undo a good one."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    cathy = await live.person("cathy", "c.example")
    to_bob, _ = await connect(alice, bob)
    to_cathy, _ = await connect(alice, cathy)
    room, (at_bob, at_cathy) = await room_of(alice, {bob: to_bob, cathy: to_cathy})
    store = live.providers["a.example"].hub_store
    with monkeypatch.context() as patched:
        bad = spoiled(at_bob.room)
        patched.setattr(Room, "stage", lambda _, intent, now: bad(intent, now))
        await bob.rooms.heal(at_bob)
    for client, joined in ((alice, room), (cathy, at_cathy)):
        while not joined.blocked:
            await client.rooms.sync(joined, wait=5)
    assert await store.reports(
        room.uri, await store.epoch(room.uri)
    )  # the control: of others, about a bad one
    await alice.rooms.reopen(room)
    await alice.rooms.heal(room)  # ends an epoch of the number that Bob's has
    while not at_bob.blocked:
        await bob.rooms.sync(at_bob, wait=5)
    assert at_bob.desynchronised
    assert not await store.reports(room.uri, await store.epoch(room.uri))


async def test_a_member_follows_no_other_commit_where_the_hub_alone_has_undone_one(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cathy can't process a commit; the hub takes it back without an admin's order, and sends her another one."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    cathy = await live.person("cathy", "c.example")
    to_bob, _ = await connect(alice, bob)
    to_cathy, _ = await connect(alice, cathy)
    room, (at_bob, at_cathy) = await room_of(alice, {bob: to_bob, cathy: to_cathy})
    with monkeypatch.context() as patched:
        bad = spoiled(at_bob.room)
        patched.setattr(Room, "stage", lambda _, intent, now: bad(intent, now))
        await bob.rooms.heal(at_bob)
    for client, joined in ((alice, room), (cathy, at_cathy)):
        while not joined.blocked:
            await client.rooms.sync(joined, wait=5)
    with pytest.raises(RoomError, match="can't be processed here"):
        await cathy.rooms.heal(at_cathy)
    store = live.providers["a.example"].hub_store
    undone, before = await store.epoch(room.uri), (await store.snapshot(room.uri, 2)).id
    await store.reopen(room.uri, undone, before, (), time.time())
    room.occurred(Occurrence.COMMIT_UNDONE)  # the client of a member who cheats with the hub
    await alice.rooms.heal(room)
    while not at_cathy.desynchronised:
        await cathy.rooms.sync(at_cathy, wait=5)
    assert at_cathy.room.epoch == 2
    assert at_cathy.blocked
    assert any("in the place of the one that can't be processed here" in one for one in at_cathy.problems)


async def test_a_message_is_shown_under_the_name_of_who_sent_it(live: LiveWorld) -> None:
    """Mallory speaks and is removed, Carol gets that leaf, and only then does Bob read."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    mallory, carol = await live.person("mallory", "c.example"), await live.person("carol", "c.example")
    to_bob, _ = await connect(alice, bob)
    to_mallory, _ = await connect(alice, mallory)
    to_carol, _ = await connect(alice, carol)
    room, (at_bob, at_mallory) = await room_of(alice, {bob: to_bob, mallory: to_mallory})
    await mallory.rooms.send(at_mallory, "please pay to account 4711")
    leaf = at_mallory.room.own_leaf
    await alice.rooms.remove(room, [leaf])
    await carol.key_packages.publish(carol.people.contacts[alice.user])
    await alice.rooms.add(room, [to_carol])
    assert (await invited(carol)).room.own_leaf == leaf
    await until_epoch(bob, at_bob, room.room.epoch)
    sender = at_bob.messages.popleft().sender
    assert sender.member is not None
    assert sender.member.device.user == mallory.user


async def test_a_deposit_of_another_size_than_a_requests_is_refused(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    for kem in Kem:
        for size in (0, 100, 60_000):
            deposit = Deposit(bytes(32), SealedBox(kem, bytes(size))).to_bytes()
            with pytest.raises(NotAllowed, match="one size"):
                await alice.path.call("b.example", "POST", "/v1/connectionRequest/bob", deposit)


async def test_an_introduction_that_could_not_be_sent_is_sent_later(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    outgoing = await alice.people.request_connection(bob.contact_code)
    (incoming,) = await bob.people.connection_requests()
    await bob.people.accept(incoming)
    to_bob = await alice.people.complete_connection(outgoing)
    assert to_bob is not None
    assert to_bob.room is not None
    call: Call = bob.path.call

    async def failing(domain: str, method: str, path: str, body: bytes = b"") -> bytes:
        if path.startswith("/v1/submitMessage/"):
            raise PeerError("no answer")
        return await call(domain, method, path, body)

    bob.path.call = failing  # type: ignore[method-assign]
    assert await bob.rooms.check_invitations(wait=5)  # the room is joined all the same
    bob.path.call = call  # type: ignore[method-assign]
    await bob.rooms.check_invitations()
    while to_bob.theirs is None:
        await alice.rooms.sync(alice.rooms[to_bob.room], wait=5)


def strange_certificate() -> bytes:
    """A certificate of a version that there is not: the library has an error of its own for it."""
    key, nobody = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(nobody).issuer_name(nobody).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start)
    builder = builder.not_valid_after(start + datetime.timedelta(days=900))
    encoded = bytearray(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    version = encoded.find(bytes.fromhex("a003020102"))
    encoded[version + 4] = 5
    return bytes(encoded)


def test_a_strange_certificate_in_a_link_makes_one_member_unverified_and_no_more() -> None:
    bench = RoomBench()
    bob = bench.person("bob")
    odd = RealCredential(
        (strange_certificate(),), bob.credential.identity_key, bob.credential.binding_signature
    )
    bench.devices["bob"] = DeviceIdentity(bob.user, bob.device, bob.key, odd)
    bench.commit("alice", add=["bob", "cathy"])
    for name in ("alice", "cathy"):
        assert bench.names(name) == {0: "alice", 1: "?", 2: "cathy"}


async def test_a_strange_certificate_in_a_request_costs_no_other_request(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    mallory = await live.person("mallory", "c.example")
    me = mallory.account.me
    odd = RealCredential(
        (strange_certificate(),), me.credential.identity_key, me.credential.binding_signature
    )
    take_credential(mallory, odd)
    await mallory.people.request_connection(bob.contact_code)
    await alice.people.request_connection(bob.contact_code)
    (incoming,) = await bob.people.connection_requests()
    assert incoming.device.user == alice.user
    assert len(bob.refusals.texts()) == 1
