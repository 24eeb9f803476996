"""Read the rows of a whole tree, from the root down, and open them on the way if the root key is known."""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from treewrap.codec import Reader
from treewrap.errors import NodeError, ParseError
from treewrap.geometry import LEAF_LIMIT, SLOT_SIZE, slots
from treewrap.pages import EPOCH_SIZE, PAGE_BITS, PAGE_NODES, Forest, Level, Page
from treewrap.root import RootHeader
from treewrap.secret import RootKey
from treewrap.suite import HASH_SIZE, TAG_SIZE, GroupContext, join_hashes, unseal

_PLACE = struct.Struct(">BI")


@dataclass(slots=True)
class Loaded:
    """A tree as read: opened, or as the hub holds it.

    `extra` is the root's part after its slots, in plaintext or not; `root_opens` is False if a root key
    was given and did not fit: nothing is opened then.
    """

    forest: Forest
    extra: bytes
    tree_hash: bytes
    root_opens: bool


def load_rows(reader: Reader, context: GroupContext, header: RootHeader, root_key: RootKey | None) -> Loaded:
    """Read and check every row below a header. Raises ParseError, and NodeError for the node that fails."""
    return _Loader(reader, context, header, root_key).load()


class _Loader:
    def __init__(
        self, reader: Reader, context: GroupContext, header: RootHeader, root_key: RootKey | None
    ) -> None:
        self._reader = reader
        self._context = context
        self._header = header
        self._opening = root_key is not None
        self._keys = root_key.reveal() if root_key else b""
        self._forest = Forest(context.suite.bitmap_size, tags=root_key is None)
        self._extra = b""

    def load(self) -> Loaded:
        wanted = self._opening
        self._forest.grow(self._header.height)
        indices: Sequence[int] = [0]
        own_hashes: list[bytes] = []
        for level in range(self._header.height, 0, -1):
            indices, own, packed = self._level(level, indices)
            own_hashes.append(own)
            # The slots of one level, one after the other, are the keys of the next one.
            self._keys = packed if self._opening else b""
        self._keys = b""
        tree_hash = self._context.tree_hash(self._header.to_bytes(), self._join_hashes(own_hashes[::-1]))
        return Loaded(self._forest, self._extra, tree_hash, wanted == self._opening)

    def _level(self, level: int, indices: Sequence[int]) -> tuple[Sequence[int], bytes, bytes]:
        """Read one level's rows: give the indices below, the rows' own hashes, and what the slots hold."""
        bits, bitmap_size = self._context.suite.id, self._context.suite.bitmap_size
        own_prefix, sha256, place_of = self._context.own_prefix, hashlib.sha256, _PLACE.pack
        head_size = EPOCH_SIZE + bitmap_size
        tail = TAG_SIZE + (self._header.extra_length if level == self._header.height else 0)
        read, from_bytes, full = self._reader.read, int.from_bytes, (1 << (1 << bits)) - 1
        pages = _PageWriter(self._forest.levels[level - 1], bitmap_size)
        below, own, kept = array("I"), bytearray(), bytearray()
        for position, index in enumerate(indices):
            head = read(head_size)
            bitmap = from_bytes(head[EPOCH_SIZE:], "little")
            size = bitmap.bit_count() * SLOT_SIZE
            row = read(size + tail)
            self._check(level, index, head, bitmap, len(row) - size - tail)
            place = place_of(level, index)
            own += sha256(own_prefix + place + head + row).digest()
            content = self._open(level, index, position, place + head, row) if self._opening else row
            pages.add(index, head, content[:size], row[-TAG_SIZE:])
            if level == self._header.height:
                self._extra = content[size : size + self._header.extra_length]
            if level > 1:
                kept += content[:size]
                below.extend(
                    range(index << bits, (index + 1) << bits)
                    if bitmap == full
                    else [index << bits | slot for slot in slots(bitmap)]
                )
        pages.end()
        return below, bytes(own), bytes(kept)

    def _open(self, level: int, index: int, position: int, place: bytes, row: bytes) -> bytes:
        key = self._keys[position * SLOT_SIZE : (position + 1) * SLOT_SIZE]
        content = unseal(key, row, self._context.aad_prefix + place)
        if content is not None:
            return content
        if level < self._header.height:
            raise NodeError(level, index, "does not open under the key that its parent holds")
        self._opening = False  # the caller tells by the tree hash whether root or secret is wrong
        return row

    def _check(self, level: int, index: int, head: bytes, bitmap: int, excess: int) -> None:
        header = self._header
        is_root = level == header.height
        epoch = int.from_bytes(head[:EPOCH_SIZE], "big")
        arity = self._context.suite.arity
        if excess:
            raise self._fail(level, index, f"expected {-excess} bytes more")
        if epoch > header.epoch or (is_root and epoch != header.epoch):
            raise self._fail(level, index, f"epoch {epoch} does not fit the header's, {header.epoch}")
        if bitmap >> arity or not (bitmap or (is_root and level == 1)):
            raise self._fail(level, index, f"bitmap {bitmap:#x} is impossible")
        if is_root and level > 1 and bitmap == 1:
            raise self._fail(level, index, "the tree is higher than it need be")
        if level == 1 and index * arity >= LEAF_LIMIT:
            raise self._fail(level, index, f"leaves from {LEAF_LIMIT} are not allowed")

    def _fail(self, level: int, index: int, why: str) -> ParseError:
        return self._reader.fail(f"node (level {level}, index {index}): {why}")

    def _join_hashes(self, own_hashes: list[bytes]) -> bytes:
        """Give the root's hash, and put every other hash beside its node's key."""
        below = own_hashes[0]
        for level, own in zip(self._forest.levels[1:], own_hashes[1:], strict=True):
            level.set_hashes(below)
            joined, start = bytearray(), 0
            for position, count in enumerate(level.counts()):
                end = start + count * SLOT_SIZE
                mine = own[position * HASH_SIZE : (position + 1) * HASH_SIZE]
                joined += join_hashes(mine, below[start:end])
                start = end
            below = bytes(joined)
        return below


class _PageWriter:
    """Fills pages from nodes in order, each buffer made in its final size."""

    def __init__(self, level: Level, bitmap_size: int) -> None:
        self._level = level
        self._bitmap_size = bitmap_size
        self._number = -1
        self._page = Page(bitmap_size, tags=False)
        self._packed: list[bytes] = []

    def add(self, index: int, head: bytes, packed: bytes, tag: bytes) -> None:
        if index >> PAGE_BITS != self._number:
            self.end()
            self._number = index >> PAGE_BITS
            self._page = self._level.add_page(self._number)
        place, size, page = index & (PAGE_NODES - 1), self._bitmap_size, self._page
        page.epochs[place * EPOCH_SIZE : (place + 1) * EPOCH_SIZE] = head[:EPOCH_SIZE]
        page.bitmaps[place * size : (place + 1) * size] = head[EPOCH_SIZE:]
        self._packed.append(packed)
        if page.tags:
            page.tags[place * TAG_SIZE : (place + 1) * TAG_SIZE] = tag

    def end(self) -> None:
        self._page.packed = bytearray().join(self._packed)
        self._packed = []
