"""Parts of a public tree: a light tree's query, the hub's answer, and how the answer is checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from treewrap.codec import VECTOR_MAX, Reader, vector
from treewrap.errors import ChangeError, NodeError, StaleTree, TreeHashMismatch, WrongEpochSecret
from treewrap.geometry import LEAF_LIMIT, SLOT_SIZE, NodeRef, slots
from treewrap.nodes import EPOCH_SIZE, Forest, Node
from treewrap.public import PublicTree
from treewrap.root import RootExtra, RootHeader
from treewrap.secret import LeafSecret, RoomSecret, RootKey
from treewrap.suite import HASH_SIZE, TAG_SIZE, GroupContext, pack_place, unseal
from treewrap.wire import NODE_LIMIT, read_refs, refs_to_bytes

_ROW_LIMIT = NODE_LIMIT + EPOCH_SIZE + 8
_HASHES_LIMIT = 64 * HASH_SIZE


@dataclass(frozen=True, slots=True)
class PathQuery:
    """A query for the nodes above some leaves, and for whole subtrees, of the tree with this hash."""

    tree_hash: bytes
    leaves: tuple[int, ...] = ()
    subtrees: tuple[NodeRef, ...] = ()

    def to_bytes(self) -> bytes:
        """Encode it: 34 bytes, 4 a leaf, 5 a subtree."""
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
    """A node's row as stored, and its children's hashes, from which its own hash is computed."""

    ref: NodeRef
    row: bytes
    hashes: bytes


@dataclass(frozen=True, slots=True)
class Paths:
    """The hub's answer: the root header, and the nodes from the root down."""

    header: RootHeader
    nodes: tuple[PathNode, ...] = field(repr=False)

    def to_bytes(self) -> bytes:
        """Encode it: about 2 kB a level and path at arity 32."""
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


def answer_paths(tree: PublicTree, query: PathQuery | bytes) -> bytes:
    """Answer a light tree's query at the hub, in the encoding of `Paths`. Raises ParseError, StaleTree."""
    if isinstance(query, bytes):
        query = PathQuery.from_bytes(query)
    if query.tree_hash != tree.tree_hash:
        raise StaleTree(f"query: for tree {query.tree_hash.hex()}, this is {tree.tree_hash.hex()}")
    if not tree.height:
        raise StaleTree("query: nothing was ever sealed in this tree")
    forest = tree.forest
    nodes = (forest.read(ref) for ref in _select(forest, tree.suite.bits, query))
    return Paths(
        tree.root_header, tuple(PathNode(node.ref, node.row, bytes(node.hashes)) for node in nodes)
    ).to_bytes()


def _select(forest: Forest, bits: int, query: PathQuery) -> list[NodeRef]:
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


class OpenedPaths:
    """Some paths of a tree, opened. It reads the leaves on them and knows which are blank."""

    __slots__ = ("_height", "_nodes", "bits", "extra")

    def __init__(
        self, bits: int, height: int, nodes: Mapping[tuple[int, int], Node], extra: RootExtra
    ) -> None:
        self.bits = bits
        self._height = height
        self._nodes = nodes
        self.extra = extra

    def secret(self, leaf: int) -> LeafSecret:
        """Return a leaf's secret. Raises KeyError if the leaf is blank, NodeError if its path was not fetched."""
        bitmap = self.bitmap(1, leaf >> self.bits) if leaf >= 0 else 0
        bit = 1 << (leaf & ((1 << self.bits) - 1))
        if not bitmap & bit:
            raise KeyError(leaf)
        start = (bitmap & (bit - 1)).bit_count() * SLOT_SIZE
        return LeafSecret(bytes(self._nodes[1, leaf >> self.bits].values[start : start + SLOT_SIZE]))

    def leaves(self) -> list[int]:
        """List the occupied leaves on these paths, in order."""
        below = sorted((index, node) for (level, index), node in self._nodes.items() if level == 1)
        return [index << self.bits | slot for index, node in below for slot in slots(node.bitmap)]

    def room_secret(self, name: str) -> RoomSecret:
        """Return a named room secret. Raises KeyError if there is none of that name."""
        return self.extra.rooms[name]

    def bitmap(self, level: int, index: int) -> int:
        """Return a node's bitmap; 0 if its parent shows that it is blank. Raises NodeError if it is missing."""
        node = self._nodes.get((level, index))
        if node is not None:
            return node.bitmap
        if level < self._height:
            above = self.bitmap(level + 1, index >> self.bits)
            if above >> (index & ((1 << self.bits) - 1)) & 1:
                raise NodeError(level, index, "is needed, and not among the paths")
        return 0

    def content(self, level: int, index: int) -> tuple[bytearray, bytearray]:
        """Return copies of a node's packed slots and of its children's hashes."""
        node = self._nodes[level, index]
        return bytearray(node.values), bytearray(node.hashes)

    def nodes(self) -> Iterable[NodeRef]:
        """Raise ChangeError: a light tree never holds all nodes."""
        raise ChangeError("rebuild: a light tree does not hold all nodes")


def open_paths(context: GroupContext, paths: Paths, root_key: RootKey, tree_hash: bytes) -> OpenedPaths:
    """Check paths against a tree hash, node by node, and open them.

    Raises TreeHashMismatch for the root of another tree, NodeError for any other node of another tree, and
    WrongEpochSecret if the root is right and the key is wrong.
    """
    header = paths.header
    opened: dict[tuple[int, int], Node] = {}
    extra = b""
    for path_node in paths.nodes:
        node = _parse(context, header, path_node)
        is_root, place = node.level == header.height, pack_place(node.level, node.index)
        sealed = node.ciphertext + node.tag
        digest = context.node_hash(place, node.head, sealed, node.hashes)
        if is_root:
            computed, key = context.tree_hash(header.to_bytes(), digest), root_key.reveal()
            if computed != tree_hash:
                raise TreeHashMismatch(expected=tree_hash, computed=computed)
        else:
            key = _key_for(opened, context.bits, node.ref, digest)
        plaintext = unseal(key, sealed, context.aad_prefix + place + node.head)
        if plaintext is None and is_root:
            raise WrongEpochSecret(f"root of epoch {header.epoch}: does not open under this key")
        if plaintext is None:
            raise NodeError(*node.ref, "does not open under the key that its parent holds")
        size = node.bitmap.bit_count() * SLOT_SIZE
        extra = extra or plaintext[size:]
        opened[node.ref] = node._replace(values=plaintext[:size])
    return OpenedPaths(context.bits, header.height, opened, RootExtra.from_bytes(extra))


def _parse(context: GroupContext, header: RootHeader, path_node: PathNode) -> Node:
    """Cut a row into its fields, and check its lengths and those of the hashes. Raises NodeError."""
    ref, row, hashes = path_node
    head_size = EPOCH_SIZE + context.suite.bitmap_size
    node = Node(*ref, row[:head_size], b"", hashes, row[head_size:-TAG_SIZE], row[-TAG_SIZE:])
    size = node.bitmap.bit_count() * SLOT_SIZE
    expected = size + (header.extra_length if ref.level == header.height else 0)
    if (
        node.bitmap >> context.suite.arity
        or len(row) != head_size + expected + TAG_SIZE
        or len(hashes) != (size if ref.level > 1 else 0)
    ):
        raise NodeError(*ref, "row or hashes are not as long as the bitmap says")
    return node


def _key_for(opened: Mapping[tuple[int, int], Node], bits: int, ref: NodeRef, digest: bytes) -> bytes:
    """Return a node's key from its parent, which must also hold the node's hash. Raises NodeError."""
    parent = opened.get((ref.level + 1, ref.index >> bits))
    bit = 1 << (ref.index & ((1 << bits) - 1))
    if parent is None or not parent.bitmap & bit:
        raise NodeError(*ref, "is not under any of the given nodes")
    start = (parent.bitmap & (bit - 1)).bit_count() * SLOT_SIZE
    if parent.hashes[start : start + HASH_SIZE] != digest:
        raise NodeError(*ref, "is not the one whose hash its parent has")
    return bytes(parent.values[start : start + SLOT_SIZE])
