"""Join links at the hub: it counts their uses and forwards requests, which only members can open.

The hub knows a link's id, public key, expiry and uses left. Members with the right to add may order links. Every
accepted Remove ends all links of a room, since the removed member knows them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mimi_mmr.errors import JoinRefused, NotAllowed, UnknownSender, WrongEpoch, WrongSigner
from mimi_mmr.hub.state import HubRoom, Outgoing, outgoing
from mimi_mmr.protocol.key_packages import LIFETIME_SKEW
from mimi_mmr.protocol.room.events import EventKind
from mimi_mmr.protocol.room.link_orders import (
    MAX_LIFETIME,
    MAX_USES,
    NO_SUCH_LINK,
    JoinRequest,
    LinkKind,
    LinkOrder,
)
from mimi_mmr.uris import MimiUri


@dataclass(frozen=True, slots=True)
class HubLink:
    """A link as the hub stores it."""

    id: bytes
    public_key: bytes = field(repr=False)
    expiry: int
    uses_left: int


def check_order(state: HubRoom, order: LinkOrder, now: float) -> HubLink:
    """Check an order and return its link; raise a subclass of `HubRefusal`.

    A revoked link is returned with 0 uses. The store keeps a revoked link until it expires, so that replaying the
    old order does not create it again.
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
    if not now < content.expiry <= now + MAX_LIFETIME + LIFETIME_SKEW:
        raise NotAllowed(f"a join link lives for at most {MAX_LIFETIME} seconds")
    if not 0 < content.uses <= MAX_USES:
        raise NotAllowed(f"a join link is for 1 to {MAX_USES} uses, not {content.uses}")
    return HubLink(content.link_id, content.public_key, content.expiry, content.uses)


def check_use(room: MimiUri, link: HubLink | None, request: JoinRequest, now: float) -> None:
    """Check a request to join against the link that it names, without the room; raise `JoinRefused`."""
    if request.content.room != room or link is None:
        raise JoinRefused(NO_SUCH_LINK)
    if link.uses_left < 1 or link.expiry <= now:
        raise JoinRefused(NO_SUCH_LINK)
    request.verify(link.public_key)


def check_join(
    state: HubRoom, link: HubLink | None, request: JoinRequest, now: float
) -> tuple[Outgoing, ...]:
    """Return the events of a request to join; `link` is the link that it names, None if there is none.

    Raises `JoinRefused`, with the same message for every problem with the link.
    """
    check_use(state.room, link, request, now)
    return outgoing(state.members.values(), EventKind.JOIN_REQUEST, request.to_bytes())
