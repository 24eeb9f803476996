"""The way into a room by a Welcome: checked, joined, and stored in place of what this client had there."""

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
from mimi_mmr.client.transport.read_queues import ReadQueue, ReadQueues
from mimi_mmr.errors import RoomError
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.room.events import FanoutMessage, WelcomeEvent
from mimi_mmr.uris import MimiUri


@dataclass(frozen=True, slots=True)
class Invitation:
    """A Welcome for a KeyPackage that is out, and its number in the queue."""

    item: OutstandingKeyPackage
    fanout: FanoutMessage
    sequence: int


class Joining:
    """The joining of rooms.

    Listeners, which the wiring sets: `place_checks` refuse a room that a KeyPackage is not good for, by raising;
    `placed` write what goes into the vault together with the new place, inside its transaction.
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
        """Join by a Welcome; nothing is stored yet. Raises what is wrong with it, or could not be reached."""
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
        """Check that this is a room that the KeyPackage was meant for, and not one where this client is already."""
        if item.room not in (None, room.uri):
            raise RoomError("a KeyPackage that was made for one room was used for another")
        present = self._memberships.find(room.uri)
        if present is not None and present.usable and item.room is None:
            raise RoomError("an invitation to a room that this client is in")

    def _check_continuity(self, item: OutstandingKeyPackage, room: Room, adder: int) -> None:
        """Go on with a room that this client lost track of only at the word of somebody whom it knows from there.

        Or its hub, who can make anybody lose track, and a contact could put another room in its place.
        """
        present = self._memberships.find(room.uri)
        if present is None or present.removed or item.room is not None:
            return
        if not present.room.knows(room, adder):
            raise RoomError("an invitation to a room that this client is in, by somebody who was not")

    # --- the place in it -----------------------------------------------------------------------------

    async def take_place(self, invitation: Invitation, room: Room) -> Membership:
        """Make the room this client's from now on: stored, in place of a leaf that it may have had there."""
        present = self._memberships.find(room.uri)
        if present is None:
            return self._enter(invitation, room)
        if present.usable:
            await self._drain(present)
        old = present.leaf, present.queue
        async with present.lock:
            self._replace(present, invitation, room)
        await self._leave_place(*old)
        return present

    async def _drain(self, membership: Membership) -> None:
        """Read what is in an old leaf's queue: it can be read by the old leaf only."""
        while await self._reading.sync(membership):
            pass

    def _replace(self, membership: Membership, invitation: Invitation, room: Room) -> None:
        """Go on in a room with another leaf: under another pseudonym, or after this client lost track of it."""
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
        """Come into a room that this client was not in."""
        item = invitation.item
        sharing = self._memberships.sharing(item.queue)
        with self._memberships.changing(*sharing):
            if (
                not item.used
            ):  # after a further Welcome of a last resort there may be events of the first's room
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
                last_sequence=invitation.fanout.sequence,
                problems=tuple(problems[-MAX_PROBLEMS:]),
                invited_by=item.user,
                last_resort=item.last_resort,
                # One leaf in two rooms links them for whoever sees both: see `Pseudonyms`.
                change_pseudonym=item.reused or bool(sharing),
            )
            for other in sharing:
                other.set_change_pseudonym()
                self._memberships.save(other)
            membership = self._memberships.enter(place)
        item.used += 1
        return membership
