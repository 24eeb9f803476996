"""Removed member, with the hub: Ids and keys of whoever comes later stay closed to both.

The attack is written down a second time, from the specification: it shares no code with what it attacks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mimi_mmr.crypto.secret import IdentityLinkKey
from mimi_mmr.errors import LinkRejected
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.protocol.credentials import LeafIdentity, PseudonymousCredential, open_link
from mimi_mmr.protocol.room.events import CommitEvent
from tests.mimi_mmr.bench import RoomBench
from tests.treewrap.treewrap_world import expand, vector
from treewrap import EpochSecret, MemberUpdate, PublicTree, TreeUpdate, TreeWrapError, WrapTree


@dataclass(frozen=True)
class Sealed:
    """One ciphertext that the hub stored or passed on: of which epoch, and what its key is derived with."""

    epoch: int
    salt: bytes
    label: bytes
    place: bytes
    aad: bytes
    ciphertext: bytes


@dataclass
class Story:
    """Bob was there, and is not there any more; Dave and Erin came after. Bob never erased anything."""

    bench: RoomBench
    events: list[CommitEvent] = field(default_factory=list)
    kept: set[bytes] = field(default_factory=set)
    left: int = 0

    def commit(self, sender: str, **changes: object) -> None:
        request = self.bench.commit(sender, **changes).request  # type: ignore[arg-type]
        self.events.append(CommitEvent(request.auth, request.commit, request.member_update, request.policy))
        if "bob" in self.bench.rooms:
            room, group = self.bench.rooms["bob"], self.bench.state.group_id
            self.kept.add(room._local.group.export_secret(b"TreeWrap", group, 32))
            self.kept |= {room._local.tree.secret(leaf).reveal() for leaf in room._local.tree.leaves()}
            self.kept |= {
                room._local.tree.room_secret(name).reveal() for name in room._local.tree.room_secrets()
            }

    def sealed(self) -> Iterator[Sealed]:
        """Every ciphertext of every epoch."""
        tree = self.bench.state.wrap
        context = struct.pack(">H", tree.suite.id) + vector(self.bench.state.group_id)
        head = 8 + tree.suite.bitmap_size
        for epoch, update, rows in self.bench.stored:
            salt = TreeUpdate.from_bytes(update).header.salt
            for (level, index), row in rows.items():
                place = struct.pack(">BI", level, index)
                if row is not None:
                    yield Sealed(epoch, salt, b"node", place, context + place + row[:head], row[head:])
        for event in self.events:
            if event.member_update:
                yield from self._wrapped(context, MemberUpdate.from_bytes(event.member_update))

    def _wrapped(self, context: bytes, update: MemberUpdate) -> Iterator[Sealed]:
        wraps = [(b"leaf", leaf, wrap) for leaf, _, wrap in update.leaves if wrap]
        wraps += [(b"room", number, wrap) for number, wrap in enumerate(update.rooms)]
        for label, number, wrap in wraps:
            aad = context + struct.pack(">IQ", number, update.epoch)
            yield Sealed(update.epoch, update.header.salt, label, struct.pack(">I", number), aad, wrap)

    def attack(self) -> tuple[set[bytes], dict[Sealed, bytes]]:
        """All that can be known, and all that opens, from what Bob kept; any key is tried for any purpose."""
        group = vector(self.bench.state.group_id)
        everything, known, opened = list(self.sealed()), set(), {}
        fresh = set(self.kept)
        while fresh:
            found: set[bytes] = set()
            for one in everything:
                for key in fresh:
                    for candidate in (key, expand(key, one.label, group + one.salt + one.place)):
                        plaintext = unseal(candidate, one)
                        if plaintext is not None:
                            opened[one] = plaintext
                            found |= {plaintext[at : at + 32] for at in range(max(1, len(plaintext) - 31))}
            known |= fresh
            fresh = {part for part in found if len(part) == 32} - known
        return known, opened

    def links(self) -> dict[str, PseudonymousCredential]:
        """Every credential that stood in the hub's ratchet trees, by the name behind it."""
        names = {leaf.identity.credential.client_pseudonym: name for name, leaf in self.bench.leaves.items()}
        found = {}
        for snapshot in self.bench.snapshots:
            for leaf in RatchetTree.from_bytes(snapshot.ratchet_tree).leaves.values():
                credential = LeafIdentity.from_bytes(leaf.identity).credential
                found[names[credential.client_pseudonym]] = credential
        return found

    def names_that_open(self, keys: set[bytes]) -> set[str]:
        """Every key tried on every link."""
        return {
            name
            for name, credential in self.links().items()
            if any(opens(credential, IdentityLinkKey(key)) for key in keys)
        }


def unseal(key: bytes, sealed: Sealed) -> bytes | None:
    try:
        return AESGCM(key).decrypt(bytes(12), sealed.ciphertext, sealed.aad)
    except InvalidTag:
        return None


def opens(credential: PseudonymousCredential, key: IdentityLinkKey) -> bool:
    try:
        open_link(credential, key)
    except LinkRejected:
        return False
    return True


@pytest.fixture(scope="module", params=[2, 4, 16], ids=lambda arity: f"arity {arity}")
def story(request: pytest.FixtureRequest) -> Story:
    story = Story(RoomBench(arity=request.param))
    story.commit("alice", add=["bob", "cathy", "frank"])
    story.commit("bob")
    story.commit("cathy", add=["gwen"])
    story.commit("alice", remove=["bob"])
    story.left = story.bench.state.epoch
    story.commit("cathy", add=["dave"])
    story.commit("dave")
    story.commit("dave", add=["erin"])
    story.commit("alice", remove=["frank"])
    story.bench.check_agreement()
    return story


def test_the_attack_opens_all_that_was_sealed_while_he_was_there(story: Story) -> None:
    """Or it would prove nothing that it opens nothing later."""
    known, opened = story.attack()
    theirs = {one for one in story.sealed() if 0 < one.epoch < story.left}
    wraps = {one for one in theirs if one.epoch == 1 and one.label != b"node"}  # he came with these
    assert theirs - wraps <= opened.keys()
    assert story.names_that_open(known) == {"alice", "bob", "cathy", "frank", "gwen"}


def test_nothing_that_was_sealed_after_he_left_opens(story: Story) -> None:
    _, opened = story.attack()
    assert {one.epoch for one in opened} <= set(range(story.left))
    assert any(one.epoch >= story.left for one in story.sealed())


def test_the_link_keys_of_those_who_came_later_are_not_among_all_he_can_know(story: Story) -> None:
    known, _ = story.attack()
    for name in ("dave", "erin"):
        assert story.bench.leaves[name].ilk.reveal() not in known
    for name in ("alice", "cathy", "gwen"):
        assert story.bench.leaves[name].ilk.reveal() in known  # what he saw, he may know


def test_the_current_tree_opens_with_no_secret_of_his(story: Story) -> None:
    for snapshot in story.bench.snapshots[story.left :]:
        tree = PublicTree.from_bytes(snapshot.public_tree)
        for secret in story.kept:
            with pytest.raises(TreeWrapError):
                WrapTree.open(snapshot.public_tree, EpochSecret(secret), tree.tree_hash)


def test_a_later_room_secret_is_not_among_all_he_can_know(story: Story) -> None:
    """Removing replaces every room secret; the policy's hash alone is public, and stays."""
    known, _ = story.attack()
    tree = story.bench.rooms["dave"]._local.tree
    secrets = {tree.room_secret(name).reveal() for name in tree.room_secrets()}
    assert secrets == {story.bench.state.policy.policy.hash}
    assert secrets <= known


def test_what_the_hub_stores_holds_no_link_key_and_no_name(story: Story) -> None:
    blobs = [snapshot.to_bytes() for snapshot in story.bench.snapshots]
    blobs += [event.to_bytes() for event in story.events]
    for name, leaf in story.bench.leaves.items():
        real = leaf.identity.credential.to_bytes()
        device = story.bench.devices[name]
        planted = [leaf.ilk.reveal(), str(device.user).encode(), device.key.public, f"{name}-phone".encode()]
        for blob in [*blobs, real]:
            assert not any(secret in blob for secret in planted)


def test_every_epoch_has_a_secret_of_its_own(story: Story) -> None:
    salts = [TreeUpdate.from_bytes(update).header.salt for _, update, _ in story.bench.stored]
    assert all(one != other for one, other in pairwise(sorted(salts)))
    ciphertexts = [one.ciphertext for one in story.sealed()]
    assert len(set(ciphertexts)) == len(ciphertexts)
