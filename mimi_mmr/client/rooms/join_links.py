"""Join links: somebody who has one asks to be added, and a member who is online adds them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence, Set
from dataclasses import replace

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.invitations import Invitations
from mimi_mmr.client.rooms.leaving import falls_to_this_member
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.own_devices import DevicesAtJoining
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.client.rooms.roster import Roster, identity_of
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
from mimi_mmr.protocol.key_packages import AddableKeyPackage, pseudonym_of
from mimi_mmr.protocol.room.join_links import JoinLink, LiveLink, make_join_request
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkKind
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.uris import MimiUri

LINK_LIFETIME = 86400
LINK_ATTEMPTS = 4
MAX_REQUESTS = 256
WAIT_SECONDS = 5.0
OWN_DEVICE_SECONDS = 1.0  # a device that is to be added by another one answers its question within this time


class RoomLinks:
    """Join links, for members and for somebody who wants to join.

    The wiring sets the listeners in `own_device_asked`: another device of this user has asked to join a room.
    """

    def __init__(
        self,
        context: Context,
        memberships: Memberships,
        maker: KeyPackageMaker,
        outstanding: OutstandingKeyPackages,
        devices: DevicesAtJoining,
        reading: Reading,
        roster: Roster,
        commits: Commits,
        invitations: Invitations,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._maker = maker
        self._outstanding = outstanding
        self._devices = devices
        self._reading = reading
        self._roster = roster
        self._commits = commits
        self._invitations = invitations
        self.own_device_asked: list[Callable[[Membership], Awaitable[None]]] = []

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

        A user is added under one pseudonym only. Another device of this user is added by the devices' own way, and
        somebody who is seen to be in the room already is refused: their other devices add the new one.

        If the hub can't be reached, the requests are kept for the next call. They expire with their link.
        """
        requests = self.requests(membership)
        own_device = False
        for key, row in list(requests.items()):
            try:
                own_device |= not await self._add(membership, JoinRequest.from_bytes(row))
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
        if own_device:
            for listener in self.own_device_asked:
                await listener(membership)

    async def _add(self, membership: Membership, request: JoinRequest) -> bool:
        """Add whoever asks; return False, and add nobody, for another device of this user."""
        links = membership.room.join_links
        membership.room.policy.policy.allow_invite(membership.pseudonym)
        packages = tuple(links.open_request(request, self._context.clock()))
        await self._devices.catch_up()  # a device says under which pseudonym it asks before it does so
        if self._is_own(membership, packages):
            return False
        asking = {identity_of(device) for device in map(self._roster.behind, packages) if device is not None}

        def counted(state: MembersOnlyState) -> MembersOnlyState:
            self._check_absent(membership, asking)  # in the epoch that the commit is made in
            return links.after_join(request, state)

        await self._commits.commit(membership, CommitIntent(adds=packages, state=counted))
        await self._commits.commit(membership)  # heals: an Add-only commit refreshes no keys
        return True

    def _is_own(self, membership: Membership, packages: Sequence[AddableKeyPackage]) -> bool:
        shown = (self._roster.behind(package) for package in packages)
        if any(device is not None and self._roster.is_own(device) for device in shown):
            return True
        return self._devices.joins_as(membership.uri, pseudonym_of(packages))

    def _check_absent(self, membership: Membership, asking: Set[tuple[MimiUri, bytes]]) -> None:
        """Refuse a second pseudonym of somebody who is in the room, as far as the room shows who is."""
        if not asking:
            return
        for user, _ in asking & self._roster.people_in(membership):
            raise JoinRefused(
                f"{user} is in the room already: another device of theirs adds this one; "
                "if they have no other, somebody removes them before they ask again"
            )

    # --- the other side ------------------------------------------------------------------------------

    async def join(self, link: JoinLink | str, wait: float = 60.0) -> Membership:
        """Ask to be added, with all of one's devices, and wait up to `wait` seconds until somebody does.

        If another device of this user is in the room, that device adds this one, and the link is not used.

        Raises `InvalidUri`; `JoinRefused` when the link has expired or is used up; `RoomError` when no member, or
        no other device, answered in time. They may still answer later.
        """
        link = JoinLink.parse(link) if isinstance(link, str) else link
        if self._present(link.room) is not None:
            raise RoomError("this client is in that room already")
        set_key = SigningKey.generate()
        (package,) = await self._maker.make([set_key])
        item = self._outstanding.watch(package, room=link.room)
        end = self._context.clock() + wait
        more = await self._devices.for_joining(link.room, set_key)
        if more is None:
            self._outstanding.forget(item)
            return await self._until_present(
                link.room,
                end,
                OWN_DEVICE_SECONDS,
                "another device of this account is in that room, and adds this one as soon as it is online",
            )
        request = make_join_request(link, [package.open, *more])
        await self._context.path.ask(REQUEST_JOIN, link.room.domain, request, room=link.room.name)
        return await self._until_present(
            link.room,
            self._context.clock() + wait,
            WAIT_SECONDS,
            "nobody in the room has answered yet; whoever is there next may still do so",
        )

    async def _until_present(self, room: MimiUri, end: float, pause: float, otherwise: str) -> Membership:
        """Wait to be added, and answer the other devices, which may add this one; raise `RoomError` at the end."""
        while (membership := self._present(room)) is None:
            if self._context.clock() >= end:
                raise RoomError(otherwise)
            await self._devices.catch_up()
            await self._invitations.check(wait=pause)
        return membership

    def _present(self, room: MimiUri) -> Membership | None:
        membership = self._memberships.get(room)
        return None if membership is None or membership.removed else membership
