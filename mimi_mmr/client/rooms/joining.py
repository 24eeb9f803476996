"""Joining a room by a Welcome: checked, joined, and stored in place of an older leaf of this client there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage, OutstandingKeyPackages
from mimi_mmr.client.rooms.membership import MAX_PROBLEMS, Membership, Place
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.client.rooms.repair import RoomRepair
from mimi_mmr.client.storage.history import History
from mimi_mmr.client.storage.sent import SentMessages
from mimi_mmr.client.transport.read_queues import ReadQueue, ReadQueues
from mimi_mmr.errors import RoomError
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.room.events import FanoutMessage, WelcomeEvent
from mimi_mmr.uris import MimiUri


@dataclass(frozen=True, slots=True)
class Invitation:
    """A Welcome for an outstanding KeyPackage, and its number in the queue."""

    item: OutstandingKeyPackage
    fanout: FanoutMessage
    sequence: int


class Joining:
    """The joining of rooms.

    The wiring sets the listeners. `place_checks` raise to refuse a room that a KeyPackage must not be used for.
    `placed` write their rows in the same transaction as the new place.
    """

    def __init__(
        self,
        context: Context,
        memberships: Memberships,
        read_queues: ReadQueues,
        outstanding: OutstandingKeyPackages,
        reading: Reading,
        repair: RoomRepair,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._read_queues = read_queues
        self._outstanding = outstanding
        self._reading = reading
        self._repair = repair
        self.place_checks: list[Callable[[OutstandingKeyPackage, Room], None]] = []
        self.placed: list[Callable[[OutstandingKeyPackage, MimiUri], None]] = []

    # --- joining -------------------------------------------------------------------------------------

    async def join(self, invitation: Invitation) -> Room:
        """Join by a Welcome; nothing is stored yet.

        Raises `MmrError` if the Welcome is invalid, or the hub can't be reached.
        """
        item, fanout = invitation.item, invitation.fanout
        leaf = item.package.leaf
        event = WelcomeEvent.from_bytes(fanout.event)
        epoch = event.auth.content.epoch + 1
        room = Room.join(leaf, event, await self._repair.snapshot(fanout.room, epoch, leaf))
        self._check_place(item, room)
        for check in self.place_checks:
            check(item, room)
        self._check_continuity(item, room, event.auth.content.sender)
        return room

    def _check_place(self, item: OutstandingKeyPackage, room: Room) -> None:
        """Check that the KeyPackage may be used for this room, and that this client is not in the room already."""
        if item.room not in (None, room.uri):
            raise RoomError("a KeyPackage that was made for one room was used for another")
        present = self._memberships.find(room.uri)
        if present is not None and present.usable and item.room is None:
            raise RoomError("an invitation to a room that this client is in")

    def _check_continuity(self, item: OutstandingKeyPackage, room: Room, adder: int) -> None:
        """Refuse a Welcome to a room that this client lost track of, unless a member it knew there sent it.

        Otherwise the hub, which can make any client lose track, and a contact could together put another room in
        its place.
        """
        present = self._memberships.find(room.uri)
        if present is None or present.removed or item.room is not None:
            return
        if not present.room.knows(room, adder):
            raise RoomError("an invitation to a room that this client is in, by somebody who was not")

    # --- the place in it -----------------------------------------------------------------------------

    async def take_place(self, invitation: Invitation, room: Room) -> Membership:
        """Store the joined room; it replaces an older leaf that this client may have had there."""
        present = self._memberships.find(room.uri)
        if present is None:
            return self._enter(invitation, room)
        if present.usable:
            await self._reading.read_all(present)  # only the old leaf can decrypt what is left there
        old = present.leaf, present.queue
        async with present.lock:
            self._replace(present, invitation, room)
        await self._leave_place(*old)
        return present

    def _replace(self, membership: Membership, invitation: Invitation, room: Room) -> None:
        """Replace this client's leaf in a room: after a change of pseudonym, or after it lost track of the room."""
        item = invitation.item
        with self._memberships.changing(membership):
            item.queue.acknowledge(invitation.sequence)
            self._outstanding.unwatch(item)
            for listener in self.placed:
                listener(item, membership.uri)
            if membership.place.pending is not None:
                membership.place.pending.reject()
            membership.move(
                room,
                item.package.leaf,
                item.queue,
                last_sequence=invitation.fanout.sequence,
                last_resort=item.last_resort,
            )
            self._read_queues.save(item.queue)
            self._memberships.save(membership)
        item.used += 1

    async def _leave_place(self, leaf: PreparedLeaf, queue: ReadQueue) -> None:
        with self._context.vault.transaction():
            self._memberships.drop_leaf(leaf)
        await self._memberships.drop_queue(queue)

    def _enter(self, invitation: Invitation, room: Room) -> Membership:
        """Enter a room that this client was not in."""
        item = invitation.item
        sharing = self._memberships.sharing(item.queue)
        with self._memberships.changing(*sharing):
            if (
                not item.used
            ):  # behind a further Welcome of a last resort there may be events of the first room
                item.queue.acknowledge(invitation.sequence)
            self._outstanding.unwatch(item)
            for listener in self.placed:
                listener(item, room.uri)
            problems = [f"leaf {leaf}: {problem}" for leaf, problem in room.problems.items()]
            place = Place(
                room,
                item.package.leaf,
                item.queue,
                History(self._context.vault, room.uri),
                SentMessages(self._context.vault, room.uri),
                last_sequence=invitation.fanout.sequence,
                problems=tuple(problems[-MAX_PROBLEMS:]),
                invited_by=item.user,
                last_resort=item.last_resort,
                # One leaf in two rooms lets anybody who sees both link them: see `Pseudonyms`.
                change_pseudonym=item.reused or bool(sharing),
            )
            for other in sharing:
                other.set_change_pseudonym()
                self._memberships.save(other)
            membership = self._memberships.enter(place)
        item.used += 1
        return membership
