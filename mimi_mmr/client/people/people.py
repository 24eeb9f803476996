"""Contacts, requests in both directions, and blocked users: the part that an application sees.

The consent operations of -06 map to methods: `request_connection` is request, `cancel` cancel, `accept` grant, and
`block` revoke. A refusal or a revocation sends nothing to the other user.
"""

from __future__ import annotations

from mimi_mmr.client.people.blocking import Blocking
from mimi_mmr.client.people.connection_keys import ConnectionKeys
from mimi_mmr.client.people.connection_packages import ConnectionPackages
from mimi_mmr.client.people.connections import Connections
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.client.people.incoming import IncomingRequests
from mimi_mmr.client.people.outgoing import OutgoingRequests
from mimi_mmr.client.people.reconnecting import Reconnecting
from mimi_mmr.protocol.connections import ContactCode
from mimi_mmr.uris import MimiUri


class People:
    """Contacts and requests. `contacts` are this user's contacts, `outgoing` the requests it sent, both by user.

    `connection_packages` are the packages that strangers find in the directory.
    """

    def __init__(
        self,
        *,
        contacts: ContactBook,
        connection_packages: ConnectionPackages,
        outgoing: OutgoingRequests,
        incoming: IncomingRequests,
        connections: Connections,
        connection_keys: ConnectionKeys,
        blocking: Blocking,
        reconnecting: Reconnecting,
    ) -> None:
        """Hold the parts; all but the three named above are internal."""
        self.contacts = contacts
        self.connection_packages = connection_packages
        self.outgoing = outgoing
        self.incoming = incoming
        self.connections = connections
        self.connection_keys = connection_keys
        self.blocking = blocking
        self.reconnecting = reconnecting

    @property
    def only_contacts(self) -> bool:
        """Whether requests of users who are not contacts are refused without an answer."""
        return self.incoming.only_contacts

    @only_contacts.setter
    def only_contacts(self, on: bool) -> None:
        self.incoming.only_contacts = on

    async def request_connection(self, to: ContactCode | MimiUri) -> OutgoingRequest:
        """Send a connection request. With a contact code, an identity key with another fingerprint is refused.

        Raises `ConnectionRefused` for a user whom this user has blocked.
        """
        return await self.outgoing.send(to)

    async def cancel(self, outgoing: OutgoingRequest) -> None:
        """Cancel a request. A response that was already sent is then ignored."""
        await self.outgoing.cancel(outgoing)

    async def complete_connection(self, outgoing: OutgoingRequest, wait: float = 20.0) -> Contact | None:
        """Look for the response; if there is one, make the connection room. Returns None if there is none yet.

        May be called again after any failure, and then goes on where the last call stopped.
        """
        return await self.connections.complete(outgoing, wait)

    async def connection_requests(self) -> list[IncomingRequest]:
        """Fetch the connection requests from the provider, and return them."""
        return await self.incoming.read()

    async def accept(self, incoming: IncomingRequest) -> Contact:
        """Accept a request, with a KeyPackage for the connection room, which the requester will make.

        Raises `BindingRejected` if the user is a contact with another identity key, `ConnectionRefused` if they are
        blocked, or no longer wait for an answer.
        """
        return await self.connections.accept(incoming)

    async def refuse(self, incoming: IncomingRequest) -> None:
        """Refuse a request without an answer: to the requester this looks like a user who is offline."""
        await self.incoming.refuse(incoming)

    async def block(self, contact: Contact) -> None:
        """End a connection in silence, and give every other contact a new connection key."""
        await self.blocking.block(contact)

    async def unblock(self, user: MimiUri) -> None:
        """Take a blocked user's requests again. To be connected, one of the two users has to ask anew."""
        await self.blocking.unblock(user)

    async def rotate_connection_key(self, contact: Contact) -> None:
        """Give a contact a new connection key and a new shelf; the old key then fetches nothing."""
        await self.connection_keys.rotate(contact)
