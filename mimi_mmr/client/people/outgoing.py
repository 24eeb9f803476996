"""Connection requests that this user has sent, until they are answered, cancelled, or expired."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import OutgoingRequest
from mimi_mmr.client.storage.records import SavedOutgoing
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import ConnectionRefused
from mimi_mmr.protocol.connections import (
    ContactCode,
    ReplyInbox,
    make_cancel,
    make_request,
    seal_cancel,
    seal_request,
)
from mimi_mmr.protocol.deposits import Deposit
from mimi_mmr.protocol.endpoints import REQUEST_CONNECTION, TAKE_CONNECTION_PACKAGE
from mimi_mmr.protocol.queues import queue_id
from mimi_mmr.uris import MimiUri

CLOCK_STEP = 300  # seconds; an exact time would show this clock's error, and so identify the sender


class OutgoingRequests(Mapping[MimiUri, OutgoingRequest]):
    """The open requests, by the user that they are for."""

    def __init__(self, context: Context, account: Account, contacts: ContactBook, queues: Queues) -> None:
        """Read what the vault has."""
        self._context = context
        self._account = account
        self._contacts = contacts
        self._queues = queues
        self._rows = context.vault.table("outgoing")
        waiting = (SavedOutgoing.from_bytes(row).outgoing() for row in self._rows.values())
        self._requests = {request.recipient.user: request for request in waiting}

    def __getitem__(self, user: MimiUri) -> OutgoingRequest:
        return self._requests[user]

    def __iter__(self) -> Iterator[MimiUri]:
        return iter(self._requests)

    def __len__(self) -> int:
        return len(self._requests)

    def remember(self) -> Callable[[], None]:
        """Return a function that restores the current state, for use if the next change fails."""
        before = dict(self._requests)

        def put_back() -> None:
            self._requests = before

        return put_back

    async def send(self, to: ContactCode | MimiUri) -> OutgoingRequest:
        """Send a connection request. With a contact code, an identity key with another fingerprint is refused.

        Raises `ConnectionRefused` for a user whom this user has blocked.
        """
        user, pin = (to.user, to.fingerprint) if isinstance(to, ContactCode) else (to, None)
        known = self._contacts.get(user)
        if known is not None and known.blocked:
            raise ConnectionRefused("this user is blocked: unblock first")
        context = self._context
        if user == context.user:
            raise ConnectionRefused("that is this very user")
        package = await context.path.ask(TAKE_CONNECTION_PACKAGE, user.domain, user=user.name)
        recipient = package.verify(user, pin, context.trust, context.clock())
        inbox, response_key = AccessToken.generate(), SealingKey.generate(Kem.X_WING)
        await self._queues.create(inbox, accepts_deposits=True)
        reply = ReplyInbox(context.user.domain, queue_id(inbox))
        now = context.rounded(CLOCK_STEP)
        request = make_request(self._account.me, package, reply, response_key.public, now)
        outgoing = OutgoingRequest(request, package, recipient, pin is not None, response_key, inbox)
        previous = self.get(user)
        self.save(outgoing)  # stored before it is sent, since the key opens the response
        deposit = Deposit(package.hash, seal_request(request, package))
        await context.path.ask(REQUEST_CONNECTION, user.domain, deposit, user=user.name)
        if previous is not None:  # the new request replaces it: one response is enough
            await self.drop(previous)
        return outgoing

    async def cancel(self, outgoing: OutgoingRequest) -> None:
        """Cancel a request (-06, consent `cancel`). A response that was already sent is then ignored."""
        cancel = make_cancel(self._account.me, outgoing.request)
        deposit = Deposit(outgoing.package.hash, seal_cancel(cancel, outgoing.package))
        user = outgoing.recipient.user
        await self._context.path.ask(REQUEST_CONNECTION, user.domain, deposit, user=user.name)
        await self.drop(outgoing)

    def save(self, outgoing: OutgoingRequest) -> None:
        """Store a new or changed request."""
        self._rows[outgoing.request.hash] = SavedOutgoing.of(outgoing).to_bytes()
        self._requests[outgoing.recipient.user] = outgoing

    async def drop(self, outgoing: OutgoingRequest) -> None:
        """Forget a request that is answered, cancelled or expired, together with its reply inbox."""
        self._rows.pop(outgoing.request.hash, None)
        if self.get(outgoing.recipient.user) == outgoing:
            del self._requests[outgoing.recipient.user]
        await self._queues.delete(outgoing.inbox)
