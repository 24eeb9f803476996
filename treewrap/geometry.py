"""Levels, indices, occupancy, which nodes a change touches, and the walk over them. No keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

LEAF_LIMIT = 1 << 24
SLOT_SIZE = 32


class NodeRef(NamedTuple):
    """A node's place. Level 1 stands above the leaves; node (l, i) holds nodes i*k .. i*k+k-1 of l-1."""

    level: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


Edit = tuple[int, bytes, bytes]
"""A slot, its new value of 32 bytes (empty: the slot becomes blank), and what goes into the hashes beside it."""
Occupancy = tuple[int, int]
"""A touched node's bitmap before and after."""
Bitmaps = Callable[[int, int], int]
"""Reads the bitmap of a node by level and index; 0 for a node that does not exist."""


class Plan(NamedTuple):
    """The effect of a set of changes on the shape of a tree.

    `touched[l - 1]` maps the touched indices of level l, in order, to their occupancy. Nodes that are empty
    afterwards are not sealed. `vanished` lists the nodes that no longer exist.
    """

    height: int
    touched: tuple[dict[int, Occupancy], ...]
    vanished: tuple[NodeRef, ...]

    def sealed(self) -> Iterator[tuple[NodeRef, Occupancy]]:
        """List the nodes to seal, by level and index."""
        for level, nodes in enumerate(self.touched[: self.height], 1):
            for index, occupancy in nodes.items():
                if occupancy[1] or (level, index) == (self.height, 0):
                    yield NodeRef(level, index), occupancy


class Visitor(Protocol):
    """The action for each node to seal; nodes are visited bottom-up."""

    def visit(
        self, level: int, index: int, occupancy: Occupancy, edits: Iterable[Edit]
    ) -> tuple[bytes, bytes]:
        """Handle one node. Return value and companion of the edit that its parent gets."""


def walk(plan: Plan, bits: int, edits: Mapping[int, Iterable[Edit]], visitor: Visitor) -> tuple[bytes, bytes]:
    """Visit every node that a plan seals, by level and index. Return what the visitor returns for the root.

    `edits` are those of the changed leaves, by index of their node at level 1.
    """
    mask, height = (1 << bits) - 1, plan.height
    root = b"", b""
    for level, row in enumerate(plan.touched[:height], 1):
        above: dict[int, list[Edit]] = {}
        for index, occupancy in row.items():
            is_root = level == height and not index
            value = companion = b""
            if occupancy[1] or is_root:
                value, companion = visitor.visit(level, index, occupancy, edits.get(index, ()))
            if is_root:
                root = value, companion
            above.setdefault(index >> bits, []).append((index & mask, value, companion))
        edits = above
    return root


def height_for(bits: int, leaf: int) -> int:
    """Return the least h >= 1 with k^h > leaf, where k = 2^bits."""
    return max(1, -(-leaf.bit_length() // bits))


def slots(bitmap: int) -> list[int]:
    """List the set bits of a bitmap, lowest first."""
    found = []
    while bitmap:
        low = bitmap & -bitmap
        found.append(low.bit_length() - 1)
        bitmap ^= low
    return found


def splice(packed: bytearray, beside: bytearray, bitmap: int, edits: Iterable[Edit]) -> None:
    """Apply edits to the packed slots of one node, and to the hashes packed in the same way beside them."""
    for slot, value, companion in edits:
        bit = 1 << slot
        start = (bitmap & (bit - 1)).bit_count() * SLOT_SIZE
        rest = start + SLOT_SIZE if bitmap & bit else start
        packed[start:rest] = value
        beside[start:rest] = companion
        bitmap = bitmap | bit if value else bitmap & ~bit


def plan(
    bits: int,
    height: int,
    bitmap: Bitmaps,
    leaves: Mapping[int, bool],
    named: Sequence[NodeRef] = (),
) -> Plan:
    """Work out which nodes a change touches (docs/specs/treewrap.md, section 5.1).

    `height` is the old one, 0 if nothing was ever sealed; `bitmap` reads the old tree; `leaves` maps each
    changed leaf to whether it is occupied afterwards; `named` are nodes to seal again on request.
    """
    if height and len(leaves) == 1 and not named:
        [(leaf, occupied)] = leaves.items()
        if occupied and not leaf >> bits * height:
            return _plan_one_leaf(bits, height, bitmap, leaf)
    sets = [leaf for leaf, occupied in leaves.items() if occupied]
    top = max(height, 1, height_for(bits, max(sets, default=0)))
    touched = _touch(bits, height, top, bitmap, leaves, named)

    def after(level: int) -> int:
        row = touched[level - 1]
        return row[0][1] if 0 in row else bitmap(level, 0)

    new_height = top
    while new_height > 1 and after(new_height) in (0, 1):
        new_height -= 1
    for level in range(new_height, max(height, new_height) + 1):  # the new root; on a shrink, those above it
        row = touched[level - 1]
        if 0 not in row:
            here = bitmap(level, 0)
            touched[level - 1] = {0: (here, here), **row}
    return Plan(new_height, tuple(touched), tuple(_vanished(touched, height, new_height)))


def _plan_one_leaf(bits: int, height: int, bitmap: Bitmaps, leaf: int) -> Plan:
    """Do the same as `plan` for one leaf that is set within the tree, the most common change."""
    mask, index = (1 << bits) - 1, leaf
    touched = []
    for level in range(1, height + 1):
        bit = 1 << (index & mask)
        index >>= bits
        before = bitmap(level, index)
        touched.append({index: (before, before | bit)})
    return Plan(height, tuple(touched), ())


def _touch(
    bits: int,
    height: int,
    top: int,
    bitmap: Bitmaps,
    leaves: Mapping[int, bool],
    named: Iterable[NodeRef],
) -> list[dict[int, Occupancy]]:
    mask = (1 << bits) - 1
    extra: dict[int, list[int]] = {height: [0]}  # every update touches the old root
    for level, index in named:
        extra.setdefault(level, []).append(index)
    touched: list[dict[int, Occupancy]] = []
    # A blanked leaf outside the tree has no ancestors in it.
    below = [(leaf, occupied) for leaf, occupied in sorted(leaves.items()) if not leaf >> bits * top]
    for level in range(1, top + 1):
        row: dict[int, Occupancy] = {}
        for index in extra.get(level, ()):
            here = bitmap(level, index)
            row[index] = here, here
        there = level <= height
        for child, occupied in below:
            index, bit = child >> bits, 1 << (child & mask)
            found = row.get(index)
            before = found[0] if found else bitmap(level, index) if there else 0
            after = found[1] if found else before
            row[index] = before, after | bit if occupied else after & ~bit
        if len(row) > 1:
            row = dict(sorted(row.items()))
        touched.append(row)
        below = [(index, after != 0) for index, (_, after) in row.items()]
    return touched


def _vanished(touched: Sequence[dict[int, Occupancy]], height: int, new_height: int) -> Iterator[NodeRef]:
    for level, row in enumerate(touched, 1):
        for index, (before, after) in row.items():
            gone = not after or level > new_height or (level == new_height and index)
            if gone and (level, index) != (new_height, 0) and (before or (level, index) == (height, 0)):
                yield NodeRef(level, index)
