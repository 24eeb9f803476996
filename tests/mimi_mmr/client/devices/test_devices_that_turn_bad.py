"""Devices that are lost, lie, answer wrongly, or stop half-way: the others go on, and shut them out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mimi_mmr.client import Client, Contact, Membership
from mimi_mmr.client.devices.package_requests import PackagesMade
from mimi_mmr.client.devices.removal import OTHERS_TURN
from mimi_mmr.client.storage.records import SavedContact
from mimi_mmr.client.storage.shared_state import (
    DeviceKey,
    SharedEntries,
    SharedEntry,
    SharedKind,
    SharedState,
)
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import MmrError, PrivatePathFailed, RoomError, StateError, Unauthorized
from mimi_mmr.protocol.content import Content, ContentKind
from tests.mimi_mmr.client.devices.test_several_devices import running, second_device
from tests.mimi_mmr.client.inside import forget_device_entry
from tests.mimi_mmr.conftest import Clock, LiveWorld, connect

FAR_AHEAD = (1 << 64) - 1
LAST = SharedEntry(SharedKind.SETTING, b"read", 1, "zz", b"1")  # what comes last: the rest has been read


def devices_room(client: Client) -> Membership:
    room = client.devices.room
    assert room is not None
    return room


async def tell(sender: Client, receiver: Client, *entries: SharedEntry) -> None:
    """One device says something to another, which has read it when this returns."""
    content = Content(ContentKind.SHARED_STATE, SharedEntries((*entries, LAST)).to_bytes())
    await sender.rooms.send(devices_room(sender), content)
    while receiver.devices.shared.get(SharedKind.SETTING, LAST.key) is None:
        await receiver.rooms.sync(devices_room(receiver), wait=5)


async def no_answer(*_: Any, **__: Any) -> Any:
    raise PrivatePathFailed("a hub that does not answer")


# --- a device is shut out -------------------------------------------------------------------------


async def test_what_could_not_be_done_to_remove_a_device_is_done_later(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    tablet = await second_device(live, alice)
    known = to_bob.own_key
    with monkeypatch.context() as patch:
        patch.setattr(alice.devices.removal, "remove_leaf", no_answer)
        with pytest.raises(PrivatePathFailed):
            await alice.devices.remove("alice-tablet")
    assert alice.devices.names() == ["alice-phone"]
    assert to_bob.own_key != known  # what could be done is done
    assert len(devices_room(alice).room.members.identities) == 2
    alice = live.restarted(alice)
    await alice.tend()
    assert len(devices_room(alice).room.members.identities) == 1
    with pytest.raises(Unauthorized):
        await tablet.account.registered_devices()
    with pytest.raises(RoomError):
        await alice.devices.remove("alice-tablet")


async def test_a_removed_device_hears_none_of_the_new_keys(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    tablet = await second_device(live, alice)
    with monkeypatch.context() as patch:
        patch.setattr(alice.devices.removal, "remove_leaf", no_answer)
        with pytest.raises(PrivatePathFailed):
            await alice.devices.remove("alice-tablet")
        with pytest.raises(PrivatePathFailed):
            await alice.devices.share()
    await alice.devices.share()
    while not devices_room(tablet).room.removed:
        await tablet.rooms.sync(devices_room(tablet), wait=5)
    assert tablet.people.contacts[bob.user].own_key != to_bob.own_key


async def test_another_device_finishes_what_the_first_began(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await live.person("alice", "a.example")
    thief = await second_device(live, alice)
    clock = Clock()
    watch = await second_device(live, alice, "watch", clock=clock)
    async with running(alice, watch):
        room = await alice.rooms.create()
        async with running(thief) as agents:
            await agents.until(lambda: room.uri in thief.rooms and room.uri in watch.rooms)
    with monkeypatch.context() as patch:
        patch.setattr(alice.account, "ask", no_answer)
        patch.setattr(alice.devices.removal, "do_part", no_answer)
        with pytest.raises(PrivatePathFailed):
            await alice.devices.remove("alice-tablet")
    while "alice-tablet" in watch.devices.names() or not watch.devices.shared.get(
        SharedKind.DEVICE, b"alice-phone"
    ):
        await watch.rooms.sync(devices_room(watch), wait=5)
    assert not watch.devices.removal.due_parts()  # for a while it is the first one's
    clock.ahead = OTHERS_TURN + 60
    assert watch.devices.removal.due_parts()
    await watch.devices.removal.go_on()
    assert not watch.devices.removal.due_parts()
    with pytest.raises(Unauthorized):
        await thief.account.registered_devices()


async def test_a_device_that_only_the_provider_knows_can_be_removed(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    await second_device(live, alice)
    stray = alice.devices.shared.entry(SharedKind.DEVICE, b"alice-tablet")
    assert stray is not None
    forget_device_entry(alice, stray.place)
    assert alice.devices.names() == ["alice-phone"]
    await alice.devices.remove("alice-tablet")
    assert await alice.account.registered_devices() == ["alice-phone"]
    assert len(devices_room(alice).room.members.identities) == 1


# --- a device says what is not so -----------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        SharedEntry(SharedKind.CONTACT, b"x", 1, "zz", b"junk"),
        SharedEntry(SharedKind.CONTACT, b"mimi://b.example/u/bob", 1, "zz", None),
        SharedEntry(SharedKind.CONNECTION_PACKAGE, bytes(32), 1, "zz", b"junk"),
        SharedEntry(SharedKind.DEVICE, b"\xff", 1, "zz", DeviceKey(bytes(32)).to_bytes()),
        SharedEntry(SharedKind.DEVICE, b"alice-watch", FAR_AHEAD, "zz", DeviceKey(bytes(32)).to_bytes()),
        SharedEntry(SharedKind.DEVICE, b"alice-watch", 1, "\n", DeviceKey(bytes(32)).to_bytes()),
        SharedEntry(SharedKind.DEVICE, b"alice-tablet", 9, "zz", DeviceKey(bytes(32)).to_bytes()),
        SharedEntry(SharedKind.DEVICE, b"alice-phone", 9, "zz", None),
        SharedEntry(SharedKind.LEAF, b"no room", 1, "zz", b"nobody"),
        SharedEntry(SharedKind.REMOVAL, b"alice-watch wiping", 1, "zz", None),
        SharedEntry(SharedKind.SETTING, b"only-contacts", 1, "zz", b"perhaps"),
    ],
    ids=lambda entry: f"{entry.kind.name} {entry.key[:12]!r}",
)
async def test_an_entry_that_is_no_good_is_passed_over(live: LiveWorld, entry: SharedEntry) -> None:
    alice = await live.person("alice", "a.example")
    tablet = await second_device(live, alice)
    before = alice.devices.shared.entry(entry.kind, entry.key)
    await tell(tablet, alice, entry)  # and another one behind it, which counts
    assert [line for line in alice.refusals.texts() if line.startswith("the device alice-tablet")] != []
    assert alice.devices.shared.entry(entry.kind, entry.key) == before
    alice = live.restarted(alice)
    await alice.tend()
    await alice.devices.remove("alice-tablet")
    assert len(devices_room(alice).room.members.identities) == 1


async def test_an_identity_key_that_is_known_is_not_replaced_by_another_device(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    tablet = await second_device(live, alice)
    known = to_bob.device
    other = Contact(
        type(known)(known.user, known.device, known.device_key, SigningKey.generate().public), True
    )
    entry = SharedEntry(
        SharedKind.CONTACT, str(bob.user).encode(), 99, "zz", SavedContact.of(other).to_bytes()
    )
    await tell(tablet, alice, entry)
    assert alice.people.contacts[bob.user].device == known
    assert any("another identity key" in notice.text for notice in alice.notices)
    assert live.restarted(alice).people.contacts[bob.user].device == known


async def test_a_removed_device_is_not_heard_and_does_not_come_back(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    tablet = await second_device(live, alice)
    old = alice.devices.shared.entry(SharedKind.DEVICE, b"alice-tablet")
    assert old is not None
    alice.devices.removal.begin("alice-tablet")
    entries = (
        SharedEntry(SharedKind.DEVICE, old.key, old.version + 9, "zz", old.value),
        SharedEntry(SharedKind.SETTING, b"only-contacts", 1, "zz", b"1"),
    )
    await tablet.rooms.send(
        devices_room(tablet), Content(ContentKind.SHARED_STATE, SharedEntries(entries).to_bytes())
    )
    while not devices_room(alice).problems:
        await alice.rooms.sync(devices_room(alice), wait=5)
    assert alice.devices.names() == ["alice-phone"]
    assert not alice.people.only_contacts
    assert not alice.devices.shared.apply(entries[0])  # whoever says it


def test_an_entry_that_the_vault_has_and_nobody_can_read_is_passed_over() -> None:
    vault = Vault.in_memory()
    bad = SharedEntry(SharedKind.CONTACT, b"x", 1, "zz", b"junk")
    vault.table("shared")[bad.place] = bad.to_bytes()
    vault.table("shared")[b"?"] = b"?"
    vault.table("shared-unsent")[bad.place] = b""
    state = SharedState(vault, "phone")
    assert (len(state.unreadable), state.unsent()) == (2, [])
    with pytest.raises(StateError):
        state.apply(bad)


# --- a device comes in ----------------------------------------------------------------------------


async def test_a_device_is_in_although_an_answer_was_lost_on_the_way(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await live.person("alice", "a.example")
    invitation = await alice.devices.invite()
    tablet = live.client("alice", "a.example", device="tablet")
    update, sent = alice.rooms.delivery.send, 0

    async def lost(*args: Any) -> None:
        nonlocal sent
        await update(*args)
        sent += 1
        if sent in (1, 2):  # first of the Add, then of the commit that heals
            raise PrivatePathFailed("the answer was lost")

    monkeypatch.setattr(alice.rooms.delivery, "send", lost)

    async def existing() -> int:
        failures = 0
        while not invitation.device:
            try:
                await alice.devices.tend_invitation(invitation, wait=5)
            except MmrError:
                failures += 1
        return failures

    failures, _ = await asyncio.gather(existing(), tablet.devices.join_account(invitation.code, wait=30))
    assert failures == 2
    assert alice.devices.names() == ["alice-phone", "alice-tablet"]
    while tablet.devices.names() != alice.devices.names():
        await tablet.rooms.sync(devices_room(tablet), wait=5)
    assert len(devices_room(alice).room.members.identities) == 2


async def test_a_device_that_stops_before_it_is_in_says_so_and_can_be_added_anew(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await live.person("alice", "a.example")
    invitation = await alice.devices.invite()
    tablet = live.client("alice", "a.example", device="tablet")
    never = asyncio.Event()
    monkeypatch.setattr(tablet.rooms.invitations, "check", lambda **_: never.wait())
    joining = asyncio.create_task(tablet.devices.join_account(invitation.code, wait=30))
    while not await alice.devices.tend_invitation(invitation, wait=5):
        pass
    joining.cancel()
    tablet = live.restarted(tablet)
    await tablet.rooms.check_invitations()
    await tablet.rooms.check_invitations()
    assert tablet.devices.room is None
    assert [notice.text for notice in tablet.notices if "added anew" in notice.text] != []

    again = await alice.devices.invite()

    async def existing() -> None:
        while not await alice.devices.tend_invitation(again, wait=5):
            pass

    await asyncio.gather(existing(), tablet.devices.join_account(again.code, wait=30))
    assert len(devices_room(alice).room.members.identities) == 2
    await alice.rooms.send(devices_room(alice), "hello")
    with pytest.raises(RoomError):
        await tablet.devices.join_account(again.code)


async def test_the_name_of_a_removed_device_is_not_given_again(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    await second_device(live, alice)
    await alice.devices.remove("alice-tablet")
    invitation = await alice.devices.invite()
    other = live.client("alice", "a.example", device="tablet")
    joining = asyncio.create_task(other.devices.join_account(invitation.code, wait=0))
    while not any("not given again" in notice.text for notice in alice.notices):
        await alice.devices.tend_invitation(invitation, wait=5)
    with pytest.raises(RoomError):
        await joining
    assert await alice.account.registered_devices() == ["alice-phone"]


async def test_a_device_that_lost_its_keys_before_it_was_in_a_room_is_added_to_it_anew(
    live: LiveWorld,
) -> None:
    alice = await live.person("alice", "a.example")
    tablet = await second_device(live, alice)
    async with running(alice, tablet) as agents:
        await agents.until(lambda: tablet.devices.names() == alice.devices.names())
    room = await alice.rooms.create()

    async def answers() -> None:
        while True:
            await tablet.rooms.sync(devices_room(tablet), wait=1)

    answering = asyncio.create_task(answers())
    await alice.tend()
    answering.cancel()
    await asyncio.gather(answering, return_exceptions=True)
    assert len(room.room.members.identities) == 2
    tablet = live.restarted(tablet)
    async with running(alice, tablet) as agents:
        at_tablet = await agents.until_in(tablet, room)
        await tablet.rooms.send(at_tablet, "here")
        await agents.until_heard(room, "here")
    assert len(room.room.members.identities) == 2


# --- a device answers wrongly ---------------------------------------------------------------------


async def test_a_device_that_answers_wrongly_is_left_out_and_keeps_nobody(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    tablet = await second_device(live, alice)

    async def too_few(room: Membership, asked: Any) -> None:
        answer = PackagesMade(asked.number, ())
        await tablet.rooms.send(room, Content(ContentKind.PACKAGES_MADE, answer.to_bytes()))

    tablet.devices.package_requests.answer = too_few  # type: ignore[method-assign]

    async def answers() -> None:
        while True:
            await tablet.rooms.sync(devices_room(tablet), wait=1)

    answering = asyncio.create_task(answers())
    await alice.key_packages.publish(to_bob)
    answering.cancel()
    assert alice.devices.package_requests.left_alone() == ["alice-tablet"]
    assert any("expected 1 KeyPackages, got 0" in line for line in alice.refusals.texts())
    await alice.tend()  # which does not wait for it again


async def test_only_a_device_that_was_asked_answers_and_only_once(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    question = alice.devices.package_requests.expect(bytes(16), (), ["alice-tablet"])
    alice.devices.package_requests.take_answer("alice-watch", PackagesMade(bytes(16), ()))
    assert question.unanswered == {"alice-tablet"}
    alice.devices.package_requests.take_answer("alice-tablet", PackagesMade(bytes(16), ()))
    alice.devices.package_requests.take_answer("alice-tablet", PackagesMade(bytes(16), ()))
    alice.devices.package_requests.take_answer("alice-tablet", PackagesMade(bytes([1]) * 16, ()))
    assert (question.unanswered, question.answers) == (set(), {"alice-tablet": []})
