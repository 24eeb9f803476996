"""The devices' room, in which a user's devices exchange what no provider may learn.

The user's provider is its hub. Only the user's devices are in it, and they exchange client-to-client messages.
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
from mimi_mmr.errors import BindingRejected, RoomError
from mimi_mmr.member.room import Room
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content
from mimi_mmr.uris import MimiUri

_ROW = b"devices"


class DevicesRoom:
    """The devices' room, and what this device sends there. The wiring sets the listeners in `before_telling`."""

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
        """The devices' room; None while the user has one device only."""
        row = self._rows.get(_ROW)
        return self._memberships.get(MimiUri.parse(row.decode())) if row else None

    @property
    def open(self) -> Membership | None:
        """The devices' room; None if this device was removed from it."""
        membership = self.membership
        return None if membership is None or membership.removed else membership

    def exists(self) -> bool:
        """Say whether there is a devices' room.

        This device may have just entered it, and know no other device yet.
        """
        return self.membership is not None

    async def get_or_create(self) -> Membership:
        """Return the devices' room; make it if this has been the only device so far."""
        membership = self.membership
        if membership is None:
            membership = await self._creating.create()
            self._save(membership.uri)
        return membership

    def _save(self, room: MimiUri) -> None:
        self._rows[_ROW] = str(room).encode()

    def note_joined(self, item: OutstandingKeyPackage, room: MimiUri) -> None:
        """Note that this room is the devices' room, if this device has just entered it."""
        if item.user == self._context.user:
            self._save(room)

    async def tell(self, room: Membership, content: Content) -> None:
        """Send a message, which may hold keys, to the devices' room.

        Nothing is sent while a removed device is still in that room, or anybody else than this user's devices: then
        this raises `BindingRejected`. The members are checked in the epoch that the message is encrypted in.
        """
        for listener in self.before_telling:
            await listener(room)
        await self._sending.send(room, content, before_encrypting=self._check_members)

    def check_place(self, item: OutstandingKeyPackage, room: Room) -> None:
        """Refuse a devices' room with anybody in it but this user's devices; raise `BindingRejected`."""
        if item.user == self._context.user:
            self._check_members(room)

    def _check_members(self, room: Room) -> None:
        if self._roster.others(room):
            raise BindingRejected("somebody else than this user's devices is in the devices' room")

    def speaker(self, membership: Membership, sender: Whois) -> str:
        """Return the name of the device that sent a message.

        Raises `RoomError` if the sender is none of this user's devices, was removed, or the room is another one.
        """
        person = sender.member.device if sender.member else None
        here = self.membership in (None, membership)
        if not here or person is None or not self._roster.is_own(person):
            raise RoomError("a message between devices that is not from one, or not in their room")
        if person.device.name in self._known.removed():
            raise RoomError(f"a message of the device {person.device.name}, which was removed")
        return person.device.name
