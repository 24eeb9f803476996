"""Nodes of the ratchet tree as bytes (RFC 9420, sections 7.1 and 7.8): splitting, reading, hashing.

A *row* is the encoding of `Node` in the `ratchet_tree` extension (section 12.4.3.3): the node's type, 1 or 2, then
the LeafNode or ParentNode. A blank node has no row.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from mimi_mmr.errors import ParseError
from mimi_mmr.mls.ratchet import treemath
from mimi_mmr.mls.wire import LeafNode
from mimi_mmr.mls.wire.limits import KEY, MAX_EXTENSIONS, MAX_IDENTITY, MAX_TREE
from mimi_mmr.presentation import Opaque, Reader, Struct, vec, write_varint

LEAF, PARENT = 1, 2


@dataclass(frozen=True, slots=True)
class LeafIndices:
    """`uint32 x<V>` in ascending order, each once."""

    def write(self, out: bytearray, value: tuple[int, ...]) -> None:
        """Append the value."""
        write_varint(out, 4 * len(value))
        out += struct.pack(f">{len(value)}I", *value)

    def read(self, reader: Reader, what: str) -> tuple[int, ...]:
        """Read one value."""
        start = reader.offset
        data = reader.vector(MAX_TREE, what).rest()
        if len(data) % 4:
            raise ParseError(f"{what} of {len(data)} bytes is no list of 32-bit values", start)
        leaves = struct.unpack(f">{len(data) // 4}I", data)
        if any(a >= b for a, b in pairwise(leaves)):
            raise ParseError(f"{what} is not in ascending order", start)
        return leaves


@dataclass(frozen=True, slots=True)
class ParentNode(Struct):
    """ParentNode (RFC 9420, section 7.1): a 32-byte key, a parent hash, and the unmerged leaves."""

    encryption_key: Annotated[bytes, KEY]
    parent_hash: Annotated[bytes, Opaque(32)]
    unmerged_leaves: Annotated[tuple[int, ...], LeafIndices()]

    def __post_init__(self) -> None:
        """Refuse a parent hash of another size."""
        if len(self.parent_hash) not in (0, 32):
            raise ValueError(f"parent_hash of {len(self.parent_hash)} bytes, expected 32 or none")

    def to_row(self) -> bytes:
        """Encode the node with its type in front."""
        return bytes([PARENT]) + self.to_bytes()

    @classmethod
    def from_row(cls, row: bytes) -> ParentNode:
        """Read the parent of this row; raise `ParseError`."""
        reader = _open(row, PARENT)
        parent = cls.read_from(reader)
        reader.done("ParentNode")
        return parent


def resolution(row_of: Callable[[int], bytes | None], node: int) -> list[int]:
    """Return a node's resolution: nodes whose keys reach all members below it (RFC 9420, section 4.1.1)."""
    row = row_of(node)
    if not node & 1:
        return [] if row is None else [node]
    if row is not None:
        return [node, *(2 * leaf for leaf in ParentNode.from_row(row).unmerged_leaves)]
    left, right = treemath.children(node)
    return resolution(row_of, left) + resolution(row_of, right)


def leaf_row(leaf: LeafNode) -> bytes:
    """Encode a leaf as a row."""
    return bytes([LEAF]) + leaf.encoded


def leaf_from_row(row: bytes) -> LeafNode:
    """Read the leaf of this row; raise `ParseError`."""
    reader = _open(row, LEAF)
    leaf = LeafNode.read_from(reader)
    reader.done("LeafNode")
    return leaf


def _open(row: bytes, kind: int) -> Reader:
    reader = Reader(row)
    if reader.uint(1, "Node.node_type") != kind:
        raise ParseError(f"expected a node of type {kind}", 0)
    return reader


def split_tree(data: bytes) -> dict[int, bytes]:
    """Split a `ratchet_tree` extension (`optional<Node> ratchet_tree<V>`) into rows, without parsing them.

    Raises `ParseError`, also for a type at the wrong place or a blank at the end (section 12.4.3.3).
    """
    outer = Reader(data)
    reader = outer.vector(MAX_TREE, "ratchet_tree")
    outer.done("ratchet_tree")
    rows: dict[int, bytes] = {}
    node = 0
    while not reader.empty:
        row = _read_optional_row(reader, node)
        if row is not None:
            rows[node] = row
        node += 1
    if not node or node - 1 not in rows or node % 2 == 0:
        raise ParseError("a ratchet_tree must end in a leaf that is not blank", reader.offset)
    return rows


def join_tree(rows: dict[int, bytes]) -> bytes:
    """Put rows together into a `ratchet_tree` extension."""
    blank = b"\x00"
    parts = [blank] * (max(rows, default=-1) + 1)
    for node, row in rows.items():
        parts[node] = b"\x01" + row
    return vec(b"".join(parts))


def _read_optional_row(reader: Reader, node: int) -> bytes | None:
    start = reader.offset
    present = reader.uint(1, "ratchet_tree")
    if not present:
        return None
    kind = reader.uint(1, "Node.node_type")
    if present != 1 or kind != (PARENT if node & 1 else LEAF):
        raise ParseError(f"node {node} of the ratchet_tree has presence {present}, type {kind}", start)
    if kind == LEAF:
        _skip_leaf(reader)
    else:
        for limit in (32, 32, MAX_TREE):
            reader.vector(limit, "ParentNode")
    return reader.data[start + 1 : reader.offset]


def _skip_leaf(reader: Reader) -> None:
    reader.vector(32, "LeafNode.encryption_key")
    reader.vector(32, "LeafNode.signature_key")
    reader.take(2, "Credential.credential_type")
    reader.vector(MAX_IDENTITY, "BasicCredential.identity")
    for _ in range(5):
        reader.vector(MAX_EXTENSIONS, "LeafNode.capabilities")
    source = reader.uint(1, "LeafNode.leaf_node_source")
    if source == 1:
        reader.take(16, "LeafNode.lifetime")
    elif source == 3:
        reader.vector(32, "LeafNode.parent_hash")
    reader.vector(MAX_EXTENSIONS, "LeafNode.extensions")
    reader.vector(64, "LeafNode.signature")


_IDENTITY = Opaque(MAX_IDENTITY)
SIGNATURE_KEY = slice(35, 67)  # in a leaf's row, after type, length and 32 bytes, length


def signature_key(row: bytes) -> bytes:
    """Return a leaf row's signature key without parsing the leaf."""
    return row[SIGNATURE_KEY]


def identity(row: bytes) -> bytes:
    """Return a leaf row's identity without parsing the leaf."""
    return _IDENTITY.read(Reader(row, 69), "BasicCredential.identity")


def unique_values(row: bytes) -> Iterator[tuple[str, bytes]]:
    """List the row's values that must be unique in the tree (RFC 9420, sections 7.3, 7.5 and 12.4.3.1)."""
    yield "encryption key", row[2:34]
    if row[0] == LEAF:
        yield "signature key", row[SIGNATURE_KEY]
        yield "identity", identity(row)


def leaf_hash(leaf: int, row: bytes | None) -> bytes:
    """Return the tree hash of a leaf (RFC 9420, section 7.8), 32 bytes."""
    head = bytes([LEAF]) + leaf.to_bytes(4, "big")
    return hashlib.sha256(head + (b"\x00" if row is None else b"\x01" + row[1:])).digest()


def parent_node_hash(row: bytes | None, left: bytes, right: bytes) -> bytes:
    """Return the tree hash of a parent, from its children's (RFC 9420, section 7.8), 32 bytes."""
    node = b"\x02\x00" if row is None else b"\x02\x01" + row[1:]
    return hashlib.sha256(node + b"\x20" + left + b"\x20" + right).digest()


def parent_hash(encryption_key: bytes, parent_hash_above: bytes, sibling_tree_hash: bytes) -> bytes:
    """Hash a ParentHashInput (RFC 9420, section 7.9); 32 bytes."""
    return hashlib.sha256(vec(encryption_key) + vec(parent_hash_above) + vec(sibling_tree_hash)).digest()
