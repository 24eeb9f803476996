"""Levels, indices, occupancy, and which nodes a change touches: integers only, no keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

LEAF_LIMIT = 1 << 24
SLOT_SIZE = 32


class NodeRef(NamedTuple):
    """A node's place. Level 1 stands above the leaves; node (l, i) holds nodes i*k .. i*k+k-1 of l-1."""

    level: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


Edit = tuple[int, bytes, bytes]
"""A slot, its new value of 32 bytes or none, and what goes beside: a child's key and hash."""
Occupancy = tuple[int, int]
"""A touched node's bitmap before and after."""


class Plan(NamedTuple):
    """What one set of changes does to the shape of a tree.

    `touched[l - 1]` maps the touched indices of level l, in order, to their occupancy; those that
    are empty afterwards are not sealed. `vanished` are the nodes that were there and no longer are.
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


def height_for(bits: int, leaf: int) -> int:
    """Give the least h >= 1 with k^h > leaf, where k = 2^bits."""
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
    """Put values into, or take them out of, the packed slots of one node, and the same with what lies beside."""
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
    bitmap: Callable[[int, int], int],
    leaves: Mapping[int, bool],
    named: Iterable[NodeRef] = (),
) -> Plan:
    """Work out which nodes change: treewrap/README.md, "Change".

    `height` is the old one, 0 if nothing was ever sealed; `bitmap(level, index)` reads the old tree
    and gives 0 for what is not there; `leaves` maps each changed leaf to whether it is occupied now.
    """
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


def _touch(
    bits: int,
    height: int,
    top: int,
    bitmap: Callable[[int, int], int],
    leaves: Mapping[int, bool],
    named: Iterable[NodeRef],
) -> list[dict[int, Occupancy]]:
    mask = (1 << bits) - 1
    extra: dict[int, list[int]] = {height: [0]}  # the old root is touched by every update
    for level, index in named:
        extra.setdefault(level, []).append(index)
    touched: list[dict[int, Occupancy]] = []
    # A leaf outside the tree that is blanked has no ancestors in it.
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
