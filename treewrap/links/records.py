"""Join links in the root and in updates: the structs and their encoding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

from treewrap.codec import VECTOR_MAX, Reader, vector
from treewrap.labels import LINK_TBS, REVOKE_TBS

LINK_ID_SIZE = 16
LINKS_LIMIT = 32
PUBLIC_KEY_LIMIT = 1216
SIGNATURE_LIMIT = 128
SEAL_LIMIT = 1216 + 48
LINK_CHANGES_SIZE = 1 << 17

_E = TypeVar("_E", bound=IntEnum)


class Kem(IntEnum):
    """The KEM of a link's key, by its HPKE number; with HKDF-SHA256 and AES-256-GCM (RFC 9180)."""

    X25519 = 0x0020
    MLKEM768_X25519 = 0x647A


@dataclass(frozen=True, slots=True)
class Link:
    """A join link: whoever holds its private key can open the tree while the link lives.

    `expires` is in seconds since 1970, at most 7 days after the link is added; `signature` is by the leaf
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
        return vector(LINK_TBS) + vector(group_id) + self._fields()

    def to_bytes(self) -> bytes:
        """Encode it: 34 bytes, then key and signature with their lengths."""
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
    """A link as the root keeps it, with the number of its uses."""

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
    """The root key, sealed to one link in HPKE's base mode (RFC 9180): encapsulated key, then 48 bytes."""

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
    """Add a link. Its signature must be its creator's."""

    link: Link


@dataclass(frozen=True, slots=True)
class RevokeLink:
    """End a link, by the signature of any leaf over `content(group_id)`."""

    link_id: bytes
    revoker: int
    signature: bytes = b""

    def content(self, group_id: bytes) -> bytes:
        """Encode RevokeTBS: what the revoking leaf signs."""
        return vector(REVOKE_TBS) + vector(group_id) + self.link_id


@dataclass(frozen=True, slots=True)
class ExpireLink:
    """End a link that has expired."""

    link_id: bytes


@dataclass(frozen=True, slots=True)
class UseLink:
    """Count one join through a link. The last allowed use ends it."""

    link_id: bytes


LinkChange = AddLink | RevokeLink | ExpireLink | UseLink


class LinkAction(IntEnum):
    """The kind of a link change, on the wire."""

    ADD = 1
    REVOKE = 2
    EXPIRE = 3
    USE = 4


def link_change_to_bytes(change: LinkChange) -> bytes:
    """Encode LinkChange: an action and what it concerns."""
    match change:
        case AddLink(link):
            return bytes((LinkAction.ADD,)) + link.to_bytes()
        case RevokeLink(link_id, revoker, signature):
            return bytes((LinkAction.REVOKE,)) + link_id + revoker.to_bytes(4, "big") + vector(signature)
        case ExpireLink(link_id):
            return bytes((LinkAction.EXPIRE,)) + link_id
        case UseLink(link_id):
            return bytes((LinkAction.USE,)) + link_id


def link_changes_to_bytes(changes: Iterable[LinkChange]) -> bytes:
    """Encode LinkChange<V>, which a member update carries wrapped."""
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
    action = _read_enum(reader, LinkAction, reader.u8("link action"), "link action")
    if action is LinkAction.ADD:
        return AddLink(Link.read(reader))
    link_id = reader.take(LINK_ID_SIZE, "link id")
    if action is LinkAction.EXPIRE:
        return ExpireLink(link_id)
    if action is LinkAction.USE:
        return UseLink(link_id)
    return RevokeLink(link_id, reader.u32("revoker"), reader.vector("revoker's signature", SIGNATURE_LIMIT))


def seals_to_bytes(seals: Iterable[LinkSeal]) -> bytes:
    """Encode LinkSeal<V>."""
    return vector(b"".join(seal.to_bytes() for seal in seals))


def read_seals(reader: Reader) -> tuple[LinkSeal, ...]:
    """Read LinkSeal<V>, by link id. Raises ParseError."""
    items = reader.items("seals", VECTOR_MAX)
    seals: list[LinkSeal] = []
    while items.more():
        if len(seals) == LINKS_LIMIT:
            raise items.fail(f"seals: more than {LINKS_LIMIT}")
        seals.append(LinkSeal.read(items))
    ids = [seal.link_id for seal in seals]
    if ids != sorted(set(ids)):
        raise reader.fail("seals: not in order of link ids")
    return tuple(seals)


def _read_enum(reader: Reader, kinds: type[_E], number: int, what: str) -> _E:
    try:
        return kinds(number)
    except ValueError:
        raise reader.fail(f"{what}: {number} is not known") from None
