"""The repair of a room: reports to the hub, reopening, and taking over the hub's tree."""

from __future__ import annotations

from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.errors import MmrError, WrongEpoch
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.protocol.endpoints import REPORT_COMMIT, SNAPSHOT
from mimi_mmr.protocol.room.requests import RepairKind, Snapshot, SnapshotTBS, sign_snapshot
from mimi_mmr.uris import MimiUri

CLOCK_STEP = 300  # seconds; an exact time would show this clock's error, and so identify the sender


class RoomRepair:
    """The requests to hubs that repair a room."""

    def __init__(self, context: Context, memberships: Memberships) -> None:
        self._context = context
        self._memberships = memberships

    async def report(self, membership: Membership) -> None:
        """Tell the hub that a commit can't be processed; an error that it answers is noted as a problem."""
        try:
            await self._send(membership, RepairKind.CANNOT_PROCESS)
        except MmrError as error:
            membership.note(f"the hub did not take the report of a commit: {error}")

    async def reopen(self, membership: Membership) -> None:
        """Have the hub undo the commit that can't be processed, as an admin; raises the hub's error.

        If the hub is in the epoch before already, an earlier order was carried out and its answer was lost.
        """
        try:
            await self._send(membership, RepairKind.REOPEN)
        except WrongEpoch as error:
            if error.current_epoch != membership.room.epoch:
                raise

    async def _send(self, membership: Membership, kind: RepairKind) -> None:
        room = membership.uri
        report = membership.room.report(membership.place.unprocessed or b"", kind)
        await self._context.path.ask(REPORT_COMMIT, room.domain, report, room=room.name)

    async def reconcile(self, membership: Membership) -> None:
        """Take over the hub's tree, if it is valid: a committer gave the hub another tree than the members."""
        room = membership.room
        try:
            room.adopt(await self.snapshot(room.uri, room.epoch, membership.leaf))
        except MmrError as error:
            membership.note(f"the hub's tree is not this member's, and stays so until a commit: {error}")
        with self._memberships.changing(membership):
            self._memberships.save(membership)

    async def snapshot(self, room: MimiUri, epoch: int, leaf: PreparedLeaf) -> Snapshot:
        """Fetch trees, policy and members-only state of an epoch, with the credential of a leaf in that epoch."""
        tbs = SnapshotTBS(room, epoch, leaf.key.public, self._context.rounded(CLOCK_STEP))
        request = sign_snapshot(tbs, leaf.key)
        return await self._context.path.ask(SNAPSHOT, room.domain, request, room=room.name)
