"""Join links: who made them, how long they live, and the one way to change them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

from treewrap.codec import Reader, vector
from treewrap.errors import LinkError
from treewrap.suite import PREFIX

LINK_ID_SIZE = 16
LINKS_LIMIT = 32
LINK_LIFETIME = 7 * 24 * 3600
PUBLIC_KEY_LIMIT = 1216
SIGNATURE_LIMIT = 128
SEAL_LIMIT = 1216 + 48
LINK_CHANGES_SIZE = 1 << 17

_E = TypeVar("_E", bound=IntEnum)
Verifier = Callable[[int, bytes, bytes], bool]
"""Tells whether leaf, content, signature fit: the signature is by that MLS leaf's signature key."""


class Kem(IntEnum):
    """The KEM of a link's key, by its HPKE number; with HKDF-SHA256 and AES-256-GCM (RFC 9180)."""

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A


@dataclass(frozen=True, slots=True)
class Link:
    """A join link: whoever holds its private key may open the tree while it lives.

    `expires` is in seconds since 1970, at most 7 days after the link's making; `signature` is by the leaf
    `creator` over `content(group_id)`.
    """

    id: bytes
    kem: Kem
    public_key: bytes
    creator: int
    expires: int
    max_uses: int
    signature: bytes = b""

    def _fields(self) -> bytes:
        return (
            self.id
            + self.kem.to_bytes(2, "big")
            + vector(self.public_key)
            + self.creator.to_bytes(4, "big")
            + self.expires.to_bytes(8, "big")
            + self.max_uses.to_bytes(4, "big")
        )

    def content(self, group_id: bytes) -> bytes:
        """Encode LinkTBS: what the creator's leaf signs."""
        return vector(PREFIX + b"link") + vector(group_id) + self._fields()

    def to_bytes(self) -> bytes:
        """Encode it: 34 bytes, key and signature."""
        return self._fields() + vector(self.signature)

    @classmethod
    def read(cls, reader: Reader) -> Link:
        """Read one. Raises ParseError."""
        link_id = reader.take(LINK_ID_SIZE, "link id")
        kem = _read_enum(reader, Kem, reader.u16("KEM"), "KEM")
        return cls(
            link_id,
            kem,
            reader.vector("link's public key", PUBLIC_KEY_LIMIT),
            reader.u32("link's creator"),
            reader.u64("link's expiry"),
            reader.u32("link's uses"),
            reader.vector("link's signature", SIGNATURE_LIMIT),
        )


@dataclass(frozen=True, slots=True)
class LiveLink:
    """A link as the root keeps it, with how often it was used."""

    link: Link
    used: int = 0

    def to_bytes(self) -> bytes:
        """Encode it."""
        return self.link.to_bytes() + self.used.to_bytes(4, "big")

    @classmethod
    def read(cls, reader: Reader) -> LiveLink:
        """Read one. Raises ParseError."""
        return cls(Link.read(reader), reader.u32("uses of a link"))


@dataclass(frozen=True, slots=True)
class LinkSeal:
    """The root key, sealed to one link: encapsulated key and 48 bytes, of HPKE base mode (RFC 9180)."""

    link_id: bytes
    sealed: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Encode it."""
        return self.link_id + vector(self.sealed)

    @classmethod
    def read(cls, reader: Reader) -> LinkSeal:
        """Read one. Raises ParseError."""
        return cls(reader.take(LINK_ID_SIZE, "link id"), reader.vector("link's seal", SEAL_LIMIT))


@dataclass(frozen=True, slots=True)
class AddLink:
    """Let a link live; its signature must be its creator's."""

    link: Link


@dataclass(frozen=True, slots=True)
class RevokeLink:
    """End a link, by the signature of any leaf over `content(group_id)`."""

    link_id: bytes
    revoker: int
    signature: bytes = b""

    def content(self, group_id: bytes) -> bytes:
        """Encode RevokeTBS: what the revoking leaf signs."""
        return vector(PREFIX + b"revoke") + vector(group_id) + self.link_id


@dataclass(frozen=True, slots=True)
class ExpireLink:
    """Drop a link whose time is over."""

    link_id: bytes


@dataclass(frozen=True, slots=True)
class UseLink:
    """Count one join through a link; at its last use it ends."""

    link_id: bytes


LinkChange = AddLink | RevokeLink | ExpireLink | UseLink


class _Action(IntEnum):
    ADD = 1
    REVOKE = 2
    EXPIRE = 3
    USE = 4


def link_change_to_bytes(change: LinkChange) -> bytes:
    """Encode LinkChange: an action and what it concerns."""
    match change:
        case AddLink(link):
            return bytes((_Action.ADD,)) + link.to_bytes()
        case RevokeLink(link_id, revoker, signature):
            return bytes((_Action.REVOKE,)) + link_id + revoker.to_bytes(4, "big") + vector(signature)
        case ExpireLink(link_id):
            return bytes((_Action.EXPIRE,)) + link_id
        case UseLink(link_id):
            return bytes((_Action.USE,)) + link_id


def link_changes_to_bytes(changes: Iterable[LinkChange]) -> bytes:
    """Encode LinkChange<V>, what an update carries in sealed form."""
    return vector(b"".join(map(link_change_to_bytes, changes)))


def link_changes_from_bytes(content: bytes) -> tuple[LinkChange, ...]:
    """Read LinkChange<V>. Raises ParseError."""
    reader = Reader(content)
    items = reader.items("link changes", LINK_CHANGES_SIZE)
    changes: list[LinkChange] = []
    while items.more():
        changes.append(read_link_change(items))
    reader.end("link changes")
    return tuple(changes)


def read_link_change(reader: Reader) -> LinkChange:
    """Read one. Raises ParseError."""
    action = _read_enum(reader, _Action, reader.u8("link action"), "link action")
    if action is _Action.ADD:
        return AddLink(Link.read(reader))
    link_id = reader.take(LINK_ID_SIZE, "link id")
    if action is _Action.EXPIRE:
        return ExpireLink(link_id)
    if action is _Action.USE:
        return UseLink(link_id)
    return RevokeLink(link_id, reader.u32("revoker"), reader.vector("revoker's signature", SIGNATURE_LIMIT))


def check_link_changes(
    changes: Iterable[LinkChange], group_id: bytes, verify: Verifier | None, now: int | None
) -> None:
    """Hold link changes to their signatures and times. Raises LinkError.

    Without `verify`, no link can be added or revoked; without `now`, times are not looked at.
    """
    for change in changes:
        match change:
            case AddLink(link):
                _check_signature(verify, link.creator, link.content(group_id), link.signature)
                if now is not None and not now < link.expires <= now + LINK_LIFETIME:
                    raise LinkError(f"link {link.id.hex()}: expires at {link.expires}, now is {now}")
            case RevokeLink(_, revoker, signature):
                _check_signature(verify, revoker, change.content(group_id), signature)


def apply_link_changes(
    live: Iterable[LiveLink], changes: Iterable[LinkChange], *, removal: bool
) -> tuple[LiveLink, ...]:
    """Give the links that live on, by id. A removal ends all that were there before. Raises LinkError."""
    links = {} if removal else {link.link.id: link for link in live}
    for change in changes:
        if isinstance(change, AddLink):
            if change.link.id in links:
                raise LinkError(f"link {change.link.id.hex()}: there is one of that id")
            links[change.link.id] = LiveLink(change.link)
        else:
            found = links.pop(change.link_id, None)
            if found is None:
                raise LinkError(f"link {change.link_id.hex()}: not live")
            if isinstance(change, UseLink) and found.used + 1 < found.link.max_uses:
                links[change.link_id] = LiveLink(found.link, found.used + 1)
    if len(links) > LINKS_LIMIT:
        raise LinkError(f"links: expected at most {LINKS_LIMIT}, got {len(links)}")
    return tuple(links[link_id] for link_id in sorted(links))


def _check_signature(verify: Verifier | None, leaf: int, content: bytes, signature: bytes) -> None:
    if verify is None or not verify(leaf, content, signature):
        raise LinkError(f"link: no valid signature by leaf {leaf}")


def _read_enum(reader: Reader, kinds: type[_E], number: int, what: str) -> _E:
    try:
        return kinds(number)
    except ValueError:
        raise reader.fail(f"{what}: {number} is not known") from None
