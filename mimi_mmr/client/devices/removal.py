"""The removal of a lost device from the account and from every room, with new keys for all that it knew.

The lost device stops being one of the user's as soon as one device begins its removal. The work is written down
first. Each device removes the lost one from its own rooms. The parts that are done once for all devices fall to the
device that began; if that one does not do them in time, any other device does. Work that fails now, because a hub
can't be reached, is done by `tend`.
"""

from __future__ import annotations

from functools import partial

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.known_devices import KnownDevices
from mimi_mmr.client.devices.sharing import Sharing
from mimi_mmr.client.people.connection_keys import ConnectionKeys
from mimi_mmr.client.people.connection_packages import ConnectionPackages
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.client.storage.shared_state import Part, Removal, SharedKind, SharedState
from mimi_mmr.errors import MmrError, RoomError, UnknownDevice
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.endpoints import REMOVE_DEVICE
from mimi_mmr.uris import MimiUri, check_name

OTHERS_TURN = 3600  # seconds after which another device takes over the parts of the device that began
LATER = "devices, to be tried again"


class DeviceRemoval:
    """The removal of devices: which work is left, and which device does it."""

    def __init__(
        self,
        context: Context,
        account: Account,
        *,
        shared: SharedState,
        known: KnownDevices,
        sharing: Sharing,
        contacts: ContactBook,
        packages: ConnectionPackages,
        connection_keys: ConnectionKeys,
        memberships: Memberships,
        commits: Commits,
        sending: Sending,
    ) -> None:
        """Read from the vault the work that is left."""
        self._context = context
        self._account = account
        self._shared = shared
        self._known = known
        self._sharing = sharing
        self._contacts = contacts
        self._packages = packages
        self._connection_keys = connection_keys
        self._memberships = memberships
        self._commits = commits
        self._sending = sending
        self._to_clear = context.vault.table("rooms with removed devices")

    # --- beginning -----------------------------------------------------------------------------------

    async def remove(self, name: str) -> None:
        """Remove a device from the account and from every room, and replace the keys that it knew.

        The device stops being one of this user's at once. Every piece of the work is tried. If some fail, the first
        error is raised; `tend` goes on with them, here and on the other devices, and so does another call. The
        device may be one that only the provider knows. Raises `RoomError` for this device itself,
        `UnknownDevice` for an unknown one.

        One key that the device knew can't be replaced: the user's identity key. It stays in the lost device's
        vault, protected by its passphrase.
        """
        check_name(name)
        if name == self._context.device.name:
            raise RoomError("a device can't remove itself: another device of the account can")
        if not self._under_way(name):
            if name not in self._known.others() and name not in await self._account.registered_devices():
                raise UnknownDevice(f"this account has no device {name}")
            self.begin(name)
        errors = [*await self.go_on(), await self._context.attempt(LATER, self._sharing.share)]
        for error in filter(None, errors):
            raise error

    def _under_way(self, name: str) -> bool:
        """Say whether work is left for the removal of a device, as far as this device knows."""
        parts = (key for key, _ in self._shared.items(SharedKind.REMOVAL))
        return any(key.startswith(f"{name} ".encode()) for key in (*self._to_clear, *parts))

    def begin(self, name: str) -> None:
        """Write down the work in one transaction."""
        known = self._shared.get(SharedKind.DEVICE, name.encode())
        removal = Removal(int(self._context.clock()), known or b"").to_bytes()
        friends = [contact.user for contact in self._contacts.values() if not contact.blocked]
        parts: list[str] = [Part.ACCOUNT, Part.PACKAGES]
        # A contact who was told takes the new key, whatever version the lost device gave the last one.
        parts += [f"{part} {user}" for user in friends for part in (Part.TELL, Part.KEY)]
        with self._context.changes.transaction():
            self._shared.put(SharedKind.DEVICE, name.encode(), None)
            for part in parts:
                self._shared.put(SharedKind.REMOVAL, f"{name} {part}".encode(), removal)
            for listener in self._sharing.device_removed:
                listener(name)

    def note_rooms(self, name: str) -> None:
        """Note for every room that a removed device has to be removed there."""
        for membership in self._memberships.values():
            self._note(membership, name)

    def _note(self, membership: Membership, name: str) -> None:
        self._to_clear[f"{name} {membership.uri}".encode()] = b""

    def note_room_entered(self, membership: Membership) -> None:
        """Note removed devices that have to be removed from a room which this device has entered.

        The member who added us may also have added a device that was removed meanwhile. Where names are hidden,
        that device can't be recognised and stays.
        """
        if membership.room.policy.policy.shows_identity(membership.pseudonym):
            for name in self._known.removed():
                self._note(membership, name)

    # --- going on ------------------------------------------------------------------------------------

    async def go_on(self) -> list[MmrError]:
        """Do the work that is left for removed devices; return the errors."""
        work = [partial(self._clear_room, row) for row in self._to_clear]
        work += [partial(self.do_part, key) for key in self.due_parts()]
        found = [await self._context.attempt(LATER, one) for one in work]
        return [error for error in found if error is not None]

    async def clear_before_telling(self, room: Membership) -> None:
        """Remove removed devices from a room before keys are sent there.

        If this raises, nothing is sent.
        """
        for row in [row for row in self._to_clear if row.endswith(f" {room.uri}".encode())]:
            await self._clear_room(row)

    async def _clear_room(self, row: bytes) -> None:
        name, uri = row.decode().split(" ")
        membership = self._memberships.get(MimiUri.parse(uri))
        if membership is not None and membership.desynchronised:
            return  # this device can commit nothing there until somebody adds it anew
        if membership is not None and not membership.removed:
            await self.remove_leaf(membership, name)
        self._to_clear.pop(row, None)

    async def remove_leaf(self, membership: Membership, device: str) -> None:
        """Remove a lost device from a room: its leaves or, if unknown, every own leaf that is not another device's.

        The device may have a leaf under another pseudonym of this user too. Raises `NotAllowed` for such a leaf if
        this user may not remove others.

        A device that is removed by mistake in this way is added again; see `MissingDevices`.
        """
        members = membership.room.members
        said = self._known.leaves_in(membership.uri)
        gone = self._known.leaves_of(membership, device)
        for leaf in membership.own_leaves:
            pseudonym = str(members.readable[leaf].client).encode()
            if (self._known.at(membership, leaf) or said.get(pseudonym, device)) == device:
                gone.add(leaf)
        gone.discard(membership.room.own_leaf)
        if gone:
            await self._commits.commit(membership, CommitIntent(removes=members.at(gone)))
        self._known.forget_leaf(membership.uri, device)

    def due_parts(self) -> list[bytes]:
        """Return those parts, of the ones done once for all devices, that this device has to do now."""
        removed, now = self._known.removed(), self._context.clock()
        due = []
        for key, value in self._shared.items(SharedKind.REMOVAL):
            entry = self._shared.entry(SharedKind.REMOVAL, key)
            late = Removal.from_bytes(value).since + OTHERS_TURN < now
            own = entry is not None and entry.device == self._context.device.name
            if key.split(b" ")[0].decode() in removed and (own or late):
                due.append(key)
        return due

    async def do_part(self, key: bytes) -> None:
        """Do one of the parts that are done once for all devices, unless another device has done it meanwhile."""
        value = self._shared.get(SharedKind.REMOVAL, key)
        if value is None:
            return
        name, part, *users = key.decode().split(" ")
        contact = self._contacts.get(MimiUri.parse(users[0])) if users else None
        if part == Part.ACCOUNT:
            await self._account.ask(REMOVE_DEVICE, device=name)
        elif part == Part.PACKAGES:
            await self._packages.replace_all()
        elif contact is not None and not contact.blocked:
            membership = self._memberships.find(contact.room)
            device_key = Removal.from_bytes(value).device_key
            if part == Part.KEY:
                await self._connection_keys.rotate(contact)
            elif membership is not None and not membership.removed and device_key:
                await self._sending.send(membership, Content(ContentKind.DEVICE_REMOVED, device_key))
        self._shared.put(SharedKind.REMOVAL, key, None)
