"""Join links: `mimi-join:<room uri>?l=<base64url>`, for people who have no contact in the room.

A link is made from a seed. Members have the seed in the members-only state; people who were given the link have it
too. The hub knows only what it needs to count uses, not the room's name or the newcomer. A newcomer seals
KeyPackages to the link, and any member with the right to add adds them: the MLS engine has no external commits,
and a link contains no key of the room.

Anybody with a link can join and then see what members see. A link also opens the requests that others sealed to
it, even later. So a link needs as much care as a membership.

A member makes a link (`JoinLinks.make`), commits a state that contains it (`MembersOnlyState.with_link`), then
sends the hub an order (`JoinLinks.order`). A newcomer sends the hub a request (`make_join_request`). Members get it
as an event, open it (`JoinLinks.open_request`) and add the newcomer in a commit that counts the use
(`JoinLinks.after_join`).

The URI also says how the room shows identities: a newcomer sends its identity link keys only if every member sees
every identity. Otherwise it sends the keys of the Welcome's proof instead, which are derived from them.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar

from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey, pad, unpad
from mimi_mmr.crypto.secret import Secret
from mimi_mmr.crypto.signing import SigningKey, expand_with_label
from mimi_mmr.errors import InvalidUri, JoinRefused, ParseError, SealedBoxRejected
from mimi_mmr.presentation import U32, U64, Fixed, Nested, Struct, Vector
from mimi_mmr.protocol.key_packages import (
    MAX_CLIENTS,
    AddableKeyPackage,
    NamelessKeyPackage,
    OpenKeyPackage,
)
from mimi_mmr.protocol.room.link_orders import (
    MAX_BOX,
    MAX_LIFETIME,
    MAX_USES,
    JoinRequest,
    JoinRequestTBS,
    sign_join,
)
from mimi_mmr.protocol.room.policy import Identities
from mimi_mmr.uris import CLIENT_PSEUDONYM, Kind, MimiUri

SCHEME = "mimi-join:"
SEED_SIZE = 32
PADDING = 8192
_PURPOSE = "join request"


class LinkSeed(Secret):
    """The seed of a join link."""


@dataclass(frozen=True, slots=True)
class JoinLink:
    """A link as people share it; its holder may ask to join. Its keys are for this room only."""

    room: MimiUri
    identities: Identities
    seed: LinkSeed

    @property
    def uri(self) -> str:
        """The secret URI; 33 bytes in base64url: one for how identities are shown, then the seed."""
        payload = bytes([self.identities]) + self.seed.reveal()
        return f"{SCHEME}{self.room}?l={urlsafe_b64encode(payload).decode()}"

    def __str__(self) -> str:
        return self.uri

    @classmethod
    def parse(cls, text: str) -> JoinLink:
        """Parse a link in the form that `uri` returns; raise `InvalidUri`."""
        name, mark, encoded = text.removeprefix(SCHEME).partition("?l=")
        if not text.startswith(SCHEME) or not mark:
            raise InvalidUri(f"expected a join link, {SCHEME}…?l=…, whole as it was made")
        room = MimiUri.parse(name, Kind.ROOM)
        try:
            payload = urlsafe_b64decode(encoded.encode("ascii"))
            link = cls(room, Identities(payload[0]), LinkSeed(payload[1:]))
        except (binascii.Error, ValueError, IndexError):
            raise InvalidUri("the join link is altered or cut off") from None
        if link.uri != text:
            raise InvalidUri("the join link is altered or cut off")
        return link

    @property
    def id(self) -> bytes:
        """The id by which the hub knows the link (32 bytes)."""
        return self._expand("join link id")

    @property
    def signing_key(self) -> SigningKey:
        """The key that signs requests to join."""
        return SigningKey.from_seed(self._expand("join link signature key"))

    @property
    def sealing_key(self) -> SealingKey:
        """The key that requests to join are sealed to (X25519)."""
        return SealingKey(Kem.X25519, self._expand("join link sealing key"))

    def _expand(self, label: str) -> bytes:
        return expand_with_label(self.seed, label, self._context())

    def _context(self) -> bytes:
        return bytes([self.identities]) + str(self.room).encode()


@dataclass(frozen=True, slots=True)
class LiveLink(Struct):
    """A link as members know it, in the members-only state; `expiry` in seconds."""

    seed: Annotated[bytes, Fixed(SEED_SIZE)] = field(repr=False)
    creator: Annotated[MimiUri, CLIENT_PSEUDONYM]
    expiry: Annotated[int, U64]
    uses_left: Annotated[int, U32]

    def link(self, room: MimiUri, identities: Identities) -> JoinLink:
        """Return the link as people share it."""
        return JoinLink(room, identities, LinkSeed(self.seed))

    def check(self, now: float) -> None:
        """Check that the link may be used now; raise `JoinRefused`."""
        if not (now < self.expiry <= now + MAX_LIFETIME) or not 0 < self.uses_left <= MAX_USES:
            raise JoinRefused("the join link has expired, or is used up")

    def used(self) -> LiveLink:
        """Return the link with one use fewer."""
        return replace(self, uses_left=max(0, self.uses_left - 1))


@dataclass(frozen=True, slots=True)
class Joiner(Struct):
    """The plaintext of a request to join: one user's KeyPackages, one per device, all under one pseudonym."""

    LIMIT: ClassVar[int] = MAX_BOX
    packages: Annotated[tuple[OpenKeyPackage, ...], Vector(Nested(OpenKeyPackage), MAX_BOX, MAX_CLIENTS)]


@dataclass(frozen=True, slots=True)
class NamelessJoiner(Struct):
    """The same for a room that hides identities, as its link says."""

    LIMIT: ClassVar[int] = MAX_BOX
    packages: Annotated[
        tuple[NamelessKeyPackage, ...], Vector(Nested(NamelessKeyPackage), MAX_BOX, MAX_CLIENTS)
    ]


def make_join_request(link: JoinLink, packages: Sequence[OpenKeyPackage]) -> JoinRequest:
    """Make a request to add all devices of one user; raise `ValueError` if it is above 128 KiB."""
    joiner: Joiner | NamelessJoiner = Joiner(tuple(packages))
    if link.identities is not Identities.EVERYONE:
        joiner = NamelessJoiner(tuple(package.without_name() for package in packages))
    plaintext = pad(joiner.to_bytes(), PADDING)
    box = link.sealing_key.public.seal(_PURPOSE, link.id, plaintext)
    return sign_join(JoinRequestTBS(link.room, link.id, box), link.signing_key)


def open_join_request(link: JoinLink, box: SealedBox) -> tuple[AddableKeyPackage, ...]:
    """Open what `make_join_request` sealed; raise `JoinRefused`."""
    kind = Joiner if link.identities is Identities.EVERYONE else NamelessJoiner
    try:
        packages = kind.from_bytes(unpad(link.sealing_key.open(_PURPOSE, link.id, box))).packages
    except (SealedBoxRejected, ParseError) as error:
        raise JoinRefused(f"the request to join: {error}") from None
    if not packages:
        raise JoinRefused("the request to join has no KeyPackage")
    return packages
