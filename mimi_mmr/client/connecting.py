"""Contacts: how somebody becomes one, what the two then share, and how it ends.

-06's consent maps onto it: `request_connection` asks, `cancel_request` takes that back, `accept` grants, `block`
revokes; a refusal is silence, and so is a revocation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mimi_mmr.client.joining import Invitation
from mimi_mmr.client.linking import Linking
from mimi_mmr.client.rooms import Joined
from mimi_mmr.client.shelves import Waiting
from mimi_mmr.connections import (
    ConnectionKeyOffer,
    ContactCode,
    make_response,
    open_response,
    seal_response,
)
from mimi_mmr.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.content import Content, ContentKind
from mimi_mmr.credentials import VerifiedDevice, fingerprint
from mimi_mmr.endpoints import ReplyDeposit
from mimi_mmr.errors import (
    BindingRejected,
    ConnectionRefused,
    IdentityError,
    ParseError,
    PeerError,
    PrivatePathFailed,
    RoomError,
    SealedBoxRejected,
)
from mimi_mmr.hub.messages import FanoutMessage
from mimi_mmr.keypackages import OpenKeyPackage
from mimi_mmr.room import Room, Whois
from mimi_mmr.sealing import SealedBox
from mimi_mmr.uris import MimiUri


class Connecting(Linking):
    """A client's contacts."""

    def _open_contacts(self) -> None:
        self._introductions: deque[tuple[Contact, Joined]] = deque()
        self._due_offers = self.vault.table("offers due")

    # --- asking --------------------------------------------------------------------------------------

    async def complete_connection(self, outgoing: OutgoingRequest, wait: float = 20.0) -> Contact | None:
        """Look for the response; if it is there, make the connection room. None if it isn't yet."""
        page = await self._queues.collect(outgoing.inbox, 0, wait)
        for queued in page.messages:
            try:
                packages, device = self._open_response(outgoing, queued.message)
            except (IdentityError, ConnectionRefused, SealedBoxRejected, ParseError) as error:
                self.refused.append(f"connection response: {error}")
                continue
            return await self._connect(outgoing, packages, device)
        return None

    async def _connect(
        self, outgoing: OutgoingRequest, packages: Sequence[OpenKeyPackage], device: VerifiedDevice
    ) -> Contact:
        contact = self._contact_with(device, pinned=outgoing.pinned)
        joined = await self.create_room()
        contact.room = joined.uri
        self._keep_contact(contact)
        await self._commit(joined, add=packages)
        await self._commit(joined)  # an Add-only commit heals nobody: this one does
        await self._introduce(contact, joined)
        await self._drop_outgoing(outgoing)
        return contact

    def _contact_with(self, device: VerifiedDevice, *, pinned: bool) -> Contact:
        """The contact that a device's user is, or is to be; whom one asks oneself is not blocked."""
        self._check_known(device)
        known = self.contacts.get(device.user)
        if known is None:
            return Contact(device, pinned)
        known.device, known.pinned, known.blocked = device, known.pinned or pinned, False
        return known

    def _open_response(
        self, outgoing: OutgoingRequest, message: bytes
    ) -> tuple[list[OpenKeyPackage], VerifiedDevice]:
        self._check_known(outgoing.recipient)
        request_hash = outgoing.request.hash
        box = SealedBox.from_bytes(message)
        response = open_response(box, outgoing.response_key, request_hash)
        device = response.verify(request_hash, outgoing.recipient, self.trust, self._clock())
        packages = list(response.content.key_packages)
        self._check_packages(packages, device)
        return packages, device

    # --- answering -----------------------------------------------------------------------------------

    def _wanted(self, incoming: IncomingRequest) -> bool:
        known = self.contacts.get(incoming.device.user)
        if known is not None and known.blocked:
            return False
        return known is not None or super()._wanted(incoming)

    async def accept(self, incoming: IncomingRequest) -> Contact:
        """Say yes, with a KeyPackage for the connection room, which the requester will make.

        Raises `BindingRejected` if the user is a contact already, with another identity key.
        """
        contact = self._contact_with(incoming.device, pinned=False)
        package = (await self._stock.take(self.me, 1))[0]
        response = make_response(self.me, incoming.request.hash, [package.open])
        content = incoming.request.content
        sealed = seal_response(response, content.connection_response_key)
        self._await_use(package, contact=contact)
        inbox = content.reply_inbox
        body = ReplyDeposit(inbox.queue, sealed).to_bytes()
        await self.path.call(inbox.domain, "POST", "/v1/replyInbox", body)
        await self._settle(incoming)
        return contact

    def _check_place(self, waiting: Waiting, room: Room) -> None:
        """A connection room holds the two who connect, and nobody else."""
        contact = waiting.contact
        if contact is None:
            return
        self._check_known(contact.device)
        mine = fingerprint(self._keys.identity.public)
        others = [self._pinned(entry) for entry in room.who(self.trust, self._clock())]
        people = {
            (entry.member.device.user, fingerprint(entry.member.device.identity_key))
            if entry.member
            else None
            for entry in others
        }
        people.discard((self.user, mine))
        if people != {(contact.user, fingerprint(contact.device.identity_key))}:
            raise BindingRejected("the connection room is not one with the person who asked to connect")

    async def _arrived(self, invitation: Invitation, joined: Joined) -> None:
        contact = invitation.waiting.contact
        if contact is not None:
            contact.room = joined.uri
            self._introductions.append((contact, joined))
        await self._introduce_all()
        await super()._arrived(invitation, joined)

    async def _before_looking(self) -> None:
        await self._introduce_all()

    async def _introduce_all(self) -> None:
        """Send connection keys that are due; one that can't be sent now stays due."""
        while self._introductions:
            contact, joined = self._introductions[0]
            try:
                await self._introduce(contact, joined)
            except (PrivatePathFailed, PeerError) as error:
                self.refused.append(f"introduction, to be tried again: {error}")
                return
            self._introductions.popleft()

    async def _introduce(self, contact: Contact, joined: Joined) -> None:
        """Send this side's connection key; from then on the contact can fetch KeyPackages."""
        self._check_known(contact.device)
        known = self.contacts.get(contact.user)
        if known is not None and known is not contact:
            known.room, known.device, contact = contact.room, contact.device, known
        self._keep_contact(contact)
        await self._offer(contact, joined)

    async def _offer(self, contact: Contact, joined: Joined) -> None:
        place = str(contact.user).encode()
        self._due_offers[place] = b""
        await self.send(joined, Content(ContentKind.CONNECTION_KEY, contact.offer().to_bytes()))
        self._due_offers.pop(place, None)

    # --- the connection key --------------------------------------------------------------------------

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        if content.kind is ContentKind.CONNECTION_KEY:
            self._take_offer(joined, sender, ConnectionKeyOffer.from_bytes(content.body))
        else:
            super()._instructed(joined, sender, content)

    def _take_offer(self, joined: Joined, sender: Whois, offer: ConnectionKeyOffer) -> None:
        """A connection key counts only in the room with the contact, from the contact."""
        key = sender.member.device.identity_key if sender.member else None
        if sender.member and key == self._keys.identity.public and sender.member.device.user == self.user:
            return  # this user's own offer, by another device
        contact = self._contact_of(joined)
        if contact is None or key != contact.device.identity_key:
            raise ConnectionRefused("a connection key from somebody who is not the contact of this room")
        if contact.take(offer):
            self._keep_contact(contact)

    def _contact_of(self, joined: Joined) -> Contact | None:
        return next((contact for contact in self.contacts.values() if contact.room == joined.uri), None)

    async def rotate_connection_key(self, contact: Contact) -> None:
        """A new connection key for a contact, and a new shelf; what the old one fetches is nothing."""
        await self.close_shelf(contact)
        contact.rotate()
        self._due_offers[str(contact.user).encode()] = b""
        self._keep_contact(contact)
        joined = self._room_of(contact.room)
        if joined is not None and not joined.room.removed:
            await self._offer(contact, joined)
        await self.tend_shelf(contact)

    # --- blocking ------------------------------------------------------------------------------------

    async def block(self, contact: Contact) -> None:
        """End a connection in silence, and give every other contact a new connection key.

        The contact's shelf is closed: its token then gets what an unknown one gets. Nothing of the connection room
        is read any more; its queue goes, so that what is sent there is dropped.
        """
        contact.blocked = True
        self._keep_contact(contact)
        await self.close_shelf(contact)
        joined = self._room_of(contact.room)
        contact.room, contact.theirs = None, None
        contact.rotate()
        self._keep_contact(contact)
        outgoing = self.outgoing.get(contact.user)
        if outgoing is not None:
            await self._drop_outgoing(outgoing)
        if joined is not None:
            await self.forget(joined)
        for other in list(self.contacts.values()):
            if not other.blocked:
                await self.rotate_connection_key(other)

    async def unblock(self, user: MimiUri) -> None:
        """Hear of a blocked user's requests again; to be connected, one of the two has to ask anew."""
        contact = self.contacts.get(user)
        if contact is None or not contact.blocked:
            raise RoomError("no blocked contact of this name")
        contact.blocked = False
        self._keep_contact(contact)

    # --- from time to time ---------------------------------------------------------------------------

    async def tend_connections(self) -> None:
        """Complete what was asked for, reconnect contacts who lost us, send offers that are due."""
        now = self._clock()
        for outgoing in list(self.outgoing.values()):
            if outgoing.request.content.expiry < now:
                self.notices.add(f"no answer of {outgoing.recipient.user} to the request to connect", now)
                await self._drop_outgoing(outgoing)
            elif await self.complete_connection(outgoing, wait=0.0) is not None:
                self.notices.add(f"{outgoing.recipient.user} accepted: you are connected", now)
        for incoming in await self.connection_requests():
            known = self.contacts.get(incoming.device.user)
            if known is not None and known.device.identity_key == incoming.device.identity_key:
                await self.accept(incoming)
                self.notices.add(
                    f"{known.user} connects anew: accepted, its identity key is the known one", now
                )
        for place in list(self._due_offers):
            contact = self.contacts.get(MimiUri.parse(place.decode()))
            joined = self._room_of(contact.room) if contact else None
            if contact is not None and joined is not None:
                await self._offer(contact, joined)

    async def _ask_again(self, waiting: Waiting, fanout: FanoutMessage) -> None:
        """A Welcome for a KeyPackage of before the restart: ask whoever had it, and say so."""
        now, user = self._clock(), waiting.user
        if user is None:
            return await super()._ask_again(waiting, fanout)
        known = self.contacts.get(user)
        if waiting.serial and known is not None and self._room_of(known.room) is not None:
            await self._ask_to_be_added(known, fanout.room, waiting.package.leaf)
        else:
            to = ContactCode(user, fingerprint(known.device.identity_key)) if known else user
            await self.request_connection(to)
            self.notices.add(f"the keys for the room with {user} were lost at a restart: asked again", now)
        self._no_longer_wait(waiting)
        return None
