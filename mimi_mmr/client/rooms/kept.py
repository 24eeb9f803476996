"""Rooms in the vault and in memory, which are never apart; and who is in them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

from mimi_mmr.client.devices.shared import SharedKind, SharedState
from mimi_mmr.client.key_packages.shelves import Inbox, Shelves
from mimi_mmr.client.storage.history import History
from mimi_mmr.client.storage.records import SavedContact, SavedJoined, SavedLeaf
from mimi_mmr.errors import BindingRejected, MmrError
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.room import Room
from mimi_mmr.member.saved import SavedRoom
from mimi_mmr.member.whois import Standing, Whois
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.uris import MimiUri

MAX_PROBLEMS = 200
_TABLES = ("messages", "added", "strays", "join requests")  # of each room, beside its two rows


@dataclass(slots=True, eq=False)
class Joined:
    """A room that this client is in: its state, its queue, and what came.

    `problems` says what was wrong with what came. After a commit that the hub accepted and this member could not
    process (`unprocessed`, reported to the hub) an admin has to reopen the room. Once an event was missed the room
    is `desynchronised`: what comes later can't be read, and somebody has to add this client anew. `rotate` is set
    while this client should change its pseudonym here; `last_resort` says that its leaf here came from a KeyPackage
    that may have been used for other rooms too. `departures` are those of members who asked to go, by their leaf's
    client pseudonym.
    """

    room: Room
    leaf: PreparedLeaf
    inbox: Inbox
    messages: History
    last_sequence: int = 0
    problems: list[str] = field(default_factory=list)
    desynchronised: bool = False
    rotate: bool = False
    unprocessed: bytes | None = None
    unanswered: PendingCommit | None = None
    departures: dict[MimiUri, Departure] = field(default_factory=dict)
    invited_by: MimiUri | None = None
    last_resort: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    kept: object = None

    @property
    def uri(self) -> MimiUri:
        """The room's URI."""
        return self.room.uri

    @property
    def lost(self) -> int:
        """Messages that the provider could not keep for this client."""
        return self.inbox.lost

    @property
    def acknowledged(self) -> int:
        """How far the queue has been read."""
        return self.inbox.acknowledged

    def version(self) -> object:
        """Changes with whatever `SavedRoom` holds."""
        room = self.room
        return room.epoch, room.tree_hash, room.diverged, room.removed, dict(room.problems)


class Kept(Shelves):
    """A client's rooms, as they are kept."""

    def _open_rooms(self) -> None:
        """The rooms that the vault has. One that can't be restored is noted, and kept for another try."""
        self.rooms: dict[MimiUri, Joined] = {}
        self._room_rows = self.vault.table("rooms")
        self._joined_rows = self.vault.table("memberships")
        for name in self._joined_rows:
            try:
                joined = self._restored(name)
            except MmrError as error:
                self.notices.add(f"the room {name.decode()} can't be restored: {error}", self._clock())
            else:
                self.rooms[joined.uri] = joined

    def _restored(self, name: bytes) -> Joined:
        saved = SavedRoom.from_bytes(self._room_rows[name])
        membership = SavedJoined.from_bytes(self._joined_rows[name])
        key = membership.leaf.key()
        leaf = membership.leaf.leaf(self._engine, self._mls_rows(key))
        room = Room.restore(saved, leaf)
        joined = Joined(
            room,
            leaf,
            self._inbox(leaf.queue),
            History(self.vault, room.uri),
            membership.last_sequence,
            list(membership.problems),
            membership.desynchronised,
            membership.rotate,
            membership.unprocessed,
            departures={one.content.client_pseudonym: one for one in membership.departures},
            invited_by=membership.invited_by,
            last_resort=membership.last_resort,
        )
        if membership.unanswered is not None:
            joined.unanswered = room.pending(membership.unanswered)
        joined.kept = joined.version()
        return joined

    def _enter(self, room: Room, leaf: PreparedLeaf, inbox: Inbox) -> Joined:
        """A room that this client has just come into; stored with everything that was so far in memory only."""
        joined = Joined(room, leaf, inbox, History(self.vault, room.uri))
        self.rooms[room.uri] = joined
        with self.vault.transaction():
            self._keep_inbox(inbox)
            self._keep(joined)
        return joined

    def _keep(self, joined: Joined) -> None:
        """Write what changed of a room; inside a transaction with what changed it."""
        name = str(joined.uri).encode()
        del joined.problems[:-MAX_PROBLEMS]
        joined.room.store()
        if joined.kept != joined.version():
            self._room_rows[name] = joined.room.saved().to_bytes()
            joined.kept = joined.version()
        self._joined_rows[name] = SavedJoined(
            SavedLeaf.of(joined.leaf),
            joined.last_sequence,
            joined.desynchronised,
            joined.rotate,
            joined.unprocessed,
            joined.unanswered.request if joined.unanswered else None,
            tuple(joined.departures.values()),
            joined.invited_by,
            joined.last_resort,
            tuple(problem[:1024] for problem in joined.problems),
        ).to_bytes()

    @contextmanager
    def _changing(self, *rooms: Joined) -> Iterator[None]:
        """A transaction in which rooms change. If it fails, memory is again what the vault is.

        Were memory ahead, what was read would be acknowledged at the next look, and lost with the process.
        """
        before = [(joined.inbox, joined.inbox.acknowledged, joined.inbox.lost) for joined in rooms]
        try:
            with self.vault.transaction():
                yield
        except BaseException:
            for inbox, acknowledged, lost in before:
                inbox.acknowledged, inbox.lost = acknowledged, lost
            self._reload(rooms)
            raise

    def _reload(self, rooms: Iterable[Joined]) -> None:
        try:
            for joined in rooms:
                found = self._restored(str(joined.uri).encode())
                for one in fields(Joined):
                    if one.name != "lock":
                        setattr(joined, one.name, getattr(found, one.name))
            self._shared = SharedState(self.vault, self.device.name)
            for _, value in self._shared.items(SharedKind.CONTACT):
                saved = SavedContact.from_bytes(value)
                if saved.person.user in self.contacts:
                    saved.update(self.contacts[saved.person.user])
        except (MmrError, KeyError):
            self.vault.close()  # rather than go on from what nobody knows

    async def forget(self, joined: Joined) -> None:
        """Drop a room that this client is no longer in, with its messages."""
        name = str(joined.uri).encode()
        self.rooms.pop(joined.uri, None)
        with self.vault.transaction():
            self._joined_rows.pop(name, None)
            self._room_rows.pop(name, None)
            for what in _TABLES:
                self.vault.drop(f"{what} {joined.uri}")
            self._drop_leaf(joined.leaf)
        if not any(other.inbox is joined.inbox for other in self.rooms.values()):
            await self._drop_inbox(joined.inbox)

    def _drop_leaf(self, leaf: PreparedLeaf) -> None:
        if not any(other.leaf.key.public == leaf.key.public for other in self.rooms.values()):
            self.vault.drop(f"mls {leaf.key.public.hex()}")

    # --- who -----------------------------------------------------------------------------------------

    def who(self, joined: Joined, progress: Callable[[int, int], None] | None = None) -> list[Whois]:
        """Every member, resolved as far as policy and credentials allow; `progress` gets (done, total).

        A contact's identity key is pinned: somebody of that name with another key is unverified in every room.
        """
        return [self._pinned(entry) for entry in joined.room.who(self.trust, self._clock(), progress)]

    def _pinned(self, entry: Whois) -> Whois:
        try:
            if entry.member is not None:
                self._check_known(entry.member.device)
        except BindingRejected as error:
            why = f"leaf {entry.leaf}: {error}"
            return entry._replace(standing=Standing.UNVERIFIED, member=None, why=why)
        return entry

    def _leaves_of(self, joined: Joined, user: MimiUri) -> list[int]:
        """Leaves that a user pseudonym has in a room."""
        present = joined.room.participants().items()
        return sorted(leaf for leaf, identity in present if identity.credential.user_pseudonym == user)

    def _added_for(self, joined: Joined) -> MutableMapping[bytes, bytes]:
        """For whom this client added a leaf: users by client pseudonym. Where names are hidden only it knows."""
        return self.vault.table(f"added {joined.uri}")

    def _user_at(self, joined: Joined, entry: Whois) -> MimiUri | None:
        """Whose a leaf is: as its credential shows or, where it does not, as this client added it."""
        if entry.member is not None:
            return entry.member.device.user
        added = self._added_for(joined).get(str(entry.client).encode())
        return MimiUri.parse(added.decode()) if added else None
