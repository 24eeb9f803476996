"""Indices of a left-balanced binary tree in an array (RFC 9420, appendix C): integers only.

A tree of MLS has 2^d leaf slots. Leaf i is node 2i, parents are the odd nodes; a node keeps its index when
the tree grows or shrinks.
"""

from __future__ import annotations

from collections.abc import Iterator


def level(node: int) -> int:
    """Return the height above the leaves: 0 for a leaf."""
    return ((node + 1) & -(node + 1)).bit_length() - 1 if node & 1 else 0


def root(size: int) -> int:
    """Return the root of a tree of `size` leaf slots, a power of two."""
    return size - 1


def children(node: int) -> tuple[int, int]:
    """Return the left and right child of a parent."""
    half = 1 << (level(node) - 1)
    return node - half, node + half


def parent(node: int) -> int:
    """Return the parent, in a tree large enough to have one."""
    height = level(node)
    return (node | 1 << height) & ~(1 << (height + 1))


def sibling(node: int) -> int:
    """Return the other child of the node's parent."""
    left, right = children(parent(node))
    return right if node == left else left


def direct_path(leaf: int, size: int) -> Iterator[int]:
    """List the parents of a leaf, from below to the root, in a tree of `size` leaf slots."""
    node, top = 2 * leaf, root(size)
    while node != top:
        node = parent(node)
        yield node


def is_below(node: int, top: int) -> bool:
    """Return whether `node` is `top` or a descendant of it."""
    reach = (1 << level(top)) - 1
    return top - reach <= node <= top + reach


def slots(last_node: int) -> int:
    """Return the size of the smallest tree that has this node: 1, 2, 4, ... leaf slots; 0 for none (-1)."""
    return 1 << (last_node // 2).bit_length() if last_node >= 0 else 0
