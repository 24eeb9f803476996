"""Messages between contacts in their connection room: connection keys, and devices that one of them has lost.

With a contact's connection key one can fetch that contact's KeyPackages, and so add the contact to rooms.
"""

from __future__ import annotations

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.shelves import Shelves
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.rooms.membership import Membership
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.roster import Roster, identity_of
from mimi_mmr.client.rooms.sending import Sending
from mimi_mmr.client.transport.errands import Errands
from mimi_mmr.errors import ConnectionRefused, HubRefusal, MmrError, RemovedFromRoom, RoomError
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.connections import ConnectionKeyOffer
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.uris import MimiUri

DEVICE_KEY_SIZE = 32


class ConnectionKeys:
    """The sending, taking and replacing of connection keys."""

    def __init__(
        self,
        context: Context,
        contacts: ContactBook,
        memberships: Memberships,
        roster: Roster,
        sending: Sending,
        shelves: Shelves,
        errands: Errands,
    ) -> None:
        self._context = context
        self._contacts = contacts
        self._memberships = memberships
        self._roster = roster
        self._sending = sending
        self._shelves = shelves
        self._errands = errands
        self._due_offers = context.vault.table("offers due")
        self._due_rotations = context.vault.table("connection keys due")

    # --- sending offers ------------------------------------------------------------------------------

    def offers_due(self) -> list[MimiUri]:
        """Return the users to whom this side's connection key has still to be sent."""
        return [MimiUri.parse(user.decode()) for user in self._due_offers]

    def owe_offer(self, contact: Contact) -> None:
        """Note that this side's connection key has to be sent to a contact. Call this inside a transaction."""
        self._due_offers[str(contact.user).encode()] = b""

    def drop_offer(self, contact: Contact) -> None:
        """Note that no connection key has to be sent to a contact."""
        self._due_offers.pop(str(contact.user).encode(), None)

    async def send_due_offers(self) -> None:
        """Send the connection keys that are due.

        One that can't be sent now stays due, and does not stop the others.
        """
        for place in list(self._due_offers):
            contact = self._contacts.get(MimiUri.parse(place.decode()))
            if contact is None or contact.blocked:
                del self._due_offers[place]
                continue
            try:
                await self.send_offer(contact)
            except (HubRefusal, RemovedFromRoom) as error:  # we can't send into this room any more
                self._context.refusals.add("introduction", error)
                self._due_offers.pop(place, None)
            except MmrError as error:
                self._context.refusals.add("introduction, to be tried again", error)

    async def send_offer(self, contact: Contact) -> None:
        """Send this side's connection key; from then on the contact can fetch KeyPackages.

        Raises `RoomError` if there is no connection room, or its members are not these two users.
        """
        membership = self._memberships.find(contact.room)
        if membership is None or membership.removed:
            raise RemovedFromRoom(f"there is no connection room with {contact.user}")
        if self._roster.others(membership.room) != {identity_of(contact.device)}:
            raise RoomError(f"the connection room with {contact.user} is not one of the two and nobody else")
        version = contact.key_version
        content = Content(ContentKind.CONNECTION_KEY, contact.offer().to_bytes())
        await self._sending.send(membership, content)
        if contact.key_version == version:
            self.drop_offer(contact)

    # --- what contacts say ---------------------------------------------------------------------------

    def take_offer(self, membership: Membership, sender: Whois, content: Content) -> None:
        """Take a connection key. It counts only in a room with the contact alone, from the contact."""
        offer = ConnectionKeyOffer.from_bytes(content.body)
        if sender.member is not None and self._roster.is_own(sender.member.device):
            return  # sent by another device of this user
        contact = self._speaker(membership, sender)
        contact.take(offer)
        self._contacts.save(contact)

    def take_removed_device(self, membership: Membership, sender: Whois, content: Content) -> None:
        """Note a lost device of a contact, as another device of theirs says.

        The lost device is no longer accepted as that contact's.
        """
        person, device_key = sender.member.device if sender.member else None, content.body
        if person is not None and self._roster.is_own(person):
            return  # sent to the contact by another device of this user
        contact = self._speaker(membership, sender)
        if person is None or len(device_key) != DEVICE_KEY_SIZE or device_key == person.device_key:
            raise ConnectionRefused("the removal of a contact's device that is none, or that says so itself")
        if device_key not in contact.removed_devices:
            contact.lose_device(device_key)
            contact.device = person
            self._contacts.save(contact)

    def _speaker(self, membership: Membership, sender: Whois) -> Contact:
        """Return the contact who speaks in a connection room; `ConnectionRefused` for anybody or anywhere else.

        Two users who ask each other at the same time make two connection rooms. Either room is accepted, and from
        then on both users use the one with the smaller URI.
        """
        contact = self._contacts.get(sender.member.device.user) if sender.member else None
        if sender.member is None or contact is None or contact.blocked:
            raise ConnectionRefused("a message between contacts by somebody who is none")
        if sender.member.device.identity_key != contact.device.identity_key:
            raise ConnectionRefused("a message between contacts under another identity key")
        if contact.room != membership.uri:
            if self._roster.others(membership.room) != {identity_of(contact.device)}:
                raise ConnectionRefused("a message between contacts in a room that is not theirs alone")
            known = contact.room is not None and contact.room in self._memberships
            if contact.room is None or not known or membership.uri < contact.room:
                contact.room = membership.uri
                self._contacts.save(contact)
        return contact

    # --- other keys ----------------------------------------------------------------------------------

    async def rotate(self, contact: Contact) -> None:
        """Give a contact a new connection key and a new shelf; the old key then fetches nothing.

        Work that fails now is done by `tend`.
        """
        with self._context.changes.transaction():
            self._due_rotations.pop(str(contact.user).encode(), None)
            self._shelves.renew(contact)
            self.owe_offer(contact)
        await self._errands.run()
        await self.send_due_offers()
        try:
            await self._shelves.tend(contact)
        except MmrError as error:
            self._context.refusals.add("a shelf, to be filled later", error)

    def owe_rotations(self) -> None:
        """Note that every contact has to get a new connection key. Call this inside a transaction."""
        for contact in self._contacts.values():
            if not contact.blocked:
                self._due_rotations[str(contact.user).encode()] = b""

    async def rotate_due(self) -> None:
        """Give new connection keys to contacts for whom they are due."""
        for place in list(self._due_rotations):
            contact = self._contacts.get(MimiUri.parse(place.decode()))
            if contact is not None and not contact.blocked:
                await self.rotate(contact)
            self._due_rotations.pop(place, None)
