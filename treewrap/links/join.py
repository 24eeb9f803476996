"""Joining from outside through a link: open the tree that the hub serves with the link's key alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from treewrap.codec import Reader, Source, vector
from treewrap.errors import LinkError
from treewrap.light.paths import PathQuery, Paths
from treewrap.light.tree import LightTree
from treewrap.links.records import LinkSeal, LiveLink, Verifier
from treewrap.links.seals import LinkKey
from treewrap.member import WrapTree
from treewrap.public import PublicTree
from treewrap.suite import HASH_SIZE, GroupContext
from treewrap.wire import VECTOR_MAX


@dataclass(frozen=True, slots=True)
class LinkSnapshot:
    """What a light joiner downloads: tree hash, the link's seal and the root, all of one moment."""

    tree_hash: bytes
    seal: LinkSeal
    paths: bytes = field(repr=False)

    @classmethod
    def of(cls, public: PublicTree, link_id: bytes) -> LinkSnapshot:
        """Take it from the hub's tree. Raises LinkError if no link of that id lives."""
        root = public.paths(PathQuery(public.tree_hash))
        return cls(public.tree_hash, _find_seal(public, link_id), root)

    def to_bytes(self) -> bytes:
        """Encode it: about 1 kB at arity 16."""
        return self.tree_hash + self.seal.to_bytes() + vector(self.paths)

    @classmethod
    def from_bytes(cls, content: bytes) -> LinkSnapshot:
        """Read it. Raises ParseError."""
        reader = Reader(content)
        tree_hash = reader.take(HASH_SIZE, "tree hash")
        snapshot = cls(tree_hash, LinkSeal.read(reader), reader.vector("paths", VECTOR_MAX))
        reader.end("snapshot")
        return snapshot


def open_link(
    public: bytes | Source | PublicTree,
    link_id: bytes,
    key: LinkKey,
    *,
    now: int,
    verify: Verifier | None = None,
) -> WrapTree:
    """Open a whole public tree with a join link; `now` is in seconds since 1970.

    With `verify`, the link's signature must be its creator's, so that a hub that knows the link's public key
    can't pass a tree of its own making off as the room's.

    Raises ParseError; LinkError for a link that is not live, or a seal that is not of this very tree; NodeError.
    If the hub has moved on by the time of the joiner's own commit, that is refused as stale: fetch again.
    """
    if not isinstance(public, PublicTree):
        public = PublicTree.from_bytes(public)
    context = GroupContext(public.suite, public.group_id)
    seal = _find_seal(public, link_id)
    root_key = key.open(seal, context, public.epoch, public.tree_hash)
    tree = WrapTree.open_with_root_key(public, root_key, public.tree_hash)
    _check_live(tree.links(), context, link_id, key, now, verify)
    return tree


def open_link_light(
    group_id: bytes,
    snapshot: LinkSnapshot | bytes,
    key: LinkKey,
    *,
    now: int,
    verify: Verifier | None = None,
) -> LightTree:
    """Open a light tree with a join link, as `open_link`. Raises ParseError, LinkError, TreeHashMismatch."""
    if isinstance(snapshot, bytes):
        snapshot = LinkSnapshot.from_bytes(snapshot)
    header = Paths.from_bytes(snapshot.paths).header
    context = GroupContext(header.suite, group_id)
    root_key = key.open(snapshot.seal, context, header.epoch, snapshot.tree_hash)
    tree = LightTree(context, header, root_key, snapshot.tree_hash)
    links = tree.read(snapshot.paths).extra.links
    _check_live(links, context, snapshot.seal.link_id, key, now, verify)
    return tree


def _find_seal(public: PublicTree, link_id: bytes) -> LinkSeal:
    for seal in public.seals:
        if seal.link_id == link_id:
            return seal
    raise LinkError(f"link {link_id.hex()}: no seal for it, so it is not live")


def _check_live(
    links: tuple[LiveLink, ...],
    context: GroupContext,
    link_id: bytes,
    key: LinkKey,
    now: int,
    verify: Verifier | None,
) -> None:
    for live in links:
        link = live.link
        if link.id == link_id and link.public_key == key.public_key:
            if now >= link.expires:
                raise LinkError(f"link {link_id.hex()}: expired at {link.expires}, now is {now}")
            if verify and not verify(link.creator, link.content(context.group_id), link.signature):
                raise LinkError(f"link {link_id.hex()}: no valid signature by leaf {link.creator}")
            return
    raise LinkError(f"link {link_id.hex()}: not among the links that the room's members know")
