"""A ratchet tree being changed: the rows of one epoch, overlaid with those of the next."""

from __future__ import annotations

from mimi_mmr.errors import InvalidCommit
from mimi_mmr.mls.ratchet import treemath
from mimi_mmr.mls.ratchet.node import (
    ParentNode,
    leaf_hash,
    leaf_row,
    parent_node_hash,
    resolution,
    unique_values,
)
from mimi_mmr.mls.ratchet.state import TreeState, Unique
from mimi_mmr.mls.wire import LeafNode


class Draft:
    """An overlay of changed rows; the base tree does not change until `merge`."""

    __slots__ = ("_base", "_dirty", "_free", "_hashes", "_rows", "_version", "size")

    def __init__(self, base: TreeState) -> None:
        """Start without changes."""
        self._base = base
        self._version = base.version
        self._rows: dict[int, bytes | None] = {}
        self._dirty: set[int] = set()
        self._hashes: dict[int, bytes] = {}
        self._free = 0
        self.size = base.size

    def row(self, node: int) -> bytes | None:
        """Return the node's row after the changes; None for a blank node."""
        return self._rows[node] if node in self._rows else self._base.node_bytes(node)

    def set_row(self, node: int, row: bytes | None) -> None:
        """Change one node."""
        self._rows[node] = row
        self._hashes.clear()
        top = treemath.root(self.size)
        while node not in self._dirty:
            self._dirty.add(node)
            if node == top:
                break
            node = treemath.parent(node)

    def set_leaf(self, index: int, leaf: LeafNode) -> None:
        """Put a leaf at this leaf index."""
        self.set_row(2 * index, leaf_row(leaf))

    def set_parent(self, node: int, encryption_key: bytes, parent_hash: bytes) -> None:
        """Set a parent's new key and parent hash; it has no unmerged leaves."""
        self.set_row(node, ParentNode(encryption_key, parent_hash, ()).to_row())

    def blank_leaf(self, index: int) -> None:
        """Blank a leaf and everything above it (RFC 9420, section 12.1.3)."""
        self.set_row(2 * index, None)
        for node in treemath.direct_path(index, self.size):
            self.set_row(node, None)
        self._free = 0

    def truncate(self) -> None:
        """Halve the tree while its right half is empty (RFC 9420, section 7.7)."""
        while self.size > 1 and not self._occupied(self.size // 2, self.size):
            self.size //= 2

    def add_leaf(self, leaf: LeafNode) -> int:
        """Put a leaf at the leftmost free place, growing the tree if there is none (section 12.1.1)."""
        index = self._leftmost_free()
        if index == self.size:
            self.size *= 2
        self.set_leaf(index, leaf)
        for node in treemath.direct_path(index, self.size):
            self._mark_unmerged(node, index)
        return index

    def _leftmost_free(self) -> int:
        while self._free < self.size and self.row(2 * self._free) is not None:
            self._free += 1
        return self._free

    def _occupied(self, start: int, end: int) -> bool:
        return any(self.row(2 * index) is not None for index in range(start, end))

    def _mark_unmerged(self, node: int, index: int) -> None:
        row = self.row(node)
        if row is None:
            return
        parent = ParentNode.from_row(row)
        unmerged = tuple(sorted({*parent.unmerged_leaves, index}))
        self.set_row(node, ParentNode(parent.encryption_key, parent.parent_hash, unmerged).to_row())

    def resolution(self, node: int) -> list[int]:
        """Return a node's resolution: nodes whose keys reach all members below it (RFC 9420, section 4.1.1)."""
        return resolution(self.row, node)

    def tree_hash(self, node: int) -> bytes:
        """Return the tree hash of a subtree after the changes, 32 bytes (RFC 9420, section 7.8)."""
        if node not in self._dirty:
            return self._base.tree_hash(node)
        if node not in self._hashes:
            self._hashes[node] = self._compute_hash(node)
        return self._hashes[node]

    def _compute_hash(self, node: int) -> bytes:
        row = self.row(node)
        if not node & 1:
            return leaf_hash(node // 2, row)
        left, right = treemath.children(node)
        return parent_node_hash(row, self.tree_hash(left), self.tree_hash(right))

    def check_unique(self) -> None:
        """Refuse a key or identity that two nodes would have (RFC 9420, sections 7.3 and 12.4.2)."""
        claims: dict[Unique, int] = {}
        for node, row in self._rows.items():
            for value in unique_values(row) if row is not None else ():
                owner = claims.setdefault(value, node)
                if owner == node:
                    owner = self._base_owner(value, node)
                if owner != node:
                    raise InvalidCommit(f"nodes {node} and {owner} would have the same {value[0]}")

    def _base_owner(self, value: Unique, default: int) -> int:
        owner = self._base.owner(value)
        return default if owner is None or owner in self._rows else owner

    def changed(self) -> dict[int, bytes | None]:
        """Return the rows that differ from the base tree."""
        return {node: row for node, row in self._rows.items() if row != self._base.node_bytes(node)}

    def merge(self) -> None:
        """Apply the changes to the base tree; raise `ValueError` if it has changed in the meantime."""
        if self._base.version != self._version:
            raise ValueError("the tree has changed since this commit was applied to it")
        self._base.replace(self.changed(), self.size)
