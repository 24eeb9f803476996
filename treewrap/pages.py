"""Nodes in flat buffers: 64 neighbours a page, packed, with no Python object for a node or a leaf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from treewrap.geometry import SLOT_SIZE, NodeRef, slots
from treewrap.suite import TAG_SIZE

PAGE_BITS = 6
PAGE_NODES = 1 << PAGE_BITS
_PAGE_MASK = PAGE_NODES - 1
EPOCH_SIZE = 8


class Node(NamedTuple):
    """One node taken out of its page.

    `packed` holds 32 bytes per occupied slot: secrets in a member's tree, the ciphertext without tag and
    without the root's extra part in the hub's. `hashes` are the children's, none at level 1. `tag` is
    the hub's alone.
    """

    epoch: int
    bitmap: int
    packed: bytes
    hashes: bytes
    tag: bytes = b""


EMPTY = Node(0, 0, b"", b"")


class Page:
    """64 nodes: their bitmaps and epochs in fixed places, their slots packed one after the other."""

    __slots__ = ("bitmaps", "epochs", "hashes", "packed", "tags")

    def __init__(self, bitmap_size: int, tags: bool) -> None:
        self.bitmaps = bytearray(PAGE_NODES * bitmap_size)
        self.epochs = bytearray(PAGE_NODES * EPOCH_SIZE)
        self.packed = bytearray()
        self.hashes = bytearray()
        self.tags = bytearray(PAGE_NODES * TAG_SIZE if tags else 0)


class Level:
    """All nodes of one level, by index."""

    __slots__ = ("_bitmap_size", "_hashed", "_tags", "pages")

    def __init__(self, bitmap_size: int, *, hashed: bool, tags: bool) -> None:
        self._bitmap_size = bitmap_size
        self._hashed = hashed
        self._tags = tags
        self.pages: dict[int, Page] = {}

    def bitmap(self, index: int) -> int:
        """Read a node's bitmap; 0 if it is not there."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return 0
        at = (index & _PAGE_MASK) * self._bitmap_size
        return int.from_bytes(page.bitmaps[at : at + self._bitmap_size], "little")

    def read(self, index: int) -> Node:
        """Take a copy of a node; the empty one if it is not there."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return EMPTY
        place = index & _PAGE_MASK
        bitmap, start, end = self._span(page, place)
        return Node(
            int.from_bytes(page.epochs[place * EPOCH_SIZE : (place + 1) * EPOCH_SIZE], "big"),
            bitmap,
            bytes(page.packed[start:end]),
            bytes(page.hashes[start:end]),
            bytes(page.tags[place * TAG_SIZE : (place + 1) * TAG_SIZE]),
        )

    def slot(self, index: int, slot: int) -> bytes | None:
        """Read the 32 bytes of one slot; None if it is blank."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return None
        bitmap, start, _ = self._span(page, index & _PAGE_MASK)
        if not bitmap >> slot & 1:
            return None
        start += (bitmap & ((1 << slot) - 1)).bit_count() * SLOT_SIZE
        return bytes(page.packed[start : start + SLOT_SIZE])

    def write(self, index: int, node: Node) -> None:
        """Put a node in its place, whether or not one was there."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            page = self.pages[index >> PAGE_BITS] = Page(self._bitmap_size, self._tags)
        place, size = index & _PAGE_MASK, self._bitmap_size
        _, start, end = self._span(page, place)
        page.bitmaps[place * size : (place + 1) * size] = node.bitmap.to_bytes(size, "little")
        page.epochs[place * EPOCH_SIZE : (place + 1) * EPOCH_SIZE] = node.epoch.to_bytes(EPOCH_SIZE, "big")
        page.packed[start:end] = node.packed
        if self._hashed:
            page.hashes[start:end] = node.hashes
        if self._tags:
            page.tags[place * TAG_SIZE : (place + 1) * TAG_SIZE] = node.tag

    def drop(self, index: int) -> None:
        """Take a node away."""
        self.write(index, EMPTY._replace(tag=bytes(TAG_SIZE)))
        page = self.pages[index >> PAGE_BITS]
        if not page.packed:
            del self.pages[index >> PAGE_BITS]

    def add_page(self, number: int) -> Page:
        """Make an empty page, for a loader to fill."""
        page = self.pages[number] = Page(self._bitmap_size, self._tags)
        return page

    def counts(self) -> Iterator[int]:
        """List how many slots each node has, in order of the nodes."""
        size = self._bitmap_size
        for _, page in sorted(self.pages.items()):
            for at in range(0, PAGE_NODES * size, size):
                count = int.from_bytes(page.bitmaps[at : at + size], "little").bit_count()
                if count:
                    yield count

    def set_hashes(self, hashes: bytes) -> None:
        """Put the hashes of all nodes one level below in their places, given in their order."""
        start = 0
        for _, page in sorted(self.pages.items()):
            end = start + len(page.packed)
            page.hashes = bytearray(hashes[start:end])
            start = end

    def __iter__(self) -> Iterator[tuple[int, Node]]:
        """List index and node of all that are there, in order."""
        for number in sorted(self.pages):
            for place in range(PAGE_NODES):
                node = self.read(number << PAGE_BITS | place)
                if node.bitmap:
                    yield number << PAGE_BITS | place, node

    def _span(self, page: Page, place: int) -> tuple[int, int, int]:
        size = self._bitmap_size
        at = place * size
        bitmap = int.from_bytes(page.bitmaps[at : at + size], "little")
        # The nodes before it are as long as they have bits set: one count over their bitmaps finds the place.
        start = int.from_bytes(page.bitmaps[:at], "little").bit_count() * SLOT_SIZE
        return bitmap, start, start + bitmap.bit_count() * SLOT_SIZE


class Forest:
    """The levels of one tree, from 1 up, in a member's form or in the hub's (`tags`)."""

    __slots__ = ("_bitmap_size", "_tags", "levels")

    def __init__(self, bitmap_size: int, *, tags: bool) -> None:
        self._bitmap_size = bitmap_size
        self._tags = tags
        self.levels: list[Level] = []

    def grow(self, height: int) -> None:
        """Make sure that there are `height` levels."""
        while len(self.levels) < height:
            self.levels.append(Level(self._bitmap_size, hashed=bool(self.levels), tags=self._tags))

    def top_down(self) -> Iterator[tuple[NodeRef, Node]]:
        """List place and node of all there are, from the root down."""
        for number in range(len(self.levels), 0, -1):
            if number == len(self.levels):
                yield NodeRef(number, 0), self.levels[number - 1].read(0)
            else:
                yield from ((NodeRef(number, index), node) for index, node in self.levels[number - 1])

    def leaves(self, bits: int) -> Iterator[int]:
        """List the occupied leaves, in order."""
        for index, node in self.levels[0] if self.levels else ():
            yield from (index << bits | slot for slot in slots(node.bitmap))

    def shrink(self, height: int) -> None:
        """Let go of the levels above `height`."""
        del self.levels[height:]

    def nodes(self) -> Iterator[NodeRef]:
        """List the nodes there are, by level and index; the root also if it is empty."""
        for number, level in enumerate(self.levels, 1):
            if number == len(self.levels):
                yield NodeRef(number, 0)
            else:
                yield from (NodeRef(number, index) for index, _ in level)

    def bitmap(self, level: int, index: int) -> int:
        """Read a node's bitmap; 0 if it is not there."""
        return self.levels[level - 1].bitmap(index) if level <= len(self.levels) else 0

    def read(self, ref: NodeRef) -> Node:
        """Take a copy of a node; the empty one if it is not there."""
        level, index = ref
        return self.levels[level - 1].read(index) if level <= len(self.levels) else EMPTY

    def write(self, ref: NodeRef, node: Node) -> None:
        """Put a node in its place; its level must be there."""
        self.levels[ref.level - 1].write(ref.index, node)

    def drop(self, ref: NodeRef) -> None:
        """Take a node away."""
        self.levels[ref.level - 1].drop(ref.index)
