"""This client's own commits on their way to hubs: sent until there is an answer, and settled by it."""

from __future__ import annotations

import asyncio

from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.errors import (
    HubRefusal,
    MmrError,
    PeerError,
    PrivatePathFailed,
    StateError,
    WrongEpoch,
    from_code,
)
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.protocol.endpoints import UPDATE_ROOM
from mimi_mmr.protocol.room.requests import UpdateCode, UpdateRoomResponse

ATTEMPTS = 4
RETRY_SECONDS = 0.5


class CommitDelivery:
    """The way of a commit to its hub, and what its answer does: the next epoch, or the room as it was."""

    def __init__(self, context: Context, memberships: Memberships) -> None:
        self._context = context
        self._memberships = memberships

    async def settle(self, membership: Membership) -> bool:
        """Have the hub's answer to a commit that is on its way; whether it was accepted, or there was none.

        While there is no answer the commit stays on its way, and is sent again before anything else is done: the
        hub may have accepted it.
        """
        pending = membership.place.pending
        if pending is None:
            return True
        try:
            await self.send(membership, pending)
        except (PrivatePathFailed, PeerError):
            raise
        except MmrError as error:
            with self._memberships.changing(membership):
                membership.set_pending(None)
                pending.reject()
                self._memberships.save(membership)
            if isinstance(error, WrongEpoch):
                return False
            raise
        with self._memberships.changing(membership):
            membership.set_pending(None)
            pending.accept()
            self._memberships.save(membership)
        return True

    async def try_to_settle(self, membership: Membership) -> None:
        """Settle before reading, if it can be done now; if not, that is no reason to read nothing."""
        try:
            await self.settle(membership)
        except (PrivatePathFailed, PeerError):
            return
        except StateError:
            raise
        except MmrError as error:
            membership.note(f"a commit of this client's was refused: {error}")

    async def send(self, membership: Membership, pending: PendingCommit) -> None:
        """Send a commit. When the answer is lost the very same is sent again: the hub knows it if it took it."""
        room = membership.uri
        for attempt in range(ATTEMPTS):
            try:
                answer = await self._context.path.ask(
                    UPDATE_ROOM, room.domain, pending.request, room=room.name
                )
                break
            except (PrivatePathFailed, PeerError):
                if attempt == ATTEMPTS - 1:
                    raise
                await asyncio.sleep(RETRY_SECONDS * 2**attempt)
        raise_refusal(answer)


def raise_refusal(answer: UpdateRoomResponse) -> None:
    """Raise what the hub said, unless it accepted."""
    if answer.code is UpdateCode.SUCCESS:
        return
    if answer.code is UpdateCode.WRONG_EPOCH:
        raise WrongEpoch(answer.number)
    error = from_code(answer.error_code, answer.error_description)
    # An answer is an answer, also for a reason that is unknown here: a `PeerError` would say that there was none.
    raise HubRefusal(str(error)) if isinstance(error, PeerError) else error
