"""Invitations: the Welcomes in the queues of outstanding KeyPackages, and when to look for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage, OutstandingKeyPackages
from mimi_mmr.client.rooms.joining import Invitation, Joining
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.own_devices import own_rank
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.client.transport.read_queues import ReadQueues
from mimi_mmr.errors import (
    EngineError,
    MmrError,
    ParseError,
    PeerError,
    PrivatePathFailed,
    RoomError,
    UnknownQueue,
    WelcomeRejected,
)
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.queues import QueuePage
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.uris import MimiUri

LAST_RESORT_WELCOMES = 16
JOIN_SECONDS = 30.0
LONGEST_PAUSE = 3600.0
NOTHING_SECONDS = 0.5


class Invitations:
    """The Welcomes for this client's KeyPackages.

    The wiring sets the listeners. `before_looking` run before each look. `arrived` run for each joined room, once
    it is stored. `keys_lost` run for a Welcome whose private keys were lost with an ended process, one after the
    other, until one returns True.
    """

    def __init__(
        self,
        context: Context,
        queues: Queues,
        read_queues: ReadQueues,
        outstanding: OutstandingKeyPackages,
        joining: Joining,
        reading: Reading,
    ) -> None:
        self._context = context
        self._queues = queues
        self._read_queues = read_queues
        self._outstanding = outstanding
        self._joining = joining
        self._reading = reading
        self.looking = asyncio.Lock()  # no Welcome is followed while a task holds this lock
        self.before_looking: list[Callable[[], Awaitable[None]]] = []
        self.arrived: list[Callable[[Membership], Awaitable[None]]] = []
        self.keys_lost: list[Callable[[OutstandingKeyPackage, FanoutMessage], Awaitable[bool]]] = []

    async def check(self, wait: float = 0.0) -> list[Membership]:
        """Look into the queues of outstanding KeyPackages, and join the rooms that they were used for.

        Waits up to `wait` seconds, or until one of them was used; a moment if none is outstanding, so that whoever
        calls this again and again does not keep the processor busy.
        """
        async with self.looking:
            for listener in self.before_looking:
                await listener()
            joined = await self._join_all(await self._look_into(self._due(), 0.0))
            if joined or not wait:
                return joined
            # an invitation whose hub can't be reached is tried again at a later look, and delays no other
            quiet = [item for item in self._outstanding if not item.failures]
            if quiet:
                return await self._join_all(await self._look_into(quiet, wait))
        await asyncio.sleep(min(wait, NOTHING_SECONDS))
        return []

    # --- looking -------------------------------------------------------------------------------------

    def _due(self) -> list[OutstandingKeyPackage]:
        """Return the KeyPackages to look for now; the pause after a failed invitation grows with each failure."""
        now = asyncio.get_running_loop().time()
        return [item for item in self._outstanding if item.not_before <= now]

    async def _look_into(self, items: Sequence[OutstandingKeyPackage], wait: float) -> list[Invitation]:
        looks = {asyncio.create_task(self.look(item, wait)) for item in items}
        used: list[Invitation] = []
        until = asyncio.FIRST_COMPLETED if wait else asyncio.ALL_COMPLETED
        try:
            while looks and not used:
                done, looks = await asyncio.wait(looks, return_when=until)
                used += [found for look in done for found in look.result()]
        finally:
            for look in looks:  # nothing is lost: the next look finds what these would have found
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)
        return used

    async def look(self, item: OutstandingKeyPackage, wait: float) -> list[Invitation]:
        """Look into the queue of one KeyPackage.

        A Welcome is acknowledged when it has been followed; other events in this queue can't be used yet. A last
        resort joins a room for every Welcome.
        """
        queue = item.queue
        try:
            page = await self._queues.collect(queue.token, queue.acknowledged, wait)
        except UnknownQueue:
            self._outstanding.unwatch(item)  # the provider has deleted the queue: no Welcome can arrive there
            return []
        found = self._welcomes(item, page)
        return found[: LAST_RESORT_WELCOMES if item.last_resort else 1]

    def _welcomes(self, item: OutstandingKeyPackage, page: QueuePage) -> list[Invitation]:
        found = []
        for queued in page.messages:
            try:
                fanout = FanoutMessage.from_bytes(queued.message)
            except ParseError as error:
                self._context.refusals.add("an event that can't be read", error)
            else:
                if fanout.kind is EventKind.WELCOME:
                    found.append(Invitation(item, fanout, queued.sequence))
            if not found:
                item.queue.acknowledge(queued.sequence)
        return found

    # --- joining -------------------------------------------------------------------------------------

    async def _join_all(self, used: Sequence[Invitation]) -> list[Membership]:
        """Join all rooms before any is stored: after that the MLS engine can't use the KeyPackage again.

        Of several places in one room this client takes the one that its user keeps. The next look finds the others.
        """
        rooms = _one_place_each(await asyncio.gather(*(self._try_to_join(invitation) for invitation in used)))
        joined = [
            await self._joining.take_place(invitation, room)
            for invitation, room in zip(used, rooms, strict=True)
            if room is not None
        ]
        for membership in joined:
            try:
                for listener in self.arrived:
                    await listener(membership)
                await self._reading.sync(membership)
            except MmrError as error:  # does not stop the other rooms; a later `sync` tries again
                membership.note(f"on arrival: {error}")
        return joined

    async def _try_to_join(self, invitation: Invitation) -> Room | None:
        """Join a room. If its hub can't be reached, a later look tries again; an invalid Welcome is skipped.

        The KeyPackage stays outstanding in both cases: an invalid Welcome must not prevent the real one.
        """
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                return await self._joining.join(invitation)
        except (PrivatePathFailed, PeerError) as error:
            self._try_later(invitation.item, error)
        except TimeoutError:
            self._try_later(invitation.item, PeerError("no answer in time"))
        except MmrError as error:
            await self._could_not_join(invitation, error)
        return None

    def _try_later(self, item: OutstandingKeyPackage, error: MmrError) -> None:
        """Schedule another look: the first time at the next look, then after growing pauses."""
        self._context.refusals.add("invitation, to be tried again", error)
        item.failures += 1
        pause = 0.0 if item.failures == 1 else min(2.0**item.failures, LONGEST_PAUSE)
        item.not_before = asyncio.get_running_loop().time() + pause

    async def _could_not_join(self, invitation: Invitation, error: MmrError) -> None:
        item = invitation.item
        try:
            old = isinstance(error, WelcomeRejected) and item.before_proofs  # to be asked for again
            if not (item.keys_are_lost and (isinstance(error, EngineError) or old)):
                raise error
            await self._deal_with_lost_keys(item, invitation.fanout)
        except (PrivatePathFailed, PeerError) as failure:
            self._try_later(item, failure)
            return
        except MmrError as failure:
            self._context.refusals.add("invitation", failure)
        item.queue.acknowledge(invitation.sequence)
        self._read_queues.save(item.queue)

    async def _deal_with_lost_keys(self, item: OutstandingKeyPackage, fanout: FanoutMessage) -> None:
        for listener in self.keys_lost:
            if await listener(item, fanout):
                return
        raise RoomError("for a KeyPackage whose private keys this client no longer has")


def _one_place_each(rooms: Sequence[Room | None]) -> list[Room | None]:
    """Return None in the place of each room that is another place in the same room, of a lower rank."""
    best: dict[MimiUri, Room] = {}
    for room in rooms:
        if room is not None and (room.uri not in best or own_rank(room) > own_rank(best[room.uri])):
            best[room.uri] = room
    return [room if room is not None and best[room.uri] is room else None for room in rooms]
