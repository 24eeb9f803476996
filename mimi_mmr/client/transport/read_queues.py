"""How far this client has read each of its queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mimi_mmr.client.context import Context
from mimi_mmr.client.storage.records import SavedReadQueue
from mimi_mmr.client.transport.errands import Errand, Errands
from mimi_mmr.crypto.secret import AccessToken


class Position(NamedTuple):
    """The last message that was read, and how many the provider could not keep."""

    acknowledged: int = 0
    lost: int = 0


class ReadQueue:
    """A queue as its reader knows it. Rooms that share a leaf share one of these objects."""

    __slots__ = ("position", "token")

    def __init__(self, token: AccessToken, position: Position | None = None) -> None:
        """Start at the beginning of the queue, unless `position` says otherwise."""
        self.token = token
        self.position = position or Position()

    @property
    def acknowledged(self) -> int:
        """How far it was read."""
        return self.position.acknowledged

    def acknowledge(self, sequence: int) -> None:
        """Note that it was read up to here; never back."""
        self.position = Position(max(self.acknowledged, sequence), self.position.lost)

    def note_lost(self, lost: int) -> None:
        """Note how many messages the provider says it could not keep."""
        self.position = Position(self.acknowledged, lost)


class ReadQueues:
    """The queues of this client's leaves, as the vault has them."""

    def __init__(self, context: Context, errands: Errands) -> None:
        """Read what the vault has."""
        self._changes = context.changes
        self._errands = errands
        self._rows = context.vault.table("inboxes")
        saved = (SavedReadQueue.from_bytes(row) for row in self._rows.values())
        self._queues = {
            one.token: ReadQueue(AccessToken(one.token), Position(one.acknowledged, one.lost))
            for one in saved
        }

    def remember(self) -> Callable[[], None]:
        """Return what puts back the queues and how far they were read, if the change about to begin fails."""
        before, positions = dict(self._queues), [(one, one.position) for one in self._queues.values()]

        def put_back() -> None:
            self._queues = before
            for queue, position in positions:
                queue.position = position

        return put_back

    def get(self, token: AccessToken) -> ReadQueue:
        """Return the queue that this token reads: always the same object."""
        return self._queues.setdefault(token.reveal(), ReadQueue(token))

    def save(self, queue: ReadQueue) -> None:
        """Write down how far a queue was read."""
        saved = SavedReadQueue(queue.token.reveal(), *queue.position)
        self._rows[saved.token] = saved.to_bytes()

    def close(self, queue: ReadQueue) -> None:
        """Give up a queue that nobody is to write to any more: the next errands delete it."""
        token = queue.token.reveal()
        with self._changes.transaction():
            self._rows.pop(token, None)
            self._errands.owe(Errand.DELETE_QUEUE, token)
            self._queues.pop(token, None)

    async def drop(self, queue: ReadQueue) -> None:
        """Close a queue and have it deleted now or, if that fails, another time."""
        self.close(queue)
        await self._errands.run()
