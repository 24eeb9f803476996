"""Events of a room as they are read: each parsed once, when it has come to the room that it is for."""

from __future__ import annotations

from dataclasses import dataclass

from mimi_mmr.errors import MmrError
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage, RoomEvent, event_epoch


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """A parsed event in its envelope; or, in its place, why it could not be read."""

    fanout: FanoutMessage
    body: RoomEvent | MmrError | None

    @classmethod
    def of(cls, fanout: FanoutMessage) -> IncomingEvent:
        """Parse what a hub sent. A Welcome is left unread: it is for those who are not in the room yet."""
        if fanout.kind is EventKind.WELCOME:
            return cls(fanout, None)
        try:
            return cls(fanout, fanout.parsed())
        except MmrError as error:
            return cls(fanout, error)

    @property
    def is_commit(self) -> bool:
        """Whether the hub says that it is a commit."""
        return self.fanout.kind is EventKind.COMMIT

    @property
    def epoch(self) -> int:
        """The epoch that it belongs to; 0 if it belongs to none, or can't be read."""
        if self.body is None or isinstance(self.body, MmrError):
            return 0
        return event_epoch(self.body) or 0
