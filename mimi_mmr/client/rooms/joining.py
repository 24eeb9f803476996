"""Joining a room by a Welcome: checked, joined, and stored in place of an older leaf of this client there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage, OutstandingKeyPackages
from mimi_mmr.client.rooms.delivery import CommitDelivery
from mimi_mmr.client.rooms.membership import MAX_PROBLEMS, Membership, Place
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.own_devices import OwnLeaves
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.client.rooms.repair import RoomRepair
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.client.storage.history import History
from mimi_mmr.client.storage.sent import SentMessages
from mimi_mmr.client.transport.read_queues import ReadQueue, ReadQueues
from mimi_mmr.errors import RoomError, WelcomeRejected
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.room import Room
from mimi_mmr.member.whois import Standing
from mimi_mmr.protocol.room.departures import sign_departure
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
        delivery: CommitDelivery,
        roster: Roster,
        own_leaves: OwnLeaves,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._read_queues = read_queues
        self._outstanding = outstanding
        self._reading = reading
        self._repair = repair
        self._delivery = delivery
        self._roster = roster
        self._own_leaves = own_leaves
        self.place_checks: list[Callable[[OutstandingKeyPackage, Room], None]] = []
        self.placed: list[Callable[[OutstandingKeyPackage, MimiUri], None]] = []

    # --- joining -------------------------------------------------------------------------------------

    async def join(self, invitation: Invitation) -> Room:
        """Join by a Welcome; nothing is stored yet.

        Whatever the way into the room, the Welcome comes with a proof by somebody who has the KeyPackage's identity
        link key: see `welcome_proofs`. It is checked before the hub is asked for anything.

        Raises `WelcomeRejected` without such a proof, `MmrError` if the Welcome is invalid for another reason, or
        the hub can't be reached.
        """
        item, fanout = invitation.item, invitation.fanout
        package = item.package
        event = WelcomeEvent.from_bytes(fanout.event)
        event.check_proof(package.ref, package.welcome_key)
        epoch = event.auth.content.epoch + 1
        room = Room.join(package, event, await self._repair.snapshot(fanout.room, epoch, package.leaf))
        self._check_place(item, room)
        for check in self.place_checks:
            check(item, room)
        await self._check_own_commit(item, event)
        await self._check_continuity(item, room, event.auth.content.sender)
        return room

    def _check_place(self, item: OutstandingKeyPackage, room: Room) -> None:
        """Check that the KeyPackage may be used for this room, and that this client is not in the room already."""
        if item.room not in (None, room.uri):
            raise RoomError("a KeyPackage that was made for one room was used for another")
        present = self._memberships.find(room.uri)
        if present is not None and present.usable and item.room is None:
            raise RoomError("an invitation to a room that this client is in")

    async def _check_own_commit(self, item: OutstandingKeyPackage, event: WelcomeEvent) -> None:
        """Refuse a Welcome of any other commit than this client's own, where this client itself adds its new leaf.

        If the hub's answer to that commit was lost, it is asked for first.
        """
        if item.own_commit is None:
            return
        present = self._memberships.find(item.room)
        if present is not None and not item.own_commit:
            async with present.lock:
                await self._delivery.settle(present)
        if item.own_commit != event.auth.content.commit_hash:
            raise WelcomeRejected("the Welcome for this client's new leaf is not of this client's own commit")

    async def _check_continuity(self, item: OutstandingKeyPackage, room: Room, adder: int) -> None:
        """Refuse another room in the place of one that this client is in, or lost track of.

        The hub can make any client lose track. It and a member, or a contact, could together put another room in
        that one's place. So a client that lost track follows a Welcome only of a member it knew there. While it
        follows the room, only this user's own leaf there adds it, in no earlier epoch, with no lower role, and
        names are shown as before.

        A leaf that this client got there all the same, and does not use, is noted as one that departs.
        """
        present = self._memberships.find(room.uri)
        if present is None or present.removed:
            return
        if item.room is None:
            if not present.room.knows(room, adder):
                raise WelcomeRejected(
                    "an invitation to a room that this client is in, by somebody who was not"
                )
            return
        if not present.usable:
            return
        if not self._is_own_leaf(present, room, adder):
            await self._reading.read_all(present)  # it may be a leaf that this client has not read of yet
            if not present.usable:
                return
        try:
            self._check_move(present, room, adder)
        except WelcomeRejected:
            await self._reading.read_all(present)
            self._depart_unused(present, item.package.leaf)
            raise

    def _check_move(self, present: Membership, room: Room, adder: int) -> None:
        """Check that this client, which follows a room, may go on there with the leaf that a Welcome gives it."""
        if not self._is_own_leaf(present, room, adder):
            raise WelcomeRejected("a Welcome to a room that this client is in, not by a leaf of this user")
        if room.epoch < present.room.epoch:
            raise WelcomeRejected("a Welcome to an earlier epoch of a room that this client is in")
        policy = room.policy.policy
        if policy.identities is not present.room.policy.policy.identities:
            raise WelcomeRejected(
                "a Welcome to a room that shows identities in another way than this client knows"
            )
        new = room.members.user(room.own_leaf) or present.pseudonym
        if policy.role(new) < policy.role(present.pseudonym):
            raise WelcomeRejected("a Welcome to a room that this client is in, with a lower role than it has")

    def _depart_unused(self, present: Membership, leaf: PreparedLeaf) -> None:
        """Note the departure of a leaf of this client in a room that it follows with another one."""
        client = leaf.identity.credential.client_pseudonym
        if present.usable and client in present.room.members.by_client:
            with self._memberships.changing(present):
                present.add_departure(sign_departure(present.uri, client, leaf.key))
                self._memberships.save(present)

    def _is_own_leaf(self, present: Membership, room: Room, adder: int) -> bool:
        members = present.room.members
        own = {members.signature_key(leaf) for leaf in self._own_leaves.leaves(present)}
        return room.members.signature_key(adder) in own

    def _tell_who_invited(self, invitation: Invitation, room: Room) -> list[str]:
        """Compare the member that added this client with the contact that the KeyPackage was made for.

        Returns a problem if somebody else is seen to have used it. Where the adder's name is hidden, the Welcome's
        proof says that the contact used it or gave it on: the user is told through whom the invitation came.
        """
        item, adder = invitation.item, WelcomeEvent.from_bytes(invitation.fanout.event).auth.content.sender
        if item.user is None or item.user == self._context.user:
            return []
        try:
            who = self._roster.whois(room, adder)
        except RoomError as error:
            return [f"somebody used an invitation that this client had made for {item.user}: {error}"]
        if who.standing is Standing.HIDDEN:
            self._context.notify(f"invited to the room {room.uri} through your contact {item.user}")
            return []
        if who.member is not None and who.member.device.user == item.user:
            return []
        name = str(who.member.device.user) if who.member else f"somebody who is not verified ({who.why})"
        return [f"leaf {adder}: {name} used an invitation that this client had made for {item.user}"]

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
            problems += self._tell_who_invited(invitation, room)
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
