"""Incoming events of a room: each is parsed once, when its room is known."""

from __future__ import annotations

from dataclasses import dataclass

from mimi_mmr.errors import MmrError
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage, RoomEvent, event_epoch


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """A parsed event in its fan-out message, or the reason why it could not be parsed."""

    fanout: FanoutMessage
    body: RoomEvent | MmrError | None

    @classmethod
    def of(cls, fanout: FanoutMessage) -> IncomingEvent:
        """Parse a hub's event. A Welcome is not parsed: it is for clients that are not in the room yet."""
        if fanout.kind is EventKind.WELCOME:
            return cls(fanout, None)
        try:
            return cls(fanout, fanout.parsed())
        except MmrError as error:
            return cls(fanout, error)

    @property
    def is_commit(self) -> bool:
        """Whether the hub marked the event as a commit."""
        return self.fanout.kind is EventKind.COMMIT

    @property
    def epoch(self) -> int:
        """The event's epoch; 0 if it has none, or could not be parsed."""
        if self.body is None or isinstance(self.body, MmrError):
            return 0
        return event_epoch(self.body) or 0
