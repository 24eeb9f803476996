"""Rooms on a bench: providers' keys, people, a hub and members, as objects that hand bytes to each other.

Real MLS groups, real credentials, real trees; no server, no socket. Everything a party keeps can be looked at,
so that a test can forge with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from mimi_mmr.crypto.certificates import CertificateAuthority, TrustAnchors
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import MmrError
from mimi_mmr.hub.links import HubLink, check_join, check_order
from mimi_mmr.hub.mode import AcceptedCommit, HubMode
from mimi_mmr.hub.state import HubRoom, Outgoing
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.following import Followed
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.leaves import PreparedKeyPackage, PreparedLeaf, prepare_key_package, prepare_leaf
from mimi_mmr.member.room import Room
from mimi_mmr.member.saved import SavedRoom
from mimi_mmr.member.tree_secrets import EXPORTER_LABEL
from mimi_mmr.member.whois import Standing
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.mls.wire import parse_application
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.credentials import DeviceIdentity, bind_device
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.queues import leaf_binding
from mimi_mmr.protocol.room.departures import departures_hash
from mimi_mmr.protocol.room.events import CommitEvent, EventKind, WelcomeEvent
from mimi_mmr.protocol.room.join_links import JoinLink, make_join_request
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkOrder
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import Identities, RoomPolicy, SignedPolicy
from mimi_mmr.protocol.room.requests import CommitAuthTBS, Snapshot, UpdateRequest, digest, sign_commit
from mimi_mmr.protocol.room.welcome_proofs import prove_welcome
from mimi_mmr.provider.store.hub import to_snapshot
from mimi_mmr.uris import Kind, MimiUri
from treewrap import Change, EpochSecret, StagedCommit

HUB = "a.example"
DOMAINS = ("a.example", "b.example", "c.example")
DAY = 86400
ENGINE = MlsRsEngine()


@dataclass
class Provider:
    """One provider's CA and its key for queue ids."""

    ca: CertificateAuthority
    queue_key: SealingKey


@dataclass
class World:
    """Three providers whom everybody trusts, each for its own domain."""

    now: float = field(default_factory=time.time)
    providers: dict[str, Provider] = field(init=False)
    trust: TrustAnchors = field(init=False)

    def __post_init__(self) -> None:
        self.providers = {
            domain: Provider(CertificateAuthority.create(domain, self.now), SealingKey.generate(Kem.X25519))
            for domain in DOMAINS
        }
        self.trust = TrustAnchors.from_pem({name: one.ca.root_pem() for name, one in self.providers.items()})

    def device(self, name: str, domain: str = HUB, identity: SigningKey | None = None) -> DeviceIdentity:
        """A user with one certified device."""
        user, device = MimiUri(domain, Kind.USER, name), MimiUri(domain, Kind.DEVICE, f"{name}-phone")
        key = SigningKey.generate()
        chain = (self.providers[domain].ca.issue_device(user, device, key.public, self.now),)
        bound = bind_device(identity or SigningKey.generate(), user, device, chain, key.public)
        return DeviceIdentity(user, device, key, bound)

    def leaf(self, device: DeviceIdentity, set_key: SigningKey | None = None) -> PreparedLeaf:
        """A leaf for one room."""
        queue_key = self.providers[device.user.domain].queue_key.public
        return prepare_leaf(ENGINE, device, set_key or SigningKey.generate(), queue_key, self.now)

    def key_package(self, device: DeviceIdentity, set_key: SigningKey | None = None) -> PreparedKeyPackage:
        return prepare_key_package(self.leaf(device, set_key))


@dataclass
class Committed:
    """An accepted commit, with everything that came of it."""

    request: UpdateRequest
    accepted: AcceptedCommit
    followed: dict[str, Followed]

    def event(self, kind: EventKind) -> bytes:
        return next(item.event for item in self.accepted.events if item.kind is kind)


@dataclass(frozen=True)
class AtRest:
    """What a member has written down at some moment: the room, its MLS storage, a commit on its way."""

    room: bytes
    rows: dict[bytes, bytes]
    request: bytes | None = None


class RoomBench:
    """One room: a hub's state, and the rooms of its members by name."""

    def __init__(
        self,
        creator: str = "alice",
        identities: Identities = Identities.EVERYONE,
        arity: int = 4,
        world: World | None = None,
    ) -> None:
        self.world = world or World()
        self.devices: dict[str, DeviceIdentity] = {}
        self.leaves: dict[str, PreparedLeaf] = {}
        self.packages: dict[str, PreparedKeyPackage] = {}
        self.rooms: dict[str, Room] = {}
        self.uri = MimiUri(HUB, Kind.ROOM, "room")
        self.mode = HubMode(HUB)
        self.revealed: set[str] = set()
        self.room_name = ""  # the room's name, as somebody last set it
        self.links: dict[bytes, HubLink] = {}
        self.identities: dict[str, SigningKey] = {}
        self.set_keys: dict[str, SigningKey] = {creator: SigningKey.generate()}
        leaf = self.world.leaf(self.person(creator), self.set_keys[creator])
        self.leaves[creator] = leaf
        self.rooms[creator], request = Room.create(self.uri, leaf, identities, arity)
        self.created = request
        new = self.mode.create(request, self.now)
        self.state: HubRoom = new.state
        self.stored = [(new.state.epoch, request.tree_update, new.rows.wrap)]
        self.snapshots: list[Snapshot] = [to_snapshot(self.state)]

    @property
    def now(self) -> float:
        return self.world.now

    # --- people --------------------------------------------------------------------------------------

    def person(self, name: str) -> DeviceIdentity:
        """Somebody, at the provider that their initial says."""
        if name not in self.devices:
            domain = DOMAINS[(ord(name[0]) - ord("a")) % len(DOMAINS)]
            identity = self.identities[name] = SigningKey.generate()
            self.devices[name] = self.world.device(name, domain, identity)
        return self.devices[name]

    def package(self, name: str) -> OpenKeyPackage:
        """A fresh KeyPackage of theirs, as a contact has it; the leaf is kept under the name."""
        device = self.person(name)
        prepared = self.world.key_package(device, self.set_keys.setdefault(name, SigningKey.generate()))
        self.leaves[name], self.packages[name] = prepared.leaf, prepared
        return prepared.open

    def device_of(self, name: str, owner: str) -> None:
        """Another device of `owner`, under the user pseudonym that `owner` has in this room."""
        first = self.person(owner)
        domain = first.user.domain
        device, key = MimiUri(domain, Kind.DEVICE, f"{name}-device"), SigningKey.generate()
        ca = self.world.providers[domain].ca
        chain = (ca.issue_device(first.user, device, key.public, self.now),)
        bound = bind_device(self.identities[owner], first.user, device, chain, key.public)
        self.devices[name] = DeviceIdentity(first.user, device, key, bound)
        self.set_keys[name] = self.set_keys[owner]

    def leaf_of(self, name: str) -> int:
        return self.rooms[name].own_leaf

    def pseudonym(self, name: str) -> MimiUri:
        return self.leaves[name].identity.credential.user_pseudonym

    def at(self, leaf: int) -> str | None:
        """Who has this leaf."""
        return next((name for name, room in self.rooms.items() if room.own_leaf == leaf), None)

    # --- commits -------------------------------------------------------------------------------------

    def stage(
        self,
        sender: str,
        *,
        add: Sequence[str | OpenKeyPackage] = (),
        remove: Sequence[str] = (),
        **changes: Any,
    ) -> PendingCommit:
        """A commit that is on its way."""
        packages = [self.package(one) if isinstance(one, str) else one for one in add]
        leaves = [self.leaf_of(name) for name in remove]
        return self.rooms[sender].stage(self.intent(sender, packages, leaves, **changes), time.time())

    def intent(
        self,
        sender: str,
        add: Sequence[OpenKeyPackage] = (),
        remove: Sequence[int] = (),
        *,
        policy: RoomPolicy | None = None,
        state: MembersOnlyState | None = None,
        **changes: Any,
    ) -> CommitIntent:
        """What `sender` wants of a commit, with the next policy and members-only state as they are to be."""
        return CommitIntent(
            tuple(add),
            self.rooms[sender].members.at(remove),
            policy=(lambda _: policy) if policy else None,
            state=(lambda _: state) if state else None,
            **changes,
        )

    def commit(self, sender: str, add: Sequence[str] = (), **changes: Any) -> Committed:
        """A commit that the hub accepts and everybody follows."""
        return self.settle(sender, self.stage(sender, add=add, **changes), add)

    def settle(self, sender: str, pending: PendingCommit, add: Sequence[str] = ()) -> Committed:
        """The hub takes a commit, and everybody follows."""
        request = UpdateRequest.from_bytes(pending.request.to_bytes())
        accepted = self.accept(request)
        pending.accept()
        followed = self.deliver(accepted.events)
        for name in [name for name, room in self.rooms.items() if room.removed]:
            del self.rooms[name]
            self.revealed.discard(name)
        assert set(add) <= self.rooms.keys()
        return Committed(request, accepted, followed)

    def accept(self, request: UpdateRequest) -> AcceptedCommit:
        """What the hub does with a commit that it takes."""
        accepted = self.mode.update(self.state, request, self.now)
        accepted.commit()
        if accepted.ends_links:
            self.links.clear()
        if request.tree_update:
            self.stored.append((accepted.epoch, request.tree_update, accepted.rows.wrap))
        self.snapshots.append(to_snapshot(self.state))
        return accepted

    def deliver(self, events: Sequence[Outgoing]) -> dict[str, Followed]:
        """Bring events to those that the hub addressed, found as their providers find them: by the binding."""
        by_binding = {leaf_binding(leaf.key.public): name for name, leaf in self.leaves.items()}
        followed = {}
        for event in events:
            for delivery in event.deliveries:
                name = by_binding[delivery.leaf_binding]
                if event.kind is EventKind.COMMIT:
                    followed[name] = self.rooms[name].follow(CommitEvent.from_bytes(event.event), self.now)
                elif event.kind is EventKind.WELCOME:
                    self.rooms[name] = self.join(name, WelcomeEvent.from_bytes(event.event))
        return followed

    def join(self, name: str, event: WelcomeEvent, snapshot: Snapshot | None = None) -> Room:
        snapshot = snapshot or self.snapshots[event.auth.content.epoch + 1]
        return Room.join(self.packages[name], event, Snapshot.from_bytes(snapshot.to_bytes()))

    def read(self, name: str, message: bytes) -> tuple[int, Content]:
        """What a member makes of an application message, as the hub passes it on."""
        return self.rooms[name].decrypt(parse_application(message))

    def proven(self, event: WelcomeEvent, name: str) -> WelcomeEvent:
        """This event with the proof of somebody who has this joiner's identity link key."""
        return replace(event, proofs=prove_welcome([self.packages[name].open], event.auth.content))

    # --- links ---------------------------------------------------------------------------------------

    def make_link(self, sender: str, uses: int = 3, lifetime: int = DAY) -> JoinLink:
        """A join link, known to members and hub."""
        room = self.rooms[sender]
        live = room.join_links.make(int(self.now) + lifetime, uses)
        self.commit(sender, state=room.members_only.state.with_link(live, self.now))
        self.take_order(room.join_links.order(live))
        return room.join_links.link(live)

    def take_order(self, order: LinkOrder) -> None:
        """What the hub does with an order about a link that it takes."""
        link = check_order(self.state, LinkOrder.from_bytes(order.to_bytes()), self.now)
        self.links[link.id] = link

    def ask(self, link: JoinLink, *names: str) -> JoinRequest:
        """What somebody sends who has the link, for each of these devices."""
        return make_join_request(link, [self.package(name) for name in names])

    def knock(self, request: JoinRequest) -> JoinRequest:
        """The hub takes a request to join, and passes it on: the event that members get."""
        request = JoinRequest.from_bytes(request.to_bytes())
        link = self.links.get(request.content.link_id)
        events = check_join(self.state, link, request, self.now)
        assert link is not None
        self.links[link.id] = replace(link, uses_left=link.uses_left - 1)
        assert sum(len(event.deliveries) for event in events) == len(self.state.members)
        assert {event.kind for event in events} == {EventKind.JOIN_REQUEST}
        return JoinRequest.from_bytes(events[0].event)

    def let_in(self, sender: str, event: JoinRequest, *names: str) -> Committed:
        """A member adds whoever knocked."""
        room = self.rooms[sender]
        packages = room.join_links.open_request(event, self.now)
        intent = CommitIntent(tuple(packages), state=partial(room.join_links.after_join, event))
        pending = room.stage(intent, time.time())
        return self.settle(sender, pending, names)

    # --- at rest -------------------------------------------------------------------------------------

    def at_rest(self, name: str, pending: PendingCommit | None = None) -> AtRest:
        """What this member writes down now, in one transaction."""
        saved = self.rooms[name].saved().to_bytes()
        rows = dict(self.leaves[name].client._library.storage._rows)  # type: ignore[attr-defined]
        return AtRest(saved, rows, pending.request.to_bytes() if pending else None)

    def restart(self, name: str, kept: AtRest | None = None) -> PendingCommit | None:
        """End this member's process, and start again from what it has written down; its commit, if one waits."""
        kept = kept or self.at_rest(name)
        leaf = self.leaves[name]
        client = ENGINE.client(leaf.identity.to_bytes(), leaf.key, dict(kept.rows))
        self.leaves[name] = replace(leaf, client=client)
        room = self.rooms[name] = Room.restore(SavedRoom.from_bytes(kept.room), self.leaves[name])
        return room.pending(UpdateRequest.from_bytes(kept.request)) if kept.request else None

    # --- forging -------------------------------------------------------------------------------------

    def resign(self, request: UpdateRequest, signer: str, **changes: Any) -> UpdateRequest:
        """This request with other parts, the hashes of all parts brought up to date, signed by `signer`.

        The signer has the KeyPackages that the request adds, so its proofs are brought up to date too.
        Names of `CommitAuthTBS` set what is signed, other names the request's own parts.
        """
        signed = {name: value for name, value in changes.items() if name in CommitAuthTBS.__annotations__}
        request = replace(request, **{name: changes[name] for name in changes if name not in signed})
        parts = {
            "commit_hash": digest(request.commit),
            "welcome_hash": digest(request.welcome),
            "tree_update_hash": digest(request.tree_update),
            "member_update_hash": digest(request.member_update),
            "departures_hash": departures_hash(request.departures),
            "room_state_hash": digest(
                self.state.sealed_state if request.room_state is None else request.room_state
            ),
        }
        content = replace(request.auth.content, **(parts | signed))
        refs = {proof.key_package_ref for proof in request.welcome_proofs}
        added = [package.open for package in self.packages.values() if package.ref in refs]
        auth = sign_commit(content, self.leaves[signer].key)
        return replace(request, auth=auth, welcome_proofs=prove_welcome(added, content))

    def with_changes(
        self, sender: str, pending: PendingCommit, changes: Sequence[Change], *, epoch: int | None = None
    ) -> UpdateRequest:
        """The sender's commit with a sound Tree Wrap update that does something else, signed by the sender."""
        staged = self.forge_tree(sender, pending, changes, epoch=epoch)
        return self.resign(
            pending.request,
            sender,
            tree_update=staged.update.to_bytes(),
            member_update=staged.member_update.to_bytes(),
            tree_hash=staged.tree_hash,
        )

    def forge_tree(
        self, sender: str, pending: PendingCommit, changes: Sequence[Change], *, epoch: int | None = None
    ) -> StagedCommit:
        room = self.rooms[sender]
        return room._local.tree.stage(
            changes,
            epoch=epoch or room.epoch + 1,
            epoch_secret=self.epoch_secret(sender, pending),
            verify=lambda *_: True,
            now=int(self.now),
        )

    def epoch_secret(self, sender: str, pending: PendingCommit) -> EpochSecret:
        """The Tree Wrap secret of the epoch that a commit would begin: its committer has it."""
        context = self.rooms[sender]._local.group.group_id
        return EpochSecret(pending._mls.export_secret(EXPORTER_LABEL, context, 32))

    @contextmanager
    def refused_by_hub(self, error: type[MmrError], match: str | None = None) -> Iterator[None]:
        """The hub refuses what happens inside, for this reason, and nothing of it leaves a trace."""
        before = self.hub_fingerprint()
        with pytest.raises(error, match=match) as refusal:
            yield
        assert type(refusal.value) is error
        assert self.hub_fingerprint() == before

    def hub_takes(self, request: UpdateRequest) -> AcceptedCommit:
        """What the hub makes of a request as it came over the wire."""
        return self.mode.update(self.state, UpdateRequest.from_bytes(request.to_bytes()), self.now)

    def hub_fingerprint(self) -> tuple[Any, ...]:
        """All that the hub holds of the room."""
        state = self.state
        return (
            state.epoch,
            state.ratchet.to_bytes(),
            state.ratchet.tree_hash(),
            state.wrap.to_bytes(),
            state.wrap.tree_hash,
            state.policy.to_bytes(),
            state.sealed_state,
            dict(state.members),
        )

    # --- seeing --------------------------------------------------------------------------------------

    def names(self, viewer: str) -> dict[int, str | None]:
        """Leaf -> user name as `viewer` verified it; None for one that is hidden; "?" for one that failed."""
        found: dict[int, str | None] = {}
        for entry in self.rooms[viewer].who(self.world.trust, self.now):
            if entry.standing is Standing.HIDDEN:
                found[entry.leaf] = None
            else:
                found[entry.leaf] = entry.member.device.user.name if entry.member else "?"
        return found

    def check_agreement(self) -> None:
        """Hub and members agree on epoch, tree hash, roster and policy; every shown name is the right one."""
        state = self.state
        truth = {room.own_leaf: name for name, room in self.rooms.items()}
        policy = state.policy.policy
        shown = {
            leaf: self.devices[name].user.name
            if policy.shows_identity(self.pseudonym(name)) or name in self.revealed
            else None
            for leaf, name in truth.items()
        }
        for name, room in self.rooms.items():
            assert (room.epoch, room.tree_hash) == (state.epoch, state.wrap.tree_hash)
            assert room.policy == state.policy
            assert room.members_only.sealed == state.sealed_state
            assert room.members_only.state == next(iter(self.rooms.values())).members_only.state
            participants = room.members.identities
            assert {leaf: one.credential.user_pseudonym for leaf, one in participants.items()} == {
                leaf: member.user for leaf, member in state.members.items()
            }
            assert participants.keys() == truth.keys()
            assert self.names(name) == shown, f"as {name} sees it"


def welcome_event(request: UpdateRequest) -> WelcomeEvent:
    """The event that a hub makes of a request for those whom it adds."""
    assert request.welcome is not None
    return WelcomeEvent(request.auth, request.welcome, request.welcome_proofs)


def next_policy(signed: SignedPolicy, **changes: Any) -> RoomPolicy:
    """The policy after this one, with these changes."""
    policy = signed.policy
    return replace(policy, **({"serial": policy.serial + 1} | changes))
