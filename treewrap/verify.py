"""Check an update's nodes against the hub's tree: exactly the touched ones, in the right sizes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from treewrap.changes import ChangeKind
from treewrap.codec import Reader
from treewrap.errors import TreeHashMismatch, UpdateRefused
from treewrap.geometry import SLOT_SIZE, Edit, NodeRef, Occupancy, Plan, plan, splice, walk
from treewrap.nodes import Forest, Node
from treewrap.root import RootHeader
from treewrap.rows import load_rows
from treewrap.suite import TAG_SIZE, GroupContext, pack_place
from treewrap.wire import LeafChange, SealedNode, TreeUpdate


@dataclass(frozen=True, slots=True)
class Accepted:
    """The checked effect of an update on the hub's tree.

    An update that rebuilds the tree brings it whole, as `forest`; `nodes` are then all nodes of it.
    """

    header: RootHeader
    nodes: list[Node]
    vanished: tuple[NodeRef, ...]
    tree_hash: bytes
    forest: Forest | None = None


def verify_update(context: GroupContext, forest: Forest, height: int, update: TreeUpdate) -> Accepted:
    """Check an update's nodes against the tree that it is for. Raises UpdateRefused, TreeHashMismatch."""
    shape = _shape(context, forest, height, update)
    checking = _Checking(context, forest, shape.height, update)
    root_hash, _ = walk(shape, context.bits, {}, checking)
    tree_hash = context.tree_hash(update.header.to_bytes(), root_hash)
    if tree_hash != update.tree_hash:
        raise TreeHashMismatch(expected=update.tree_hash, computed=tree_hash)
    return Accepted(update.header, checking.nodes, shape.vanished, tree_hash)


def verify_rebuilt(context: GroupContext, forest: Forest, update: TreeUpdate) -> Accepted:
    """Check a rebuilt tree by itself. Leaves may be missing, but it has no new leaf that no change sets.

    Raises ParseError, TreeHashMismatch, UpdateRefused.
    """
    reader = Reader(update.rebuilt)
    loaded = load_rows(reader, context, update.header, None)
    reader.end("rebuilt tree")
    if loaded.tree_hash != update.tree_hash:
        raise TreeHashMismatch(expected=update.tree_hash, computed=loaded.tree_hash)
    smuggled = set(loaded.forest.leaves(context.bits)) - occupied_after(forest, context.bits, update.changes)
    if smuggled:
        raise UpdateRefused(
            f"the rebuilt tree does not match the commit at leaf {min(smuggled)}: no change sets it"
        )
    vanished = tuple(sorted(set(forest.nodes()) - set(loaded.forest.nodes())))
    nodes = list(loaded.forest.top_down())
    return Accepted(update.header, nodes, vanished, loaded.tree_hash, loaded.forest)


def occupied_after(forest: Forest, bits: int, changes: Iterable[LeafChange]) -> set[int]:
    """Return the leaves that are occupied once some changes are made."""
    occupied = set(forest.leaves(bits))
    for leaf, kind in changes:
        if kind is ChangeKind.SET:
            occupied.add(leaf)
        elif kind is ChangeKind.BLANK:
            occupied.discard(leaf)
    return occupied


def _shape(context: GroupContext, forest: Forest, height: int, update: TreeUpdate) -> Plan:
    leaves = {leaf: kind is ChangeKind.SET for leaf, kind in update.changes if kind is not ChangeKind.REJECT}
    for ref in update.repaired:
        if ref.level > height or not (forest.bitmap(*ref) or ref == (height, 0)):
            raise UpdateRefused(f"repair: no node at level {ref.level}, index {ref.index}")
    shape = plan(context.bits, height, forest.bitmap, leaves, update.repaired)
    if shape.height != update.header.height:
        raise UpdateRefused(f"height: expected {shape.height}, got {update.header.height}")
    _same_nodes("nodes", (ref for ref, _ in shape.sealed()), (node.ref for node in update.nodes))
    _same_nodes("vanished nodes", shape.vanished, update.vanished)
    return shape


def _same_nodes(what: str, expected: Iterable[NodeRef], given: Iterable[NodeRef]) -> None:
    for want, got in zip_longest(expected, given):
        if want != got:
            raise UpdateRefused(f"{what}: expected {_name(want)}, got {_name(got)}")


def _name(ref: NodeRef | None) -> str:
    return f"level {ref.level}, index {ref.index}" if ref else "no more"


class _Checking:
    """Checks the sizes of a walk's nodes and hashes them. It hands each node's hash to the parent."""

    def __init__(self, context: GroupContext, forest: Forest, height: int, update: TreeUpdate) -> None:
        self._context = context
        self._forest = forest
        self._height = height
        self._header = update.header
        self._given = iter(update.nodes)
        self.nodes: list[Node] = []

    def visit(
        self, level: int, index: int, occupancy: Occupancy, edits: Iterable[Edit]
    ) -> tuple[bytes, bytes]:
        before, after = occupancy
        node = next(self._given)
        sealed = self._check_size(node, after)
        hashes = self._forest.content(level, index)[1] if before else bytearray()
        splice(hashes, bytearray(), before, edits)
        head = self._context.node_head(self._header.epoch, after)
        self.nodes.append(Node(level, index, head, b"", hashes, sealed[:-TAG_SIZE], sealed[-TAG_SIZE:]))
        return self._context.node_hash(pack_place(level, index), head, sealed, hashes), b""

    def _check_size(self, node: SealedNode, bitmap: int) -> bytes:
        expected = bitmap.bit_count() * SLOT_SIZE + TAG_SIZE
        if node.level == self._height:
            expected += self._header.extra_length
        if len(node.ciphertext) != expected:
            raise UpdateRefused(
                f"size of {_name(node.ref)}: {len(node.ciphertext)} bytes for {bitmap.bit_count()} slots"
            )
        return node.ciphertext
