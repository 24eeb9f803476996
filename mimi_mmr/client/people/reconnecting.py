"""The repair of connections: responses taken, and connections made again that one of the two users has lost."""

from __future__ import annotations

from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage, OutstandingKeyPackages
from mimi_mmr.client.people.blocking import Blocking
from mimi_mmr.client.people.connection_keys import ConnectionKeys
from mimi_mmr.client.people.connections import Connections
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import IncomingRequest, OutgoingRequest
from mimi_mmr.client.people.incoming import IncomingRequests
from mimi_mmr.client.people.outgoing import OutgoingRequests
from mimi_mmr.client.rooms.lost_keys import AddAgain, LostKeys
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.errors import CredentialExpired, MmrError, NotYet, PeerError, PrivatePathFailed
from mimi_mmr.protocol.connections import ContactCode
from mimi_mmr.protocol.credentials import fingerprint
from mimi_mmr.protocol.room.events import FanoutMessage


class Reconnecting:
    """The work on connections that needs no request of the user."""

    def __init__(
        self,
        context: Context,
        *,
        contacts: ContactBook,
        outgoing: OutgoingRequests,
        incoming: IncomingRequests,
        connections: Connections,
        connection_keys: ConnectionKeys,
        blocking: Blocking,
        memberships: Memberships,
        outstanding: OutstandingKeyPackages,
        lost_keys: LostKeys,
    ) -> None:
        self._context = context
        self._contacts = contacts
        self._outgoing = outgoing
        self._incoming = incoming
        self._connections = connections
        self._connection_keys = connection_keys
        self._blocking = blocking
        self._memberships = memberships
        self._outstanding = outstanding
        self._lost_keys = lost_keys

    async def tend(self) -> None:
        """Complete answered requests, reconnect contacts who lost the connection, send due connection keys."""
        await self._blocking.part_from_blocked()
        for outgoing in list(self._outgoing.values()):
            await self._tend_outgoing(outgoing)
        for incoming in await self._incoming.read():
            await self._tend_incoming(incoming)
        await self._connection_keys.rotate_due()
        await self._connection_keys.send_due_offers()

    async def _tend_outgoing(self, outgoing: OutgoingRequest) -> None:
        context, user = self._context, outgoing.recipient.user
        try:
            if outgoing.request.content.expiry < context.clock():
                context.notify(f"no answer of {user} to the request to connect")
                await self._outgoing.drop(outgoing)
            elif await self._connections.complete(outgoing, wait=0.0) is not None:
                context.notify(f"{user} accepted: you are connected")
        except (PrivatePathFailed, PeerError, NotYet, CredentialExpired) as error:
            context.refusals.add(f"connection with {user}, to be tried again", error)
        except MmrError as error:
            context.notify(f"the request to connect with {user} came to nothing: {error}")
            await self._outgoing.drop(outgoing)

    async def _tend_incoming(self, incoming: IncomingRequest) -> None:
        """Accept the request of a contact who never completed the connection, or lost it.

        The user answers all other requests. A request is not accepted while the connection works: otherwise a
        contact's lost device could take over the connection.
        """
        known = self._contacts.get(incoming.device.user)
        if known is None or known.blocked or known.device.identity_key != incoming.device.identity_key:
            return
        membership = self._memberships.find(known.room)
        lives = known.theirs is not None and membership is not None and not membership.removed
        if known.room is None or lives:
            return
        try:
            await self._connections.accept(incoming)
            self._context.notify(f"{known.user} connects anew: accepted, its identity key is the known one")
        except MmrError as error:
            self._context.refusals.add("request of a contact", error)

    async def ask_inviter(self, item: OutstandingKeyPackage, fanout: FanoutMessage) -> bool:
        """Ask the contact again whose Welcome needs keys that a restart lost; return True.

        Returns False if its KeyPackage was made for no contact, but for a room or for another device of this user.
        """
        user = item.user
        if user is None or user == self._context.user:
            return False
        known = self._contacts.get(user)
        if known is not None and known.blocked:
            self._outstanding.forget(item)
            return True
        if item.serial and known is not None and self._memberships.find(known.room) is not None:
            await self._lost_keys.ask(known, AddAgain.of(fanout.room, item.package.leaf))
        else:
            to = ContactCode(user, fingerprint(known.device.identity_key)) if known else user
            if user not in self._outgoing:
                await self._outgoing.send(to)
            self._context.notify(f"the keys for the room with {user} were lost at a restart: asked again")
        self._outstanding.unwatch(item)
        return True
