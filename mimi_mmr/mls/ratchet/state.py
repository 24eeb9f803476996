"""A ratchet tree as it is stored (RFC 9420, section 7).

It is a table with one row for each node that is not blank, so that a database can store single nodes and write only
the rows that a commit changed. Leaves are parsed at first use, and subtree hashes are cached until a row below
changes. So the cost of a commit grows with its path, not with the tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mimi_mmr.errors import InvalidCommit
from mimi_mmr.mls.ratchet import treemath
from mimi_mmr.mls.ratchet.node import (
    ParentNode,
    identity,
    join_tree,
    leaf_from_row,
    leaf_hash,
    parent_node_hash,
    resolution,
    signature_key,
    unique_values,
)
from mimi_mmr.mls.wire import LeafNode

Unique = tuple[str, bytes]


class Credentials(Mapping[int, tuple[bytes, bytes]]):
    """The identities and signature keys of a tree's members by leaf index, read from the rows at each access."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Mapping[int, bytes]) -> None:
        """Make a view of these rows (by node index)."""
        self._rows = rows

    def __getitem__(self, index: int) -> tuple[bytes, bytes]:
        row = self._rows[2 * index]
        return identity(row), signature_key(row)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(node // 2 for node in self._rows if not node & 1))

    def __len__(self) -> int:
        return sum(1 for node in self._rows if not node & 1)


class Leaves(Mapping[int, LeafNode]):
    """A tree's members by leaf index; a leaf is parsed at its first use."""

    __slots__ = ("_tree",)

    def __init__(self, tree: TreeState) -> None:
        """Make a view that follows the tree's changes."""
        self._tree = tree

    def __getitem__(self, index: int) -> LeafNode:
        leaf = self._tree.leaf(index)
        if leaf is None:
            raise KeyError(index)
        return leaf

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self._tree.node_bytes(2 * index) is not None

    def __iter__(self) -> Iterator[int]:
        return iter(self._tree.occupied())

    def __len__(self) -> int:
        return len(self._tree.occupied())


class TreeState:
    """The rows of one epoch's tree, its hashes, and the owner of each key. Only `replace` changes it."""

    __slots__ = ("_hashes", "_leaves", "_owners", "_rows", "size", "version")

    def __init__(self, rows: Mapping[int, bytes]) -> None:
        """Store rows, which the caller has checked or will check."""
        self._rows = dict(rows)
        self._leaves: dict[int, LeafNode] = {}
        self._hashes: dict[int, bytes] = {}
        self._owners: dict[Unique, int] | None = None
        self.size = treemath.slots(max(self._rows, default=-1))
        self.version = 0

    def to_bytes(self) -> bytes:
        """Encode the `ratchet_tree` extension (RFC 9420, section 12.4.3.3)."""
        return join_tree(self._rows)

    @property
    def rows(self) -> Mapping[int, bytes]:
        """A copy of every row, by node index."""
        return dict(self._rows)

    @property
    def leaves(self) -> Leaves:
        """Members by leaf index."""
        return Leaves(self)

    def occupied(self) -> list[int]:
        """Return the members' leaf indices, ascending."""
        return sorted(node // 2 for node in self._rows if not node & 1)

    def credentials(self) -> Credentials:
        """Return every member's identity and signature key by leaf index, without parsing the rest of the leaf."""
        return Credentials(self._rows)

    def node_bytes(self, node: int) -> bytes | None:
        """Return a node's row: its type, then its struct; None if it is blank."""
        return self._rows.get(node)

    def leaf(self, index: int) -> LeafNode | None:
        """Return the member at this leaf index, or None."""
        if index not in self._leaves:
            row = self._rows.get(2 * index)
            if row is None:
                return None
            self._leaves[index] = leaf_from_row(row)
        return self._leaves[index]

    def parent(self, node: int) -> ParentNode | None:
        """Return the parent at this node index, or None if it is blank."""
        row = self._rows.get(node)
        return None if row is None else ParentNode.from_row(row)

    def resolution(self, node: int) -> list[int]:
        """Return a node's resolution: nodes whose keys reach all members below it (RFC 9420, section 4.1.1)."""
        return resolution(self.node_bytes, node)

    def tree_hash(self, node: int | None = None) -> bytes:
        """Return the tree hash (RFC 9420, section 7.8) of a subtree, by default of the whole tree; 32 bytes."""
        if node is None:
            node = treemath.root(self.size)
        if node not in self._hashes:
            self._hashes[node] = self._compute_hash(node)
        return self._hashes[node]

    def _compute_hash(self, node: int) -> bytes:
        row = self._rows.get(node)
        if not node & 1:
            return leaf_hash(node // 2, row)
        left, right = treemath.children(node)
        return parent_node_hash(row, self.tree_hash(left), self.tree_hash(right))

    def owner(self, value: Unique) -> int | None:
        """Return the node that has this key or identity; both are unique in a tree."""
        if self._owners is None:
            self._owners = index_rows(self._rows)
        return self._owners.get(value)

    def replace(self, rows: Mapping[int, bytes | None], size: int) -> None:
        """Put these rows into the tree (None for a blank); afterwards the tree has `size` leaf slots."""
        self.version += 1
        self._reindex(rows)
        for node, row in rows.items():
            self._set(node, row)
        self._forget_hashes(rows, max(self.size, size))
        self.size = size

    def _set(self, node: int, row: bytes | None) -> None:
        if not node & 1:
            self._leaves.pop(node // 2, None)
        if row is None:
            self._rows.pop(node, None)
        else:
            self._rows[node] = row

    def _reindex(self, rows: Mapping[int, bytes | None]) -> None:
        if self._owners is None:
            return
        for node in rows.keys() & self._rows.keys():
            for value in unique_values(self._rows[node]):
                del self._owners[value]
        for node, row in rows.items():
            if row is not None:
                self._owners.update((value, node) for value in unique_values(row))

    def _forget_hashes(self, nodes: Mapping[int, bytes | None], size: int) -> None:
        top = treemath.root(size)
        for node in nodes:
            while self._hashes.pop(node, None) is not None and node != top:
                node = treemath.parent(node)


def index_rows(rows: Mapping[int, bytes]) -> dict[Unique, int]:
    """Map keys and identities to their nodes; raise `InvalidCommit` if two nodes share one."""
    owners: dict[Unique, int] = {}
    for node, row in rows.items():
        for value in unique_values(row):
            if owners.setdefault(value, node) != node:
                raise InvalidCommit(f"nodes {owners[value]} and {node} of the tree have the same {value[0]}")
    return owners
