"""A room that this client is in, and how well it follows that room."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from mimi_mmr.client.storage.history import History
from mimi_mmr.client.storage.records import SavedLeaf, SavedMembership
from mimi_mmr.client.storage.sent import SentMessages
from mimi_mmr.client.transport.read_queues import ReadQueue
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.uris import MimiUri

MAX_PROBLEMS = 200


class MembershipState(enum.Enum):
    """How well a member follows its room."""

    FOLLOWING = "every commit was followed"
    BLOCKED = "the hub accepted a commit that can't be processed here: an admin has to reopen the room"
    DESYNCHRONISED = (
        "an event was missed, and what follows can't be read: somebody has to add this client anew"
    )
    BLOCKED_AND_DESYNCHRONISED = "a commit could not be processed, and the room has gone on since"
    REMOVED = "this client was removed from the room"


class Occurrence(enum.Enum):
    """What changes how well a member follows its room."""

    COMMIT_FOLLOWED = "a commit of the room's epoch was followed, so nothing is missing"
    COMMIT_UNPROCESSABLE = "the MLS library can't process a commit that the hub accepted"
    COMMIT_MISSED = "a commit came that does not follow from what this member knows"
    COMMIT_UNDONE = "the hub took back the commit that can't be processed"
    REMOVED = "a commit removed this client"
    PLACED = "a Welcome gave this client another leaf in the room"


_S, _O = MembershipState, Occurrence
TRANSITIONS: Mapping[MembershipState, Mapping[Occurrence, MembershipState]] = {
    _S.FOLLOWING: {
        _O.COMMIT_FOLLOWED: _S.FOLLOWING,
        _O.COMMIT_UNPROCESSABLE: _S.BLOCKED,
        _O.COMMIT_MISSED: _S.DESYNCHRONISED,
        _O.COMMIT_UNDONE: _S.FOLLOWING,
        _O.REMOVED: _S.REMOVED,
        _O.PLACED: _S.FOLLOWING,
    },
    _S.BLOCKED: {
        _O.COMMIT_FOLLOWED: _S.FOLLOWING,
        _O.COMMIT_UNPROCESSABLE: _S.BLOCKED,
        _O.COMMIT_MISSED: _S.BLOCKED_AND_DESYNCHRONISED,
        _O.COMMIT_UNDONE: _S.FOLLOWING,
        _O.REMOVED: _S.REMOVED,
        _O.PLACED: _S.FOLLOWING,
    },
    _S.DESYNCHRONISED: {
        _O.COMMIT_FOLLOWED: _S.FOLLOWING,  # what looked like a missed commit was none of this room
        _O.COMMIT_UNPROCESSABLE: _S.BLOCKED_AND_DESYNCHRONISED,
        _O.COMMIT_MISSED: _S.DESYNCHRONISED,
        _O.COMMIT_UNDONE: _S.DESYNCHRONISED,
        _O.REMOVED: _S.REMOVED,
        _O.PLACED: _S.FOLLOWING,
    },
    _S.BLOCKED_AND_DESYNCHRONISED: {
        _O.COMMIT_FOLLOWED: _S.FOLLOWING,
        _O.COMMIT_UNPROCESSABLE: _S.BLOCKED_AND_DESYNCHRONISED,
        _O.COMMIT_MISSED: _S.BLOCKED_AND_DESYNCHRONISED,
        _O.COMMIT_UNDONE: _S.DESYNCHRONISED,
        _O.REMOVED: _S.REMOVED,
        _O.PLACED: _S.FOLLOWING,
    },
    _S.REMOVED: {  # whatever the hub sends after the removal; only a Welcome leads back into the room
        _O.COMMIT_UNPROCESSABLE: _S.REMOVED,
        _O.COMMIT_MISSED: _S.REMOVED,
        _O.COMMIT_UNDONE: _S.REMOVED,
        _O.PLACED: _S.FOLLOWING,
    },
}
_BLOCKED = {_S.BLOCKED, _S.BLOCKED_AND_DESYNCHRONISED}
_DESYNCHRONISED = {_S.DESYNCHRONISED, _S.BLOCKED_AND_DESYNCHRONISED}


def restored_state(*, removed: bool, desynchronised: bool, blocked: bool) -> MembershipState:
    """Return the state that the vault's three marks stand for."""
    if removed:
        return _S.REMOVED
    if desynchronised:
        return _S.BLOCKED_AND_DESYNCHRONISED if blocked else _S.DESYNCHRONISED
    return _S.BLOCKED if blocked else _S.FOLLOWING


@dataclass(frozen=True, slots=True)
class Place:
    """This client's state in a room at one moment. A change makes a new one, and a failed change drops that.

    `unprocessed` is the commit that blocks the room. `pending` is this client's own commit until the hub answers.
    `departures` are those of members who asked to leave, by their leaf's client pseudonym. `last_resort` says that
    the leaf came from a KeyPackage that may have been used for other rooms too, `change_pseudonym` that this client
    should change its pseudonym here. `stored` is the version of the room in the vault.
    """

    room: Room
    leaf: PreparedLeaf
    queue: ReadQueue
    messages: History
    sent: SentMessages
    state: MembershipState = MembershipState.FOLLOWING
    last_sequence: int = 0
    problems: tuple[str, ...] = ()
    unprocessed: bytes | None = None
    pending: PendingCommit | None = None
    departures: Mapping[MimiUri, Departure] = field(default_factory=lambda: MappingProxyType({}))
    invited_by: MimiUri | None = None
    last_resort: bool = False
    change_pseudonym: bool = False
    stored: object = None

    def version(self) -> object:
        """Return a value that changes whenever the content of `SavedRoom` changes.

        The members change with the epoch only, so they are not read for this, and a large room is restored faster.
        """
        room = self.room
        return room.epoch, room.tree_hash, room.diverged, room.removed, room.reported

    def saved(self) -> SavedMembership:
        """Return all but the room, as it is stored in the vault."""
        return SavedMembership(
            SavedLeaf.of(self.leaf),
            self.last_sequence,
            self.state in _DESYNCHRONISED,
            self.change_pseudonym,
            self.unprocessed,
            self.pending.request if self.pending else None,
            tuple(self.departures.values()),
            self.invited_by,
            self.last_resort,
            tuple(problem[:1024] for problem in self.problems),
        )


class Membership:
    """A room that this client is in: its state, its queue, and its history.

    It stays the same object as long as the client is in the room; `place` is replaced as a whole.
    """

    __slots__ = ("lock", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lock = asyncio.Lock()

    # --- what there is -------------------------------------------------------------------------------

    @property
    def uri(self) -> MimiUri:
        """The room's URI."""
        return self.place.room.uri

    @property
    def room(self) -> Room:
        """The room as this member knows it."""
        return self.place.room

    @property
    def leaf(self) -> PreparedLeaf:
        """This client's leaf there."""
        return self.place.leaf

    @property
    def pseudonym(self) -> MimiUri:
        """This client's user pseudonym in the room."""
        return self.place.leaf.identity.credential.user_pseudonym

    @property
    def own_leaves(self) -> tuple[int, ...]:
        """The leaves of this user's devices in the room, in ascending order."""
        return self.place.room.members.by_user.get(self.pseudonym, ())

    @property
    def queue(self) -> ReadQueue:
        """The queue that the room's events come into."""
        return self.place.queue

    @property
    def messages(self) -> History:
        """The room's messages. Iteration and length cover those that this user has not read yet."""
        return self.place.messages

    @property
    def sent(self) -> SentMessages:
        """This client's own messages, until their copies have come back."""
        return self.place.sent

    @property
    def older_copy(self) -> bool:
        """Whether a newer copy of the vault was used in this room: nothing can be sent before the next commit."""
        return self.place.sent.older_copy

    @property
    def state(self) -> MembershipState:
        """How well this member follows the room."""
        return self.place.state

    @property
    def removed(self) -> bool:
        """Whether this client was removed."""
        return self.place.state is MembershipState.REMOVED

    @property
    def desynchronised(self) -> bool:
        """Whether an event was missed, so that a member has to add this client anew."""
        return self.place.state in _DESYNCHRONISED

    @property
    def blocked(self) -> bool:
        """Whether the hub accepted a commit that this member can't process: an admin has to reopen the room."""
        return self.place.state in _BLOCKED

    @property
    def usable(self) -> bool:
        """Whether this client is in the room and can follow it."""
        return not (self.removed or self.desynchronised)

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with received events, oldest first."""
        return self.place.problems

    @property
    def departures(self) -> Mapping[MimiUri, Departure]:
        """Departures of members who asked to leave, by their leaf's client pseudonym."""
        return self.place.departures

    @property
    def left(self) -> bool:
        """Whether this user has asked to leave with this leaf; another member removes it, or has done so."""
        return self.leaf.identity.credential.client_pseudonym in self.departures

    @property
    def lost(self) -> int:
        """The number of messages that the provider could not keep for this client."""
        return self.place.queue.position.lost

    @property
    def acknowledged(self) -> int:
        """The sequence number up to which the queue was read."""
        return self.place.queue.acknowledged

    # --- what changes it -----------------------------------------------------------------------------

    def note(self, *problems: str) -> None:
        """Note what was wrong with a received event; only the newest `MAX_PROBLEMS` are kept."""
        self.place = replace(self.place, problems=(*self.place.problems, *problems)[-MAX_PROBLEMS:])

    def occurred(self, what: Occurrence, unprocessed: bytes | None = None) -> None:
        """Go on to the next state of `TRANSITIONS`; `unprocessed` is the commit that can't be processed."""
        state = TRANSITIONS[self.place.state][what]
        blocking = self.place.unprocessed if unprocessed is None else unprocessed
        self.place = replace(self.place, state=state, unprocessed=blocking if state in _BLOCKED else None)

    def read_to(self, sequence: int) -> None:
        """Note the number of the last event that was read."""
        self.place = replace(self.place, last_sequence=sequence)

    def set_pending(self, commit: PendingCommit | None) -> None:
        """Set the commit that waits for the hub's answer, or None."""
        self.place = replace(self.place, pending=commit)

    def set_departures(self, departures: Mapping[MimiUri, Departure]) -> None:
        """Set the departures of members who asked to leave."""
        self.place = replace(self.place, departures=MappingProxyType(dict(departures)))

    def add_departure(self, departure: Departure) -> None:
        """Add a member's departure."""
        self.set_departures({**self.departures, departure.content.client_pseudonym: departure})

    def set_change_pseudonym(self) -> None:
        """Note that this client should change its pseudonym here."""
        self.place = replace(self.place, change_pseudonym=True)

    def move(
        self, room: Room, leaf: PreparedLeaf, queue: ReadQueue, *, last_sequence: int, last_resort: bool
    ) -> None:
        """Go on in the same room with another leaf. Messages, problems and departures stay."""
        self.occurred(Occurrence.PLACED)
        self.sent.note_new_epoch()
        here = leaf.identity.credential.client_pseudonym
        departures = {client: one for client, one in self.departures.items() if client != here}
        self.place = replace(
            self.place,
            room=room,
            leaf=leaf,
            queue=queue,
            last_sequence=last_sequence,
            last_resort=last_resort,
            pending=None,
            departures=MappingProxyType(departures),
            change_pseudonym=False,
            stored=None,
        )
