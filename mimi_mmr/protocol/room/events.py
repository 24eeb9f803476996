"""Events that a hub sends to a room's members, each in an envelope with a sequence number.

After draft-ietf-mimi-protocol-06, section "Fanout Messages and Room Events".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self, TypeAlias

from mimi_mmr.crypto.secret import WelcomeKey
from mimi_mmr.errors import WrongSigner
from mimi_mmr.mls.wire import PrivateMessage, parse_application
from mimi_mmr.presentation import U64, Code, Fixed, Maybe, Nested, Opaque, Reader, Struct, Vector
from mimi_mmr.protocol.room.departures import DEPARTURES, Departure, departures_hash
from mimi_mmr.protocol.room.link_orders import JoinRequest
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.protocol.room.requests import (
    MAX_APPLICATION,
    MAX_MLS_MESSAGE,
    MAX_TREE,
    SEALED_STATE,
    CommitAuth,
    CommitReport,
    digest,
)
from mimi_mmr.protocol.room.welcome_proofs import WELCOME_PROOFS, WelcomeProof, check_welcome
from mimi_mmr.uris import ROOM, MimiUri

MAX_GROUNDS = 32
TAG_SIZE = 32


class EventKind(enum.IntEnum):
    """The type of a room event."""

    COMMIT = 1
    WELCOME = 2
    APPLICATION = 3
    JOIN_REQUEST = 4
    COMMIT_REPORT = 5


@dataclass(frozen=True, slots=True)
class CommitEvent(Struct):
    """An accepted commit, for the members before it."""

    LIMIT: ClassVar[int] = 1 << 26
    auth: CommitAuth
    commit: Annotated[bytes, Opaque(MAX_MLS_MESSAGE)]
    member_update: Annotated[bytes | None, Maybe(Opaque(MAX_TREE))]
    policy: Annotated[SignedPolicy | None, Maybe(Nested(SignedPolicy))]
    departures: Annotated[tuple[Departure, ...], DEPARTURES] = ()
    room_state: Annotated[bytes | None, SEALED_STATE] = None

    def check_parts(self) -> None:
        """Check that the parts match the signed hashes; raise `WrongSigner`."""
        content = self.auth.content
        signed = (content.commit_hash, content.member_update_hash, content.departures_hash)
        parts = (digest(self.commit), digest(self.member_update), departures_hash(self.departures))
        if parts != signed:
            raise WrongSigner("a part of the commit event is not the one that its committer signed")


@dataclass(frozen=True, slots=True)
class WelcomeEvent(Struct):
    """A Welcome, for the members that a commit added. They fetch the trees of epoch `auth.content.epoch + 1`.

    `proofs` say to each of them that whoever made it has the KeyPackage from them. An event that waits since before
    version 0.4.0 ends before them, and has none.
    """

    LIMIT: ClassVar[int] = 1 << 25
    auth: CommitAuth
    welcome: Annotated[bytes, Opaque(MAX_MLS_MESSAGE)]
    proofs: Annotated[tuple[WelcomeProof, ...], WELCOME_PROOFS]

    @classmethod
    def read_from(cls, reader: Reader) -> Self:
        """Read every field, and the proofs if there are any."""
        auth = CommitAuth.read_from(reader)
        welcome = Opaque(MAX_MLS_MESSAGE).read(reader, "WelcomeEvent.welcome")
        proofs = () if reader.empty else WELCOME_PROOFS.read(reader, "WelcomeEvent.proofs")
        return cls(auth, welcome, proofs)

    def check_proof(self, reference: bytes, key: WelcomeKey) -> None:
        """Check the proof for the KeyPackage with this reference; raise `WelcomeRejected`."""
        check_welcome(self.proofs, reference, key, self.auth.content)


@dataclass(frozen=True, slots=True)
class ApplicationEvent(Struct):
    """An accepted application message (MLS PrivateMessage), with the echo tag that its sender signed for the hub.

    The tag says nothing to anybody but the sender, so providers don't learn who sent a message. An event that waits
    since before version 0.4.0 ends before the tag; it is read as one with a tag of zeros, which is nobody's.
    """

    message: Annotated[bytes, Opaque(MAX_APPLICATION)]
    echo_tag: Annotated[bytes, Fixed(TAG_SIZE)]

    @classmethod
    def read_from(cls, reader: Reader) -> Self:
        """Read the message, and the tag if there is one."""
        message = Opaque(MAX_APPLICATION).read(reader, "ApplicationEvent.message")
        size = Fixed(TAG_SIZE)
        return cls(
            message, bytes(TAG_SIZE) if reader.empty else size.read(reader, "ApplicationEvent.echo_tag")
        )

    def read(self) -> TaggedMessage:
        """Read the MLS message; raise `ParseError`, or `InvalidCommit` if it is another kind of message."""
        return TaggedMessage(parse_application(self.message), self.echo_tag)


@dataclass(frozen=True, slots=True)
class TaggedMessage:
    """A parsed application message with its echo tag."""

    message: PrivateMessage
    echo_tag: bytes


@dataclass(frozen=True, slots=True)
class ReportEvent(Struct):
    """An admin's order to undo the last commit, and what a member of the epoch before needs to check it.

    `grounds` are reports that the commit can't be processed. `undone` is the commit's signature, and `policy` the
    policy that it brought, if it brought one.
    """

    LIMIT: ClassVar[int] = 1 << 20
    report: CommitReport
    grounds: Annotated[tuple[CommitReport, ...], Vector(Nested(CommitReport), count=MAX_GROUNDS)]
    undone: Annotated[CommitAuth | None, Maybe(Nested(CommitAuth))]
    policy: Annotated[SignedPolicy | None, Maybe(Nested(SignedPolicy))]


RoomEvent: TypeAlias = CommitEvent | WelcomeEvent | TaggedMessage | JoinRequest | ReportEvent


def event_epoch(event: RoomEvent) -> int | None:
    """Return the epoch in which a member processes an event; None for a request to join, or to undo a commit.

    For a commit this is the epoch that it ends, for a Welcome the epoch that it begins.
    """
    match event:
        case CommitEvent():
            return event.auth.content.epoch
        case WelcomeEvent():
            return event.auth.content.epoch + 1
        case TaggedMessage():
            return event.message.epoch
        case JoinRequest() | ReportEvent():
            return None


@dataclass(frozen=True, slots=True)
class FanoutMessage(Struct):
    """-06's struct: acceptance time in milliseconds, then the event; `sequence` counts a room's events."""

    LIMIT: ClassVar[int] = 1 << 26
    room: Annotated[MimiUri, ROOM]
    sequence: Annotated[int, U64]
    timestamp: Annotated[int, U64]
    kind: Annotated[EventKind, Code(EventKind)]
    event: Annotated[bytes, Opaque(1 << 26)]

    def parsed(self) -> RoomEvent:
        """Parse the event; raise `ParseError`, or `InvalidCommit` for MLS messages that are not used here.

        The MLS commit inside a `CommitEvent` is parsed only after its committer's signature is verified.
        """
        match self.kind:
            case EventKind.COMMIT:
                return CommitEvent.from_bytes(self.event)
            case EventKind.WELCOME:
                return WelcomeEvent.from_bytes(self.event)
            case EventKind.APPLICATION:
                return ApplicationEvent.from_bytes(self.event).read()
            case EventKind.JOIN_REQUEST:
                return JoinRequest.from_bytes(self.event)
            case EventKind.COMMIT_REPORT:
                return ReportEvent.from_bytes(self.event)
