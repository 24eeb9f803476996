"""People, as an application sees them: contacts, who asks, who was asked, and who is blocked.

-06's consent maps onto it: `request_connection` asks, `cancel` takes that back, `accept` grants, `block` revokes; a
refusal is silence, and so is a revocation.
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
    """People. `contacts` are those that this user is connected to, `outgoing` those it has asked, both by user.

    `connection_packages` is what strangers find in the directory.
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
        """Hold the parts; others than the three named above are internal."""
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
        """Whether requests of people who are no contacts are refused, in silence."""
        return self.incoming.only_contacts

    @only_contacts.setter
    def only_contacts(self, on: bool) -> None:
        self.incoming.only_contacts = on

    async def request_connection(self, to: ContactCode | MimiUri) -> OutgoingRequest:
        """Ask to connect. With a contact code, an identity key other than its fingerprint's is refused.

        Raises `ConnectionRefused` for a user whom one has blocked.
        """
        return await self.outgoing.send(to)

    async def cancel(self, outgoing: OutgoingRequest) -> None:
        """Take a request back. Who has answered it already will not be heard."""
        await self.outgoing.cancel(outgoing)

    async def complete_connection(self, outgoing: OutgoingRequest, wait: float = 20.0) -> Contact | None:
        """Look for the response; if it is there, make the connection room. None if it isn't there yet.

        May be called again after any failure, and goes on where that one ended.
        """
        return await self.connections.complete(outgoing, wait)

    async def connection_requests(self) -> list[IncomingRequest]:
        """Return who wants to connect, asked of the provider now."""
        return await self.incoming.read()

    async def accept(self, incoming: IncomingRequest) -> Contact:
        """Say yes, with a KeyPackage for the connection room, which the requester will make.

        Raises `BindingRejected` if the user is a contact with another identity key, `ConnectionRefused` if they are
        blocked, or no longer wait for an answer.
        """
        return await self.connections.accept(incoming)

    async def refuse(self, incoming: IncomingRequest) -> None:
        """Say nothing: the requester sees what it sees of somebody who is away."""
        await self.incoming.refuse(incoming)

    async def block(self, contact: Contact) -> None:
        """End a connection in silence, and give every other contact a new connection key."""
        await self.blocking.block(contact)

    async def unblock(self, user: MimiUri) -> None:
        """Hear of a blocked user's requests again; to be connected, one of the two has to ask anew."""
        await self.blocking.unblock(user)

    async def rotate_connection_key(self, contact: Contact) -> None:
        """Give a contact a new connection key and a new shelf; what the old one fetches is nothing."""
        await self.connection_keys.rotate(contact)
