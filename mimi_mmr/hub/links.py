"""Join links at the hub: it counts their uses and passes requests on; what is inside is for members.

A link is known by id, public key, expiry and uses left. Whoever may add orders it; every accepted Remove ends all
links of a room, since whoever was removed knows them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from mimi_mmr.errors import JoinRefused, NotAllowed, SignatureRejected, UnknownSender, WrongEpoch, WrongSigner
from mimi_mmr.hub.messages import EventKind
from mimi_mmr.hub.state import Outgoing, RoomState, outgoing
from mimi_mmr.labels import SigningKey, verify
from mimi_mmr.sealing import SealedBox
from mimi_mmr.tls import U32, U64, Code, Fixed, Struct
from mimi_mmr.uris import ROOM, MimiUri

MAX_LIFETIME = 7 * 86400
MAX_USES = 1024
MAX_LINKS = 64
MAX_BOX = 1 << 17


class LinkKind(enum.IntEnum):
    """What is to be done with a link."""

    CREATE = 1
    REVOKE = 2


@dataclass(frozen=True, slots=True)
class LinkOrderTBS(Struct):
    """What a member's leaf signs, for the room's current epoch; `expiry` in seconds.

    To revoke, the id alone counts.
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
        """Raises `WrongSigner`."""
        try:
            verify(signature_key, "LinkOrderTBS", self.content.to_bytes(), self.signature)
        except SignatureRejected:
            raise WrongSigner("the order is not signed by the leaf that it names as its sender") from None


def sign_link_order(content: LinkOrderTBS, key: SigningKey) -> LinkOrder:
    """Sign as a member's leaf."""
    return LinkOrder(content, key.sign("LinkOrderTBS", content.to_bytes()))


@dataclass(frozen=True, slots=True)
class JoinRequestTBS(Struct):
    """What the link's key signs: the sealed KeyPackages, for one room and link."""

    room: Annotated[MimiUri, ROOM]
    link_id: Annotated[bytes, Fixed(32)]
    box: SealedBox


@dataclass(frozen=True, slots=True)
class JoinRequest(Struct):
    """The body of POST /v1/joinRequests/{room}, and of the event that members get of it."""

    LIMIT: ClassVar[int] = MAX_BOX + 1024
    content: JoinRequestTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, public_key: bytes) -> None:
        """Raises `JoinRefused`."""
        try:
            verify(public_key, "JoinRequestTBS", self.content.to_bytes(), self.signature)
        except SignatureRejected:
            raise JoinRefused(NO_SUCH_LINK) from None


def sign_join(content: JoinRequestTBS, key: SigningKey) -> JoinRequest:
    """Sign with the link's key."""
    return JoinRequest(content, key.sign("JoinRequestTBS", content.to_bytes()))


@dataclass(frozen=True, slots=True)
class HubLink:
    """A link as the hub keeps it."""

    id: bytes
    public_key: bytes = field(repr=False)
    expiry: int
    uses_left: int


NO_SUCH_LINK = "no such join link, or it can't be used any more"


def check_order(state: RoomState, order: LinkOrder, now: float) -> HubLink:
    """The link that an order is about; raises a subclass of `HubRefusal`.

    One that is revoked has no uses left; it is kept until it expires, so that no old order makes it again.
    """
    content = order.content
    if content.room != state.room:
        raise WrongSigner("the order was signed for another room")
    sender = state.members.get(content.sender)
    if sender is None:
        raise UnknownSender(f"no member at leaf {content.sender}")
    order.verify(sender.signature_key)
    if content.epoch != state.epoch:
        raise WrongEpoch(state.epoch)
    state.policy.policy.allow_invite(sender.user)
    if content.kind is LinkKind.REVOKE:
        return HubLink(content.link_id, content.public_key, 0, 0)
    if not now < content.expiry <= now + MAX_LIFETIME:
        raise NotAllowed(f"a join link lives for at most {MAX_LIFETIME} seconds")
    if not 0 < content.uses <= MAX_USES:
        raise NotAllowed(f"a join link is for 1 to {MAX_USES} uses, not {content.uses}")
    return HubLink(content.link_id, content.public_key, content.expiry, content.uses)


def check_join(
    state: RoomState, link: HubLink | None, request: JoinRequest, now: float
) -> tuple[Outgoing, ...]:
    """The events of a request to join, where `link` is the one that it names, if there is one.

    Raises `JoinRefused`, the same for whatever is wrong with the link.
    """
    if request.content.room != state.room or link is None:
        raise JoinRefused(NO_SUCH_LINK)
    if link.uses_left < 1 or link.expiry <= now:
        raise JoinRefused(NO_SUCH_LINK)
    request.verify(link.public_key)
    return outgoing(state.members.values(), EventKind.JOIN_REQUEST, request.to_bytes())
