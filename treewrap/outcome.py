"""Seal what a plan touches, bottom-up, and hold the outcome until the hub has accepted it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from treewrap.errors import StagedError
from treewrap.geometry import Edit, NodeRef, Plan, splice
from treewrap.nodes import Written
from treewrap.root import RootExtra, RootHeader
from treewrap.secret import LeafSecret, RootKey
from treewrap.suite import GroupContext, UpdateKeys, pack_place, seal
from treewrap.wire import MemberUpdate, TreeUpdate


class NodeSource(Protocol):
    """Where a change finds the old tree: a member's pages, or the paths that a light tree fetched."""

    def bitmap(self, level: int, index: int) -> int:
        """Read a node's bitmap; 0 if it is not there."""

    def nodes(self) -> Iterable[NodeRef]:
        """List all nodes there are. Raises ChangeError if they are not all at hand."""

    def content(self, level: int, index: int) -> tuple[bytearray, bytearray]:
        """Read what a node's slots hold, and its children's hashes."""


class Outcome(NamedTuple):
    """All that a change leads to, until it is committed or dropped.

    The nodes `written` have their whole ciphertext in the tag's place.
    """

    header: RootHeader
    root_key: RootKey
    extra: RootExtra
    written: list[Written]
    vanished: tuple[NodeRef, ...]
    tree_hash: bytes


def reseal(
    context: GroupContext,
    source: NodeSource,
    plan: Plan,
    leaves: Mapping[int, LeafSecret | None],
    extra: RootExtra,
    epoch: int,
    keys: UpdateKeys,
) -> Outcome:
    """Seal every touched node under its new key: treewrap/README.md, "Change"."""
    bits, mask, height = context.bits, context.mask, plan.height
    tail = extra.to_bytes()
    edits = _leaf_edits(leaves, bits, mask)
    written: list[Written] = []
    key = digest = b""
    for level in range(1, height + 1):
        above: dict[int, list[Edit]] = {}
        for index, (before, after) in plan.touched[level - 1].items():
            if not after and (index or level < height):
                above.setdefault(index >> bits, []).append((index & mask, b"", b""))
                continue
            packed, hashes = source.content(level, index) if before else (bytearray(), bytearray())
            splice(packed, hashes, before, edits.get(index, ()))
            place, head = pack_place(level, index), context.node_head(epoch, after)
            key = keys.node(place)
            ciphertext = seal(
                key, packed if level < height else packed + tail, context.aad_prefix + place + head
            )
            digest = context.node_hash(place, head, ciphertext, hashes)
            written.append((level, index, head, packed, hashes, ciphertext))
            above.setdefault(index >> bits, []).append((index & mask, key, digest))
        edits = above
    header = RootHeader(context.suite, height, epoch, keys.salt, len(tail))
    tree_hash = context.tree_hash(header.to_bytes(), digest)
    return Outcome(header, RootKey(key), extra, written, plan.vanished, tree_hash)


def _leaf_edits(leaves: Mapping[int, LeafSecret | None], bits: int, mask: int) -> dict[int, list[Edit]]:
    edits: dict[int, list[Edit]] = {}
    for leaf, secret in leaves.items():
        value = secret.reveal() if secret else b""
        edits.setdefault(leaf >> bits, []).append((leaf & mask, value, b""))
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
