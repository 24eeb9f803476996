"""Orders about join links, and requests to join with one, as sent to the hub."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, ClassVar

from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.crypto.signing import SigningKey, verify
from mimi_mmr.errors import JoinRefused, SignatureRejected, WrongSigner
from mimi_mmr.presentation import U32, U64, Code, Fixed, Struct
from mimi_mmr.uris import ROOM, MimiUri

MAX_LIFETIME = 7 * 86400
MAX_USES = 1024
MAX_LINKS = 64
MAX_BOX = 1 << 17
NO_SUCH_LINK = "no such join link, or it can't be used any more"


class LinkKind(enum.IntEnum):
    """The action of a link order."""

    CREATE = 1
    REVOKE = 2


@dataclass(frozen=True, slots=True)
class LinkOrderTBS(Struct):
    """The content that a member's leaf signs, for the room's current epoch; `expiry` in seconds.

    A revocation uses the id only.
    """

    room: Annotated[MimiUri, ROOM]
    epoch: Annotated[int, U64]
    sender: Annotated[int, U32]
    kind: Annotated[LinkKind, Code(LinkKind)]
    link_id: Annotated[bytes, Fixed(32)]
    public_key: Annotated[bytes, Fixed(32)]
    expiry: Annotated[int, U64]
    uses: Annotated[int, U32]


@dataclass(frozen=True, slots=True)
class LinkOrder(Struct):
    """The body of POST /v1/links/{room}."""

    content: LinkOrderTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, signature_key: bytes) -> None:
        """Check the signature; raise `WrongSigner`."""
        try:
            verify(signature_key, "LinkOrderTBS", self.content.to_bytes(), self.signature)
        except SignatureRejected:
            raise WrongSigner("the order is not signed by the leaf that it names as its sender") from None


def sign_link_order(content: LinkOrderTBS, key: SigningKey) -> LinkOrder:
    """Sign an order as a member's leaf."""
    return LinkOrder(content, key.sign("LinkOrderTBS", content.to_bytes()))


@dataclass(frozen=True, slots=True)
class JoinRequestTBS(Struct):
    """The content that the link's key signs: sealed KeyPackages, for one room and link."""

    room: Annotated[MimiUri, ROOM]
    link_id: Annotated[bytes, Fixed(32)]
    box: SealedBox


@dataclass(frozen=True, slots=True)
class JoinRequest(Struct):
    """The body of POST /v1/joinRequests/{room}, and of the event for the members."""

    LIMIT: ClassVar[int] = MAX_BOX + 1024
    content: JoinRequestTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, public_key: bytes) -> None:
        """Check the signature; raise `JoinRefused`."""
        try:
            verify(public_key, "JoinRequestTBS", self.content.to_bytes(), self.signature)
        except SignatureRejected:
            raise JoinRefused(NO_SUCH_LINK) from None


def sign_join(content: JoinRequestTBS, key: SigningKey) -> JoinRequest:
    """Sign a request to join with the link's key."""
    return JoinRequest(content, key.sign("JoinRequestTBS", content.to_bytes()))
