"""Messages to all members of a room, for people or for their clients."""

from __future__ import annotations

from collections.abc import Callable

from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.delivery import CommitDelivery, raise_refusal
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.reading import HISTORY, Reading
from mimi_mmr.errors import Desynchronised, OlderCopy, RoomError, WrongEpoch
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.endpoints import SUBMIT_MESSAGE
from mimi_mmr.protocol.room.requests import SubmitMessageRequest

ATTEMPTS = 8
WAIT_SECONDS = 5.0


class Sending:
    """The sending of messages in this client's rooms."""

    def __init__(self, context: Context, delivery: CommitDelivery, reading: Reading) -> None:
        self._context = context
        self._delivery = delivery
        self._reading = reading

    async def send(
        self,
        membership: Membership,
        content: Content | str,
        before_encrypting: Callable[[Room], None] | None = None,
    ) -> None:
        """Send a message to the room; it is encrypted again if a commit was accepted meanwhile.

        Before the first message after a start the room's queue is read to its end. Raises `OlderCopy` if that shows
        that a newer copy of the vault was used here: members would drop a message whose key was used before.
        `before_encrypting` may raise, so that nothing is sent to the members of an epoch.
        """
        content = Content.text(content) if isinstance(content, str) else content
        room, current = membership.uri, 0
        if not membership.queue.read_at:
            await self._reading.read_all(membership)
        for _ in range(ATTEMPTS):
            async with membership.lock:
                await self._delivery.settle(membership)
                if before_encrypting is not None:
                    before_encrypting(membership.room)
                request = self._encrypted(membership, content)
                answer = await self._context.path.ask(SUBMIT_MESSAGE, room.domain, request, room=room.name)
            try:
                raise_refusal(answer)
            except WrongEpoch as error:
                current = error.current_epoch
                await self._reading.sync(membership, wait=WAIT_SECONDS)
            else:
                self._remember_own(membership, content)
                return
        if current > membership.room.epoch:
            raise Desynchronised(
                f"the room is in epoch {current}, and no commit that leads there from epoch {membership.room.epoch}"
                " has come to this device"
            )
        raise RoomError(f"the room moved on {ATTEMPTS} times while a message was being sent")

    def _encrypted(self, membership: Membership, content: Content) -> SubmitMessageRequest:
        if membership.older_copy:
            raise OlderCopy(
                "nothing was sent: the state of this device is an older copy, and a newer one was used in this room"
            )
        with self._context.vault.transaction():
            request = membership.room.encrypt(content)
            membership.sent.add(request.content.message_hash, membership.room.epoch)
        return request

    def _remember_own(self, membership: Membership, content: Content) -> None:
        if content.kind in HISTORY:
            now, room = self._context.clock(), membership.room
            me = room.whois(room.own_leaf, self._context.trust, now)
            membership.messages.append(me, content, int(now), own=True)
