"""A whole public tree in bytes: a header row and one row per node; read, check and, with a root key, open it."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from treewrap.codec import VECTOR_MAX, Reader, vector
from treewrap.errors import NodeError, ParseError
from treewrap.geometry import LEAF_LIMIT, SLOT_SIZE
from treewrap.links.deferred import DEFERRED_LIMIT, DeferredLeaf
from treewrap.links.records import LinkSeal, read_seals, seals_to_bytes
from treewrap.nodes import EPOCH_SIZE, PAGE_BITS, PAGE_MASK, Forest, Page
from treewrap.root import RootHeader
from treewrap.secret import RootKey
from treewrap.suite import (
    GROUP_ID_LIMIT,
    HASH_SIZE,
    TAG_SIZE,
    GroupContext,
    join_hashes,
    pack_place,
    unseal,
)


@dataclass(frozen=True, slots=True)
class HeaderRow:
    """The row before all nodes: group, root header, seals for join links, the queue of deferred leaves."""

    context: GroupContext
    header: RootHeader
    seals: tuple[LinkSeal, ...] = ()
    deferred: tuple[DeferredLeaf, ...] = ()

    def to_bytes(self) -> bytes:
        """Encode it: 32 bytes and the group id, without seals and queue."""
        queue = b"".join(leaf.to_bytes() for leaf in self.deferred)
        return self.context.group + self.header.to_bytes() + seals_to_bytes(self.seals) + vector(queue)

    @classmethod
    def read(cls, reader: Reader) -> HeaderRow:
        """Read it. Raises ParseError."""
        group_id = reader.vector("group id", GROUP_ID_LIMIT)
        if not group_id:
            raise reader.fail("group id: empty")
        header = RootHeader.read(reader)
        return cls(GroupContext(header.suite, group_id), header, read_seals(reader), _read_queue(reader))


def _read_queue(reader: Reader) -> tuple[DeferredLeaf, ...]:
    items = reader.items("deferred leaves", VECTOR_MAX)
    queue: list[DeferredLeaf] = []
    while items.more():
        queue.append(DeferredLeaf.read(items))
    leaves = [deferred.leaf for deferred in queue]
    if leaves != sorted(set(leaves)) or len(leaves) > DEFERRED_LIMIT:
        raise items.fail("deferred leaves: not in order, or too many")
    return tuple(queue)


@dataclass(slots=True)
class Loaded:
    """A tree as read, opened or sealed.

    `extra` is the root's part after its slots, in plaintext if opened. `root_opens` is False if a root key was
    given and did not fit; nothing is opened then.
    """

    forest: Forest
    extra: bytes
    tree_hash: bytes
    root_opens: bool


def load_rows(reader: Reader, context: GroupContext, header: RootHeader, root_key: RootKey | None) -> Loaded:
    """Read and check every row below a header. Raises ParseError, and NodeError for a node that does not open."""
    return _Loader(reader, context, header, root_key).load()


class _Loader:
    def __init__(
        self, reader: Reader, context: GroupContext, header: RootHeader, root_key: RootKey | None
    ) -> None:
        self._reader = reader
        self._context = context
        self._header = header
        self._latest = header.epoch.to_bytes(EPOCH_SIZE, "big")
        self._opening = root_key is not None
        self._keys = root_key.reveal() if root_key else b""
        self._forest = Forest(context.suite.bitmap_size, sealed=root_key is None)
        self._extra = b""

    def load(self) -> Loaded:
        opening = self._opening
        self._forest.grow(self._header.height)
        indices: Sequence[int] = [0]
        own_hashes: list[bytearray] = []
        for number in range(self._header.height, 0, -1):
            own_hashes.append(self._level(number, indices))
            if number > 1:
                level = self._forest.levels[number - 1]
                # The slots of one level, one after the other, are the keys of the next one.
                self._keys = level.packed() if self._opening else b""
                indices = array("I", level.children(self._context.bits))
        self._keys = b""
        tree_hash = self._context.tree_hash(self._header.to_bytes(), self._join_hashes(own_hashes[::-1]))
        if not opening:
            self._forest.root_extra = self._extra
        return Loaded(self._forest, self._extra, tree_hash, opening == self._opening)

    def _level(self, level: int, indices: Sequence[int]) -> bytearray:
        """Read one level's rows into its pages. Return their own hashes."""
        own, start = bytearray(), 0
        while start < len(indices):
            number = indices[start] >> PAGE_BITS
            end = bisect_left(indices, (number + 1) << PAGE_BITS, start)
            page = self._forest.levels[level - 1].add_page(number)
            own += self._page(level, page, indices[start:end], start)
            start = end
        return own

    def _page(self, level: int, page: Page, indices: Sequence[int], start: int) -> bytes:
        """Read the rows of one page. Opening a tree spends most of its time in this loop."""
        is_root, opening, keys = level == self._header.height, self._opening, self._keys
        own_prefix, aad_prefix, latest = self._context.own_prefix, self._context.aad_prefix, self._latest
        bitmap_size, full = self._context.suite.bitmap_size, (1 << self._context.suite.arity) - 1
        tail = TAG_SIZE + (self._header.extra_length if is_root else 0)
        read, from_bytes, sha256 = self._reader.read, int.from_bytes, hashlib.sha256
        own: list[bytes] = []
        packed: list[bytes] = []
        at = start * SLOT_SIZE
        for index in indices:
            epoch, raw = read(EPOCH_SIZE), read(bitmap_size)
            bitmap = from_bytes(raw, "little")
            size = bitmap.bit_count() * SLOT_SIZE
            row = read(size + tail)
            if is_root or not bitmap or bitmap > full or epoch > latest or len(row) != size + tail:
                self._check(level, index, epoch, bitmap, len(row) - size - tail)
            head = pack_place(level, index) + epoch + raw
            own.append(sha256(own_prefix + head + row).digest())
            content = row
            if opening:
                content = unseal(keys[at : at + SLOT_SIZE], row, aad_prefix + head) or self._refuse(
                    level, index
                )
                at += SLOT_SIZE
            if is_root:
                self._extra = content[size : size + tail - TAG_SIZE]
            packed.append(content[:size])
            page.put_head(index & PAGE_MASK, epoch, raw, row[-TAG_SIZE:])
        page.packed = bytearray().join(packed)
        return b"".join(own)

    def _refuse(self, level: int, index: int) -> bytes:
        if level < self._header.height:
            raise NodeError(level, index, "does not open under the key that its parent holds")
        self._opening = (
            False  # the caller compares the tree hash, to find out whether the root or the secret is wrong
        )
        return b""

    def _check(self, level: int, index: int, raw_epoch: bytes, bitmap: int, excess: int) -> None:
        header = self._header
        is_root = level == header.height
        epoch = int.from_bytes(raw_epoch, "big")
        arity = self._context.suite.arity
        if excess:
            raise self._fail(level, index, f"expected {-excess} bytes more")
        if epoch > header.epoch or (is_root and epoch != header.epoch):
            raise self._fail(level, index, f"epoch {epoch} does not fit the header's, {header.epoch}")
        if bitmap >> arity or not (bitmap or (is_root and level == 1)):
            raise self._fail(level, index, f"bitmap {bitmap:#x} is impossible")
        if is_root and level > 1 and bitmap == 1:
            raise self._fail(level, index, "the tree has more levels than it needs")
        if level == 1 and index * arity >= LEAF_LIMIT:
            raise self._fail(level, index, f"leaves from {LEAF_LIMIT} are not allowed")

    def _fail(self, level: int, index: int, why: str) -> ParseError:
        return self._reader.fail(f"node (level {level}, index {index}): {why}")

    def _join_hashes(self, own_hashes: list[bytearray]) -> bytes:
        """Return the root's hash, and put every other hash beside its node's key."""
        below = bytes(own_hashes[0])
        for level, own in zip(self._forest.levels[1:], own_hashes[1:], strict=True):
            level.set_hashes(below)
            joined, start = bytearray(), 0
            for position, count in enumerate(level.counts()):
                end = start + count * SLOT_SIZE
                mine = bytes(own[position * HASH_SIZE : (position + 1) * HASH_SIZE])
                joined += join_hashes(mine, below[start:end])
                start = end
            below = bytes(joined)
        return below
