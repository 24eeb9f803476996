"""Test vectors for other implementations: `python -m treewrap.vectors FILE` writes them.

All bytes are in hex. Every history can be replayed from its inputs, byte for byte. Only the seals of join links
are random, because HPKE's encapsulation is.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from treewrap.changes import Blank, Change, ChangeSet, Rebuild, Reject, Repair, Set, SetRoomSecret
from treewrap.geometry import NodeRef
from treewrap.light.paths import PathQuery, answer_paths
from treewrap.links.deferred import DeferredLeaf
from treewrap.links.records import (
    AddLink,
    ExpireLink,
    Kem,
    Link,
    RevokeLink,
    UseLink,
    link_change_to_bytes,
)
from treewrap.links.seals import LinkKey
from treewrap.member import WrapTree
from treewrap.public import PublicTree
from treewrap.secret import EpochSecret, LeafSecret, RoomSecret
from treewrap.stage import StagedCommit, canonical_changes
from treewrap.suite import ARITIES, GroupContext, Suite, UpdateKeys, pack_place

FORMAT = 2
"""1 had no `canonical_changes`: its salts could not be computed in another language."""
GROUP = b"group of the test vectors"


class Stream:
    """Bytes that anyone can reproduce: SHA-256 of a seed and a counter."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._count = 0
        self.drawn = b""

    def __call__(self, size: int) -> bytes:
        """Return the next `size` bytes, at most 32."""
        self._count += 1
        given = hashlib.sha256(self._seed + self._count.to_bytes(4, "big")).digest()[:size]
        self.drawn += given
        return given


class ChangeVector(TypedDict, total=False):
    """A change, with the fields of its kind."""

    kind: str
    leaf: int
    secret: str
    name: str
    nodes: list[list[int]]


class KeyVector(TypedDict):
    """A node's key."""

    level: int
    index: int
    key: str


class EpochVector(TypedDict):
    """One commit: its inputs, then all that follows from them.

    `random` are the bytes drawn, in this order: 32 for each room secret that a removal renews, by name, then 16 for
    the salt.
    """

    epoch: int
    epoch_secret: str
    random: str
    changes: list[ChangeVector]
    canonical_changes: str
    salt: str
    node_keys: list[KeyVector]
    tree_update: str
    member_update: str
    tree_hash: str
    public_tree: str


class HistoryVector(TypedDict):
    """A tree from its creation on."""

    arity: int
    group_id: str
    empty_tree_hash: str
    epochs: list[EpochVector]
    path_query: str
    paths: str


class DeferredVector(TypedDict):
    """A deferred leaf; `random` are the 16 fresh bytes of its salt."""

    arity: int
    group_id: str
    leaf: int
    secret: str
    epoch: int
    epoch_secret: str
    random: str
    deferred_leaf: str


class LinkVector(TypedDict):
    """A tree with one live link: the seal in it opens to the root key."""

    arity: int
    group_id: str
    kem: int
    private_key: str
    link_id: str
    epoch: int
    tree_hash: str
    public_tree: str
    root_key: str


class SaltVector(TypedDict):
    """A salt of changes of every kind; `link_changes` are LinkChange structs; `random` are the 16 fresh bytes."""

    epoch: int
    epoch_secret: str
    random: str
    previous_tree_hash: str
    changes: list[ChangeVector]
    link_changes: list[str]
    canonical_changes: str
    salt: str


class Vectors(TypedDict):
    """The whole file."""

    format: int
    salts: list[SaltVector]
    histories: list[HistoryVector]
    deferred: list[DeferredVector]
    links: list[LinkVector]


@dataclass
class _Recorder:
    suite: Suite
    stream: Stream
    tree: WrapTree = field(init=False)
    hub: PublicTree = field(init=False)
    epochs: list[EpochVector] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tree = WrapTree.create(self.suite, GROUP)
        self.hub = PublicTree.create(self.suite, GROUP)

    def commit(self, *changes: Change) -> None:
        """Run one epoch and record it."""
        epoch_secret = EpochSecret.generate(self.stream)
        self.stream.drawn = b""
        epoch = self.tree.epoch + 1
        staged = self.tree.stage(changes, epoch=epoch, epoch_secret=epoch_secret, rng=self.stream)
        self.hub.stage(staged.update, epoch=epoch).commit()
        staged.commit()
        self.epochs.append(self._vector(staged, changes, epoch_secret))

    def _canonical(self, staged: StagedCommit, changes: tuple[Change, ...]) -> bytes:
        collected = ChangeSet.collect(changes)
        if len(staged.member_update.rooms) > len(collected.rooms):  # a removal renewed them all
            renewed = {name: self.tree.room_secret(name) for name in self.tree.room_secrets()}
            collected = collected._replace(rooms=renewed)
        return canonical_changes(staged.epoch, collected)

    def _vector(
        self, staged: StagedCommit, changes: tuple[Change, ...], epoch_secret: EpochSecret
    ) -> EpochVector:
        header = staged.update.header
        keys = UpdateKeys(GroupContext(self.suite, GROUP), epoch_secret, header.salt)
        return {
            "epoch": header.epoch,
            "epoch_secret": epoch_secret.reveal().hex(),
            "random": self.stream.drawn.hex(),
            "changes": [change_to_vector(change) for change in changes],
            "canonical_changes": self._canonical(staged, changes).hex(),
            "salt": header.salt.hex(),
            "node_keys": [
                {"level": node.level, "index": node.index, "key": keys.node(pack_place(*node.ref)).hex()}
                for node in staged.update.nodes
            ],
            "tree_update": staged.update.to_bytes().hex(),
            "member_update": staged.member_update.to_bytes().hex(),
            "tree_hash": staged.tree_hash.hex(),
            "public_tree": self.hub.to_bytes().hex(),
        }


def change_to_vector(change: Change) -> ChangeVector:
    """Convert a change to JSON. Raises ValueError for link changes, which no history has."""
    match change:
        case Set(leaf, secret):
            return {"kind": "set", "leaf": leaf, "secret": secret.reveal().hex()}
        case Blank(leaf):
            return {"kind": "blank", "leaf": leaf}
        case Reject(leaf):
            return {"kind": "reject", "leaf": leaf}
        case SetRoomSecret(name, room_secret):
            return {"kind": "room secret", "name": name, "secret": room_secret.reveal().hex()}
        case Repair(nodes):
            return {"kind": "repair", "nodes": [list(ref) for ref in nodes]}
        case Rebuild():
            return {"kind": "rebuild"}
    raise ValueError(f"no vector for {type(change).__name__}")


def change_from_vector(vector: ChangeVector) -> Change:
    """Convert back what `change_to_vector` returned."""
    match vector["kind"]:
        case "set":
            return Set(vector["leaf"], LeafSecret(bytes.fromhex(vector["secret"])))
        case "blank":
            return Blank(vector["leaf"])
        case "reject":
            return Reject(vector["leaf"])
        case "room secret":
            return SetRoomSecret(vector["name"], RoomSecret(bytes.fromhex(vector["secret"])))
        case "repair":
            return Repair(tuple(NodeRef(level, index) for level, index in vector["nodes"]))
    return Rebuild()


def _history(arity: int) -> HistoryVector:
    """Record growth by two levels, removal, an update of the root alone, repair, shrinking and rebuilding."""
    suite, stream = Suite(arity), Stream(f"history {arity}")
    recorder = _Recorder(suite, stream)
    empty = recorder.tree.tree_hash
    far = arity * arity + 1

    def fresh() -> LeafSecret:
        return LeafSecret.generate(stream)

    recorder.commit(Set(0, fresh()))
    recorder.commit(Set(1, fresh()), Set(arity, fresh()), SetRoomSecret("state", RoomSecret.generate(stream)))
    recorder.commit(Set(far, fresh()))
    recorder.commit(Blank(1), Set(2 * arity - 1, fresh()))
    recorder.commit()
    recorder.commit(Repair((NodeRef(1, 0),)))
    recorder.commit(Blank(far))
    recorder.commit(Rebuild())
    query = PathQuery(recorder.hub.tree_hash, (0, 2 * arity - 1))
    return {
        "arity": arity,
        "group_id": GROUP.hex(),
        "empty_tree_hash": empty.hex(),
        "epochs": recorder.epochs,
        "path_query": query.to_bytes().hex(),
        "paths": answer_paths(recorder.hub, query).hex(),
    }


def _deferred(arity: int) -> DeferredVector:
    suite, stream = Suite(arity), Stream(f"deferred {arity}")
    secret, epoch_secret = LeafSecret.generate(stream), EpochSecret.generate(stream)
    stream.drawn = b""
    context = GroupContext(suite, GROUP)
    leaf = DeferredLeaf.make(context, 7, secret, epoch=9, epoch_secret=epoch_secret, rng=stream)
    return {
        "arity": arity,
        "group_id": GROUP.hex(),
        "leaf": 7,
        "secret": secret.reveal().hex(),
        "epoch": 9,
        "epoch_secret": epoch_secret.reveal().hex(),
        "random": stream.drawn.hex(),
        "deferred_leaf": leaf.to_bytes().hex(),
    }


def _salt() -> SaltVector:
    stream = Stream("salt")
    link = Link(stream(16), Kem.X25519, stream(32), 3, 1_800_000_000, 5, stream(32) + stream(32))
    links = (
        AddLink(link),
        RevokeLink(stream(16), 4, stream(32) + stream(32)),
        ExpireLink(stream(16)),
        UseLink(stream(16)),
    )
    changes: list[Change] = [
        Set(70_000, LeafSecret.generate(stream)),
        Reject(9),
        Blank(2),
        SetRoomSecret("topic", RoomSecret.generate(stream)),
        SetRoomSecret("é", RoomSecret.generate(stream)),
        Repair((NodeRef(2, 0), NodeRef(1, 7))),
    ]
    epoch, epoch_secret, fresh, previous = 5, EpochSecret.generate(stream), stream(16), stream(32)
    canonical = canonical_changes(epoch, ChangeSet.collect([*changes, *links]))
    keys = UpdateKeys.draw(GroupContext(Suite(), GROUP), epoch_secret, fresh, previous, canonical)
    return {
        "epoch": epoch,
        "epoch_secret": epoch_secret.reveal().hex(),
        "random": fresh.hex(),
        "previous_tree_hash": previous.hex(),
        "changes": [change_to_vector(change) for change in changes],
        "link_changes": [link_change_to_bytes(change).hex() for change in links],
        "canonical_changes": canonical.hex(),
        "salt": keys.salt.hex(),
    }


def _link(kem: Kem) -> LinkVector:
    suite, stream, key = Suite(16), Stream(f"link {kem}"), LinkKey.generate(kem)
    recorder = _Recorder(suite, stream)
    recorder.commit(Set(0, LeafSecret.generate(stream)))
    link = Link(stream(16), kem, key.public_key, 0, 1_800_000_000, 5, stream(32) + stream(32))
    epoch_secret = EpochSecret.generate(stream)
    staged = recorder.tree.stage(
        [AddLink(link)],
        epoch=1,
        epoch_secret=epoch_secret,
        rng=stream,
        verify=lambda *_: True,
        now=link.expires - 1,
    )
    recorder.hub.stage(staged.update, epoch=1).commit()
    root_key = key.open(recorder.hub.seals[0], GroupContext(suite, GROUP), 1, staged.tree_hash)
    return {
        "arity": 16,
        "group_id": GROUP.hex(),
        "kem": kem,
        "private_key": key.reveal().hex(),
        "link_id": link.id.hex(),
        "epoch": 1,
        "tree_hash": staged.tree_hash.hex(),
        "public_tree": recorder.hub.to_bytes().hex(),
        "root_key": root_key.reveal().hex(),
    }


def make() -> Vectors:
    """Make all vectors."""
    return {
        "format": FORMAT,
        "salts": [_salt()],
        "histories": [_history(arity) for arity in ARITIES],
        "deferred": [_deferred(arity) for arity in ARITIES],
        "links": [_link(kem) for kem in Kem],
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(make(), indent=1) + "\n")
