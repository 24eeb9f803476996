"""Parts of a public tree: what a light tree asks for, what the hub answers, and how that is checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from treewrap.codec import Reader, vector
from treewrap.errors import ChangeError, NodeError, TreeHashMismatch, WrongEpochSecret
from treewrap.geometry import LEAF_LIMIT, SLOT_SIZE, NodeRef, slots
from treewrap.nodes import EPOCH_SIZE, Forest, Node
from treewrap.root import RootExtra, RootHeader
from treewrap.secret import LeafSecret, RoomSecret, RootKey
from treewrap.suite import HASH_SIZE, TAG_SIZE, GroupContext, pack_place, unseal
from treewrap.wire import NODE_LIMIT, VECTOR_MAX, read_refs, refs_to_bytes

_ROW_LIMIT = NODE_LIMIT + EPOCH_SIZE + 8
_HASHES_LIMIT = 64 * HASH_SIZE


@dataclass(frozen=True, slots=True)
class PathQuery:
    """Ask for the nodes above some leaves, and for whole subtrees, of the tree with this hash."""

    tree_hash: bytes
    leaves: tuple[int, ...] = ()
    subtrees: tuple[NodeRef, ...] = ()

    def to_bytes(self) -> bytes:
        """Encode it: 34 bytes, 4 per leaf, 5 per subtree."""
        leaves = b"".join(leaf.to_bytes(4, "big") for leaf in self.leaves)
        return self.tree_hash + vector(leaves) + refs_to_bytes(self.subtrees)

    @classmethod
    def from_bytes(cls, content: bytes) -> PathQuery:
        """Read it. Raises ParseError."""
        reader = Reader(content)
        tree_hash = reader.take(HASH_SIZE, "tree hash")
        leaves: list[int] = []
        items = reader.items("leaves", VECTOR_MAX)
        while items.more():
            leaves.append(items.u32("leaf"))
            if leaves[-1] >= LEAF_LIMIT or leaves[-2:] != sorted(set(leaves[-2:])):
                raise items.fail("leaves: too high, or not in order")
        query = cls(tree_hash, tuple(leaves), read_refs(reader, "subtrees"))
        reader.end("query")
        return query


class PathNode(NamedTuple):
    """A node's row as stored, and its children's hashes, so that its own can be computed."""

    ref: NodeRef
    row: bytes
    hashes: bytes


@dataclass(frozen=True, slots=True)
class Paths:
    """The hub's answer: the root header, and the nodes from the root down."""

    header: RootHeader
    nodes: tuple[PathNode, ...] = field(repr=False)

    def to_bytes(self) -> bytes:
        """Encode it: about 1 kB a level and path at arity 16."""
        nodes = (pack_place(*ref) + vector(row) + vector(hashes) for ref, row, hashes in self.nodes)
        return self.header.to_bytes() + vector(b"".join(nodes))

    @classmethod
    def from_bytes(cls, content: bytes) -> Paths:
        """Read it. Raises ParseError."""
        reader = Reader(content)
        header = RootHeader.read(reader)
        items = reader.items("nodes", VECTOR_MAX)
        nodes: list[PathNode] = []
        while items.more():
            ref = NodeRef(items.u8("level"), items.u32("index"))
            nodes.append(
                PathNode(ref, items.vector("row", _ROW_LIMIT), items.vector("hashes", _HASHES_LIMIT))
            )
            if len(nodes) > 1 and _top_down(nodes[-2].ref) >= _top_down(ref):
                raise items.fail("nodes: not in order from the root down")
        reader.end("paths")
        if not nodes or not header.height or nodes[0].ref != (header.height, 0):
            raise reader.fail("nodes: the root must come first")
        return cls(header, tuple(nodes))


def select(forest: Forest, bits: int, query: PathQuery) -> list[NodeRef]:
    """List the nodes that answer a query, from the root down."""
    height = len(forest.levels)
    found = {NodeRef(height, 0)}
    for leaf in query.leaves:
        found.update(NodeRef(level, leaf >> bits * level) for level in range(1, height + 1))
    for ref in query.subtrees:
        found.update(
            NodeRef(level, ref.index >> bits * (level - ref.level)) for level in range(ref.level, height)
        )
        found.update(_under(forest, bits, ref))
    there = (ref for ref in found if ref == (height, 0) or forest.bitmap(*ref))
    return sorted(there, key=_top_down)


def _under(forest: Forest, bits: int, ref: NodeRef) -> Iterator[NodeRef]:
    level, indices = ref.level, [ref.index]
    while level > 1:
        indices = [index << bits | slot for index in indices for slot in slots(forest.bitmap(level, index))]
        level -= 1
        yield from (NodeRef(level, index) for index in indices)


def _top_down(ref: NodeRef) -> tuple[int, int]:
    return -ref.level, ref.index


class _Opened(NamedTuple):
    bitmap: int
    packed: bytes
    hashes: bytes


class OpenedPaths:
    """Some paths of a tree, opened: reads the leaves on them, and tells the blank ones."""

    __slots__ = ("_height", "_nodes", "bits", "extra")

    def __init__(
        self, bits: int, height: int, nodes: Mapping[tuple[int, int], _Opened], extra: RootExtra
    ) -> None:
        self.bits = bits
        self._height = height
        self._nodes = nodes
        self.extra = extra

    def secret(self, leaf: int) -> LeafSecret:
        """Read a leaf's secret. Raises KeyError if the leaf is blank, NodeError if its path is not there."""
        bitmap = self.bitmap(1, leaf >> self.bits) if leaf >= 0 else 0
        bit = 1 << (leaf & ((1 << self.bits) - 1))
        if not bitmap & bit:
            raise KeyError(leaf)
        start = (bitmap & (bit - 1)).bit_count() * SLOT_SIZE
        return LeafSecret(self._nodes[1, leaf >> self.bits].packed[start : start + SLOT_SIZE])

    def leaves(self) -> list[int]:
        """List the occupied leaves on these paths, in order."""
        below = sorted((index, node) for (level, index), node in self._nodes.items() if level == 1)
        return [index << self.bits | slot for index, node in below for slot in slots(node.bitmap)]

    def room_secret(self, name: str) -> RoomSecret:
        """Read a named room secret. Raises KeyError if there is none of that name."""
        return self.extra.rooms[name]

    def bitmap(self, level: int, index: int) -> int:
        """Read a node's bitmap; 0 if it is shown not to be there. Raises NodeError if that is not shown."""
        node = self._nodes.get((level, index))
        if node is not None:
            return node.bitmap
        if level < self._height:
            above = self.bitmap(level + 1, index >> self.bits)
            if above >> (index & ((1 << self.bits) - 1)) & 1:
                raise NodeError(level, index, "is needed, and not among the paths")
        return 0

    def content(self, level: int, index: int) -> tuple[bytearray, bytearray]:
        """Read what a node's slots hold, and its children's hashes."""
        node = self._nodes[level, index]
        return bytearray(node.packed), bytearray(node.hashes)

    def nodes(self) -> Iterable[NodeRef]:
        """Refuse: not all nodes are at hand."""
        raise ChangeError("rebuild: a light tree does not hold all nodes")


def open_paths(context: GroupContext, paths: Paths, root_key: RootKey, tree_hash: bytes) -> OpenedPaths:
    """Check paths against a tree hash, node by node, and open them.

    Raises TreeHashMismatch for a root that is not this tree's, NodeError for any other node that is not,
    WrongEpochSecret if the root is right and the key is not.
    """
    bits, header = context.bits, paths.header
    opened: dict[tuple[int, int], _Opened] = {}
    extra = b""
    for ref, row, hashes in paths.nodes:
        head, bitmap, ciphertext = _parse_row(context, header, ref, row, hashes)
        place = pack_place(*ref)
        digest = context.node_hash(place, head, ciphertext, hashes)
        key = root_key.reveal()
        if ref.level == header.height:
            computed = context.tree_hash(header.to_bytes(), digest)
            if computed != tree_hash:
                raise TreeHashMismatch(expected=tree_hash, computed=computed)
        else:
            key = _key_for(opened, bits, ref, digest)
        plaintext = unseal(key, ciphertext, context.aad_prefix + place + head)
        if plaintext is None and ref.level == header.height:
            raise WrongEpochSecret(f"root of epoch {header.epoch}: does not open under this key")
        if plaintext is None:
            raise NodeError(*ref, "does not open under the key that its parent holds")
        size = bitmap.bit_count() * SLOT_SIZE
        extra = extra or plaintext[size:]
        opened[ref] = _Opened(bitmap, plaintext[:size], hashes)
    return OpenedPaths(bits, header.height, opened, RootExtra.from_bytes(extra))


def _parse_row(
    context: GroupContext, header: RootHeader, ref: NodeRef, row: bytes, hashes: bytes
) -> tuple[bytes, int, bytes]:
    head_size = EPOCH_SIZE + context.suite.bitmap_size
    head, ciphertext = row[:head_size], row[head_size:]
    bitmap = int.from_bytes(head[EPOCH_SIZE:], "little")
    size = bitmap.bit_count() * SLOT_SIZE
    expected = size + TAG_SIZE + (header.extra_length if ref.level == header.height else 0)
    if (
        bitmap >> context.suite.arity
        or len(ciphertext) != expected
        or len(hashes) != (size if ref.level > 1 else 0)
    ):
        raise NodeError(*ref, "row or hashes are not as long as the bitmap says")
    return head, bitmap, ciphertext


def _key_for(opened: Mapping[tuple[int, int], _Opened], bits: int, ref: NodeRef, digest: bytes) -> bytes:
    """Find a node's key in its parent, where its hash must stand, too."""
    parent = opened.get((ref.level + 1, ref.index >> bits))
    bit = 1 << (ref.index & ((1 << bits) - 1))
    if parent is None or not parent.bitmap & bit:
        raise NodeError(*ref, "is not under any node given")
    start = (parent.bitmap & (bit - 1)).bit_count() * SLOT_SIZE
    if parent.hashes[start : start + HASH_SIZE] != digest:
        raise NodeError(*ref, "is not the one whose hash its parent has")
    return parent.packed[start : start + SLOT_SIZE]


def path_node(ref: NodeRef, node: Node, extra: bytes) -> PathNode:
    """Put a stored node in the form it is served in."""
    return PathNode(ref, node.head + node.packed + extra + node.tag, node.hashes)
