"""The delivery of this client's own commits to hubs: sent until there is an answer, then accepted or rejected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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
from mimi_mmr.protocol.room.requests import UpdateCode, UpdateRequest, UpdateRoomResponse

ATTEMPTS = 4
RETRY_SECONDS = 0.5


class CommitDelivery:
    """The part that sends a commit to its hub, and by the answer moves to the next epoch or drops the commit.

    The wiring sets the listeners in `accepted`, which get each own commit that the hub has accepted.
    """

    def __init__(self, context: Context, memberships: Memberships) -> None:
        self._context = context
        self._memberships = memberships
        self.accepted: list[Callable[[UpdateRequest], None]] = []

    async def settle(self, membership: Membership) -> bool:
        """Get the hub's answer to a pending commit; return True if it was accepted, or if none was pending.

        Without an answer the commit stays pending, and is sent again before anything else, since the hub may have
        accepted it.
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
            membership.sent.note_new_epoch()
            self._memberships.save(membership)
        for listener in self.accepted:
            listener(pending.request)
        return True

    async def try_to_settle(self, membership: Membership) -> None:
        """Settle a pending commit before reading, if that is possible now; a failure does not stop the reading."""
        try:
            await self.settle(membership)
        except (PrivatePathFailed, PeerError):
            return
        except StateError:
            raise
        except MmrError as error:
            membership.note(f"a commit of this client's was refused: {error}")

    async def send(self, membership: Membership, pending: PendingCommit) -> None:
        """Send a commit. If the answer is lost, send the same bytes again: a hub that accepted it recognises it."""
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
    """Raise the hub's error, unless it accepted the commit."""
    if answer.code is UpdateCode.SUCCESS:
        return
    if answer.code is UpdateCode.WRONG_EPOCH:
        raise WrongEpoch(answer.number)
    error = from_code(answer.error_code, answer.error_description)
    # A refusal for an unknown reason is an answer, too: a `PeerError` would mean that there was none.
    raise HubRefusal(str(error)) if isinstance(error, PeerError) else error
