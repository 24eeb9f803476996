"""Join links: whoever is given one asks to be added, and a member who is there adds them."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace
from functools import partial

from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.rooms import Joined
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    JoinRefused,
    MmrError,
    PeerError,
    PrivatePathFailed,
    RoomError,
    StateError,
    WrongEpoch,
)
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.room.join_links import JoinLink, LiveLink, make_join_request
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkKind
from mimi_mmr.protocol.room.members_only import MembersOnlyState

LINK_LIFETIME = 86400
LINK_ATTEMPTS = 4
MAX_KNOCKS = 256


class Linking(Membership):
    """A client on both sides of a join link."""

    # --- a member's side -----------------------------------------------------------------------------

    async def create_link(self, joined: Joined, lifetime: float = LINK_LIFETIME, uses: int = 1) -> JoinLink:
        """A link that lets `uses` people ask to join, for `lifetime` seconds (7 days at most).

        Every removal of a member ends all links. Raises `NotAllowed` where this member may not add.
        """
        now = self._clock()
        live = joined.room.join_links.make(int(now + lifetime), uses)
        await self._commit(joined, state=lambda room: room.members_only.state.with_link(live, now))
        await self._order_link(joined, live, LinkKind.CREATE)
        return joined.room.join_links.link(live)

    async def revoke_links(self, joined: Joined) -> None:
        """End all links of a room, at the hub first."""
        links = joined.room.members_only.state.links
        for live in links:
            await self._order_link(joined, live, LinkKind.REVOKE)
        if links:
            await self._commit(joined, state=lambda room: replace(room.members_only.state, links=()))

    async def _order_link(self, joined: Joined, live: LiveLink, kind: LinkKind) -> None:
        path = f"/v1/links/{joined.uri.name}"
        for _ in range(LINK_ATTEMPTS):
            order = joined.room.join_links.order(live, kind)
            try:
                await self.path.call(joined.uri.domain, "POST", path, order.to_bytes())
            except WrongEpoch:
                await self.sync(joined, wait=5.0)
            else:
                return
        raise RoomError("the room moved on again and again while the hub was told of a link")

    def _knocks(self, joined: Joined) -> MutableMapping[bytes, bytes]:
        """Requests to join a room that nobody has answered yet, as far as this client knows."""
        return self.vault.table(f"join requests {joined.uri}")

    def _knock(self, joined: Joined, event: bytes) -> None:
        request, knocks = JoinRequest.from_bytes(event), self._knocks(joined)
        if request.content.room != joined.uri:
            raise JoinRefused("a request to join another room")
        if len(knocks) >= MAX_KNOCKS:
            raise JoinRefused(f"more than {MAX_KNOCKS} requests to join are waiting")
        knocks[request.signature] = event

    async def _follow_up(self, joined: Joined) -> None:
        await super()._follow_up(joined)
        if not joined.room.removed and self._knocks(joined) and self._first(joined):
            await self.answer_knocks(joined)

    async def answer_knocks(self, joined: Joined) -> None:
        """Add those who ask to join by a link, if this member may, and nobody else has done it yet.

        When the hub can't be reached they are kept for another time; a link expires, and with it its requests.
        """
        knocks = self._knocks(joined)
        for key, row in list(knocks.items()):
            request = JoinRequest.from_bytes(row)
            try:
                joined.room.policy.policy.allow_invite(joined.leaf.identity.credential.user_pseudonym)
                packages = joined.room.join_links.open_request(request, self._clock())
                await self._commit(joined, add=packages, state=partial(_counted, request))
                await self._commit(joined)
            except StateError:
                raise
            except (PrivatePathFailed, PeerError) as error:
                self.refused.append(f"a request to join by a link, to be tried again: {error}")
                return
            except MmrError as error:
                joined.problems.append(f"a request to join by a link: {error}")
            knocks.pop(key, None)

    # --- the other side ------------------------------------------------------------------------------

    async def join_by_link(self, link: JoinLink | str, wait: float = 60.0) -> Joined:
        """Ask to be added, with all of one's devices, and wait up to `wait` seconds until somebody does.

        Raises `InvalidUri`; `JoinRefused` when the link has expired or is used up; `RoomError` when nobody in the
        room answered in time, who may still do so later.
        """
        link = JoinLink.parse(link) if isinstance(link, str) else link
        if link.room in self.rooms and not self.rooms[link.room].room.removed:
            raise RoomError("this client is in that room already")
        set_key = SigningKey.generate()
        (package,) = await self._stock.make(self.me, [set_key])
        self._await_use(package, room=link.room)
        more = await self._own_packages(link.room, set_key)
        request = make_join_request(link, [package.open, *more])
        path = f"/v1/joinRequests/{link.room.name}"
        await self.path.call(link.room.domain, "POST", path, request.to_bytes())
        end = self._clock() + wait
        while link.room not in self.rooms or self.rooms[link.room].room.removed:
            if self._clock() >= end:
                raise RoomError("nobody in the room has answered yet; whoever is there next may still do so")
            await self.check_invitations(wait=5.0)
        return self.rooms[link.room]


def _counted(request: JoinRequest, room: Room) -> MembersOnlyState:
    return room.join_links.after_join(request, room.members_only.state)
