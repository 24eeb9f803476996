"""The contacts of this user, in memory and in the shared state of the user's devices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.storage.records import SavedContact
from mimi_mmr.client.storage.shared_state import SharedKind, SharedState
from mimi_mmr.errors import BindingRejected
from mimi_mmr.protocol.credentials import VerifiedDevice
from mimi_mmr.uris import MimiUri


class ContactBook(Mapping[MimiUri, Contact]):
    """Contacts by user. A contact stays the same object as long as the client lives."""

    def __init__(self, shared: SharedState) -> None:
        """Read the shared state."""
        self._shared = shared
        self._contacts: dict[MimiUri, Contact] = {}
        self._read()

    def __getitem__(self, user: MimiUri) -> Contact:
        return self._contacts[user]

    def __iter__(self) -> Iterator[MimiUri]:
        return iter(self._contacts)

    def __len__(self) -> int:
        return len(self._contacts)

    def _read(self) -> None:
        """Update the contacts in memory from the shared entries."""
        known, self._contacts = self._contacts, {}
        for _, value in self._shared.items(SharedKind.CONTACT):
            saved = SavedContact.from_bytes(value)
            contact = known.get(saved.person.user) or saved.contact()
            saved.update(contact)
            self._contacts[contact.user] = contact

    def remember(self) -> Callable[[], None]:
        """Return a function that reads the contacts again from the shared entries, once those are restored."""
        return self._read

    def save(self, contact: Contact) -> None:
        """Store a new or changed contact, and have the user's other devices told."""
        self._shared.put(SharedKind.CONTACT, str(contact.user).encode(), SavedContact.of(contact).to_bytes())
        self._contacts[contact.user] = contact

    def learn(self, saved: SavedContact) -> None:
        """Add a contact that another device sent; its shared entry is stored already."""
        self._contacts[saved.person.user] = saved.contact()

    def check_known(self, device: VerifiedDevice) -> None:
        """Refuse a device with another identity key than the known one of its user, or that its user has removed.

        A known identity key is not replaced. Raises `BindingRejected`.
        """
        known = self._contacts.get(device.user)
        if known is None:
            return
        if known.device.identity_key != device.identity_key:
            raise BindingRejected("a contact of this name has another identity key")
        if device.device_key in known.removed_devices:
            raise BindingRejected("a device that its user has removed")
