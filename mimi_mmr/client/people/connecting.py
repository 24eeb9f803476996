"""Contacts: how somebody becomes one, what the two then share, and how it ends.

-06's consent maps onto it: `request_connection` asks, `cancel_request` takes that back, `accept` grants, `block`
revokes; a refusal is silence, and so is a revocation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mimi_mmr.client.key_packages.shelves import Waiting
from mimi_mmr.client.people.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.client.rooms.joining import Invitation
from mimi_mmr.client.rooms.linking import Linking
from mimi_mmr.client.rooms.rooms import Joined
from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.errors import (
    BindingRejected,
    ConnectionRefused,
    HubRefusal,
    IdentityError,
    MmrError,
    ParseError,
    PeerError,
    PrivatePathFailed,
    RemovedFromRoom,
    RoomError,
    SealedBoxRejected,
)
from mimi_mmr.member.leaves import PreparedKeyPackage
from mimi_mmr.member.room import Room
from mimi_mmr.member.whois import Whois
from mimi_mmr.protocol.connections import (
    ConnectionKeyOffer,
    ContactCode,
    make_response,
    open_response,
    seal_response,
)
from mimi_mmr.protocol.content import Content, ContentKind
from mimi_mmr.protocol.credentials import VerifiedDevice, fingerprint
from mimi_mmr.protocol.key_packages import OpenKeyPackage, check_set
from mimi_mmr.protocol.room.events import FanoutMessage
from mimi_mmr.uris import MimiUri

DEVICE_KEY_SIZE = 32
MAX_REMOVED = 64


class Connecting(Linking):
    """A client's contacts."""

    def _open_contacts(self) -> None:
        self._due_offers = self.vault.table("offers due")
        self._due_keys = self.vault.table("connection keys due")
        self._answers: dict[bytes, PreparedKeyPackage] = {}

    # --- asking --------------------------------------------------------------------------------------

    async def request_connection(self, to: ContactCode | MimiUri) -> OutgoingRequest:
        """Ask to connect. With a contact code, an identity key other than its fingerprint's is refused.

        Raises `ConnectionRefused` for a user whom one has blocked.
        """
        known = self.contacts.get(to.user if isinstance(to, ContactCode) else to)
        if known is not None and known.blocked:
            raise ConnectionRefused("this user is blocked: unblock first")
        return await super().request_connection(to)

    async def complete_connection(self, outgoing: OutgoingRequest, wait: float = 20.0) -> Contact | None:
        """Look for the response; if it is there, make the connection room. None if it isn't yet.

        May be called again after any failure, and goes on where that one ended.
        """
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
        outgoing = self.outgoing.get(outgoing.recipient.user, outgoing)
        joined = self._room_of(outgoing.room)
        if joined is None:
            joined = await self.create_room()
            outgoing = replace(outgoing, room=joined.uri)
            with self.vault.transaction():
                self._keep_outgoing(outgoing)
                self._connected(
                    Contact(device, outgoing.pinned), joined.uri
                )  # who may speak before we look again
        async with joined.lock:  # an Add of an earlier try may have been accepted unheard
            await self._settle_commit(joined)
        added = {who.credential.client_pseudonym for who in joined.room.participants().values()}
        leaves = check_set([package.key_package for package in packages], self._clock())
        if not added & {leaf.credential.client_pseudonym for leaf in leaves}:
            await self._commit(joined, add=packages)
        with self.vault.transaction():
            contact = self._connected(Contact(device, outgoing.pinned), joined.uri)
        await self._drop_outgoing(outgoing)
        await self._commit(joined)  # an Add-only commit heals nobody: this one does
        await self._send_offer(contact)
        return contact

    def _connected(self, with_whom: Contact, room: MimiUri) -> Contact:
        """There is a connection room with somebody: it and the offer that is due go into the vault together."""
        self._check_known(with_whom.device)
        contact = self.contacts.get(with_whom.user, with_whom)
        contact.device, contact.room = with_whom.device, room
        contact.pinned = contact.pinned or with_whom.pinned
        self._keep_contact(contact)
        self._due_offers[str(contact.user).encode()] = b""
        return contact

    def _open_response(
        self, outgoing: OutgoingRequest, message: bytes
    ) -> tuple[list[OpenKeyPackage], VerifiedDevice]:
        self._check_known(outgoing.recipient)
        request_hash = outgoing.request.hash
        box = SealedBox.from_bytes(message)
        response = open_response(box, outgoing.response_key, request_hash)
        device = response.verify(request_hash, outgoing.recipient, self.trust, self._clock())
        self._check_known(device)
        packages = list(response.content.key_packages)
        self._check_packages(packages, device)
        return packages, device

    # --- answering -----------------------------------------------------------------------------------

    def _wanted(self, incoming: IncomingRequest) -> bool:
        known = self.contacts.get(incoming.device.user)
        if known is None:
            return super()._wanted(incoming)
        return not known.blocked and incoming.device.device_key not in known.removed_devices

    async def accept(self, incoming: IncomingRequest) -> Contact:
        """Say yes, with a KeyPackage for the connection room, which the requester will make.

        Of somebody who is a contact already the room that they make takes the place of the one there is. Raises
        `BindingRejected` if the user is a contact with another identity key, `ConnectionRefused` if they are
        blocked, or no longer wait for an answer.
        """
        self._check_known(incoming.device)
        asking = Contact(incoming.device, pinned=False)
        contact = self.contacts.get(asking.user, asking)
        if contact.blocked:
            raise ConnectionRefused("this user is blocked: unblock first")
        package = self._answers.get(incoming.request.hash)
        if package is None:
            (package,) = await self._stock.take(self.me, 1)
            self._answers[incoming.request.hash] = package
            self._await_use(package, contact=asking)
        response = make_response(self.me, incoming.request.hash, [package.open])
        content = incoming.request.content
        sealed = seal_response(response, content.connection_response_key)
        inbox = content.reply_inbox
        try:
            await self._queues.deposit(inbox.domain, inbox.queue, sealed)
        except (PrivatePathFailed, PeerError):
            raise
        except MmrError as error:
            self._forget_waiting(self._waiting[package.ref])
            await self._answered(incoming)
            raise ConnectionRefused(f"the requester no longer waits for an answer: {error}") from None
        await self._answered(incoming)
        return contact

    async def _answered(self, incoming: IncomingRequest) -> None:
        self._answers.pop(incoming.request.hash, None)
        await self._settle(incoming)

    def _check_place(self, waiting: Waiting, room: Room) -> None:
        """A connection room holds the two who connect, and nobody else; and nobody blocked is with us anywhere."""
        super()._check_place(waiting, room)
        user = waiting.contact.user if waiting.contact else waiting.user
        known = self.contacts.get(user) if user else None
        if known is not None and known.blocked:
            raise ConnectionRefused("an invitation by somebody who is blocked")
        if waiting.contact is not None:
            self._check_known(waiting.contact.device)
            if self._people(room) != {identity_of(waiting.contact.device)}:
                raise BindingRejected("the connection room is not one with the person who asked to connect")

    def _people(self, room: Room) -> set[tuple[MimiUri, bytes] | None]:
        """Who else is in a room: users and their identity keys; None stands for whoever can't be verified."""
        entries = [self._pinned(entry) for entry in room.who(self.trust, self._clock())]
        people = {identity_of(entry.member.device) if entry.member else None for entry in entries}
        return people - {(self.user, self._keys.identity.public)}

    def _placed(self, waiting: Waiting, room: MimiUri) -> None:
        super()._placed(waiting, room)
        if waiting.contact is not None:
            self._connected(waiting.contact, room)

    async def _before_looking(self) -> None:
        await self.send_offers()

    async def _arrived(self, invitation: Invitation, joined: Joined) -> None:
        await super()._arrived(invitation, joined)
        await self.send_offers()

    # --- connection keys -----------------------------------------------------------------------------

    async def send_offers(self) -> None:
        """Send the connection keys that are due; one that can't be sent now stays due, and keeps no other."""
        for place in list(self._due_offers):
            contact = self.contacts.get(MimiUri.parse(place.decode()))
            if contact is None or contact.blocked:
                del self._due_offers[place]
                continue
            try:
                await self._send_offer(contact)
            except (HubRefusal, RemovedFromRoom) as error:  # this room takes nothing of ours any more
                self.refused.append(f"introduction: {error}")
                self._due_offers.pop(place, None)
            except MmrError as error:
                self.refused.append(f"introduction, to be tried again: {error}")

    async def _send_offer(self, contact: Contact) -> None:
        """Send this side's connection key; from then on the contact can fetch KeyPackages.

        Raises `RoomError` if there is no connection room, or not one of these two.
        """
        joined = self._room_of(contact.room)
        if joined is None or joined.room.removed:
            raise RemovedFromRoom(f"there is no connection room with {contact.user}")
        if self._people(joined.room) != {identity_of(contact.device)}:
            raise RoomError(f"the connection room with {contact.user} is not one of the two and nobody else")
        version = contact.key_version
        await self.send(joined, Content(ContentKind.CONNECTION_KEY, contact.offer().to_bytes()))
        if contact.key_version == version:
            self._due_offers.pop(str(contact.user).encode(), None)

    def _instructed(self, joined: Joined, sender: Whois, content: Content) -> None:
        if content.kind is ContentKind.CONNECTION_KEY:
            self._take_offer(joined, sender, ConnectionKeyOffer.from_bytes(content.body))
        elif content.kind is ContentKind.DEVICE_REMOVED:
            self._take_removal(joined, sender, content.body)
        else:
            super()._instructed(joined, sender, content)

    def _contact_from(self, joined: Joined, sender: Whois) -> Contact:
        """The contact who speaks in a connection room; raises `ConnectionRefused` for anybody or anywhere else.

        When two asked each other at once there are two rooms of the two: either will do, and the one with the
        smaller name is the one that both use from then on.
        """
        contact = self.contacts.get(sender.member.device.user) if sender.member else None
        if sender.member is None or contact is None or contact.blocked:
            raise ConnectionRefused("a message between contacts by somebody who is none")
        if sender.member.device.identity_key != contact.device.identity_key:
            raise ConnectionRefused("a message between contacts under another identity key")
        if contact.room != joined.uri:
            if self._people(joined.room) != {identity_of(contact.device)}:
                raise ConnectionRefused("a message between contacts in a room that is not theirs alone")
            if contact.room is None or contact.room not in self.rooms or joined.uri < contact.room:
                contact.room = joined.uri
                self._keep_contact(contact)
        return contact

    def _take_offer(self, joined: Joined, sender: Whois, offer: ConnectionKeyOffer) -> None:
        """A connection key counts only in a room with the contact alone, from the contact."""
        person = sender.member.device if sender.member else None
        if person and identity_of(person) == (self.user, self._keys.identity.public):
            return  # this user's own offer, by another device
        contact = self._contact_from(joined, sender)
        contact.take(offer)
        self._keep_contact(contact)

    def _contact_of(self, joined: Joined) -> Contact | None:
        return next((contact for contact in self.contacts.values() if contact.room == joined.uri), None)

    async def rotate_connection_key(self, contact: Contact) -> None:
        """A new connection key for a contact, and a new shelf; what the old one fetches is nothing.

        What can't be done now is done by `tend`.
        """
        with self.vault.transaction():
            self._due_keys.pop(str(contact.user).encode(), None)
            self._renew_shelf(contact)
            self._due_offers[str(contact.user).encode()] = b""
        await self.run_errands()
        await self.send_offers()
        try:
            await self.tend_shelf(contact)
        except MmrError as error:
            self.refused.append(f"a shelf, to be filled later: {error}")

    # --- devices that a contact has lost -------------------------------------------------------------

    def _take_removal(self, joined: Joined, sender: Whois, device_key: bytes) -> None:
        """A contact has lost a device, says another one: what comes of it is that contact's no longer."""
        person = sender.member.device if sender.member else None
        if person and identity_of(person) == (self.user, self._keys.identity.public):
            return  # this user's own device, to the contact
        contact = self._contact_from(joined, sender)
        if person is None or len(device_key) != DEVICE_KEY_SIZE or device_key == person.device_key:
            raise ConnectionRefused("the removal of a contact's device that is none, or that says so itself")
        if device_key not in contact.removed_devices:
            contact.removed_devices = (*contact.removed_devices, device_key)[-MAX_REMOVED:]
            contact.device = person
            self._keep_contact(contact)

    def _check_known(self, device: VerifiedDevice) -> None:
        super()._check_known(device)
        known = self.contacts.get(device.user)
        if known is not None and device.device_key in known.removed_devices:
            raise BindingRejected("a device that its user has removed")

    # --- blocking ------------------------------------------------------------------------------------

    async def block(self, contact: Contact) -> None:
        """End a connection in silence, and give every other contact a new connection key.

        The contact's shelf is closed: its token then gets what an unknown one gets. Nothing of the connection room
        is read any more; its queue goes, so that what is sent there is dropped. It holds from the first moment;
        what can't be done now is done by `tend`.
        """
        with self.vault.transaction():
            contact.blocked, contact.theirs = True, None
            self._renew_shelf(contact)
            self._due_offers.pop(str(contact.user).encode(), None)
            for other in self.contacts.values():
                if not other.blocked:
                    self._due_keys[str(other.user).encode()] = b""
        await self._part_from(contact)
        await self.run_errands()
        await self.rotate_due_keys()

    async def _part_from(self, contact: Contact) -> None:
        """What is still there of a connection with somebody who is blocked."""
        for waiting in self._waiting_for(contact.user):
            self._forget_waiting(waiting)
        outgoing = self.outgoing.get(contact.user)
        if outgoing is not None:
            await self._drop_outgoing(outgoing)
        joined = self._room_of(contact.room)
        if joined is not None:
            await self.forget(joined)
        if contact.room is not None:
            contact.room = None
            self._keep_contact(contact)

    async def rotate_due_keys(self) -> None:
        """Give new connection keys to contacts for whom they are due."""
        for place in list(self._due_keys):
            contact = self.contacts.get(MimiUri.parse(place.decode()))
            if contact is not None and not contact.blocked:
                await self.rotate_connection_key(contact)
            self._due_keys.pop(place, None)

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
        for contact in list(self.contacts.values()):
            if contact.blocked:
                await self._part_from(contact)
        for outgoing in list(self.outgoing.values()):
            await self._tend_outgoing(outgoing)
        for incoming in await self.connection_requests():
            await self._tend_incoming(incoming)
        await self.rotate_due_keys()
        await self.send_offers()

    async def _tend_outgoing(self, outgoing: OutgoingRequest) -> None:
        now, user = self._clock(), outgoing.recipient.user
        try:
            if outgoing.request.content.expiry < now:
                self.notices.add(f"no answer of {user} to the request to connect", now)
                await self._drop_outgoing(outgoing)
            elif await self.complete_connection(outgoing, wait=0.0) is not None:
                self.notices.add(f"{user} accepted: you are connected", now)
        except (PrivatePathFailed, PeerError) as error:
            self.refused.append(f"connection with {user}, to be tried again: {error}")
        except MmrError as error:
            self.notices.add(f"the request to connect with {user} came to nothing: {error}", now)
            await self._drop_outgoing(outgoing)

    async def _tend_incoming(self, incoming: IncomingRequest) -> None:
        """A contact who never got our connection, or lost it, is answered; any other request is for the user.

        Not where a connection lives: a device that its user has lost could else put itself in its user's place.
        """
        known = self.contacts.get(incoming.device.user)
        if known is None or known.blocked or known.device.identity_key != incoming.device.identity_key:
            return
        joined = self._room_of(known.room)
        lives = known.theirs is not None and joined is not None and not joined.room.removed
        if known.room is None or lives:
            return
        try:
            await self.accept(incoming)
            self.notices.add(
                f"{known.user} connects anew: accepted, its identity key is the known one", self._clock()
            )
        except MmrError as error:
            self.refused.append(f"request of a contact: {error}")

    async def _ask_again(self, waiting: Waiting, fanout: FanoutMessage) -> None:
        """A Welcome for a KeyPackage of before the restart: ask whoever had it, and say so."""
        user = waiting.user
        if user is None or user == self.user:
            return await super()._ask_again(waiting, fanout)
        known = self.contacts.get(user)
        if known is not None and known.blocked:
            self._forget_waiting(waiting)
        elif waiting.serial and known is not None and self._room_of(known.room) is not None:
            await self._ask_to_be_added(known, fanout.room, waiting.package.leaf)
            self._no_longer_wait(waiting)
        else:
            to = ContactCode(user, fingerprint(known.device.identity_key)) if known else user
            if user not in self.outgoing:
                await self.request_connection(to)
            self.notices.add(
                f"the keys for the room with {user} were lost at a restart: asked again", self._clock()
            )
            self._no_longer_wait(waiting)
        return None


def identity_of(device: VerifiedDevice) -> tuple[MimiUri, bytes]:
    """Whose a device is: the user, and its identity key."""
    return device.user, device.identity_key
