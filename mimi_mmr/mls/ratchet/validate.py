"""Validation of a whole ratchet tree before joining (RFC 9420, sections 7.3, 7.9.2 and 12.4.3.1)."""

from __future__ import annotations

from collections.abc import Set

from mimi_mmr.errors import InvalidCommit
from mimi_mmr.mls.ratchet import treemath
from mimi_mmr.mls.ratchet.node import ParentNode, leaf_hash, parent_hash, parent_node_hash
from mimi_mmr.mls.ratchet.state import TreeState, index_rows


def validate(tree: TreeState, group_id: bytes) -> None:
    """Check every signature, key and parent hash; raise what `RatchetTree.verify` raises."""
    index_rows(tree.rows)
    for index, leaf in tree.leaves.items():
        leaf.verify(group_id, index, by=f"leaf {index}")
    for node, row in tree.rows.items():
        if node & 1:
            parent = ParentNode.from_row(row)
            _check_unmerged(tree, node, parent)
            _check_parent_hash(tree, node, parent)


def _check_unmerged(tree: TreeState, node: int, parent: ParentNode) -> None:
    for leaf in parent.unmerged_leaves:
        if leaf not in tree.leaves or node not in treemath.direct_path(leaf, tree.size):
            raise InvalidCommit(f"node {node} lists leaf {leaf} as unmerged, which is not a member below it")
        for between in treemath.direct_path(leaf, tree.size):
            if between == node:
                break
            lower = tree.parent(between)
            if lower is not None and leaf not in lower.unmerged_leaves:
                raise InvalidCommit(f"leaf {leaf} is unmerged at node {node}, not at node {between} below it")


def _check_parent_hash(tree: TreeState, node: int, parent: ParentNode) -> None:
    left, right = treemath.children(node)
    if not (_vouches(tree, parent, left, right) or _vouches(tree, parent, right, left)):
        raise InvalidCommit(f"nothing below node {node} has its parent hash")


def _vouches(tree: TreeState, parent: ParentNode, child: int, other: int) -> bool:
    """Return whether a node under `child` has the parent hash of `parent`, computed without its unmerged leaves."""
    mine = {2 * leaf for leaf in parent.unmerged_leaves if treemath.is_below(2 * leaf, child)}
    below = tree.resolution(child)
    candidates = [node for node in below if node not in mine]
    if len(candidates) != 1 or not mine <= set(below):
        return False
    original = _hash_without(tree, other, frozenset(parent.unmerged_leaves))
    expected = parent_hash(parent.encryption_key, parent.parent_hash, original)
    return _sent_parent_hash(tree, candidates[0]) == expected


def _sent_parent_hash(tree: TreeState, node: int) -> bytes | None:
    found = tree.parent(node) if node & 1 else tree.leaf(node // 2)
    return None if found is None else found.parent_hash


def _hash_without(tree: TreeState, node: int, leaves: Set[int]) -> bytes:
    """Return the tree hash as if these leaves had never been added (RFC 9420, section 7.9)."""
    if not any(treemath.is_below(2 * leaf, node) for leaf in leaves):
        return tree.tree_hash(node)
    if not node & 1:
        return leaf_hash(node // 2, None)
    left, right = treemath.children(node)
    parent = tree.parent(node)
    row = None
    if parent is not None:
        kept = tuple(leaf for leaf in parent.unmerged_leaves if leaf not in leaves)
        row = ParentNode(parent.encryption_key, parent.parent_hash, kept).to_row()
    return parent_node_hash(row, _hash_without(tree, left, leaves), _hash_without(tree, right, leaves))
