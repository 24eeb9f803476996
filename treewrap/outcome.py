"""The result of a set of changes: the sealed nodes, held until the hub has accepted the commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from treewrap.changes import ChangeSet
from treewrap.errors import ChangeError, StagedError, StaleEpoch
from treewrap.geometry import Edit, NodeRef, Occupancy, Plan, plan, splice, walk
from treewrap.links.counting import LinkLimit
from treewrap.nodes import Node
from treewrap.root import RootExtra, RootHeader
from treewrap.secret import LeafSecret, RootKey
from treewrap.suite import TAG_SIZE, GroupContext, UpdateKeys, pack_place, seal


class NodeSource(Protocol):
    """Where a change reads the old tree: a member's own nodes, or the paths that a light tree fetched."""

    def bitmap(self, level: int, index: int) -> int:
        """Return a node's bitmap; 0 if the node does not exist."""

    def nodes(self) -> Iterable[NodeRef]:
        """List the places of all nodes. Raises ChangeError if not all of them are at hand."""

    def content(self, level: int, index: int) -> tuple[bytearray, bytearray]:
        """Return copies of a node's packed slots and of its children's hashes."""


class Outcome(NamedTuple):
    """The result of a change. `nodes` are the sealed nodes, by level and index."""

    header: RootHeader
    root_key: RootKey
    extra: RootExtra
    nodes: list[Node]
    vanished: tuple[NodeRef, ...]
    tree_hash: bytes


class Holder(Protocol):
    """A tree that can adopt an outcome as its state."""

    def _take_over(self, outcome: Outcome, version: int) -> None: ...


class Before(NamedTuple):
    """The tree that a change starts from, as a member sees it."""

    holder: Holder
    version: int
    context: GroupContext
    header: RootHeader
    tree_hash: bytes
    extra: RootExtra
    source: NodeSource

    def check_epoch(self, epoch: int) -> None:
        """Check that an epoch is valid and newer than the tree's. Raises ChangeError, StaleEpoch."""
        if not 0 <= epoch < 1 << 64:
            raise ChangeError(f"epoch: expected 0 to 2^64 - 1, got {epoch}")
        if self.header.height and epoch <= self.header.epoch:
            raise StaleEpoch("update", tree=self.header.epoch, offered=epoch)

    def plan(self, changes: ChangeSet) -> Plan:
        """Work out which nodes the changes touch. Raises ChangeError for a repair of a missing node."""
        bitmap, height = self.source.bitmap, self.header.height
        for ref in changes.repaired:
            if ref.level > height or not (bitmap(*ref) or ref == (height, 0)):
                raise ChangeError(f"repair: no node at level {ref.level}, index {ref.index}")
        occupied = {leaf: secret is not None for leaf, secret in changes.leaves.items()}
        named = tuple(self.source.nodes()) if changes.rebuilt else changes.repaired
        return plan(self.context.bits, height, bitmap, occupied, named)

    def seal(
        self,
        shape: Plan,
        leaves: Mapping[int, LeafSecret | None],
        extra: RootExtra,
        epoch: int,
        keys: UpdateKeys,
    ) -> Outcome:
        """Seal every touched node under its new key."""
        context, tail = self.context, extra.to_bytes()
        sealing = _Sealing(context, self.source, shape.height, tail, epoch, keys)
        key, root_hash = walk(shape, context.bits, _leaf_edits(leaves, context), sealing)
        header = RootHeader(context.suite, shape.height, epoch, keys.salt, len(tail))
        tree_hash = context.tree_hash(header.to_bytes(), root_hash)
        return Outcome(header, RootKey(key), extra, sealing.nodes, shape.vanished, tree_hash)


class _Sealing:
    """Seals the nodes of a walk. It hands each node's new key and hash to the parent."""

    def __init__(
        self,
        context: GroupContext,
        source: NodeSource,
        height: int,
        tail: bytes,
        epoch: int,
        keys: UpdateKeys,
    ) -> None:
        self._context = context
        self._content = source.content
        self._height = height
        self._tail = tail
        self._epoch = epoch
        self._node_key = keys.node
        self.nodes: list[Node] = []

    def visit(
        self, level: int, index: int, occupancy: Occupancy, edits: Iterable[Edit]
    ) -> tuple[bytes, bytes]:
        (before, after), context = occupancy, self._context
        values, hashes = self._content(level, index) if before else (bytearray(), bytearray())
        splice(values, hashes, before, edits)
        place, head = pack_place(level, index), context.node_head(self._epoch, after)
        key = self._node_key(place)
        plaintext = values if level < self._height else values + self._tail
        sealed = seal(key, plaintext, context.aad_prefix + place + head)
        self.nodes.append(Node(level, index, head, values, hashes, sealed[:-TAG_SIZE], sealed[-TAG_SIZE:]))
        return key, context.node_hash(place, head, sealed, hashes)


def _leaf_edits(
    leaves: Mapping[int, LeafSecret | None], context: GroupContext
) -> Mapping[int, Iterable[Edit]]:
    edits: dict[int, list[Edit]] = {}
    for leaf, secret in leaves.items():
        value = secret.reveal() if secret else b""
        edits.setdefault(leaf >> context.bits, []).append((leaf & context.mask, value, b""))
    return edits


class Staged:
    """A change that is computed and not yet the tree's state: commit it or drop it, once."""

    __slots__ = ("_holder", "_outcome", "_version")

    def __init__(self, holder: Holder, outcome: Outcome, version: int) -> None:
        self._holder: Holder | None = holder
        self._outcome = outcome
        self._version = version

    @property
    def tree_hash(self) -> bytes:
        """The hash of the tree that it leads to, 32 bytes."""
        return self._outcome.tree_hash

    @property
    def epoch(self) -> int:
        """The epoch that it belongs to."""
        return self._outcome.header.epoch

    @property
    def link_limits(self) -> tuple[LinkLimit, ...]:
        """What the hub has to know to count the uses of the links that live afterwards, by id."""
        return tuple(LinkLimit.of(live) for live in self._outcome.extra.links)

    def commit(self) -> None:
        """Make it the tree's state. Raises StagedError if it was used, or if another one was committed since."""
        if self._holder is None:
            raise StagedError("staged change: it was already committed or dropped")
        self._holder._take_over(self._outcome, self._version)
        self._holder = None

    def drop(self) -> None:
        """Forget it; the tree stays as it is. A second call, or one after a commit, does nothing."""
        self._holder = None
