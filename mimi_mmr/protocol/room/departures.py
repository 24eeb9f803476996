"""Departures: a member's signed request to be removed, since MLS lets no member remove itself in its own commit.

A departure travels to the other members in an application message, so the hub learns of it only with the commit
that removes the leaf. It names the leaf by its unique client pseudonym, since a leaf index may be reused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.crypto.signing import SigningKey, verify
from mimi_mmr.errors import InvalidCommit, SignatureRejected, WrongSigner
from mimi_mmr.presentation import Fixed, Nested, Struct, Vector
from mimi_mmr.uris import CLIENT_PSEUDONYM, ROOM, MimiUri

MAX_DEPARTURES = 256


@dataclass(frozen=True, slots=True)
class DepartureTBS(Struct):
    """The content that the leaving leaf signs; valid as long as that leaf is in the room."""

    room: Annotated[MimiUri, ROOM]
    client_pseudonym: Annotated[MimiUri, CLIENT_PSEUDONYM]


@dataclass(frozen=True, slots=True)
class Departure(Struct):
    """`DepartureTBS` with its signature by the leaf's signature key."""

    content: DepartureTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, signature_key: bytes) -> None:
        """Check the signature; raise `WrongSigner`."""
        try:
            verify(signature_key, "DepartureTBS", self.content.to_bytes(), self.signature)
        except SignatureRejected:
            raise WrongSigner("the departure is not signed by the leaf that it is for") from None


DEPARTURES = Vector(Nested(Departure), count=MAX_DEPARTURES)


def sign_departure(room: MimiUri, client: MimiUri, key: SigningKey) -> Departure:
    """Sign a departure as the leaf with this client pseudonym."""
    content = DepartureTBS(room, client)
    return Departure(content, key.sign("DepartureTBS", content.to_bytes()))


def departures_hash(departures: tuple[Departure, ...]) -> bytes:
    """Hash `Departure departures<V>` with SHA-256, for the committer's signature."""
    out = bytearray()
    DEPARTURES.write(out, departures)
    return hashlib.sha256(out).digest()


@dataclass(frozen=True, slots=True)
class Leaver:
    """A leaf that a commit removes; its departure is checked against it."""

    client: MimiUri
    signature_key: bytes


def departed(room: MimiUri, departures: Iterable[Departure], removed: Mapping[int, Leaver]) -> frozenset[int]:
    """Return the removed leaves that have asked for their removal.

    Raises `InvalidCommit` for a departure that is for another room, names a leaf that the commit does not remove,
    occurs twice, or is not signed by its leaf.
    """
    by_client = {leaver.client: leaf for leaf, leaver in removed.items()}
    found: set[int] = set()
    for departure in departures:
        leaf = by_client.get(departure.content.client_pseudonym)
        if departure.content.room != room or leaf is None:
            raise InvalidCommit("a departure is for this room, of a client that the same commit removes")
        if leaf in found:
            raise InvalidCommit(f"leaf {leaf}: its departure stands twice")
        try:
            departure.verify(removed[leaf].signature_key)
        except WrongSigner as error:
            raise InvalidCommit(f"leaf {leaf}: {error}") from None
        found.add(leaf)
    return frozenset(found)
