"""Seal what a plan touches, bottom-up, and hold the outcome until the hub has accepted it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from treewrap.errors import StagedError
from treewrap.geometry import NodeRef, Plan, splice
from treewrap.pages import EMPTY, Node
from treewrap.root import RootExtra, RootHeader
from treewrap.secret import LeafSecret, RootKey
from treewrap.suite import GroupContext, UpdateKeys, join_hashes, seal
from treewrap.wire import MemberUpdate, TreeUpdate

_Edits = dict[int, list[tuple[int, bytes | None]]]


class NodeSource(Protocol):
    """Where a change finds the old tree: a member's pages, or the paths that a light tree fetched."""

    def bitmap(self, level: int, index: int) -> int:
        """Read a node's bitmap; 0 if it is not there."""

    def nodes(self) -> Iterable[NodeRef]:
        """List all nodes there are. Raises ChangeError if they are not all at hand."""

    def read(self, ref: NodeRef) -> Node:
        """Read a node with its plaintext; the empty one if it is not there."""


class Resealed(NamedTuple):
    """A node's place, what it holds now, and the ciphertext of it."""

    ref: NodeRef
    node: Node
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a change leads to, until it is committed or dropped."""

    header: RootHeader
    root_key: RootKey
    extra: RootExtra
    resealed: list[Resealed]
    vanished: tuple[NodeRef, ...]
    tree_hash: bytes


def reseal(
    context: GroupContext,
    source: NodeSource,
    plan: Plan,
    leaves: Mapping[int, LeafSecret | None],
    extra: RootExtra,
    epoch: int,
    salt: bytes,
    keys: UpdateKeys,
) -> Outcome:
    """Seal every touched node under its new key: treewrap/README.md, "Change"."""
    bits = context.suite.id
    mask = (1 << bits) - 1
    tail = extra.to_bytes()
    secret_edits, hash_edits = _leaf_edits(leaves, bits), _Edits()
    resealed: list[Resealed] = []
    key = own = b""
    for level in range(1, plan.height + 1):
        above: _Edits = {}
        above_hashes: _Edits = {}
        for index, (before, after) in plan.touched[level - 1].items():
            slot = index & mask
            is_root = (level, index) == (plan.height, 0)
            if not after and not is_root:
                above.setdefault(index >> bits, []).append((slot, None))
                above_hashes.setdefault(index >> bits, []).append((slot, None))
                continue
            ref = NodeRef(level, index)
            node = source.read(ref) if before else EMPTY
            packed = splice(node.packed, before, secret_edits.get(index, ()))
            hashes = splice(node.hashes, before, hash_edits.get(index, ()))
            key = keys.node(level, index)
            head = context.node_head(epoch, after)
            ciphertext = seal(key, packed + tail if is_root else packed, context.node_aad(level, index, head))
            own = join_hashes(context.own_hash(level, index, head, ciphertext), hashes)
            resealed.append(Resealed(ref, Node(epoch, after, packed, hashes), ciphertext))
            above.setdefault(index >> bits, []).append((slot, key))
            above_hashes.setdefault(index >> bits, []).append((slot, own))
        secret_edits, hash_edits = above, above_hashes
    header = RootHeader(context.suite, plan.height, epoch, salt, len(tail))
    tree_hash = context.tree_hash(header.to_bytes(), own)
    return Outcome(header, RootKey(key), extra, resealed, plan.vanished, tree_hash)


def _leaf_edits(leaves: Mapping[int, LeafSecret | None], bits: int) -> _Edits:
    mask = (1 << bits) - 1
    edits: _Edits = {}
    for leaf, secret in leaves.items():
        edits.setdefault(leaf >> bits, []).append((leaf & mask, secret.reveal() if secret else None))
    return edits


class Holder(Protocol):
    """A tree that can take an outcome over."""

    def _take_over(self, outcome: Outcome, version: int) -> None: ...


class Staged:
    """A change that is computed and not yet the tree's state: commit it or drop it, once."""

    __slots__ = ("_holder", "_outcome", "_version")

    def __init__(self, holder: Holder, outcome: Outcome, version: int) -> None:
        self._holder: Holder | None = holder
        self._outcome = outcome
        self._version = version

    @property
    def tree_hash(self) -> bytes:
        """The hash of the tree it leads to, 32 bytes."""
        return self._outcome.tree_hash

    @property
    def epoch(self) -> int:
        """The epoch it belongs to."""
        return self._outcome.header.epoch

    def commit(self) -> None:
        """Make it the tree's state. Raises StagedError if it was used, or another one was committed since."""
        if self._holder is None:
            raise StagedError("staged change: it was already committed or dropped")
        self._holder._take_over(self._outcome, self._version)
        self._holder = None

    def drop(self) -> None:
        """Forget it; the tree stays as it is. Doing so twice, or after a commit, is no error."""
        self._holder = None


class StagedCommit(Staged):
    """A committer's staged change: `update` is for the hub, `member_update` for the other members."""

    __slots__ = ("member_update", "update")

    def __init__(
        self, holder: Holder, outcome: Outcome, version: int, update: TreeUpdate, member_update: MemberUpdate
    ) -> None:
        super().__init__(holder, outcome, version)
        self.update = update
        self.member_update = member_update
