"""The two messages of an update, for the hub and for the members, to and from bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

from treewrap.changes import ChangeKind
from treewrap.codec import VECTOR_MAX, Reader, vector
from treewrap.geometry import LEAF_LIMIT, NodeRef
from treewrap.links.records import LINK_CHANGES_SIZE, LinkSeal, read_seals, seals_to_bytes
from treewrap.root import EXTRA_LIMIT, MAX_HEIGHT, RootHeader
from treewrap.secret import ROOM_NAME_LIMIT, ROOM_SECRETS_LIMIT
from treewrap.suite import HASH_SIZE, TAG_SIZE, WRAP_SIZE, pack_place

NODE_LIMIT = 64 * 32 + EXTRA_LIMIT + TAG_SIZE
_WRAPPED_ROOM_LIMIT = 2 + ROOM_NAME_LIMIT + WRAP_SIZE  # a length of 64 takes two bytes
_T = TypeVar("_T")


class LeafChange(NamedTuple):
    """A changed leaf and the kind of its change."""

    leaf: int
    kind: ChangeKind


class WrappedLeaf(NamedTuple):
    """A changed leaf as members get it: with its wrapped secret of 48 bytes if the leaf was set."""

    leaf: int
    kind: ChangeKind
    wrapped: bytes = b""


class SealedNode(NamedTuple):
    """A node's place and its new ciphertext, followed by the tag."""

    level: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    ciphertext: bytes

    @property
    def ref(self) -> NodeRef:
        """Its place."""
        return NodeRef(self.level, self.index)


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """What a committer sends to the hub. The hub checks it node by node before it stores anything.

    `previous_tree_hash` names the tree it was made for. `changes` lists leaves by index, for the hub to compare
    with its MLS commit. `repaired` are the nodes that were sealed anew on request. An update that rebuilds the tree
    has no `nodes` but `rebuilt`, the rows of the whole new tree from the root down.
    """

    header: RootHeader
    previous_tree_hash: bytes
    tree_hash: bytes
    changes: tuple[LeafChange, ...]
    repaired: tuple[NodeRef, ...]
    nodes: tuple[SealedNode, ...] = field(repr=False)
    vanished: tuple[NodeRef, ...]
    seals: tuple[LinkSeal, ...] = field(repr=False)
    rebuilt: bytes = field(default=b"", repr=False)

    @property
    def epoch(self) -> int:
        """The epoch that the commit begins."""
        return self.header.epoch

    def to_bytes(self) -> bytes:
        """Encode it: 99 bytes, 5 a changed leaf, and for each touched node its ciphertext and 6 to 9 bytes."""
        return b"".join(
            (
                self.header.to_bytes(),
                self.previous_tree_hash,
                self.tree_hash,
                vector(b"".join([pack_place(kind, leaf) for leaf, kind in self.changes])),
                refs_to_bytes(self.repaired),
                vector(
                    b"".join(
                        [pack_place(level, index) + vector(sealed) for level, index, sealed in self.nodes]
                    )
                ),
                refs_to_bytes(self.vanished),
                seals_to_bytes(self.seals),
                vector(self.rebuilt),
            )
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> TreeUpdate:
        """Read it. Raises ParseError."""
        reader = Reader(content)
        update = cls(
            _read_sealed_header(reader),
            reader.take(HASH_SIZE, "previous tree hash"),
            reader.take(HASH_SIZE, "tree hash"),
            _read_sorted(reader, "changes", _read_leaf_change),
            read_refs(reader, "repaired nodes"),
            _read_sorted(reader, "nodes", _read_sealed_node),
            read_refs(reader, "vanished nodes"),
            read_seals(reader),
            reader.vector("rebuilt tree", VECTOR_MAX),
        )
        reader.end("update")
        if update.rebuilt and (update.nodes or update.vanished or update.repaired):
            raise reader.fail("update: rebuilds the tree, and yet names nodes")
        return update


@dataclass(frozen=True, slots=True)
class MemberUpdate:
    """What the other members get. They compute the nodes themselves.

    Each secret is wrapped alone. `rooms` and `links` hide names and links, too.

    `tag` proves that a member of the new epoch made it. A signature by the commit's sender over these bytes must
    prove that the sender did.
    """

    header: RootHeader
    leaves: tuple[WrappedLeaf, ...]
    rooms: tuple[bytes, ...]
    repaired: tuple[NodeRef, ...]
    rebuilt: bool
    links: bytes
    tree_hash: bytes
    tag: bytes

    @property
    def epoch(self) -> int:
        """The epoch that the commit begins."""
        return self.header.epoch

    @classmethod
    def confirmed_by(
        cls,
        tag: Callable[[bytes], bytes],
        header: RootHeader,
        leaves: tuple[WrappedLeaf, ...],
        rooms: tuple[bytes, ...],
        repaired: tuple[NodeRef, ...],
        rebuilt: bool,
        links: bytes,
        tree_hash: bytes,
    ) -> MemberUpdate:
        """Make one with the tag that `tag` returns for all other fields."""
        content = _confirmed(header, leaves, rooms, repaired, rebuilt, links, tree_hash)
        return cls(header, leaves, rooms, repaired, rebuilt, links, tree_hash, tag(content))

    def confirmed(self) -> bytes:
        """Encode what the tag covers: all fields but the tag."""
        return _confirmed(
            self.header, self.leaves, self.rooms, self.repaired, self.rebuilt, self.links, self.tree_hash
        )

    def to_bytes(self) -> bytes:
        """Encode it: 98 bytes, 53 a leaf that was set, 5 a leaf that was blanked or rejected."""
        return self.confirmed() + self.tag

    @classmethod
    def from_bytes(cls, content: bytes) -> MemberUpdate:
        """Read it. Raises ParseError."""
        reader = Reader(content)
        update = cls(
            _read_sealed_header(reader),
            _read_sorted(reader, "leaves", _read_wrapped_leaf),
            _read_list(reader, "room secrets", _read_wrapped_room, ROOM_SECRETS_LIMIT),
            read_refs(reader, "repaired nodes"),
            _read_flag(reader, "rebuilt"),
            reader.vector("link changes", LINK_CHANGES_SIZE + TAG_SIZE),
            reader.take(HASH_SIZE, "tree hash"),
            reader.take(HASH_SIZE, "confirmation tag"),
        )
        reader.end("update")
        return update


def _confirmed(
    header: RootHeader,
    leaves: Iterable[WrappedLeaf],
    rooms: Iterable[bytes],
    repaired: Sequence[NodeRef],
    rebuilt: bool,
    links: bytes,
    tree_hash: bytes,
) -> bytes:
    return b"".join(
        (
            header.to_bytes(),
            vector(b"".join([pack_place(kind, leaf) + wrapped for leaf, kind, wrapped in leaves])),
            vector(b"".join(map(vector, rooms))),
            refs_to_bytes(repaired),
            bytes((rebuilt,)),
            vector(links),
            tree_hash,
        )
    )


def read_refs(reader: Reader, what: str) -> tuple[NodeRef, ...]:
    """Read NodeRef<V>, which must be in order. Raises ParseError."""
    return _read_sorted(reader, what, _read_ref)


def refs_to_bytes(refs: Iterable[NodeRef]) -> bytes:
    """Encode NodeRef<V>."""
    return vector(b"".join(pack_place(*ref) for ref in refs))


def _read_sealed_header(reader: Reader) -> RootHeader:
    header = RootHeader.read(reader)
    if header.height == 0:
        raise reader.fail("height: an update seals a root")
    return header


def _read_kind(reader: Reader) -> ChangeKind:
    number = reader.u8("change kind")
    try:
        return ChangeKind(number)
    except ValueError:
        raise reader.fail(f"change kind: {number} is not known") from None


def _read_leaf(reader: Reader) -> int:
    leaf = reader.u32("leaf")
    if leaf >= LEAF_LIMIT:
        raise reader.fail(f"leaf: {leaf} is too high")
    return leaf


def _read_leaf_change(reader: Reader) -> LeafChange:
    kind = _read_kind(reader)
    return LeafChange(_read_leaf(reader), kind)


def _read_wrapped_leaf(reader: Reader) -> WrappedLeaf:
    leaf, kind = _read_leaf_change(reader)
    wrapped = reader.take(WRAP_SIZE, "wrapped leaf secret") if kind is ChangeKind.SET else b""
    return WrappedLeaf(leaf, kind, wrapped)


def _read_wrapped_room(reader: Reader) -> bytes:
    return reader.vector("wrapped room secret", _WRAPPED_ROOM_LIMIT)


def _read_ref(reader: Reader) -> NodeRef:
    level, index = reader.u8("level"), reader.u32("index")
    if not 1 <= level <= MAX_HEIGHT or index >= LEAF_LIMIT:
        raise reader.fail(f"node: no such place, level {level}, index {index}")
    return NodeRef(level, index)


def _read_sealed_node(reader: Reader) -> SealedNode:
    return SealedNode(*_read_ref(reader), reader.vector("ciphertext", NODE_LIMIT))


def _read_list(reader: Reader, what: str, read: Callable[[Reader], _T], limit: int) -> tuple[_T, ...]:
    items = reader.items(what, VECTOR_MAX)
    found: list[_T] = []
    while items.more():
        if len(found) == limit:
            raise items.fail(f"{what}: more than {limit}")
        found.append(read(items))
    return tuple(found)


_S = TypeVar("_S", bound="tuple[object, ...]")


def _read_sorted(reader: Reader, what: str, read: Callable[[Reader], _S]) -> tuple[_S, ...]:
    """Read items in strict order of their leaf or place."""
    found = _read_list(reader, what, read, LEAF_LIMIT)
    for one, next_one in pairwise(found):
        if _order(one) >= _order(next_one):
            raise reader.fail(f"{what}: not in order")
    return found


def _order(item: tuple[object, ...]) -> tuple[object, ...]:
    return item[:2] if isinstance(item, NodeRef | SealedNode) else item[:1]


def _read_flag(reader: Reader, what: str) -> bool:
    number = reader.u8(what)
    if number > 1:
        raise reader.fail(f"{what}: expected 0 or 1, got {number}")
    return number == 1
