"""Nodes, and how a tree keeps them: 64 neighbours in a page of flat buffers, no Python object for each node."""

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
    """One node, copied from its page or to be written to it.

    `head` is its epoch and bitmap, as in NodeRow. `values` are the 32 bytes of each occupied slot in plaintext;
    they are empty in a node of the hub's. `hashes` are its children's, empty at level 1. `ciphertext` is without
    the `tag`; both are empty in a node that was read from a member's pages, which do not keep them.
    """

    level: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    head: bytes
    values: bytes | bytearray
    hashes: bytes | bytearray
    ciphertext: bytes
    tag: bytes

    @property
    def ref(self) -> NodeRef:
        """Its place."""
        return NodeRef(self.level, self.index)

    @property
    def bitmap(self) -> int:
        """The occupied slots."""
        return int.from_bytes(self.head[EPOCH_SIZE:], "little")

    @property
    def row(self) -> bytes:
        """NodeRow: head, ciphertext and tag."""
        return self.head + self.ciphertext + self.tag


class Page:
    """64 nodes: bitmaps, epochs and tags in fixed places; slots and hashes each packed one after the other."""

    __slots__ = ("bitmaps", "epochs", "hashes", "packed", "tags")

    def __init__(self, bitmap_size: int, *, sealed: bool) -> None:
        self.bitmaps = bytearray(PAGE_NODES * bitmap_size)
        self.epochs = bytearray(PAGE_NODES * EPOCH_SIZE)
        self.packed = bytearray()
        self.hashes = bytearray()
        self.tags = bytearray(PAGE_NODES * TAG_SIZE if sealed else 0)

    def put_head(self, place: int, epoch: bytes, bitmap: bytes, tag: bytes) -> None:
        """Put the fields of fixed size in their places."""
        size = len(bitmap)
        self.epochs[place * EPOCH_SIZE : (place + 1) * EPOCH_SIZE] = epoch
        self.bitmaps[place * size : (place + 1) * size] = bitmap
        if self.tags:
            self.tags[place * TAG_SIZE : (place + 1) * TAG_SIZE] = tag


class Level:
    """All nodes of one level, by index. `sealed`: with ciphertexts and tags instead of values."""

    __slots__ = ("_bitmap_size", "_hashed", "_number", "_sealed", "_unpack", "pages")

    def __init__(self, number: int, bitmap_size: int, *, sealed: bool) -> None:
        self._number = number
        self._bitmap_size = bitmap_size
        self._hashed = number > 1
        self._sealed = sealed
        self._unpack = struct.Struct(f"<{PAGE_NODES}{_UNSIGNED[bitmap_size]}").unpack
        self.pages: dict[int, Page] = {}

    def bitmap(self, index: int) -> int:
        """Return a node's bitmap; 0 if the node does not exist."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return 0
        at = (index & PAGE_MASK) * self._bitmap_size
        return int.from_bytes(page.bitmaps[at : at + self._bitmap_size], "little")

    def read(self, index: int) -> Node:
        """Return a copy of a node, which must exist; of a sealed root, without its extra part."""
        page = self.pages[index >> PAGE_BITS]
        place, size = index & PAGE_MASK, self._bitmap_size
        start, end = self._span(page, place)
        epoch = page.epochs[place * EPOCH_SIZE : (place + 1) * EPOCH_SIZE]
        head = bytes(epoch + page.bitmaps[place * size : (place + 1) * size])
        packed, hashes = bytes(page.packed[start:end]), bytes(page.hashes[start:end])
        if self._sealed:
            tag = bytes(page.tags[place * TAG_SIZE : (place + 1) * TAG_SIZE])
            return Node(self._number, index, head, b"", hashes, packed, tag)
        return Node(self._number, index, head, packed, hashes, b"", b"")

    def content(self, index: int) -> tuple[bytearray, bytearray]:
        """Return copies of a node's packed slots and of its children's hashes."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return bytearray(), bytearray()
        start, end = self._span(page, index & PAGE_MASK)
        return page.packed[start:end], page.hashes[start:end]

    def slot(self, index: int, slot: int) -> bytes | None:
        """Return the 32 bytes of one slot; None if it is blank."""
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            return None
        # As in `_span`: the bitmaps are one number; its bits below the slot's count the slots before it.
        at = (index & PAGE_MASK) * self._bitmap_size
        bits = int.from_bytes(page.bitmaps[: at + self._bitmap_size], "little")
        bit = 1 << (8 * at + slot)
        if not bits & bit:
            return None
        start = (bits & (bit - 1)).bit_count() * SLOT_SIZE
        return bytes(page.packed[start : start + SLOT_SIZE])

    def write(self, node: Node) -> None:
        """Write a node to its place, as a new node or in place of the old one."""
        _, index, head, values, hashes, ciphertext, tag = node
        page = self.pages.get(index >> PAGE_BITS)
        if page is None:
            page = self.add_page(index >> PAGE_BITS)
        place = index & PAGE_MASK
        start, end = self._span(page, place)
        page.packed[start:end] = ciphertext if self._sealed else values
        if self._hashed:
            page.hashes[start:end] = hashes
        page.put_head(place, head[:EPOCH_SIZE], head[EPOCH_SIZE:], tag)

    def drop(self, index: int) -> None:
        """Remove a node."""
        head = bytes(EPOCH_SIZE + self._bitmap_size)
        self.write(Node(self._number, index, head, b"", b"", b"", bytes(TAG_SIZE)))
        page = self.pages[index >> PAGE_BITS]
        if not page.packed:
            del self.pages[index >> PAGE_BITS]

    def add_page(self, number: int) -> Page:
        """Add an empty page and return it."""
        page = self.pages[number] = Page(self._bitmap_size, sealed=self._sealed)
        return page

    def packed(self) -> bytes:
        """Return the content of all slots, one after the other."""
        return b"".join([page.packed for _, page in sorted(self.pages.items())])

    def filled(self) -> Iterator[tuple[int, int]]:
        """List index and bitmap of all nodes, in order."""
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
        """List how many occupied slots each node has, in order of the nodes."""
        for _, bitmap in self.filled():
            yield bitmap.bit_count()

    def set_hashes(self, hashes: bytes) -> None:
        """Set the hashes of all nodes one level below, given in order of these."""
        start = 0
        for _, page in sorted(self.pages.items()):
            end = start + len(page.packed)
            page.hashes = bytearray(hashes[start:end])
            start = end

    def __iter__(self) -> Iterator[Node]:
        """List all nodes, in order."""
        for index, _ in self.filled():
            yield self.read(index)

    def _span(self, page: Page, place: int) -> tuple[int, int]:
        at, bitmaps = place * self._bitmap_size, page.bitmaps
        # A node has one slot for each bit set in its bitmap: counting the bits before it gives the offset.
        start = int.from_bytes(bitmaps[:at], "little").bit_count()
        own = int.from_bytes(bitmaps[at : at + self._bitmap_size], "little").bit_count()
        return start * SLOT_SIZE, (start + own) * SLOT_SIZE


class Forest:
    """The levels of one tree, from 1 up.

    A member's holds values. The hub's (`sealed`) holds ciphertexts and tags; `root_extra` is then the part of the
    root's ciphertext after its slots.
    """

    __slots__ = ("_bitmap_size", "_sealed", "levels", "root_extra")

    def __init__(self, bitmap_size: int, *, sealed: bool) -> None:
        self._bitmap_size = bitmap_size
        self._sealed = sealed
        self.levels: list[Level] = []
        self.root_extra = b""

    def grow(self, height: int) -> None:
        """Add levels up to `height`."""
        while len(self.levels) < height:
            self.levels.append(Level(len(self.levels) + 1, self._bitmap_size, sealed=self._sealed))

    def shrink(self, height: int) -> None:
        """Remove the levels above `height`."""
        del self.levels[height:]

    def top_down(self) -> Iterator[Node]:
        """List all nodes, from the root down, by index within a level."""
        if self.levels:
            yield self.read(NodeRef(len(self.levels), 0))
        for level in reversed(self.levels[:-1]):
            yield from level

    def nodes(self) -> Iterator[NodeRef]:
        """List the places of all nodes, by level and index; the root is there even if it is empty."""
        for number, level in enumerate(self.levels, 1):
            if number == len(self.levels):
                yield NodeRef(number, 0)
            else:
                yield from (NodeRef(number, index) for index, _ in level.filled())

    def leaves(self, bits: int) -> Iterator[int]:
        """List the occupied leaves, in order."""
        return self.levels[0].children(bits) if self.levels else iter(())

    def bitmap(self, level: int, index: int) -> int:
        """Return a node's bitmap; 0 if the node does not exist."""
        if level > len(self.levels):
            return 0
        page = self.levels[level - 1].pages.get(index >> PAGE_BITS)
        if page is None:
            return 0
        at, size = (index & PAGE_MASK) * self._bitmap_size, self._bitmap_size
        return int.from_bytes(page.bitmaps[at : at + size], "little")

    def read(self, ref: NodeRef) -> Node:
        """Return a copy of a node, which must exist; of a sealed root, with its extra part."""
        node = self.levels[ref.level - 1].read(ref.index)
        if self._sealed and ref.level == len(self.levels):
            return node._replace(ciphertext=node.ciphertext + self.root_extra)
        return node

    def content(self, level: int, index: int) -> tuple[bytearray, bytearray]:
        """Return copies of a node's packed slots and of its children's hashes."""
        return self.levels[level - 1].content(index)

    def update(self, height: int, written: Iterable[Node], vanished: Iterable[NodeRef]) -> None:
        """Put nodes in their places and remove others; afterwards the tree has `height` levels."""
        for level, index in vanished:
            self.levels[level - 1].drop(index)
        self.grow(height)
        self.shrink(height)
        sealed, levels = self._sealed, self.levels
        for node in written:
            if sealed and node.level == height:
                end = node.bitmap.bit_count() * SLOT_SIZE
                self.root_extra = node.ciphertext[end:]
                node = node._replace(ciphertext=node.ciphertext[:end])
            levels[node.level - 1].write(node)
