"""Joining through a link: open the tree that the hub serves, with the link's private key only."""

from __future__ import annotations

from dataclasses import dataclass, field

from treewrap.codec import VECTOR_MAX, Reader, Source, vector
from treewrap.errors import LinkError
from treewrap.light.paths import PathQuery, Paths, answer_paths
from treewrap.light.tree import LightTree
from treewrap.links.records import LinkSeal, LiveLink
from treewrap.links.rules import Verifier
from treewrap.links.seals import LinkKey
from treewrap.member import WrapTree
from treewrap.public import PublicTree
from treewrap.suite import HASH_SIZE, GroupContext


@dataclass(frozen=True, slots=True)
class LinkSnapshot:
    """What a light joiner downloads: tree hash, the link's seal and the root, all of one epoch."""

    tree_hash: bytes
    seal: LinkSeal
    paths: bytes = field(repr=False)

    @classmethod
    def of(cls, public: PublicTree, link_id: bytes) -> LinkSnapshot:
        """Make it from the hub's tree. Raises LinkError if no link of that id lives."""
        root = answer_paths(public, PathQuery(public.tree_hash))
        return cls(public.tree_hash, _find_seal(public, link_id), root)

    def to_bytes(self) -> bytes:
        """Encode it: about 2 kB at arity 32."""
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

    With `verify`, the link's signature must be its creator's. Then a hub that knows the link's public key can't
    serve a tree of its own making as the room's.

    Raises ParseError; LinkError for a link that is not live, and for a seal of another tree; NodeError. If the
    room has moved on when the joiner commits, the hub refuses the commit as stale: fetch and open again.
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
    """Open a light tree with a join link, like `open_link`. Raises ParseError, LinkError, TreeHashMismatch."""
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
