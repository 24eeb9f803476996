"""Hold an update's nodes against the tree it is for: exactly the touched ones, in the right sizes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

from treewrap.changes import ChangeKind
from treewrap.codec import Reader
from treewrap.errors import TreeHashMismatch, UpdateRefused
from treewrap.geometry import SLOT_SIZE, Edit, NodeRef, Plan, plan, splice
from treewrap.nodes import Forest, Written
from treewrap.root import RootHeader
from treewrap.rows import load_rows
from treewrap.suite import TAG_SIZE, GroupContext, pack_place
from treewrap.wire import TreeUpdate


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an update changes in the hub's tree, all checked. `extra` is the root's part after its slots."""

    header: RootHeader
    written: list[Written]
    vanished: tuple[NodeRef, ...]
    extra: bytes
    tree_hash: bytes


def verify_update(context: GroupContext, forest: Forest, height: int, update: TreeUpdate) -> Accepted:
    """Check an update's nodes against the tree they are for. Raises UpdateRefused, TreeHashMismatch."""
    shape = _shape(context, forest, height, update)
    accepted = _collect(context, forest, shape, update)
    if accepted.tree_hash != update.tree_hash:
        raise TreeHashMismatch(expected=update.tree_hash, computed=accepted.tree_hash)
    return accepted


def verify_rebuilt(context: GroupContext, forest: Forest, update: TreeUpdate) -> Accepted:
    """Check a whole new tree by itself. It may have lost leaves, but not gained any that no change sets.

    Raises ParseError, TreeHashMismatch, UpdateRefused.
    """
    reader = Reader(update.rebuilt)
    loaded = load_rows(reader, context, update.header, None)
    reader.end("rebuilt tree")
    if loaded.tree_hash != update.tree_hash:
        raise TreeHashMismatch(expected=update.tree_hash, computed=loaded.tree_hash)
    smuggled = set(loaded.forest.leaves(context.bits)) - _occupied_after(forest, context.bits, update)
    if smuggled:
        raise UpdateRefused(
            f"the rebuilt tree does not match the commit at leaf {min(smuggled)}: no change sets it"
        )
    written: list[Written] = [(level, index, *node) for (level, index), node in loaded.forest.top_down()]
    gone = set(forest.nodes()) - set(loaded.forest.nodes())
    return Accepted(update.header, written, tuple(sorted(gone)), loaded.extra, loaded.tree_hash)


def _occupied_after(forest: Forest, bits: int, update: TreeUpdate) -> set[int]:
    kinds = dict(update.changes)
    blanked = {leaf for leaf, kind in kinds.items() if kind is ChangeKind.BLANK}
    return set(forest.leaves(bits)) - blanked | {
        leaf for leaf, kind in kinds.items() if kind is ChangeKind.SET
    }


def _shape(context: GroupContext, forest: Forest, height: int, update: TreeUpdate) -> Plan:
    leaves = {leaf: kind is ChangeKind.SET for leaf, kind in update.changes if kind is not ChangeKind.REJECT}
    for ref in update.repaired:
        if ref.level > height or not (forest.bitmap(*ref) or ref == (height, 0)):
            raise UpdateRefused(f"repair: no node at level {ref.level}, index {ref.index}")
    shape = plan(context.suite.id, height, forest.bitmap, leaves, update.repaired)
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


def _collect(context: GroupContext, forest: Forest, shape: Plan, update: TreeUpdate) -> Accepted:
    """Check sizes and compute hashes, bottom-up as the committer did."""
    bits, mask = context.suite.id, context.suite.arity - 1
    written: list[Written] = []
    given = iter(update.nodes)
    edits: dict[int, list[Edit]] = {}
    extra = root_hash = b""
    for level in range(1, shape.height + 1):
        above: dict[int, list[Edit]] = {}
        for index, (before, after) in shape.touched[level - 1].items():
            is_root = (level, index) == (shape.height, 0)
            if not after and not is_root:
                above.setdefault(index >> bits, []).append((index & mask, b"", b""))
                continue
            ciphertext = next(given).ciphertext
            end = after.bit_count() * SLOT_SIZE
            extra = ciphertext[end:-TAG_SIZE]
            if len(ciphertext) != end + TAG_SIZE + (update.header.extra_length if is_root else 0):
                raise UpdateRefused(
                    f"size of {_name(NodeRef(level, index))}: {len(ciphertext)} bytes for {after.bit_count()} slots"
                )
            hashes = forest.content(level, index)[1] if before else bytearray()
            splice(hashes, bytearray(), before, edits.get(index, ()))
            head = context.node_head(update.epoch, after)
            root_hash = context.node_hash(pack_place(level, index), head, ciphertext, hashes)
            written.append((level, index, head, ciphertext[:end], hashes, ciphertext[-TAG_SIZE:]))
            above.setdefault(index >> bits, []).append((index & mask, root_hash, b""))
        edits = above
    tree_hash = context.tree_hash(update.header.to_bytes(), root_hash)
    return Accepted(update.header, written, shape.vanished, extra, tree_hash)
