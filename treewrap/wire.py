"""What travels: an update for the hub, the same update for the members, and back from bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeVar

from treewrap.changes import ROOM_SECRETS_LIMIT, ChangeKind
from treewrap.codec import VECTOR_LIMIT, Reader, vector
from treewrap.geometry import LEAF_LIMIT, NodeRef
from treewrap.links.deferred import WRAP_SIZE
from treewrap.links.records import LINK_CHANGES_SIZE, LINKS_LIMIT, LinkSeal
from treewrap.root import EXTRA_LIMIT, MAX_HEIGHT, RootHeader
from treewrap.suite import HASH_SIZE, TAG_SIZE, pack_place

NODE_LIMIT = 64 * 32 + EXTRA_LIMIT + TAG_SIZE
VECTOR_MAX = VECTOR_LIMIT - 1
_T = TypeVar("_T")


class LeafChange(NamedTuple):
    """A leaf and what happened to it."""

    leaf: int
    kind: ChangeKind


class WrappedLeaf(NamedTuple):
    """A leaf change as members get it: with the wrapped secret, 48 bytes, if the leaf was set."""

    leaf: int
    kind: ChangeKind
    wrapped: bytes = b""


class SealedNode(NamedTuple):
    """A node's place and its new ciphertext, tag included."""

    level: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    ciphertext: bytes

    @property
    def ref(self) -> NodeRef:
        """Its place."""
        return NodeRef(self.level, self.index)


@dataclass(frozen=True, slots=True)
class TreeUpdate:
    """What a committer sends to the hub, and the hub checks node by node before it keeps anything.

    `previous_tree_hash` names the tree it was made for; `changes` lists leaves by index, for the hub to
    hold against its MLS commit; `repaired` are nodes sealed anew on request. A rebuilding update has no nodes
    one by one but `rebuilt`, the rows of the whole new tree from the root down.
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
        """The epoch that the update's commit begins."""
        return self.header.epoch

    def to_bytes(self) -> bytes:
        """Encode it: 99 bytes, 5 per changed leaf, and the touched nodes' sizes and 7 to 9 bytes each."""
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
    """What the other members get: they compute the nodes themselves.

    Secrets are wrapped one by one; `rooms` and `links` hide the names and links, too, from whoever carries it.

    Authenticated by `tag`, as from a member of the new epoch; that it is from the commit's sender, the
    sender's leaf signature over these bytes must say.
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
        """The epoch that the update's commit begins."""
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
        """Make one with the tag that `tag` gives over all the rest."""
        content = _confirmed(header, leaves, rooms, repaired, rebuilt, links, tree_hash)
        return cls(header, leaves, rooms, repaired, rebuilt, links, tree_hash, tag(content))

    def confirmed(self) -> bytes:
        """Encode what the tag covers: all but the tag."""
        return _confirmed(
            self.header, self.leaves, self.rooms, self.repaired, self.rebuilt, self.links, self.tree_hash
        )

    def to_bytes(self) -> bytes:
        """Encode it: 98 bytes, 53 per leaf set, 5 per leaf blanked."""
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


def seals_to_bytes(seals: Iterable[LinkSeal]) -> bytes:
    """Encode LinkSeal<V>."""
    return vector(b"".join(seal.to_bytes() for seal in seals))


def read_seals(reader: Reader) -> tuple[LinkSeal, ...]:
    """Read LinkSeal<V>, by link id. Raises ParseError."""
    seals = _read_list(reader, "seals", LinkSeal.read, LINKS_LIMIT)
    ids = [seal.link_id for seal in seals]
    if ids != sorted(set(ids)):
        raise reader.fail("seals: not in order of link ids")
    return seals


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
    return reader.vector("wrapped room secret", 1 + 64 + WRAP_SIZE)


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
    """Read items that must be in strict order of what they concern: a leaf, or a node's place."""
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
