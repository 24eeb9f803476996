"""Commits that a hostile member could send: the hub refuses each by name, and its tree stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mimi_mmr.errors import InvalidCommit, MmrError, SignatureRejected, UnknownSender
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.wire import Add, KeyPackage, LeafNode, LeafNodeSource, PublicCommit, Remove
from tests.mimi_mmr.mls.mls_world import (
    GROUP,
    World,
    adding,
    forged_key_package,
    leaf_bytes,
    person,
    place_of,
)


def _world() -> World:
    world = World()
    world.commit(add=5)
    world.commit(remove=(4,))
    world.commit(sender=1)
    return world


WORLD = _world()
HEALING = WORLD.staged(sender=1)
REMOVING = WORLD.staged(sender=0, remove=(3,))
ADDING = WORLD.staged(sender=0, add=(person().client.key_package(),))


def refused(commit: PublicCommit, error: type[MmrError], words: str) -> None:
    before = WORLD.hub.to_bytes()
    with pytest.raises(error, match=words):
        WORLD.hub.apply(commit, GROUP)
    assert WORLD.hub.to_bytes() == before


def with_leaf(change: Callable[[LeafNode], LeafNode], commit: PublicCommit = HEALING) -> PublicCommit:
    assert commit.path is not None
    return replace(commit, path=replace(commit.path, leaf_node=change(commit.path.leaf_node)))


def resigned(commit: PublicCommit = HEALING, place: bytes | None = None, **changes: object) -> PublicCommit:
    key = WORLD.people[commit.sender].key
    where = place_of(commit.sender) if place is None else place
    return with_leaf(lambda leaf: leaf_bytes(leaf, key, where, **changes), commit)


def test_the_honest_ones_pass() -> None:
    for commit in (HEALING, REMOVING, ADDING, resigned()):
        WORLD.hub.apply(commit, GROUP)


def test_unknown_sender() -> None:
    for leaf in (4, 6, 7, 8, 2**32 - 1):
        refused(replace(HEALING, sender=leaf), UnknownSender, f"leaf {leaf}")


def test_somebody_elses_place() -> None:
    refused(replace(HEALING, sender=0), SignatureRejected, "path's leaf")


def test_another_group() -> None:
    refused(replace(HEALING, group_id=b"another"), InvalidCommit, "another group")
    with pytest.raises(SignatureRejected, match="path's leaf"):
        WORLD.hub.apply(replace(HEALING, group_id=b"another"))


def test_forged_leaf_signature() -> None:
    refused(with_leaf(lambda leaf: replace(leaf, signature=bytes(64))), SignatureRejected, "path's leaf")


def test_a_leaf_signed_for_another_place() -> None:
    refused(resigned(place=place_of(2)), SignatureRejected, "path's leaf")
    refused(resigned(place=place_of(1, b"another")), SignatureRejected, "path's leaf")


def test_a_leaf_that_claims_another_source() -> None:
    refused(resigned(source=LeafNodeSource.UPDATE, parent_hash=None), InvalidCommit, "from UPDATE")


def test_garbled_parent_hash() -> None:
    refused(resigned(parent_hash=bytes(32)), InvalidCommit, "parent hash")
    refused(resigned(parent_hash=b""), InvalidCommit, "parent hash")


@pytest.mark.parametrize("commit", [HEALING, REMOVING])
def test_a_garbled_path_key_breaks_the_parent_hash(commit: PublicCommit) -> None:
    assert commit.path is not None
    for index in range(len(commit.path.nodes)):
        nodes = list(commit.path.nodes)
        nodes[index] = replace(nodes[index], encryption_key=bytes(32))
        refused(
            replace(commit, path=replace(commit.path, nodes=tuple(nodes))),
            InvalidCommit,
            "parent hash of the path",
        )


def test_a_path_too_long_or_too_short() -> None:
    assert HEALING.path is not None
    nodes = HEALING.path.nodes
    for wrong in (nodes[:-1], (*nodes, nodes[-1]), ()):
        path = replace(HEALING.path, nodes=wrong)
        refused(replace(HEALING, path=path), InvalidCommit, f"{len(wrong)} nodes, expected {len(nodes)}")


def test_a_secret_too_many_or_too_few() -> None:
    assert HEALING.path is not None
    last = HEALING.path.nodes[-1]
    secrets = last.encrypted_path_secret
    for wrong in (secrets[:-1], (*secrets, secrets[0])):
        nodes = (*HEALING.path.nodes[:-1], replace(last, encrypted_path_secret=wrong))
        refused(replace(HEALING, path=replace(HEALING.path, nodes=nodes)), InvalidCommit, "encrypted secrets")


def test_removing_oneself_nobody_or_somebody_twice() -> None:
    refused(replace(REMOVING, proposals=(Remove(0),)), InvalidCommit, "can't remove itself")
    refused(replace(REMOVING, proposals=(Remove(4),)), InvalidCommit, "no member at leaf 4")
    refused(replace(REMOVING, proposals=(Remove(900),)), InvalidCommit, "no member at leaf 900")
    refused(replace(REMOVING, proposals=(Remove(3), Remove(3))), InvalidCommit, "no member at leaf 3")


def test_a_removal_or_an_empty_commit_without_a_path() -> None:
    refused(replace(REMOVING, path=None), InvalidCommit, "must have a path")
    refused(replace(HEALING, path=None), InvalidCommit, "must have a path")


def test_a_signature_key_twice() -> None:
    twin = forged_key_package(person(key=WORLD.people[2].key))
    refused(adding(ADDING, twin), InvalidCommit, "same signature key")


def test_an_identity_twice() -> None:
    twin = forged_key_package(person(identity=WORLD.people[2].identity))
    refused(adding(ADDING, twin), InvalidCommit, "same identity")


def test_an_encryption_key_twice() -> None:
    stolen = WORLD.hub.leaves[2].encryption_key
    refused(
        adding(ADDING, forged_key_package(person(), encryption_key=stolen)),
        InvalidCommit,
        "same encryption key",
    )
    parent = next(parent for node in range(1, 15, 2) if (parent := WORLD.hub.parent(node)))
    stolen = parent.encryption_key
    refused(
        adding(ADDING, forged_key_package(person(), encryption_key=stolen)),
        InvalidCommit,
        "same encryption key",
    )


def test_one_newcomer_twice() -> None:
    newcomer = KeyPackage.from_bytes(person().client.key_package())
    refused(adding(ADDING, newcomer, newcomer), InvalidCommit, "the same")


def test_a_newcomer_with_a_forged_key_package() -> None:
    data = bytearray(person().client.key_package())
    data[-1] ^= 1
    refused(adding(ADDING, KeyPackage.from_bytes(bytes(data))), SignatureRejected, "KeyPackage")


def test_a_committer_that_takes_anothers_name_or_key() -> None:
    refused(resigned(identity=WORLD.people[2].identity), InvalidCommit, "same identity")
    other = WORLD.people[2].key
    stolen = with_leaf(lambda leaf: leaf_bytes(leaf, other, place_of(HEALING.sender)))
    refused(stolen, InvalidCommit, "same signature key")


def test_a_committer_that_keeps_its_encryption_key() -> None:
    old = WORLD.hub.leaves[HEALING.sender].encryption_key
    refused(resigned(encryption_key=old), InvalidCommit, "keeps its encryption key")


def test_a_removed_members_name_is_free_again() -> None:
    gone = WORLD.people[3]
    back = forged_key_package(person(identity=gone.identity, key=gone.key))
    refused(adding(ADDING, back), InvalidCommit, "same")
    commit = replace(REMOVING, proposals=(*REMOVING.proposals, Add(back)))
    with pytest.raises(
        InvalidCommit, match=r"parent hash|nodes|secrets"
    ):  # unique it is; the path was made without
        WORLD.hub.apply(commit, GROUP)


def test_a_tree_that_somebody_supplies() -> None:
    WORLD.hub.verify(GROUP)
    with pytest.raises(SignatureRejected, match="leaf"):
        WORLD.hub.verify(b"another")


def test_a_supplied_tree_with_one_garbled_node() -> None:
    for node, row in WORLD.hub.rows.items():
        garbled = bytearray(row)
        garbled[10] ^= 1
        tree = RatchetTree.from_rows({**WORLD.hub.rows, node: bytes(garbled)})
        with pytest.raises((SignatureRejected, InvalidCommit)):
            tree.verify(GROUP)


def test_a_supplied_tree_with_two_equal_members() -> None:
    rows = dict(WORLD.hub.rows)
    rows[8] = rows[4]
    data = RatchetTree.from_rows(rows).to_bytes()
    with pytest.raises(InvalidCommit, match="the same"):
        RatchetTree.from_bytes(data)
