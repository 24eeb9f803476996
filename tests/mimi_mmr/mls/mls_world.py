"""A group with a real engine, a hub's tree beside it, and the keys of everybody, so that a test can forge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mimi_mmr.crypto.signing import MLS, SigningKey
from mimi_mmr.mls.engine import Applied, MlsClient, MlsGroup, StagedCommit
from mimi_mmr.mls.mls_rs import MlsRsEngine
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.wire import (
    Add,
    KeyPackage,
    LeafNode,
    LeafNodeSource,
    PublicCommit,
    parse_application,
    parse_commit,
)
from mimi_mmr.presentation import vec

GROUP = b"mimi://hub.example/r/room"
ENGINE = MlsRsEngine()
_numbers = itertools.count()


@dataclass
class Person:
    client: MlsClient
    key: SigningKey
    identity: bytes


def person(identity: bytes | None = None, key: SigningKey | None = None) -> Person:
    identity = identity or b"somebody %d" % next(_numbers)
    key = key or SigningKey.generate()
    return Person(ENGINE.client(identity, key), key, identity)


def follow(group: MlsGroup, commit: bytes) -> Applied:
    """What a member does with a commit that comes over the wire."""
    return group.process_commit(parse_commit(commit))


def read(group: MlsGroup, message: bytes) -> tuple[int, bytes]:
    """What a member does with an application message that comes over the wire."""
    return group.decrypt(parse_application(message))


class World:
    """Members who follow every commit, by leaf; others are in the tree only; `hub` follows on its own."""

    def __init__(self, active: int = 4) -> None:
        self.active = active
        self.people: dict[int, Person] = {0: person()}
        self.groups: dict[int, MlsGroup] = {0: self.people[0].client.create_group(GROUP)}
        self.hub = RatchetTree.from_bytes(self.groups[0].ratchet_tree())
        self.rows = dict(self.hub.rows)

    def commit(self, sender: int = 0, add: int = 0, remove: tuple[int, ...] = ()) -> StagedCommit:
        new = [person() for _ in range(add)]
        staged = self.groups[sender].stage_commit([one.client.key_package() for one in new], remove)
        self.settle(sender, staged, new, remove)
        return staged

    def settle(
        self, sender: int, staged: StagedCommit, new: Sequence[Person] = (), remove: Sequence[int] = ()
    ) -> None:
        self.follow_at_hub(staged)
        staged.accept()
        for leaf in remove:
            del self.people[leaf]
        self.follow_at_members(sender, staged)
        self.welcome(new, staged)

    def follow_at_hub(self, staged: StagedCommit) -> None:
        change = self.hub.apply(parse_commit(staged.commit), GROUP)
        assert tuple(leaf for leaf, _ in change.added) == staged.added
        expected_hash = change.tree_hash()
        change.commit()
        assert self.hub.tree_hash() == expected_hash
        assert self.hub.size == change.size
        for node, row in change.rows.items():
            assert self.rows.get(node) != row
            self.rows.pop(node, None) if row is None else self.rows.update({node: row})

    def follow_at_members(self, sender: int, staged: StagedCommit) -> None:
        for leaf, group in list(self.groups.items()):
            if leaf == sender:
                continue
            applied = follow(group, staged.commit)
            assert (applied.sender, applied.added, applied.epoch) == (sender, staged.added, staged.epoch)
            assert applied.removed_self == (leaf not in self.people)
            if applied.removed_self:
                del self.groups[leaf]

    def welcome(self, new: Sequence[Person], staged: StagedCommit) -> None:
        for leaf, one in zip(staged.added, new, strict=True):
            self.people[leaf] = one
            if len(self.groups) < self.active:
                self.groups[leaf] = one.client.join(staged.welcome, staged.ratchet_tree)
                assert self.groups[leaf].own_leaf == leaf

    def staged(
        self, sender: int = 0, add: tuple[bytes, ...] = (), remove: tuple[int, ...] = ()
    ) -> PublicCommit:
        """A commit that nobody has followed, for a forger to start from."""
        staged = self.groups[sender].stage_commit(add, remove)
        staged.reject()
        return parse_commit(staged.commit)


def leaf_bytes(leaf: LeafNode, key: SigningKey, place: bytes = b"", **changes: object) -> LeafNode:
    """This leaf with other content, signed again by `key`; `place` is what its source adds to LeafNodeTBS."""
    leaf = replace(leaf, signature_key=key.public, **changes)
    body = vec(leaf.encryption_key) + vec(leaf.signature_key) + b"\x00\x01" + vec(leaf.identity)
    body += leaf.capabilities.to_bytes() + bytes([leaf.source])
    if leaf.source is LeafNodeSource.KEY_PACKAGE:
        start, end = leaf.lifetime or (0, 2**64 - 1)
        body += start.to_bytes(8, "big") + end.to_bytes(8, "big")
    elif leaf.source is LeafNodeSource.COMMIT:
        body += vec(leaf.parent_hash or b"")
    body += vec(b"".join(extension.to_bytes() for extension in leaf.extensions))
    return LeafNode.from_bytes(body + vec(key.sign("LeafNodeTBS", body + place, prefix=MLS)))


def place_of(leaf_index: int, group_id: bytes = GROUP) -> bytes:
    return vec(group_id) + leaf_index.to_bytes(4, "big")


def key_package_bytes(leaf: LeafNode, key: SigningKey, init_key: bytes = bytes(range(32))) -> bytes:
    body = b"\x00\x01\x00\x01" + vec(init_key) + leaf.encoded + b"\x00"
    return body + vec(key.sign("KeyPackageTBS", body, prefix=MLS))


def forged_key_package(one: Person, **changes: object) -> KeyPackage:
    """A KeyPackage by this person, its leaf changed, all signatures right."""
    leaf = KeyPackage.from_bytes(one.client.key_package()).leaf_node
    return KeyPackage.from_bytes(key_package_bytes(leaf_bytes(leaf, one.key, **changes), one.key))


def adding(commit: PublicCommit, *key_packages: KeyPackage) -> PublicCommit:
    """This commit with these Adds and nothing else."""
    return replace(commit, proposals=tuple(Add(one) for one in key_packages), path=None)
