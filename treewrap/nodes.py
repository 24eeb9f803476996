"""Nodes in flat buffers: 64 neighbours a page, packed, with no Python object for a node or a leaf."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from treewrap.geometry import SLOT_SIZE, NodeRef, slots
from treewrap.suite import TAG_SIZE

PAGE_BITS = 6
PAGE_NODES = 1 << PAGE_BITS
PAGE_MASK = PAGE_NODES - 1
EPOCH_SIZE = 8
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Node(NamedTuple):
    """One node taken out of its page, or to be put into it.

    `head` is its epoch and bitmap, as in its row. `packed` holds 32 bytes per occupied slot: secrets in a
    member's tree, the ciphertext without tag and without the root's extra part in the hub's. `hashes` are the
    children's, none at level 1. `tag` is the hub's alone.
    """

    head: bytes
    packed: bytes
    hashes: bytes
    tag: bytes

    @property
    def bitmap(self) -> int:
        """The occupied slots."""
        return int.from_bytes(self.head[EPOCH_SIZE:], "little")


Written = tuple[int, int, bytes, bytes | bytearray, bytes | bytearray, bytes]
"""Level, index and the parts of a `Node`, to be put in its place; a member's pages have no use for the tag."""


class Page:
    """64 nodes: their bitmaps and epochs in fixed places, their slots packed one after the other."""

    __slots__ = ("bitmaps", "epochs", "hashes", "packed", "tags")

    def __init__(self, bitmap_size: int, tags: bool) -> None:
        self.bitmaps = bytearray(PAGE_NODES * bitmap_size)
        self.epochs = bytearray(PAGE_NODES * EPOCH_SIZE)
        self.packed = bytearray()
        self.hashes = bytearray()
        self.tags = bytearray(PAGE_NODES * TAG_SIZE if tags else 0)

    def put_head(self, place: int, epoch: bytes, bitmap: bytes, tag: bytes) -> None:
        """Put what is of fixed size in its place."""
        size = len(bitmap)
        self.epochs[place * EPOCH_SIZE : (place + 1) * EPOCH_SIZE] = epoch
        self.bitmaps[place * size : (place + 1) * size] = bitmap
        if self.tags:
            self.tags[place * TAG_SIZE : (place + 1) * TAG_SIZE] = tag


class Level:
    """All nodes of one level, by index."""

    __slots__ = ("_bitmap_size", "_hashed", "_tags", "_unpack", "pages")

    def __init__(self, bitmap_size: int, *, hashed: bool, tags: bool) -> None:
        self._bitmap_size = bitmap_size
        self._hashed = hashed
        self._unpack = struct.Struct(f"<{PAGE_NODES}{_UNSIGNED[bitmap_size]}").unpack
        self._tags = tags
        self.pages: dict[int, Page] = {}

    def bitmap(self, index: int) -> int:
        """Read a node's bitmap; 0 if it is not there."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return 0
        at = (index & PAGE_MASK) * self._bitmap_size
        return int.from_bytes(page.bitmaps[at : at + self._bitmap_size], "little")

    def read(self, index: int) -> Node:
        """Take a copy of a node, which must be there."""
        page = self.pages[index >> PAGE_BITS]
        place, size = index & PAGE_MASK, self._bitmap_size
        start, end = self._span(page, place)
        return Node(
            bytes(page.epochs[place * EPOCH_SIZE : (place + 1) * EPOCH_SIZE])
            + bytes(page.bitmaps[place * size : (place + 1) * size]),
            bytes(page.packed[start:end]),
            bytes(page.hashes[start:end]),
            bytes(page.tags[place * TAG_SIZE : (place + 1) * TAG_SIZE]),
        )

    def content(self, index: int) -> tuple[bytearray, bytearray]:
        """Take a copy of what a node's slots hold, and of its children's hashes."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return bytearray(), bytearray()
        start, end = self._span(page, index & PAGE_MASK)
        return page.packed[start:end], page.hashes[start:end]

    def slot(self, index: int, slot: int) -> bytes | None:
        """Read the 32 bytes of one slot; None if it is blank."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return None
        # As in `_span`: the bitmaps are one number, and its bits below the slot's tell how much lies before.
        at = (index & PAGE_MASK) * self._bitmap_size
        bits = int.from_bytes(page.bitmaps[: at + self._bitmap_size], "little")
        bit = 1 << (8 * at + slot)
        if not bits & bit:
            return None
        start = (bits & (bit - 1)).bit_count() * SLOT_SIZE
        return bytes(page.packed[start : start + SLOT_SIZE])

    def write(
        self, index: int, head: bytes, packed: bytes | bytearray, hashes: bytes | bytearray, tag: bytes
    ) -> None:
        """Put a node in its place, whether or not one was there."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            page = self.pages[index >> PAGE_BITS] = Page(self._bitmap_size, self._tags)
        place = index & PAGE_MASK
        start, end = self._span(page, place)
        page.packed[start:end] = packed
        if self._hashed:
            page.hashes[start:end] = hashes
        page.put_head(place, head[:EPOCH_SIZE], head[EPOCH_SIZE:], tag)

    def drop(self, index: int) -> None:
        """Take a node away."""
        self.write(index, bytes(EPOCH_SIZE + self._bitmap_size), b"", b"", bytes(TAG_SIZE))
        page = self.pages[index >> PAGE_BITS]
        if not page.packed:
            del self.pages[index >> PAGE_BITS]

    def add_page(self, number: int) -> Page:
        """Make an empty page, for a loader to fill."""
        page = self.pages[number] = Page(self._bitmap_size, self._tags)
        return page

    def packed(self) -> bytes:
        """Give what all slots hold, one after the other."""
        return b"".join([page.packed for _, page in sorted(self.pages.items())])

    def filled(self) -> Iterator[tuple[int, int]]:
        """List index and bitmap of all nodes that are there, in order."""
        for number, page in sorted(self.pages.items()):
            first = number << PAGE_BITS
            for place, bitmap in enumerate(self._unpack(page.bitmaps)):
                if bitmap:
                    yield first + place, bitmap

    def children(self, bits: int) -> Iterator[int]:
        """List the indices one level below, in order."""
        arity = 1 << bits
        full = (1 << arity) - 1
        for index, bitmap in self.filled():
            first = index << bits
            if bitmap == full:
                yield from range(first, first + arity)
            else:
                yield from [first | slot for slot in slots(bitmap)]

    def counts(self) -> Iterator[int]:
        """List how many slots each node has, in order of the nodes."""
        for _, bitmap in self.filled():
            yield bitmap.bit_count()

    def set_hashes(self, hashes: bytes) -> None:
        """Put the hashes of all nodes one level below in their places, given in their order."""
        start = 0
        for _, page in sorted(self.pages.items()):
            end = start + len(page.packed)
            page.hashes = bytearray(hashes[start:end])
            start = end

    def __iter__(self) -> Iterator[tuple[int, Node]]:
        """List index and node of all that are there, in order."""
        for index, _ in self.filled():
            yield index, self.read(index)

    def _span(self, page: Page, place: int) -> tuple[int, int]:
        at, bitmaps = place * self._bitmap_size, page.bitmaps
        # The nodes before it are as long as they have bits set: one count over their bitmaps finds the place.
        start = int.from_bytes(bitmaps[:at], "little").bit_count()
        own = int.from_bytes(bitmaps[at : at + self._bitmap_size], "little").bit_count()
        return start * SLOT_SIZE, (start + own) * SLOT_SIZE


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
        return self.levels[0].children(bits) if self.levels else iter(())

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
        if level > len(self.levels):
            return 0
        page = self.levels[level - 1].pages.get(index >> PAGE_BITS)
        if page is None:
            return 0
        at, size = (index & PAGE_MASK) * self._bitmap_size, self._bitmap_size
        return int.from_bytes(page.bitmaps[at : at + size], "little")

    def read(self, ref: NodeRef) -> Node:
        """Take a copy of a node, which must be there."""
        return self.levels[ref.level - 1].read(ref.index)

    def content(self, level: int, index: int) -> tuple[bytearray, bytearray]:
        """Take a copy of what a node's slots hold, and of its children's hashes."""
        return self.levels[level - 1].content(index)

    def update(self, height: int, written: Iterable[Written], vanished: Iterable[NodeRef]) -> None:
        """Put nodes in their places and take others away, in a tree that has `height` levels afterwards."""
        for level, index in vanished:
            self.levels[level - 1].drop(index)
        self.grow(height)
        self.shrink(height)
        for level, index, head, packed, hashes, tag in written:
            self.levels[level - 1].write(index, head, packed, hashes, tag)
