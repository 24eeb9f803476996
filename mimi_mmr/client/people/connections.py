"""How two users become contacts: a request, a response, and a connection room that the requester makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.key_packages.claims import Claims
from mimi_mmr.client.key_packages.maker import KeyPackageMaker
from mimi_mmr.client.key_packages.outstanding import OutstandingKeyPackage, OutstandingKeyPackages
from mimi_mmr.client.people.connection_keys import ConnectionKeys
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.client.people.incoming import IncomingRequests
from mimi_mmr.client.people.outgoing import OutgoingRequests
from mimi_mmr.client.rooms.commits import Commits
from mimi_mmr.client.rooms.creating import Creating
from mimi_mmr.client.rooms.memberships import Memberships
from mimi_mmr.client.rooms.roster import Roster, identity_of
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.client.waiting import wait_until
from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.errors import (
    BindingRejected,
    ConnectionRefused,
    IdentityError,
    MmrError,
    NotYet,
    ParseError,
    PeerError,
    PrivatePathFailed,
    SealedBoxRejected,
)
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.leaves import PreparedKeyPackage
from mimi_mmr.member.room import Room
from mimi_mmr.protocol.connections import make_response, open_response, seal_response
from mimi_mmr.protocol.credentials import VerifiedDevice
from mimi_mmr.protocol.key_packages import OpenKeyPackage, check_begun, check_set, leaf_of
from mimi_mmr.uris import MimiUri


class Connections:
    """The steps from a request to a contact, for the requester and for the user who was asked."""

    def __init__(
        self,
        context: Context,
        account: Account,
        *,
        contacts: ContactBook,
        outgoing: OutgoingRequests,
        incoming: IncomingRequests,
        connection_keys: ConnectionKeys,
        queues: Queues,
        maker: KeyPackageMaker,
        outstanding: OutstandingKeyPackages,
        claims: Claims,
        memberships: Memberships,
        roster: Roster,
        creating: Creating,
        commits: Commits,
    ) -> None:
        self._context = context
        self._account = account
        self._contacts = contacts
        self._outgoing = outgoing
        self._incoming = incoming
        self._connection_keys = connection_keys
        self._queues = queues
        self._maker = maker
        self._outstanding = outstanding
        self._claims = claims
        self._memberships = memberships
        self._roster = roster
        self._creating = creating
        self._commits = commits
        self._answers: dict[bytes, PreparedKeyPackage] = {}
        self._early: set[bytes] = set()  # requests whose responses are not valid yet, and the user knows

    # --- the side that asked -------------------------------------------------------------------------

    async def complete(self, outgoing: OutgoingRequest, wait: float = 20.0) -> Contact | None:
        """Look for the response; if there is one, make the connection room. Returns None if there is none yet.

        Returns None also, and notifies the user once, while the KeyPackage in the response is not valid yet by this
        device's clock. May be called again after any failure, and then goes on where the last call stopped.
        """
        page = await self._queues.collect(outgoing.inbox, 0, wait)
        for queued in page.messages:
            try:
                packages, device = self._open_response(outgoing, queued.message)
            except (IdentityError, ConnectionRefused, SealedBoxRejected, ParseError) as error:
                self._context.refusals.add("connection response", error)
                continue
            if not await self._are_valid(outgoing, packages, wait):
                return None
            return await self._connect(outgoing, packages, device)
        return None

    async def _are_valid(
        self, outgoing: OutgoingRequest, packages: Sequence[OpenKeyPackage], wait: float
    ) -> bool:
        """Wait up to `wait` seconds until the KeyPackages are valid by this device's clock; say if they are."""
        clock, key = self._context.clock, outgoing.request.hash
        try:
            check_begun([leaf_of(package) for package in packages], clock())
        except NotYet as error:
            if key not in self._early:
                self._context.notify(f"{outgoing.recipient.user} accepted, and the connection waits: {error}")
                self._early.add(key)
            return await wait_until(error.due, clock, wait)
        self._early.discard(key)
        return True

    def _open_response(
        self, outgoing: OutgoingRequest, message: bytes
    ) -> tuple[list[OpenKeyPackage], VerifiedDevice]:
        self._contacts.check_known(outgoing.recipient)
        request_hash = outgoing.request.hash
        box = SealedBox.from_bytes(message)
        response = open_response(box, outgoing.response_key, request_hash)
        now = self._context.clock()
        device = response.verify(request_hash, outgoing.recipient, self._context.trust, now)
        self._contacts.check_known(device)
        packages = list(response.content.key_packages)
        self._claims.check(packages, device)
        return packages, device

    async def _connect(
        self, outgoing: OutgoingRequest, packages: Sequence[OpenKeyPackage], device: VerifiedDevice
    ) -> Contact:
        outgoing = self._outgoing.get(outgoing.recipient.user, outgoing)
        membership = self._memberships.find(outgoing.room)
        if membership is None:
            membership = await self._creating.create()
            outgoing = replace(outgoing, room=membership.uri)
            with self._context.changes.transaction():
                self._outgoing.save(outgoing)
                # who may speak before we look again
                self._connected(Contact(device, outgoing.pinned), membership.uri)
        # The hub may have accepted an earlier try's Add without this client getting the answer.
        await self._commits.settle(membership)
        added = membership.room.members.by_client.keys()
        leaves = check_set([package.key_package for package in packages], self._context.clock())
        if not added & {leaf.credential.client_pseudonym for leaf in leaves}:
            await self._commits.commit(membership, CommitIntent(adds=tuple(packages)))
        with self._context.changes.transaction():
            contact = self._connected(Contact(device, outgoing.pinned), membership.uri)
        await self._outgoing.drop(outgoing)
        await self._commits.commit(membership)  # heals: an Add-only commit refreshes no keys
        await self._connection_keys.send_offer(contact)
        return contact

    def _connected(self, with_whom: Contact, room: MimiUri) -> Contact:
        """Store the connection room and the connection key to be sent, in one transaction."""
        self._contacts.check_known(with_whom.device)
        contact = self._contacts.get(with_whom.user, with_whom)
        contact.device, contact.room = with_whom.device, room
        contact.pinned = contact.pinned or with_whom.pinned
        self._contacts.save(contact)
        self._connection_keys.owe_offer(contact)
        return contact

    # --- the side that was asked ---------------------------------------------------------------------

    async def accept(self, incoming: IncomingRequest) -> Contact:
        """Accept a request, with a KeyPackage for the connection room, which the requester will make.

        If the requester is a contact already, their new room replaces the current connection room. Raises
        `BindingRejected` if the user is a contact with another identity key, `ConnectionRefused` if they are
        blocked, or no longer wait for an answer.
        """
        self._contacts.check_known(incoming.device)
        asking = Contact(incoming.device, pinned=False)
        contact = self._contacts.get(asking.user, asking)
        if contact.blocked:
            raise ConnectionRefused("this user is blocked: unblock first")
        package = self._answers.get(incoming.request.hash)
        if package is None:
            (package,) = await self._maker.take(1)
            self._answers[incoming.request.hash] = package
            self._outstanding.watch(package, contact=asking)
        response = make_response(self._account.me, incoming.request.hash, [package.open])
        content = incoming.request.content
        sealed = seal_response(response, content.connection_response_key)
        inbox = content.reply_inbox
        try:
            await self._queues.deposit(inbox.domain, inbox.queue, sealed)
        except (PrivatePathFailed, PeerError):
            raise
        except MmrError as error:
            item = self._outstanding.get(package.ref)
            if item is not None:
                self._outstanding.forget(item)
            await self._answered(incoming)
            raise ConnectionRefused(f"the requester no longer waits for an answer: {error}") from None
        await self._answered(incoming)
        return contact

    async def _answered(self, incoming: IncomingRequest) -> None:
        self._answers.pop(incoming.request.hash, None)
        await self._incoming.settle(incoming)

    # --- entering the connection room ----------------------------------------------------------------

    def check_place(self, item: OutstandingKeyPackage, room: Room) -> None:
        """Refuse every room of a blocked inviter, and a connection room with anybody but the two users."""
        user = item.made_for
        known = self._contacts.get(user) if user else None
        if known is not None and known.blocked:
            raise ConnectionRefused("an invitation by somebody who is blocked")
        if item.contact is not None:
            self._contacts.check_known(item.contact.device)
            if self._roster.others(room) != {identity_of(item.contact.device)}:
                raise BindingRejected("the connection room is not one with the person who asked to connect")

    def note_connected(self, item: OutstandingKeyPackage, room: MimiUri) -> None:
        """Store the contact, if the room that this client has entered is a connection room."""
        if item.contact is not None:
            self._connected(item.contact, room)
