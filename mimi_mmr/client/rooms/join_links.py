"""Join links: somebody who has one asks to be added, and a member who is online adds them."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import replace

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.other_devices import OtherDevices
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.invitations import Invitations
from mimi_mmr.client.rooms.leaving import falls_to_this_member
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    JoinRefused,
    MmrError,
    NotYet,
    PeerError,
    PrivatePathFailed,
    RoomError,
    StateError,
    WrongEpoch,
)
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.endpoints import ORDER_LINK, REQUEST_JOIN
from mimi_mmr.protocol.room.join_links import JoinLink, LiveLink, make_join_request
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkKind
from mimi_mmr.uris import MimiUri

LINK_LIFETIME = 86400
LINK_ATTEMPTS = 4
MAX_REQUESTS = 256
WAIT_SECONDS = 5.0


class RoomLinks:
    """Join links, for members and for somebody who wants to join."""

    def __init__(
        self,
        context: Context,
        memberships: Memberships,
        maker: KeyPackageMaker,
        outstanding: OutstandingKeyPackages,
        other_devices: OtherDevices,
        reading: Reading,
        commits: Commits,
        invitations: Invitations,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._maker = maker
        self._outstanding = outstanding
        self._other_devices = other_devices
        self._reading = reading
        self._commits = commits
        self._invitations = invitations

    # --- a member's side -----------------------------------------------------------------------------

    async def create(
        self, membership: Membership, lifetime: float = LINK_LIFETIME, uses: int = 1
    ) -> JoinLink:
        """Make a link that lets `uses` people ask to join, for `lifetime` seconds (7 days at most).

        Every removal of a member ends all links. Raises `NotAllowed` where this member may not add.
        """
        now = self._context.clock()
        live = membership.room.join_links.make(int(now + lifetime), uses)
        await self._commits.commit(membership, CommitIntent(state=lambda state: state.with_link(live, now)))
        await self._order(membership, live, LinkKind.CREATE)
        return membership.room.join_links.link(live)

    async def revoke(self, membership: Membership) -> None:
        """End all links of a room, at the hub first."""
        links = membership.room.members_only.state.links
        for live in links:
            await self._order(membership, live, LinkKind.REVOKE)
        if links:
            await self._commits.commit(membership, CommitIntent(state=lambda state: replace(state, links=())))

    async def _order(self, membership: Membership, live: LiveLink, kind: LinkKind) -> None:
        room = membership.uri
        for _ in range(LINK_ATTEMPTS):
            order = membership.room.join_links.order(live, kind)
            try:
                await self._context.path.ask(ORDER_LINK, room.domain, order, room=room.name)
            except WrongEpoch:
                await self._reading.sync(membership, wait=WAIT_SECONDS)
            else:
                return
        raise RoomError("the room moved on again and again while the hub was told of a link")

    # --- requests of others --------------------------------------------------------------------------

    def requests(self, membership: Membership) -> MutableMapping[bytes, bytes]:
        """Return the unanswered requests to join a room that this client knows of."""
        return self._context.vault.table(f"join requests {membership.uri}")

    def take_request(self, membership: Membership, request: JoinRequest) -> None:
        """Note a request to join by a link; raises `JoinRefused`."""
        requests = self.requests(membership)
        if request.content.room != membership.uri:
            raise JoinRefused("a request to join another room")
        if len(requests) >= MAX_REQUESTS:
            raise JoinRefused(f"more than {MAX_REQUESTS} requests to join are waiting")
        requests[request.signature] = request.to_bytes()

    async def answer_if_first(self, membership: Membership) -> None:
        """Answer requests at once, if this member is the one to do so."""
        if not membership.removed and self.requests(membership) and falls_to_this_member(membership):
            await self.answer(membership)

    async def answer(self, membership: Membership) -> None:
        """Add those who ask to join by a link, if this member may, and no other member has done it yet.

        If the hub can't be reached, the requests are kept for the next call. They expire with their link.
        """
        requests = self.requests(membership)
        for key, row in list(requests.items()):
            try:
                await self._add(membership, JoinRequest.from_bytes(row))
            except StateError:
                raise
            except (PrivatePathFailed, PeerError) as error:
                self._context.refusals.add("a request to join by a link, to be tried again", error)
                return
            except NotYet as error:
                self._context.refusals.add("a request to join by a link, to be tried again", error)
                continue
            except MmrError as error:
                membership.note(f"a request to join by a link: {error}")
            requests.pop(key, None)

    async def _add(self, membership: Membership, request: JoinRequest) -> None:
        links = membership.room.join_links
        membership.room.policy.policy.allow_invite(membership.pseudonym)
        packages = tuple(links.open_request(request, self._context.clock()))
        counted = CommitIntent(adds=packages, state=lambda state: links.after_join(request, state))
        await self._commits.commit(membership, counted)
        await self._commits.commit(membership)  # heals: an Add-only commit refreshes no keys

    # --- the other side ------------------------------------------------------------------------------

    async def join(self, link: JoinLink | str, wait: float = 60.0) -> Membership:
        """Ask to be added, with all of one's devices, and wait up to `wait` seconds until somebody does.

        Raises `InvalidUri`; `JoinRefused` when the link has expired or is used up; `RoomError` when no member
        answered in time. A member may still answer later.
        """
        link = JoinLink.parse(link) if isinstance(link, str) else link
        if self._present(link.room) is not None:
            raise RoomError("this client is in that room already")
        set_key = SigningKey.generate()
        (package,) = await self._maker.make([set_key])
        self._outstanding.watch(package, room=link.room)
        more = await self._other_devices.for_room(link.room, set_key)
        request = make_join_request(link, [package.open, *more])
        await self._context.path.ask(REQUEST_JOIN, link.room.domain, request, room=link.room.name)
        end = self._context.clock() + wait
        while (membership := self._present(link.room)) is None:
            if self._context.clock() >= end:
                raise RoomError("nobody in the room has answered yet; whoever is there next may still do so")
            await self._invitations.check(wait=WAIT_SECONDS)
        return membership

    def _present(self, room: MimiUri) -> Membership | None:
        membership = self._memberships.get(room)
        return None if membership is None or membership.removed else membership
