"""Blocked contacts: this client takes nothing from them any more, and sends them nothing."""

from __future__ import annotations

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackages
from mimi_mmr.client.key_packages.shelves import Shelves
from mimi_mmr.client.people.connection_keys import ConnectionKeys
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.people.outgoing import OutgoingRequests
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.transport.errands import Errands
from mimi_mmr.errors import RoomError
from mimi_mmr.uris import MimiUri


class Blocking:
    """The blocking and unblocking of contacts."""

    def __init__(
        self,
        context: Context,
        contacts: ContactBook,
        outgoing: OutgoingRequests,
        connection_keys: ConnectionKeys,
        outstanding: OutstandingKeyPackages,
        shelves: Shelves,
        memberships: Memberships,
        errands: Errands,
    ) -> None:
        self._context = context
        self._contacts = contacts
        self._outgoing = outgoing
        self._connection_keys = connection_keys
        self._outstanding = outstanding
        self._shelves = shelves
        self._memberships = memberships
        self._errands = errands

    async def block(self, contact: Contact) -> None:
        """End a connection in silence, and give every other contact a new connection key.

        The contact's shelf is closed: its fetch token then gets the same answer as an unknown token. The connection
        room is not read any more; its queue is deleted, so that the provider drops what is sent there. The block
        holds at once; work that fails now is done by `tend`.
        """
        with self._context.changes.transaction():
            contact.blocked, contact.theirs = True, None
            self._shelves.renew(contact)
            self._connection_keys.drop_offer(contact)
            self._connection_keys.owe_rotations()
        await self.part_from(contact)
        await self._errands.run()
        await self._connection_keys.rotate_due()

    async def part_from_blocked(self) -> None:
        """Drop what is left of the connections with blocked contacts."""
        for contact in list(self._contacts.values()):
            if contact.blocked:
                await self.part_from(contact)

    async def part_from(self, contact: Contact) -> None:
        """Drop what is left of a connection: KeyPackages for the contact, requests, the room."""
        for item in self._outstanding.made_for(contact.user):
            self._outstanding.forget(item)
        outgoing = self._outgoing.get(contact.user)
        if outgoing is not None:
            await self._outgoing.drop(outgoing)
        membership = self._memberships.find(contact.room)
        if membership is not None:
            await self._memberships.forget(membership)
        if contact.room is not None:
            contact.room = None
            self._contacts.save(contact)

    async def unblock(self, user: MimiUri) -> None:
        """Take a blocked user's requests again. To be connected, one of the two users has to ask anew."""
        contact = self._contacts.get(user)
        if contact is None or not contact.blocked:
            raise RoomError("no blocked contact of this name")
        contact.blocked = False
        self._contacts.save(contact)
