"""Join links on a member's side: made, registered at the hub, and answered when somebody asks to join by one."""

from __future__ import annotations

from dataclasses import replace

from mimi_mmr.errors import JoinRefused, NotAllowed
from mimi_mmr.member.local import LocalRoom
from mimi_mmr.protocol.key_packages import AddableKeyPackage, check_set
from mimi_mmr.protocol.room.join_links import JoinLink, LinkSeed, LiveLink, open_join_request
from mimi_mmr.protocol.room.link_orders import (
    MAX_USES,
    JoinRequest,
    LinkKind,
    LinkOrder,
    LinkOrderTBS,
    sign_link_order,
)
from mimi_mmr.protocol.room.members_only import MembersOnlyState


class JoinLinks:
    """The part of a room that makes and answers join links. The members-only state holds the links."""

    def __init__(self, local: LocalRoom) -> None:
        self._local = local

    def make(self, expiry: int, uses: int) -> LiveLink:
        """Make a link that lets `uses` people ask to join until `expiry` (seconds); raise `NotAllowed`.

        It works once it is in the members-only state (`MembersOnlyState.with_link`). Send the hub its `order` only
        after that: otherwise a request could arrive that no member can open.
        """
        local = self._local
        local.policy.policy.allow_invite(local.me)
        if not 0 < uses <= MAX_USES:
            raise NotAllowed(f"a join link is for 1 to {MAX_USES} uses, not {uses}")
        creator = local.leaf.identity.credential.client_pseudonym
        return LiveLink(LinkSeed.generate().reveal(), creator, expiry, uses)

    def link(self, live: LiveLink) -> JoinLink:
        """Return the link as the URI that is given to people."""
        return live.link(self._local.uri, self._local.policy.policy.identities)

    def order(self, live: LiveLink, kind: LinkKind = LinkKind.CREATE) -> LinkOrder:
        """Sign an order to the hub about a link, for the room's current epoch."""
        local, link = self._local, self.link(live)
        content = LinkOrderTBS(
            local.uri,
            local.group.epoch,
            local.group.own_leaf,
            kind,
            link.id,
            link.signing_key.public,
            live.expiry,
            live.uses_left,
        )
        return sign_link_order(content, local.leaf.key)

    def open_request(self, request: JoinRequest, now: float) -> list[AddableKeyPackage]:
        """Return the KeyPackages of somebody who asks to join, to be added in one commit.

        Raises `JoinRefused`; `IdentityError`, `ParseError` or `InvalidCommit` if they are not a valid set. The
        commit that adds them changes the state with `after_join`, which counts the use. The hub keeps its own
        count.
        """
        live, link = self._find(request, self._local.members_only.state)
        live.check(now)
        request.verify(link.signing_key.public)
        packages = open_join_request(link, request.content.box)
        leaves = check_set([package.key_package for package in packages], now)
        if not self._local.members.by_client.keys().isdisjoint(
            leaf.credential.client_pseudonym for leaf in leaves
        ):
            raise JoinRefused("whoever asks to join has been added already")
        return list(packages)

    def after_join(self, request: JoinRequest, state: MembersOnlyState) -> MembersOnlyState:
        """Return the state with one use of the request's link less; raise `JoinRefused`."""
        live, _ = self._find(request, state)
        links = (one.used() if one == live else one for one in state.links)
        return replace(state, links=tuple(one for one in links if one.uses_left))

    def _find(self, request: JoinRequest, state: MembersOnlyState) -> tuple[LiveLink, JoinLink]:
        for live in state.links:
            link = self.link(live)
            if (request.content.room, request.content.link_id) == (self._local.uri, link.id):
                return live, link
        raise JoinRefused("a request to join by none of the room's links")
