"""The room of a user's devices, where they tell each other what no provider is to know.

It is at the user's provider. They speak there as clients do; nobody else is in it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.known_devices import KnownDevices
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage
from mimi_mmr.client.rooms.creating import Creating
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.roster import Roster
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.errors import RoomError
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content
from mimi_mmr.uris import MimiUri

_ROW = b"devices"


class DevicesRoom:
    """Which room it is, and what this device says there. `before_telling` are listeners that the wiring sets."""

    def __init__(
        self,
        context: Context,
        known: KnownDevices,
        memberships: Memberships,
        roster: Roster,
        creating: Creating,
        sending: Sending,
    ) -> None:
        """Read from the vault which room it is."""
        self._context = context
        self._known = known
        self._memberships = memberships
        self._roster = roster
        self._creating = creating
        self._sending = sending
        self._rows = context.vault.table("own")
        self.before_telling: list[Callable[[Membership], Awaitable[None]]] = []

    @property
    def membership(self) -> Membership | None:
        """The room of this user's devices; None while there is one device only."""
        row = self._rows.get(_ROW)
        return self._memberships.get(MimiUri.parse(row.decode())) if row else None

    @property
    def open(self) -> Membership | None:
        """That room, unless this device was removed from it."""
        membership = self.membership
        return None if membership is None or membership.removed else membership

    def exists(self) -> bool:
        """Say whether there is such a room; it may be that this device has just come in, and knows no other yet."""
        return self.membership is not None

    async def get_or_create(self) -> Membership:
        """Return the room; made now if this is the only device so far."""
        membership = self.membership
        if membership is None:
            membership = await self._creating.create()
            self._save(membership.uri)
        return membership

    def _save(self, room: MimiUri) -> None:
        self._rows[_ROW] = str(room).encode()

    def note_joined(self, item: OutstandingKeyPackage, room: MimiUri) -> None:
        """Note which room it is, if this device has just come into it."""
        if item.user == self._context.user:
            self._save(room)

    async def tell(self, room: Membership, content: Content) -> None:
        """Say something there, where it may hold keys: never while a removed device still listens."""
        for listener in self.before_telling:
            await listener(room)
        await self._sending.send(room, content)

    def speaker(self, membership: Membership, sender: Whois) -> str:
        """Return which of this user's devices spoke; `RoomError` if it is none, removed, or not in their room."""
        person = sender.member.device if sender.member else None
        here = self.membership in (None, membership)
        if not here or person is None or not self._roster.is_own(person):
            raise RoomError("a message between devices that is not from one, or not in their room")
        if person.device.name in self._known.removed():
            raise RoomError(f"a message of the device {person.device.name}, which was removed")
        return person.device.name
