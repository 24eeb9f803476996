"""The read position of each of this client's queues."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from mimi_mmr.client.context import Context
from mimi_mmr.client.storage.records import SavedReadQueue
from mimi_mmr.client.transport.errands import Errand, Errands
from mimi_mmr.crypto.secret import AccessToken


class Position(NamedTuple):
    """The number of the last message read, and how many messages the provider could not keep."""

    acknowledged: int = 0
    lost: int = 0


class ReadQueue:
    """A queue and its read position. Rooms that share a leaf share one of these objects.

    `read_at` is when this process last read the queue to its end (seconds since 1970); 0 before the first time.
    """

    __slots__ = ("position", "read_at", "token")

    def __init__(self, token: AccessToken, position: Position | None = None) -> None:
        """Start at the beginning of the queue, unless `position` says otherwise."""
        self.token = token
        self.position = position or Position()
        self.read_at = 0.0

    @property
    def acknowledged(self) -> int:
        """The sequence number up to which the queue was read."""
        return self.position.acknowledged

    def acknowledge(self, sequence: int) -> None:
        """Note that the queue was read up to this number; the position never goes back."""
        self.position = Position(max(self.acknowledged, sequence), self.position.lost)

    def note_lost(self, lost: int) -> None:
        """Note how many messages the provider says it could not keep."""
        self.position = Position(self.acknowledged, lost)


class ReadQueues:
    """The queues of this client's leaves, stored in the vault."""

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
        """Return a function that restores the queues and their positions, for use if the next change fails."""
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
        """Store the read position of a queue."""
        saved = SavedReadQueue(queue.token.reveal(), *queue.position)
        self._rows[saved.token] = saved.to_bytes()

    def close(self, queue: ReadQueue) -> None:
        """Close a queue that nobody has to write to any more: an errand deletes it."""
        token = queue.token.reveal()
        with self._changes.transaction():
            self._rows.pop(token, None)
            self._errands.owe(Errand.DELETE_QUEUE, token)
            self._queues.pop(token, None)

    async def drop(self, queue: ReadQueue) -> None:
        """Close a queue, and delete it now or, if that fails, with the next errands."""
        self.close(queue)
        await self._errands.run()
