"""The exchange of shared state: all of a user's devices know the same contacts, settings, keys and devices.

A device may be stolen, so the entries that it sends are checked before they are stored.
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
from mimi_mmr.protocol.connections import ConnectionKeyOffer, newest_offer
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.uris import MimiUri


class Sharing:
    """The sending and taking of shared entries.

    The listeners in `device_removed` get the name of a device that another device has removed; see `wiring`.
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
        """Devices that get all entries once they are in the devices' room, by client pseudonym."""
        return self._newcomers

    # --- telling -------------------------------------------------------------------------------------

    async def share(self) -> None:
        """Send the other devices what they don't know yet; send a device that has just entered all entries."""
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
        """Take another device's entries; refuse the invalid ones, and go on with the next."""
        device = self._devices_room.speaker(membership, sender)
        for entry in SharedEntries.from_bytes(content.body).entries:
            try:
                self._take_entry(device, entry)
            except (StateError, BindingRejected) as error:
                self._context.refusals.add(f"the device {device}", error)

    def _take_entry(self, device: str, entry: SharedEntry) -> None:
        """Take one entry if it is newer; raises `StateError` or `BindingRejected` if it is invalid."""
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
        """Refuse a changed device key, and the claim that this device was removed: only the rooms can say that."""
        known = self._shared.get(SharedKind.DEVICE, entry.key)
        if None not in (known, entry.value) and known != entry.value:
            raise BindingRejected(f"another key of the device {entry.key.decode()}")
        if entry.value is None and entry.key == self._context.device.name.encode():
            self._context.notify(f"the device {device} says that this one is removed")
            raise StateError("this very device is said to be removed")

    def _check_contact(self, device: str, saved: SavedContact) -> None:
        """Refuse a changed identity key, and a connection key whose version is too far ahead of the known one."""
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
        """Merge two devices' states of a contact, of which each may be newer in part, and have the others told."""
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
            known.theirs = _newest(theirs, removed, saved)
        if own[0] > known.key_version:
            known.key_version, known.own_key, known.upload_key = own
        self._contacts.save(known)

    async def forget_abandoned_rooms(self) -> None:
        """Forget the connection rooms of contacts whom another device has blocked."""
        while self._abandoned:
            membership = self._memberships.get(self._abandoned.pop())
            if membership is not None:
                await self._memberships.forget(membership)


def _newest(
    ours: ConnectionKeyOffer, removed: tuple[bytes, ...], saved: SavedContact
) -> ConnectionKeyOffer | None:
    """Return the connection key of a contact that counts, of this device's and another one's state.

    It is the one of who has heard of more lost devices, since such a device may have given its key any version.
    """
    if set(removed) - set(saved.removed_devices):
        return ours
    if set(saved.removed_devices) - set(removed):
        return saved.theirs
    return newest_offer(saved.theirs, ours)
