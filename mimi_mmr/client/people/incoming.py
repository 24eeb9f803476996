"""Connection requests of other users, which wait at this user's provider."""

from __future__ import annotations

from collections.abc import Callable

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.people.connection_packages import ConnectionPackages
from mimi_mmr.client.people.contact_book import ContactBook
from mimi_mmr.client.people.contacts import IncomingRequest
from mimi_mmr.client.storage.shared_state import SharedKind, SharedState
from mimi_mmr.errors import ConnectionRefused, IdentityError, MmrError, ParseError, SealedBoxRejected
from mimi_mmr.protocol.connections import ConnectionCancel, ConnectionRequest, open_deposit
from mimi_mmr.protocol.deposits import Deposit, WaitingDeposit
from mimi_mmr.protocol.endpoints import FORGET_CONNECTION_REQUEST, LIST_CONNECTION_REQUESTS

STRANGE_SECONDS = 3600.0
_ONLY_CONTACTS = b"only-contacts"


class UnknownPackage(ConnectionRefused):
    """A request that is sealed to a connection package which is not known here."""


class IncomingRequests:
    """The requests that wait at the provider."""

    def __init__(
        self,
        context: Context,
        account: Account,
        shared: SharedState,
        packages: ConnectionPackages,
        contacts: ContactBook,
        has_other_devices: Callable[[], bool],
    ) -> None:
        """Read from the vault. `has_other_devices`: whether another device may have published a package."""
        self._context = context
        self._account = account
        self._shared = shared
        self._packages = packages
        self._contacts = contacts
        self._has_other_devices = has_other_devices
        self._settled = context.vault.table("settled requests")
        self._first_seen: dict[int, float] = {}

    @property
    def only_contacts(self) -> bool:
        """Whether requests of users who are not contacts are refused without an answer."""
        return self._shared.get(SharedKind.SETTING, _ONLY_CONTACTS) == b"1"

    @only_contacts.setter
    def only_contacts(self, on: bool) -> None:
        self._shared.put(SharedKind.SETTING, _ONLY_CONTACTS, b"1" if on else b"0")

    # --- reading them --------------------------------------------------------------------------------

    async def read(self) -> list[IncomingRequest]:
        """Fetch and return the requests. Those that do not open or verify are dropped, and noted as refusals.

        A request that was cancelled is deleted, together with its cancel.
        """
        inbox = await self._account.ask(LIST_CONNECTION_REQUESTS)
        found: dict[bytes, IncomingRequest] = {}
        cancels: list[tuple[int, ConnectionCancel]] = []
        for waiting in inbox.deposits:
            try:
                opened = self._open(waiting.deposit)
                if isinstance(opened, ConnectionCancel):
                    cancels.append((waiting.number, opened))
                    continue
                device = opened.verify(
                    self._context.user,
                    waiting.deposit.package_hash,
                    self._context.trust,
                    self._context.clock(),
                )
            except (IdentityError, ConnectionRefused, SealedBoxRejected, ParseError) as error:
                await self._drop_strange(waiting, error)
                continue
            if opened.hash in self._settled or opened.hash in found:
                await self._delete(waiting.number)  # a provider may deliver a request twice
            else:
                found[opened.hash] = IncomingRequest(waiting.number, opened, device)
        for number, cancel in cancels:
            await self._take_cancel(number, cancel, found)
        unwanted = [incoming for incoming in found.values() if not self._is_wanted(incoming)]
        for incoming in unwanted:
            await self.refuse(incoming)
        return [incoming for incoming in found.values() if incoming not in unwanted]

    def _open(self, deposit: Deposit) -> ConnectionRequest | ConnectionCancel:
        published = self._packages.get(deposit.package_hash)
        if published is None:
            raise UnknownPackage("sealed to a connection package that is not this user's")
        return open_deposit(deposit.request, published.key, deposit.package_hash)

    async def _take_cancel(
        self, number: int, cancel: ConnectionCancel, found: dict[bytes, IncomingRequest]
    ) -> None:
        incoming = found.get(cancel.content.request_hash)
        if incoming is not None:  # if None: answered or refused already, or never received
            try:
                cancel.verify(incoming.request, incoming.device)
            except (ConnectionRefused, IdentityError) as error:
                self._context.refusals.add("cancel of a connection request", error)
            else:
                del found[cancel.content.request_hash]
                await self.settle(incoming)
        await self._delete(number)

    async def _drop_strange(self, waiting: WaitingDeposit, error: MmrError) -> None:
        """Drop a deposit that can't be read; later, if another device may have just published its package."""
        now = self._context.clock()
        seen = self._first_seen.setdefault(waiting.number, now)
        may_be_good = isinstance(error, UnknownPackage) and self._has_other_devices()
        if may_be_good and now - seen < STRANGE_SECONDS:
            return
        del self._first_seen[waiting.number]
        self._context.refusals.add("connection request", error)
        await self._delete(waiting.number)

    def _is_wanted(self, incoming: IncomingRequest) -> bool:
        """Say whether a request is shown to this user at all."""
        known = self._contacts.get(incoming.device.user)
        if known is None:
            return not self.only_contacts
        return not known.blocked and incoming.device.device_key not in known.removed_devices

    # --- dealing with them ---------------------------------------------------------------------------

    async def refuse(self, incoming: IncomingRequest) -> None:
        """Refuse a request without an answer: to the requester this looks like a user who is offline."""
        await self.settle(incoming)

    async def settle(self, incoming: IncomingRequest) -> None:
        """Delete a request, and the one-time key that it was sealed to."""
        content = incoming.request.content
        package_hash = content.package_hash
        self._settled[incoming.request.hash] = content.expiry.to_bytes(8, "big")
        published = self._packages.get(package_hash)  # None if another request was sealed to the same package
        if published is not None and not published.package.content.last_resort:
            self._packages.forget(package_hash)
        await self._delete(incoming.number)

    async def _delete(self, number: int) -> None:
        await self._account.ask(FORGET_CONNECTION_REQUEST, number=str(number))

    async def forget_expired(self) -> None:
        """Forget the hashes of settled requests that have expired: nobody can repeat those."""
        now = self._context.clock()
        for key, expiry in list(self._settled.items()):
            if int.from_bytes(expiry, "big") < now:
                del self._settled[key]
