"""The adding of this user's devices that are missing in a room, or have a leaf there that they can't use."""

from __future__ import annotations

import asyncio
from functools import partial

from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.devices_room import DevicesRoom
from mimi_mmr.client.devices.known_devices import KnownDevices
from mimi_mmr.client.devices.package_requests import PackageRequests
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage, OutstandingKeyPackages
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.lost_keys import AddAgain
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.errors import NotYet, RoomError
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.room.events import FanoutMessage
from mimi_mmr.uris import MimiUri

MAX_DEAD_LEAVES = 256
LATER = "devices, to be tried again"


class MissingDevices:
    """The part that keeps all of this user's devices in all rooms."""

    def __init__(
        self,
        context: Context,
        *,
        known: KnownDevices,
        devices_room: DevicesRoom,
        package_requests: PackageRequests,
        outstanding: OutstandingKeyPackages,
        memberships: Memberships,
        reading: Reading,
        commits: Commits,
    ) -> None:
        self._context = context
        self._known = known
        self._devices_room = devices_room
        self._package_requests = package_requests
        self._outstanding = outstanding
        self._memberships = memberships
        self._reading = reading
        self._commits = commits
        self._adding = asyncio.Lock()
        self._early: dict[
            tuple[MimiUri, MimiUri], list[OpenKeyPackage]
        ] = {}  # not valid yet, by room and pseudonym
        self._dead_leaves = context.vault.table("leaves of devices that lost their keys")

    async def tend(self) -> None:
        """Take out leaves whose devices lost their keys; add devices where they are missing."""
        for row in list(self._dead_leaves):
            await self._context.attempt(LATER, partial(self._take_out_dead_leaf, row))
        self._known.forget_own_leaves_but(
            membership.uri for membership in self._memberships.values() if not membership.removed
        )
        for membership in list(self._memberships.values()):
            await self._add_to(membership)

    async def add_asked(self, membership: Membership) -> None:
        """Add devices that are missing in a room at once, since one of them has asked; no error is raised."""
        if not self._adding.locked():  # else this is done already, perhaps further up in this very task
            await self._add_to(membership)

    async def _add_to(self, membership: Membership) -> None:
        if membership is not self._devices_room.membership and membership.usable:
            async with self._adding:
                await self._context.attempt(LATER, partial(self._add_missing, membership))

    async def _add_missing(self, membership: Membership) -> None:
        """Add devices that are missing in a room under the pseudonym that this user keeps there.

        Of the devices under that pseudonym, the one with the lowest leaf does this.
        """
        others, own = self._known.others(), membership.own_leaves
        if not others or len(own) > len(others) or own[0] != membership.room.own_leaf:
            return
        if not self._known.keeps(membership):
            return
        members = membership.room.members
        present = {str(members.readable[leaf].client).encode() for leaf in own}
        missing = [name for name in others if self._known.leaf_in(membership.uri, name) not in present]
        key = membership.uri, membership.pseudonym
        packages = self._early.pop(key, None) if missing else None
        if packages is None:
            packages = await self._package_requests.of(missing, membership.uri, membership.leaf.set_key)
        if packages:
            try:
                await self._commits.commit(membership, CommitIntent(adds=tuple(packages)))
            except NotYet:
                self._early[key] = packages
                raise
            # This commit heals: an Add-only commit refreshes no keys.
            await self._commits.commit(membership)

    # --- leaves whose keys were lost -----------------------------------------------------------------

    async def tell_of_lost_keys(self, item: OutstandingKeyPackage, fanout: FanoutMessage) -> bool:
        """Tell the other devices that this device lost the keys of a KeyPackage which it had made for one of them.

        The message has the dead leaf's departure, so a device in that room can remove the leaf and add this device
        anew. Returns False if the KeyPackage was made for something else, or there is no other device to tell.
        """
        room = self._devices_room.open
        if item.user is not None or fanout.room in self._memberships or room is None:
            return False
        request = AddAgain.of(fanout.room, item.package.leaf)
        await self._devices_room.tell(room, Content(ContentKind.ADD_AGAIN, request.to_bytes()))
        self._outstanding.unwatch(item)
        return True

    def take_message(self, membership: Membership, sender: Whois, content: Content) -> None:
        """Note a leaf whose device lost its keys.

        Noted also while this device is not in that room yet: both devices may have been added by one commit.
        """
        self._devices_room.speaker(membership, sender)
        request = AddAgain.from_bytes(content.body)
        client = request.departure.content.client_pseudonym
        self._dead_leaves[f"{request.room} {client}".encode()] = content.body
        while len(self._dead_leaves) > MAX_DEAD_LEAVES:
            del self._dead_leaves[next(iter(self._dead_leaves))]

    async def _take_out_dead_leaf(self, row: bytes) -> None:
        request = AddAgain.from_bytes(self._dead_leaves[row])
        membership = self._memberships.get(request.room)
        if membership is None:
            return
        if not membership.removed:
            await self._reading.sync(membership)  # this device may not have followed the dead leaf's Add yet
            try:
                membership.room.departing(request.departure)
            except RoomError:
                pass  # it is not there, or not any more
            else:
                await self._commits.commit(membership, CommitIntent(departures=(request.departure,)))
        del self._dead_leaves[row]
