"""Messages to all members of a room, for people or for their clients."""

from __future__ import annotations

from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.delivery import CommitDelivery, raise_refusal
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.reading import HISTORY, Reading
from mimi_mmr.errors import RoomError, WrongEpoch
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.endpoints import SUBMIT_MESSAGE

ATTEMPTS = 8
WAIT_SECONDS = 5.0


class Sending:
    """The sending of messages in this client's rooms."""

    def __init__(self, context: Context, delivery: CommitDelivery, reading: Reading) -> None:
        self._context = context
        self._delivery = delivery
        self._reading = reading

    async def send(self, membership: Membership, content: Content | str) -> None:
        """Send a message to the room; it is encrypted again if a commit was accepted meanwhile."""
        content = Content.text(content) if isinstance(content, str) else content
        room = membership.uri
        for _ in range(ATTEMPTS):
            async with membership.lock:
                await self._delivery.settle(membership)
                request = membership.room.encrypt(content)
                answer = await self._context.path.ask(SUBMIT_MESSAGE, room.domain, request, room=room.name)
            try:
                raise_refusal(answer)
            except WrongEpoch:
                await self._reading.sync(membership, wait=WAIT_SECONDS)
            else:
                self._remember_own(membership, content)
                return
        raise RoomError(f"the room moved on {ATTEMPTS} times while a message was being sent")

    def _remember_own(self, membership: Membership, content: Content) -> None:
        if content.kind in HISTORY:
            now, room = self._context.clock(), membership.room
            me = room.whois(room.own_leaf, self._context.trust, now)
            membership.messages.append(me, content, int(now), own=True)
