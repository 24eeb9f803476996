"""The rooms of this client, kept identical in the vault and in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

from mimi_mmr.client.context import Context
from mimi_mmr.client.rooms.membership import Membership, Place, restored_state
from mimi_mmr.client.storage.history import History
from mimi_mmr.client.storage.records import SavedMembership
from mimi_mmr.client.storage.sent import SentMessages
from mimi_mmr.client.transport.read_queues import ReadQueue, ReadQueues
from mimi_mmr.errors import MmrError
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.room import Room
from mimi_mmr.member.saved import SavedRoom
from mimi_mmr.uris import MimiUri

_TABLES = (
    "messages",
    "sent",
    "added",
    "strays",
    "join requests",
)  # tables of each room, besides its two rows


class Memberships(Mapping[MimiUri, Membership]):
    """The memberships by room."""

    def __init__(self, context: Context, queues: ReadQueues) -> None:
        """Restore the memberships from the vault.

        One that can't be restored is noted, and stays stored for another try. The rooms' events arrive in `queues`.
        `entered` are listeners for rooms that this client has entered; see `wiring`.
        """
        self._context = context
        self.queues = queues
        self._room_rows = context.vault.table("rooms")
        self._rows = context.vault.table("memberships")
        self._memberships: dict[MimiUri, Membership] = {}
        self.entered: list[Callable[[Membership], None]] = []
        for name in self._rows:
            try:
                place = self._restored(name)
            except MmrError as error:
                context.notify(f"the room {name.decode()} can't be restored: {error}")
            else:
                self._memberships[place.room.uri] = Membership(place)

    def _restored(self, name: bytes) -> Place:
        context = self._context
        saved = SavedRoom.from_bytes(self._room_rows[name])
        membership = SavedMembership.from_bytes(self._rows[name])
        leaf = membership.leaf.leaf(context.engine, context.mls_rows(membership.leaf.key()))
        room = Room.restore(saved, leaf)
        pending = room.pending(membership.unanswered) if membership.unanswered is not None else None
        departures = {one.content.client_pseudonym: one for one in membership.departures}
        place = Place(
            room,
            leaf,
            self.queues.get(leaf.queue),
            History(context.vault, room.uri),
            SentMessages(context.vault, room.uri),
            state=restored_state(
                removed=room.removed,
                desynchronised=membership.desynchronised,
                blocked=membership.unprocessed is not None,
            ),
            last_sequence=membership.last_sequence,
            problems=membership.problems,
            unprocessed=membership.unprocessed,
            pending=pending,
            departures=MappingProxyType(departures),
            invited_by=membership.invited_by,
            last_resort=membership.last_resort,
            change_pseudonym=membership.rotate,
        )
        return replace(place, stored=place.version())

    # --- which there are -----------------------------------------------------------------------------

    def __getitem__(self, room: MimiUri) -> Membership:
        return self._memberships[room]

    def __iter__(self) -> Iterator[MimiUri]:
        return iter(self._memberships)

    def __len__(self) -> int:
        return len(self._memberships)

    def find(self, room: MimiUri | None) -> Membership | None:
        """Return the membership in a room; None if there is none, or no room was named."""
        return self._memberships.get(room) if room is not None else None

    def sharing(self, queue: ReadQueue) -> list[Membership]:
        """Return those whose events come into one queue: a last-resort KeyPackage may have led to several rooms."""
        return [one for one in self._memberships.values() if one.queue is queue]

    # --- writing them --------------------------------------------------------------------------------

    def enter(self, place: Place) -> Membership:
        """Add a room that this client has just entered, and store what was in memory only."""
        membership = Membership(place)
        with self._context.changes.transaction():
            self._memberships[membership.uri] = membership
            self.queues.save(place.queue)
            self.save(membership)
        return membership

    def save(self, membership: Membership) -> None:
        """Store the changes of a membership. Call this inside the transaction of the change."""
        name = str(membership.uri).encode()
        place = membership.place
        place.room.store()
        if place.stored != place.version():
            self._room_rows[name] = place.room.saved().to_bytes()
            membership.place = place = replace(place, stored=place.version())
        self._rows[name] = place.saved().to_bytes()

    @contextmanager
    def changing(self, *memberships: Membership) -> Iterator[None]:
        """Change memberships in a transaction. If it fails, their places are restored to the state in the vault."""
        before = [(one, str(one.uri).encode()) for one in memberships]

        def put_back() -> None:
            for membership, name in before:
                membership.place = self._restored(name)

        with self._context.changes.transaction(put_back):
            yield

    def remember(self) -> Callable[[], None]:
        """Return a function that restores the list of rooms, for use if the next change fails."""
        before = dict(self._memberships)

        def put_back() -> None:
            self._memberships = before

        return put_back

    def announce(self, membership: Membership) -> None:
        """Run the listeners for a room that this client has entered."""
        for listener in self.entered:
            listener(membership)

    # --- the end of them -----------------------------------------------------------------------------

    async def forget(self, membership: Membership) -> None:
        """Delete a room that this client is no longer in, with its messages."""
        name = str(membership.uri).encode()
        with self._context.changes.transaction():
            self._memberships.pop(membership.uri, None)
            self._rows.pop(name, None)
            self._room_rows.pop(name, None)
            for what in _TABLES:
                self._context.vault.drop(f"{what} {membership.uri}")
            self.drop_leaf(membership.leaf)
        await self.drop_queue(membership.queue)

    def drop_leaf(self, leaf: PreparedLeaf) -> None:
        """Delete what the MLS library stored for a leaf, unless another room uses the same leaf."""
        if not any(other.leaf.key.public == leaf.key.public for other in self._memberships.values()):
            self._context.drop_mls_rows(leaf.key)

    async def drop_queue(self, queue: ReadQueue) -> None:
        """Have a queue deleted, unless another room's events arrive in it."""
        if not self.sharing(queue):
            await self.queues.drop(queue)
