"""Changes of a room: commits are tried until the hub has accepted one that fulfils the intent."""

from __future__ import annotations

from dataclasses import replace

from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.delivery import CommitDelivery
from mimi_mmr.client.rooms.membership import Membership, Occurrence
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.reading import Reading
from mimi_mmr.client.rooms.repair import RoomRepair
from mimi_mmr.errors import RoomError
from mimi_mmr.member.intent import CommitIntent

ATTEMPTS = 8
WAIT_SECONDS = 5.0
HEAL = CommitIntent()  # changes nothing but the keys on this leaf's path
NO_LINKS = CommitIntent(state=lambda state: replace(state, links=()))


class Commits:
    """The making of commits in this client's rooms."""

    def __init__(
        self,
        context: Context,
        memberships: Memberships,
        delivery: CommitDelivery,
        reading: Reading,
        repair: RoomRepair,
    ) -> None:
        self._context = context
        self._memberships = memberships
        self._delivery = delivery
        self._reading = reading
        self._repair = repair

    async def commit(self, membership: Membership, intent: CommitIntent = HEAL) -> bool:
        """Commit an intent.

        If another commit came first, follow that one, and try again with what is still to be done. Returns False if
        nothing was left to be done, because another member's commit has done it.

        Raises `RoomError` while the hub has a commit that this member can't process, and `NotYet` for a KeyPackage
        that is not valid yet by this device's clock.
        """
        for _ in range(ATTEMPTS):
            async with membership.lock:
                if membership.blocked:
                    raise RoomError(membership.state.value)
                await self._delivery.settle(membership)
                due = intent.due(membership.room.members)
                if due is None:
                    return False
                with self._memberships.changing(membership):
                    membership.set_pending(membership.room.stage(due, self._context.clock()))
                    self._memberships.save(membership)
                if await self._delivery.settle(membership):
                    return True
            await self._reading.sync(membership, wait=WAIT_SECONDS)
        raise RoomError(f"{ATTEMPTS} commits in a row lost to others'")

    async def settle(self, membership: Membership) -> bool:
        """Get the hub's answer to a pending commit; return False if another commit came first."""
        async with membership.lock:
            return await self._delivery.settle(membership)

    async def catch_up(self, membership: Membership) -> None:
        """Get the outcome of a pending commit, before a decision that depends on the members."""
        if not await self.settle(membership):
            await self._reading.sync(membership)

    async def reopen(self, membership: Membership) -> None:
        """Have the hub undo the last commit, as an admin, since members can't process it; then heal.

        The hub ends the room's join links with it, so the next commit takes them out of the members-only state.

        Raises `RoomError` if this member could process it, and what the hub says.
        """
        if not membership.blocked:
            raise RoomError("there is no commit that this member could not process")
        async with membership.lock:
            await self._repair.reopen(membership)
            with self._memberships.changing(membership):
                membership.occurred(Occurrence.COMMIT_UNDONE)
                self._memberships.save(membership)
        await self.commit(membership, NO_LINKS if membership.room.members_only.state.links else HEAL)
