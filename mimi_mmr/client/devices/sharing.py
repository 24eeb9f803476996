"""What a user's devices tell each other, so that all know the same contacts, settings, keys and devices.

A device may be in a thief's hands: what it says is checked before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from mimi_mmr.client.context import Context
from mimi_mmr.client.devices.devices_room import DevicesRoom
from mimi_mmr.client.people.connection_packages import ConnectionPackages
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import MAX_REMOVED
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.storage.records import SavedContact, SavedPackage
from mimi_mmr.client.storage.shared_state import (
    MAX_STEP,
    SharedEntries,
    SharedEntry,
    SharedKind,
    SharedState,
    batches,
)
from mimi_mmr.errors import BindingRejected, StateError
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.uris import MimiUri


class Sharing:
    """News for the other devices, and from them.

    `device_removed` are listeners for devices that another one removes, by name; see the wiring.
    """

    def __init__(
        self,
        context: Context,
        shared: SharedState,
        devices_room: DevicesRoom,
        contacts: ContactBook,
        packages: ConnectionPackages,
        memberships: Memberships,
    ) -> None:
        self._context = context
        self._shared = shared
        self._devices_room = devices_room
        self._contacts = contacts
        self._packages = packages
        self._memberships = memberships
        self._newcomers = context.vault.table("devices to be told everything")
        self._abandoned: list[MimiUri] = []
        self.device_removed: list[Callable[[str], None]] = []
        for problem in shared.unreadable:
            context.refusals.add("shared state", StateError(problem))

    @property
    def newcomers(self) -> MutableMapping[bytes, bytes]:
        """Devices that are to be told everything once they are in, by client pseudonym."""
        return self._newcomers

    # --- telling -------------------------------------------------------------------------------------

    async def share(self) -> None:
        """Tell the other devices what they don't know yet, and one that has just come in everything."""
        room = self._devices_room.open
        if room is None:
            return
        present = {str(client).encode() for client in room.room.members.by_client}
        with self._context.vault.transaction():
            for newcomer in present & self._newcomers.keys():
                self._shared.all_unsent()
                del self._newcomers[newcomer]
        for batch in batches(self._shared.unsent()):
            await self._devices_room.tell(room, Content(ContentKind.SHARED_STATE, batch.to_bytes()))
            self._shared.sent(batch.entries)

    # --- hearing -------------------------------------------------------------------------------------

    def take_message(self, membership: Membership, sender: Whois, content: Content) -> None:
        """Take what another device says; an entry that is no good is refused, and the next one counts."""
        device = self._devices_room.speaker(membership, sender)
        for entry in SharedEntries.from_bytes(content.body).entries:
            try:
                self._take_entry(device, entry)
            except (StateError, BindingRejected) as error:
                self._context.refusals.add(f"the device {device}", error)

    def _take_entry(self, device: str, entry: SharedEntry) -> None:
        """Take one entry, if it is newer; raises `StateError` or `BindingRejected` if it is no good."""
        entry.check()
        if entry.kind is SharedKind.DEVICE:
            self._check_device(device, entry)
        if entry.kind is SharedKind.CONTACT and entry.value is not None:
            self._check_contact(device, SavedContact.from_bytes(entry.value))
        if not self._shared.apply(entry):
            return
        if entry.kind is SharedKind.DEVICE and entry.value is None:
            name = entry.key.decode()
            for listener in self.device_removed:
                listener(name)
            self._context.notify(f"the device {device} removes the device {name}")
        elif entry.kind is SharedKind.CONNECTION_PACKAGE:
            if entry.value is None:
                self._packages.unlearn(entry.key)
            else:
                self._packages.learn(SavedPackage.from_bytes(entry.value).published())
        elif entry.kind is SharedKind.CONTACT and entry.value is not None:
            self._apply_contact(SavedContact.from_bytes(entry.value))

    def _check_device(self, device: str, entry: SharedEntry) -> None:
        """Refuse another key of a device, and that this one is removed: the rooms would say so, not a device."""
        known = self._shared.get(SharedKind.DEVICE, entry.key)
        if None not in (known, entry.value) and known != entry.value:
            raise BindingRejected(f"another key of the device {entry.key.decode()}")
        if entry.value is None and entry.key == self._context.device.name.encode():
            self._context.notify(f"the device {device} says that this one is removed")
            raise StateError("this very device is said to be removed")

    def _check_contact(self, device: str, saved: SavedContact) -> None:
        """Refuse another identity key than the known one, and a key's version that leaps ahead of all others."""
        known = self._contacts.get(saved.person.user)
        if known is None:
            return
        if saved.person.identity_key != known.device.identity_key:
            self._context.notify(
                f"the device {device} says that {known.user} has another identity key: not believed"
            )
            raise BindingRejected(f"another identity key of {known.user}")
        steps = [saved.key_version - known.key_version]
        if saved.theirs is not None and known.theirs is not None:
            steps.append(saved.theirs.key_version - known.theirs.key_version)
        if max(steps) > MAX_STEP:
            raise StateError("a connection key in a version that is far ahead of all others")

    def _apply_contact(self, saved: SavedContact) -> None:
        """Put together what two devices know newer halves of, and have the other one told of it."""
        known = self._contacts.get(saved.person.user)
        if known is None:
            self._contacts.learn(saved)
            return
        if saved.blocked and not known.blocked and known.room is not None:
            self._abandoned.append(known.room)
        theirs, pinned, removed = known.theirs, known.pinned, known.removed_devices
        own = known.key_version, known.own_key, known.upload_key
        saved.update(known)
        known.pinned |= pinned
        known.removed_devices = tuple(dict.fromkeys((*removed, *known.removed_devices)))[-MAX_REMOVED:]
        if theirs is not None and not known.blocked:
            known.take(theirs)
        if own[0] > known.key_version:
            known.key_version, known.own_key, known.upload_key = own
        self._contacts.save(known)

    async def forget_abandoned_rooms(self) -> None:
        """Forget connection rooms with somebody whom another device has blocked."""
        while self._abandoned:
            membership = self._memberships.get(self._abandoned.pop())
            if membership is not None:
                await self._memberships.forget(membership)
