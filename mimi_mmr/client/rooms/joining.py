"""Coming into rooms: queues of KeyPackages that are out, and the Welcomes that come there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from mimi_mmr.client.key_packages.shelves import Inbox, Waiting
from mimi_mmr.client.rooms.rooms import Joined, Rooms
from mimi_mmr.errors import (
    EngineError,
    MmrError,
    ParseError,
    PeerError,
    PrivatePathFailed,
    RoomError,
    UnknownQueue,
)
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.queues import QueuePage
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage, WelcomeEvent
from mimi_mmr.uris import MimiUri

LAST_RESORT_WELCOMES = 16
JOIN_SECONDS = 30.0
LONGEST_PAUSE = 3600.0


@dataclass(frozen=True, slots=True)
class Invitation:
    """A Welcome for a KeyPackage that is out."""

    waiting: Waiting
    fanout: FanoutMessage
    sequence: int


class Joining(Rooms):
    """A client's way into rooms that others add it to."""

    def _open_joining(self) -> None:
        self._looking = asyncio.Lock()

    async def check_invitations(self, wait: float = 0.0) -> list[Joined]:
        """Look into the queues of KeyPackages that are out, and join what they were used for.

        Waits up to `wait` seconds, or until one of them was used.
        """
        async with self._looking:
            await self._before_looking()
            joined = await self._join_all(await self._look_into(self._due(), 0.0))
            if joined or not wait:
                return joined
            # whose hub can't be reached is asked again at a later look, and keeps nobody waiting
            quiet = [waiting for waiting in self._waiting.values() if not waiting.failures]
            return await self._join_all(await self._look_into(quiet, wait))

    def _due(self) -> list[Waiting]:
        """Where to look now: an invitation that failed is left alone for ever longer."""
        now = asyncio.get_running_loop().time()
        return [waiting for waiting in self._waiting.values() if waiting.not_before <= now]

    async def _before_looking(self) -> None:
        """What is due from an earlier look; for the floors above."""

    async def _look_into(self, queues: Sequence[Waiting], wait: float) -> list[Invitation]:
        looks = {asyncio.create_task(self._look(waiting, wait)) for waiting in queues}
        used: list[Invitation] = []
        until = asyncio.FIRST_COMPLETED if wait else asyncio.ALL_COMPLETED
        try:
            while looks and not used:
                done, looks = await asyncio.wait(looks, return_when=until)
                used += [found for look in done for found in look.result()]
        finally:
            for look in looks:  # nothing is lost: what they would have seen is there for the next look
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)
        return used

    async def _look(self, waiting: Waiting, wait: float) -> list[Invitation]:
        """A Welcome is acknowledged when it has been followed; anything else in this queue is not for us yet.

        Of a last resort every Welcome counts: it is joined with as often as it was used.
        """
        inbox = waiting.inbox
        try:
            page = await self._queues.collect(inbox.token, inbox.acknowledged, wait)
        except UnknownQueue:
            self._no_longer_wait(waiting)  # the provider has forgotten it: nobody can reach us there
            return []
        found = self._welcomes(waiting, page)
        return found[: LAST_RESORT_WELCOMES if waiting.last_resort else 1]

    def _welcomes(self, waiting: Waiting, page: QueuePage) -> list[Invitation]:
        found = []
        for queued in page.messages:
            try:
                fanout = FanoutMessage.from_bytes(queued.message)
            except ParseError as error:
                self.refused.append(f"an event that can't be read: {error}")
            else:
                if fanout.kind is EventKind.WELCOME:
                    found.append(Invitation(waiting, fanout, queued.sequence))
            if not found:
                waiting.inbox.acknowledged = queued.sequence
        return found

    async def _join_all(self, used: Sequence[Invitation]) -> list[Joined]:
        """Join all before any is stored: the engine joins several rooms with one KeyPackage only until then."""
        rooms = await asyncio.gather(*(self._try_to_join(invitation) for invitation in used))
        entered = []
        for invitation, room in zip(used, rooms, strict=True):
            if room is not None:
                entered.append((invitation, await self._take_place(invitation, room)))
        for invitation, joined in entered:
            try:
                await self._arrived(invitation, joined)
                await self.sync(joined)
            except MmrError as error:  # one room's trouble is not another's; `sync` comes again
                joined.problems.append(f"on arrival: {error}")
        return [joined for _, joined in entered]

    async def _try_to_join(self, invitation: Invitation) -> Room | None:
        """Join. What can't be reached now is tried again at the next look; what is no good is passed over.

        The KeyPackage stays out in both cases: a worthless Welcome must not cost us the one that is meant.
        """
        waiting = invitation.waiting
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                return await self._join(waiting, invitation.fanout)
        except (PrivatePathFailed, PeerError, TimeoutError) as error:
            self._later(waiting, error)
        except MmrError as error:
            await self._could_not_join(invitation, error)
        return None

    def _later(self, waiting: Waiting, error: Exception) -> None:
        """Look again: at the next look first, then after ever longer times."""
        self.refused.append(f"invitation, to be tried again: {error or 'no answer in time'}")
        waiting.failures += 1
        pause = 0.0 if waiting.failures == 1 else min(2.0**waiting.failures, LONGEST_PAUSE)
        waiting.not_before = asyncio.get_running_loop().time() + pause

    async def _could_not_join(self, invitation: Invitation, error: MmrError) -> None:
        waiting = invitation.waiting
        try:
            if not (waiting.dead and isinstance(error, EngineError)):
                raise error
            await self._ask_again(waiting, invitation.fanout)
        except (PrivatePathFailed, PeerError) as failure:
            self._later(waiting, failure)
            return
        except MmrError as failure:
            self.refused.append(f"invitation: {failure}")
        waiting.inbox.acknowledged = max(waiting.inbox.acknowledged, invitation.sequence)
        self._keep_inbox(waiting.inbox)

    async def _ask_again(self, waiting: Waiting, fanout: FanoutMessage) -> None:
        """Somebody added us with a KeyPackage whose keys are lost; for the floors above."""
        self.refused.append("invitation: for a KeyPackage whose private keys this client no longer has")

    async def _join(self, waiting: Waiting, fanout: FanoutMessage) -> Room:
        leaf = waiting.package.leaf
        event = WelcomeEvent.from_bytes(fanout.event)
        epoch = event.auth.content.epoch + 1
        room = Room.join(leaf, event, await self._snapshot(fanout.room, epoch, leaf))
        self._check_place(waiting, room)
        self._check_continuity(waiting, room, event.auth.content.sender)
        return room

    def _check_place(self, waiting: Waiting, room: Room) -> None:
        """Whether this is a room that the KeyPackage was meant for, and not one where this client is already."""
        if waiting.room not in (None, room.uri):
            raise RoomError("a KeyPackage that was made for one room was used for another")
        present = self.rooms.get(room.uri)
        lives = present is not None and not (present.room.removed or present.desynchronised)
        if lives and waiting.room is None:
            raise RoomError("an invitation to a room that this client is in")

    def _check_continuity(self, waiting: Waiting, room: Room, adder: int) -> None:
        """A room that this client lost track of is gone on with at the word of somebody whom it knows from there.

        Or its hub, who can make anybody lose track, and a contact could put another room in its place.
        """
        present = self.rooms.get(room.uri)
        if present is None or present.room.removed or waiting.room is not None:
            return
        if not present.room.knows(room, adder):
            raise RoomError("an invitation to a room that this client is in, by somebody who was not")

    async def _take_place(self, invitation: Invitation, room: Room) -> Joined:
        """The room is this client's from now on: stored, in place of a leaf that it may have had there."""
        present = self.rooms.get(room.uri)
        if present is None:
            return self._first_place(invitation, room)
        if not (present.room.removed or present.desynchronised):
            await self._drain(present)
        old = present.leaf, present.inbox
        async with present.lock:
            self._replace(present, invitation, room)
        await self._leave_place(*old)
        return present

    async def _drain(self, joined: Joined) -> None:
        """What is in an old leaf's queue can be read by the old leaf only."""
        while await self.sync(joined):
            pass

    def _replace(self, joined: Joined, invitation: Invitation, room: Room) -> None:
        waiting = invitation.waiting
        waiting.used += 1
        waiting.inbox.acknowledged = max(waiting.inbox.acknowledged, invitation.sequence)
        with self._changing(joined):
            self._no_longer_wait(waiting)
            self._placed(waiting, joined.uri)
            if joined.unanswered is not None:
                joined.unanswered.reject()
            joined.room, joined.leaf, joined.inbox = room, waiting.package.leaf, waiting.inbox
            joined.last_sequence = invitation.fanout.sequence
            joined.rotate = joined.desynchronised = False
            joined.last_resort = waiting.last_resort
            joined.kept = joined.unprocessed = joined.unanswered = None
            self._keep_inbox(joined.inbox)
            self._keep(joined)

    async def _leave_place(self, leaf: PreparedLeaf, inbox: Inbox) -> None:
        with self.vault.transaction():
            self._drop_leaf(leaf)
        if not any(other.inbox is inbox for other in self.rooms.values()):
            await self._drop_inbox(inbox)

    def _first_place(self, invitation: Invitation, room: Room) -> Joined:
        waiting = invitation.waiting
        waiting.used += 1
        if (
            waiting.used == 1
        ):  # after a further Welcome of a last resort there may be events of the first's room
            waiting.inbox.acknowledged = max(waiting.inbox.acknowledged, invitation.sequence)
        with self.vault.transaction():
            self._no_longer_wait(waiting)
            self._placed(waiting, room.uri)
            joined = self._enter(room, waiting.package.leaf, waiting.inbox)
            joined.last_sequence = invitation.fanout.sequence
            joined.problems += [f"leaf {at}: {problem}" for at, problem in room.problems.items()]
            joined.rotate, joined.invited_by = waiting.reused, waiting.user
            joined.last_resort = waiting.last_resort
            for other in self.rooms.values():
                # One leaf in two rooms links them for whoever sees both: see `change_pseudonym`.
                shared = other is not joined and other.inbox is joined.inbox
                other.rotate |= shared
                joined.rotate |= shared
                if shared:
                    self._keep(other)
            self._keep(joined)
        return joined

    def _placed(self, waiting: Waiting, room: MimiUri) -> None:
        """What goes into the vault together with a room that one came into; for the floors above."""

    async def _arrived(self, invitation: Invitation, joined: Joined) -> None:
        """This client has come into a room by a Welcome; for the floors above."""
        await self._entered(joined)

    def _room_of(self, uri: MimiUri | None) -> Joined | None:
        return self.rooms.get(uri) if uri is not None else None
