"""The published vectors are what the code does, and can be replayed from their inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from treewrap import (
    DeferredLeaf,
    EpochSecret,
    Kem,
    LeafSecret,
    LightTree,
    LinkKey,
    MemberUpdate,
    PublicTree,
    RootKey,
    Suite,
    TreeUpdate,
    WrapTree,
    open_link,
)
from treewrap.suite import GroupContext
from treewrap.vectors import (
    DeferredVector,
    HistoryVector,
    LinkVector,
    Vectors,
    change_from_vector,
    make,
)

FILE = Path(__file__).parent.parent / "vectors" / "treewrap.json"
VECTORS: Vectors = json.loads(FILE.read_text())


def replay(drawn: str) -> Callable[[int], bytes]:
    rest = bytearray.fromhex(drawn)

    def rng(size: int) -> bytes:
        given = bytes(rest[:size])
        del rest[:size]
        return given

    return rng


def test_the_file_is_what_the_generator_makes() -> None:
    made = make()
    assert made["histories"] == VECTORS["histories"]
    assert made["deferred"] == VECTORS["deferred"]
    assert [Kem(link["kem"]) for link in VECTORS["links"]] == list(Kem)


@pytest.mark.parametrize("history", VECTORS["histories"], ids=lambda history: f"k={history['arity']}")
def test_a_history_can_be_replayed(history: HistoryVector) -> None:
    suite, group_id = Suite(history["arity"]), bytes.fromhex(history["group_id"])
    member, follower = WrapTree.create(suite, group_id), WrapTree.create(suite, group_id)
    hub = PublicTree.create(suite, group_id)
    assert member.tree_hash.hex() == history["empty_tree_hash"]
    for epoch in history["epochs"]:
        secret = EpochSecret(bytes.fromhex(epoch["epoch_secret"]))
        changes = [change_from_vector(change) for change in epoch["changes"]]
        staged = member.stage(changes, epoch=epoch["epoch"], epoch_secret=secret, rng=replay(epoch["random"]))
        assert staged.update.to_bytes().hex() == epoch["tree_update"]
        assert staged.member_update.to_bytes().hex() == epoch["member_update"]
        follower.follow(MemberUpdate.from_bytes(bytes.fromhex(epoch["member_update"])), secret).commit()
        hub.stage(TreeUpdate.from_bytes(bytes.fromhex(epoch["tree_update"]))).commit()
        staged.commit()
        assert hub.to_bytes().hex() == epoch["public_tree"]
        assert {tree.tree_hash.hex() for tree in (member, follower, hub)} == {epoch["tree_hash"]}
        joiner = WrapTree.open(bytes.fromhex(epoch["public_tree"]), secret, hub.tree_hash)
        assert joiner.leaves() == member.leaves()
    assert hub.paths(bytes.fromhex(history["path_query"])).hex() == history["paths"]
    light = LightTree.open(group_id, bytes.fromhex(history["paths"]), secret, hub.tree_hash)
    assert light.read(bytes.fromhex(history["paths"])).secret(0) == member.secret(0)


@pytest.mark.parametrize("vector", VECTORS["deferred"], ids=lambda vector: f"k={vector['arity']}")
def test_a_deferred_leaf_opens(vector: DeferredVector) -> None:
    context = GroupContext(Suite(vector["arity"]), bytes.fromhex(vector["group_id"]))
    secret, epoch_secret = bytes.fromhex(vector["secret"]), EpochSecret(bytes.fromhex(vector["epoch_secret"]))
    deferred = DeferredLeaf.from_bytes(bytes.fromhex(vector["deferred_leaf"]))
    assert deferred.open(context, epoch_secret) == LeafSecret(secret)
    again = DeferredLeaf.make(
        context,
        vector["leaf"],
        LeafSecret(secret),
        epoch=vector["epoch"],
        epoch_secret=epoch_secret,
        rng=replay(vector["random"]),
    )
    assert again == deferred


@pytest.mark.parametrize("vector", VECTORS["links"], ids=lambda vector: Kem(vector["kem"]).name)
def test_a_links_seal_opens(vector: LinkVector) -> None:
    public = PublicTree.from_bytes(bytes.fromhex(vector["public_tree"]))
    assert public.tree_hash.hex() == vector["tree_hash"]
    key, link_id = LinkKey.from_bytes(bytes.fromhex(vector["private_key"])), bytes.fromhex(vector["link_id"])
    context = GroupContext(public.suite, public.group_id)
    root_key = key.open(public.seals[0], context, vector["epoch"], public.tree_hash)
    assert root_key == RootKey(bytes.fromhex(vector["root_key"]))
    assert open_link(public, link_id, key, now=1_799_999_999).leaves() == [0]
