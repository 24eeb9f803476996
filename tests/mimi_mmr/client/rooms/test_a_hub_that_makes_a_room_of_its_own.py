"""A hub alone, without any member, tries to move a client into a group of its own that has the room's URI.

It sees the KeyPackage in the commit that adds the client, and sends its own Welcome for it, first. The clients are
untouched, and so is the rest of the hub.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

import mimi_mmr.protocol.room.events
from mimi_mmr.client import Client, Membership
from mimi_mmr.client.rooms.joining import Invitation
from mimi_mmr.client.rooms.membership import Occurrence
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import BindingRejected, PrivatePathFailed, WelcomeRejected
from mimi_mmr.hub.mode import HubMode
from mimi_mmr.hub.state import Outgoing
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.leaves import prepare_leaf
from mimi_mmr.member.room import Room
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.mls.wire import Add, parse_application, parse_commit
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.credentials import DeviceIdentity, bind_device
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.protocol.room.policy import Identities
from mimi_mmr.provider.store.hub import to_snapshot
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.client.rooms.test_members_and_hubs_that_turn_bad import losing, pair
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch

NOT_A_MEMBERS = "the Welcome's proof is wrong"


class EvilHub:
    """A provider whose hub has a group of its own ready for one room; `alone` withholds the real Welcome.

    `read` is what it could read of the victim's messages, `forged` how many Welcomes it has made.
    """

    def __init__(
        self, provider: Any, room: MimiUri, identities: Identities = Identities.NOBODY, *, alone: bool = False
    ) -> None:
        hub, now = provider.hub, time.time()
        user, device = MimiUri(room.domain, Kind.USER, "nobody"), MimiUri(room.domain, Kind.DEVICE, "x")
        key = SigningKey.generate()
        chain = (provider.accounts._ca.issue_device(user, device, key.public, now),)
        me = DeviceIdentity(
            user, device, key, bind_device(SigningKey.generate(), user, device, chain, key.public)
        )
        leaf = prepare_leaf(MlsRsEngine(), me, SigningKey.generate(), provider.keys.queues.public, now)
        self.room, created = Room.create(room, leaf, identities)
        self.mode = HubMode(room.domain)
        self.state = self.mode.create(created, now).state
        self.alone = alone
        self.forged = 0
        self.read: list[Content] = []
        self._update, self._submit = hub._mode.update, hub._submit
        self._snapshot, self._has_key = hub._store.snapshot, hub._store.has_leaf_key
        hub._mode.update, hub._submit = self.update, self.submit
        hub._store.snapshot, hub._store.has_leaf_key = self.snapshot, self.has_leaf_key

    def update(self, state: Any, request: Any, now: float) -> Any:
        """Take a commit, and send another Welcome for the KeyPackages that it adds."""
        accepted = self._update(state, request, now)
        adds = [one.key_package for one in parse_commit(request.commit).proposals if isinstance(one, Add)]
        if adds and state.room == self.room.uri and not self.forged:
            self.forged += 1
            ours = self.welcome(adds[0].encoded, now)
            kept = [one for one in accepted.events if one.kind is not EventKind.WELCOME or not self.alone]
            object.__setattr__(accepted, "events", (ours, *kept))
        return accepted

    def welcome(self, key_package: bytes, now: float) -> Outgoing:
        pending = self.room.stage(CommitIntent((OpenKeyPackage(key_package, bytes(32)),)), now + 5)
        accepted = self.mode.update(self.state, pending.request, now)
        accepted.commit()
        pending.accept()
        return next(one for one in accepted.events if one.kind is EventKind.WELCOME)

    async def snapshot(self, room: MimiUri, epoch: int) -> Any:
        ours = self.alone and self.forged and epoch == self.state.epoch
        return self.state if ours else await self._snapshot(room, epoch)

    async def has_leaf_key(self, room: MimiUri, key: bytes, epoch: int) -> bool:
        return bool(self.alone and self.forged) or await self._has_key(room, key, epoch)

    async def submit(self, room: MimiUri, request: Any) -> None:
        if self.alone and self.forged and room == self.room.uri:
            self.read.append(self.room.decrypt(parse_application(request.app_message))[1])
        else:
            await self._submit(room, request)


def refused(client: Client) -> list[str]:
    return [line for line in client.refusals.texts() if NOT_A_MEMBERS in line]


async def newcomer(live: LiveWorld) -> tuple[Client, Client, Membership, Any]:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, _ = await connect(alice, bob)
    await bob.tend()
    return alice, bob, await alice.rooms.create(name="friends"), to_bob


async def test_a_newcomer_follows_the_members_welcome_and_not_the_hubs(live: LiveWorld) -> None:
    alice, bob, room, to_bob = await newcomer(live)
    evil = EvilHub(live.providers["a.example"], room.uri)
    await alice.rooms.add(room, [to_bob])
    joined = await invited(bob)
    assert evil.forged == len(refused(bob)) == 1
    assert joined.room.members_only.state.name == "friends"
    assert joined.place.invited_by == alice.user
    assert not joined.problems


async def test_without_the_check_the_hub_alone_reads_what_a_newcomer_says(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what the check of the proof stops, and that nothing else does."""
    alice, bob, room, to_bob = await newcomer(live)
    evil = EvilHub(live.providers["a.example"], room.uri, alone=True)
    monkeypatch.setattr(mimi_mmr.protocol.room.events, "check_welcome", lambda *_: None)
    await alice.rooms.add(room, [to_bob])
    joined = await invited(bob)
    assert joined.uri == room.uri
    await bob.rooms.send(joined, "hello Alice")
    assert [content.body for content in evil.read] == [b"hello Alice"]


@pytest.mark.parametrize("checked", [True, False])
async def test_who_changes_its_pseudonym_stays_with_its_friends(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """Also where a member helps the hub, so that its proof is right: the Welcome is another commit's."""
    alice, bob, room, at_bob = await pair(live)
    await until_epoch(bob, at_bob, room.room.epoch)
    evil = EvilHub(live.providers["a.example"], room.uri)
    if not checked:
        monkeypatch.setattr(mimi_mmr.protocol.room.events, "check_welcome", lambda *_: None)
        repair = bob.rooms.joining._repair
        asked = repair.snapshot

        async def snapshot(uri: MimiUri, epoch: int, leaf: Any) -> Any:
            ours = evil.forged and epoch == evil.state.epoch
            return to_snapshot(evil.state) if ours else await asked(uri, epoch, leaf)

        monkeypatch.setattr(repair, "snapshot", snapshot)
    await bob.rooms.change_pseudonym(at_bob)
    assert evil.forged == 1
    found = [line for line in bob.refusals.texts() if "not of this client's own commit" in line]
    assert (len(refused(bob)), len(found)) == ((1, 0) if checked else (0, 1))
    await bob.rooms.send(at_bob, "for my friends only")
    while not room.messages:
        await alice.rooms.sync(room, wait=5)
    assert room.messages.popleft().text == "for my friends only"


async def test_a_change_of_pseudonym_goes_on_after_its_answer_was_lost(live: LiveWorld) -> None:
    """The Welcome is there before this client knows that its commit was accepted: it asks for that first."""
    _, bob, room, at_bob = await pair(live)
    await until_epoch(bob, at_bob, room.room.epoch)
    before = at_bob.leaf
    losing(bob, 1)
    with pytest.raises(PrivatePathFailed):
        await bob.rooms.change_pseudonym(at_bob)
    while at_bob.leaf is before:
        await bob.rooms.check_invitations(wait=5)
    assert at_bob.usable
    assert not bob.refusals.texts()


async def test_who_comes_by_a_link_follows_the_members_welcome(live: LiveWorld) -> None:
    alice, dave = await live.person("alice", "a.example"), await live.person("dave", "b.example")
    room = await alice.rooms.create(Identities.NOBODY, name="open house")
    link = await alice.rooms.links.create(room, lifetime=3600, uses=1)
    evil = EvilHub(live.providers["a.example"], room.uri)

    async def at_home() -> None:
        while len(room.room.members.identities) < 2:
            await alice.rooms.sync(room, wait=5)

    joined, _ = await asyncio.gather(dave.rooms.join(link.uri, wait=30), at_home())
    assert evil.forged == len(refused(dave)) == 1
    assert joined.room.members_only.state.name == "open house"


async def test_who_lost_track_is_added_again_by_a_member_only(live: LiveWorld) -> None:
    alice, bob, room, at_bob = await pair(live)
    await until_epoch(bob, at_bob, room.room.epoch)
    at_bob.occurred(Occurrence.COMMIT_MISSED)
    await bob.key_packages.publish(bob.people.contacts[alice.user], 1)
    evil = EvilHub(live.providers["a.example"], room.uri)
    await alice.rooms.remove(room, [at_bob.room.own_leaf])
    await alice.rooms.add(room, [alice.people.contacts[bob.user]])
    assert (await invited(bob)) is at_bob
    assert evil.forged == len(refused(bob)) == 1
    assert not at_bob.desynchronised
    assert at_bob.room.epoch >= room.room.epoch - 1


async def test_a_further_device_enters_the_devices_room_and_no_room_of_the_providers(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own provider is the hub of the devices' room."""
    alice = await live.person("alice", "a.example")
    provider = live.providers["a.example"]
    hubs: list[EvilHub] = []
    create = provider.hub._mode.create

    def created(request: Any, now: float) -> Any:
        hubs.append(EvilHub(provider, request.content.room))
        return create(request, now)

    provider.hub._mode.create = created  # type: ignore[method-assign]
    invitation = await alice.devices.invite()
    tablet = live.client("alice", "a.example", device="tablet")

    async def existing() -> None:
        while not await alice.devices.tend_invitation(invitation, wait=3):
            pass

    await asyncio.gather(existing(), tablet.devices.join_account(invitation.code, wait=30))
    assert hubs[0].forged == len(refused(tablet)) == 1
    here = tablet.devices.room
    assert here is not None
    assert here.room.members.identities.keys() == {0, 1}
    # Whoever else is in that room is told nothing.
    monkeypatch.setattr(tablet.rooms.roster, "others", lambda room: {None})
    with pytest.raises(BindingRejected, match="somebody else than this user's devices"):
        await tablet.devices.devices_room.tell(here, Content(ContentKind.SHARED_STATE, b""))


async def test_another_devices_change_of_pseudonym_takes_this_one_along_and_no_hub_does(
    live: LiveWorld,
) -> None:
    """A KeyPackage that was made for one room and for another device of the user."""
    _, bob, room, at_bob = await pair(live)
    await until_epoch(bob, at_bob, room.room.epoch)
    present, joining = at_bob.room, bob.rooms.joining
    (package,) = await bob.key_packages.maker.make([SigningKey.generate()])
    bob.key_packages.outstanding.watch(package, room=room.uri)
    item = bob.key_packages.outstanding.get(package.ref)
    assert item is not None
    evil = EvilHub(live.providers["a.example"], room.uri, Identities.EVERYONE)
    welcome = evil.welcome(package.key_package, time.time()).event
    forged = Invitation(item, FanoutMessage(room.uri, 1, 0, EventKind.WELCOME, welcome), 1)
    with pytest.raises(WelcomeRejected, match=NOT_A_MEMBERS):
        await joining.join(forged)
    assert bob.key_packages.outstanding.get(package.ref) is item
    with pytest.raises(WelcomeRejected, match="not by a leaf of this user"):
        await joining._check_continuity(item, evil.room, 0)
    with pytest.raises(WelcomeRejected, match="not by a leaf of this user"):
        await joining._check_continuity(item, present, room.room.own_leaf)  # Alice is no leaf of Bob's
    await joining._check_continuity(item, present, present.own_leaf)


async def test_the_user_is_told_through_whom_an_invitation_came(live: LiveWorld) -> None:
    """Where names are hidden, the proof says whose KeyPackage it was; where they are shown, it is the adder's."""
    alice, bob, shown, to_bob = await newcomer(live)
    await bob.key_packages.publish(bob.people.contacts[alice.user], 1)
    hidden = await alice.rooms.create(Identities.NOBODY)
    await alice.rooms.add(hidden, [to_bob])
    assert not (await invited(bob)).problems
    told = [notice.text for notice in bob.notices if "through your contact" in notice.text]
    assert told == [f"invited to the room {hidden.uri} through your contact {alice.user}"]
    cathy = MimiUri("c.example", Kind.USER, "cathy")
    for item in bob.key_packages.outstanding:
        item.user = cathy  # who has given hers to Alice
    await alice.rooms.add(shown, [to_bob])
    (problem,) = (await invited(bob)).problems
    assert f"{alice.user} used an invitation that this client had made for {cathy}" in problem


@pytest.mark.parametrize("before_proofs", [True, False])
async def test_a_welcome_without_proof_is_asked_for_again_only_if_it_waits_since_before_there_were_any(
    live: LiveWorld, before_proofs: bool
) -> None:
    """For a KeyPackage whose keys are lost. Otherwise any hub could have a client ask to be added to any room."""
    _, bob, room, _ = await newcomer(live)
    bob = live.restarted(bob)
    asked: list[Any] = []

    async def listener(item: Any, _: FanoutMessage) -> bool:
        asked.append(item)
        return True

    bob.rooms.invitations.keys_lost = [listener]
    item = next(iter(bob.key_packages.outstanding))
    item.before_proofs = before_proofs
    assert item.keys_are_lost
    welcome = Invitation(item, FanoutMessage(room.uri, 1, 0, EventKind.WELCOME, b""), 0)
    await bob.rooms.invitations._could_not_join(welcome, WelcomeRejected("no proof"))
    assert asked == ([item] if before_proofs else [])
    assert item in list(bob.key_packages.outstanding)
