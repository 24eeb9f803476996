"""The published vectors are what the code does, and can be replayed from their inputs."""

from __future__ import annotations

import hmac
import json
import struct
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
    answer_paths,
    open_link,
)
from treewrap.changes import ChangeSet
from treewrap.codec import Reader
from treewrap.links.records import read_link_change
from treewrap.stage import canonical_changes
from treewrap.suite import GroupContext
from treewrap.vectors import (
    ChangeVector,
    DeferredVector,
    HistoryVector,
    LinkVector,
    SaltVector,
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


def vector(content: bytes) -> bytes:
    size = len(content)
    return (bytes([size]) if size < 64 else struct.pack(">H", size | 0x4000)) + content


def canonical(epoch: int, changes: list[ChangeVector], rooms: dict[str, str], links: list[str]) -> bytes:
    """CanonicalChanges, written down a second time."""
    leaves: dict[int, bytes] = {}
    repaired: set[tuple[int, int]] = set()
    for change in changes:
        if change["kind"] in ("set", "blank", "reject"):
            kind = ["set", "blank", "reject"].index(change["kind"]) + 1
            secret = bytes.fromhex(change.get("secret", ""))
            leaves[change["leaf"]] = struct.pack(">BI", kind, change["leaf"]) + secret
        elif change["kind"] == "repair":
            repaired |= {(level, index) for level, index in change["nodes"]}
    names = sorted(rooms, key=str.encode)
    return (
        struct.pack(">Q", epoch)
        + vector(b"".join(leaves[leaf] for leaf in sorted(leaves)))
        + vector(b"".join(vector(name.encode()) + bytes.fromhex(rooms[name]) for name in names))
        + vector(b"".join(struct.pack(">BI", *place) for place in sorted(repaired)))
        + bytes([any(change["kind"] == "rebuild" for change in changes)])
        + vector(b"".join(map(bytes.fromhex, links)))
    )


def salt(epoch_secret: str, random: str, previous: str, changes: bytes) -> str:
    """The salt; its 16 fresh bytes are the last that were drawn."""
    content = b"salt" + bytes.fromhex(random)[-16:] + bytes.fromhex(previous) + changes
    return hmac.digest(bytes.fromhex(epoch_secret), content, "sha256")[:16].hex()


def rooms_of(changes: list[ChangeVector]) -> dict[str, str]:
    return {change["name"]: change["secret"] for change in changes if change["kind"] == "room secret"}


@pytest.mark.parametrize("history", VECTORS["histories"], ids=lambda history: f"k={history['arity']}")
def test_a_salt_can_be_computed_from_canonical_bytes(history: HistoryVector) -> None:
    previous = history["empty_tree_hash"]
    for epoch in history["epochs"]:
        rooms = rooms_of(epoch["changes"])
        if len(epoch["random"]) > 32:  # a removal: the only room secret there is was drawn anew
            rooms = {"state": epoch["random"][:64]}
        changes = canonical(epoch["epoch"], epoch["changes"], rooms, [])
        assert changes.hex() == epoch["canonical_changes"]
        assert salt(epoch["epoch_secret"], epoch["random"], previous, changes) == epoch["salt"]
        previous = epoch["tree_hash"]
    assert any(len(epoch["random"]) > 32 for epoch in history["epochs"])


@pytest.mark.parametrize("vector", VECTORS["salts"])
def test_a_salt_covers_changes_of_every_kind(vector: SaltVector) -> None:
    changes = canonical(
        vector["epoch"], vector["changes"], rooms_of(vector["changes"]), vector["link_changes"]
    )
    assert changes.hex() == vector["canonical_changes"]
    given = (vector[name] for name in ("epoch_secret", "random", "previous_tree_hash"))  # type: ignore[literal-required]
    assert salt(*given, changes) == vector["salt"]
    collected = [change_from_vector(change) for change in vector["changes"]]
    links = [read_link_change(Reader(bytes.fromhex(link))) for link in vector["link_changes"]]
    assert canonical_changes(vector["epoch"], ChangeSet.collect([*collected, *links])) == changes


def test_the_file_is_what_the_generator_makes() -> None:
    made = make()
    assert made["format"] == VECTORS["format"] == 2
    assert made["salts"] == VECTORS["salts"]
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
        hub.stage(TreeUpdate.from_bytes(bytes.fromhex(epoch["tree_update"])), epoch=epoch["epoch"]).commit()
        staged.commit()
        assert hub.to_bytes().hex() == epoch["public_tree"]
        assert {tree.tree_hash.hex() for tree in (member, follower, hub)} == {epoch["tree_hash"]}
        joiner = WrapTree.open(bytes.fromhex(epoch["public_tree"]), secret, hub.tree_hash)
        assert joiner.leaves() == member.leaves()
    assert answer_paths(hub, bytes.fromhex(history["path_query"])).hex() == history["paths"]
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
