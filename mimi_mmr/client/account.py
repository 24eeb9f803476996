"""One device's account at its provider: registration, connection packages, requests to connect in and out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from cryptography import x509

from mimi_mmr.client.devices.shared import SharedKind, SharedState
from mimi_mmr.client.key_packages.stock import Queues
from mimi_mmr.client.people.contacts import IncomingRequest, OutgoingRequest, PublishedPackage
from mimi_mmr.client.storage.history import Notices
from mimi_mmr.client.storage.records import SavedAccount, SavedOutgoing, SavedPackage
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.client.transport.private_path import PrivatePath
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    ConnectionRefused,
    IdentityError,
    MmrError,
    ParseError,
    RoomError,
    SealedBoxRejected,
)
from mimi_mmr.protocol.accounts import (
    CertificateChain,
    DeviceList,
    PackagesLeft,
    PublishRequest,
    RegisterRequest,
    RegisterTBS,
)
from mimi_mmr.protocol.connections import (
    ConnectionCancel,
    ConnectionPackage,
    ConnectionRequest,
    ContactCode,
    ReplyInbox,
    make_cancel,
    make_connection_package,
    make_request,
    open_deposit,
    seal_cancel,
    seal_request,
)
from mimi_mmr.protocol.credentials import DeviceIdentity, RealCredential, bind_device, fingerprint
from mimi_mmr.protocol.deposits import Deposit, Inbox, WaitingDeposit
from mimi_mmr.protocol.queues import queue_id
from mimi_mmr.uris import MimiUri

PACKAGE_LIFETIME = 30 * 86400
PACKAGES = 4
PACKAGES_LEAST = 2
RENEW_BEFORE = 7 * 86400
STRANGE_SECONDS = 3600.0
CLOCK_STEP = 300
CERTIFICATE_RENEWAL = (
    80 * 86400
)  # of 90: a link made today is to be good for nearly as long as its credential
_ACCOUNT = b"account"
_ONLY_CONTACTS = b"only-contacts"


class UnknownPackage(ConnectionRefused):
    """A request that is sealed to a connection package which is not known here."""


@dataclass(frozen=True, slots=True)
class Keys:
    """A device's own: its account's token, the user's identity key, and the device's key."""

    token: AccessToken
    identity: SigningKey
    device: SigningKey


def saved_account(vault: Vault) -> SavedAccount | None:
    """Whose state a vault holds, if there is any in it yet."""
    row = vault.table("account").get(_ACCOUNT)
    return SavedAccount.from_bytes(row) if row is not None else None


class Account:
    """A user's account as one device holds it; the floors above add KeyPackages, rooms, contacts, devices."""

    def __init__(
        self,
        user: MimiUri,
        device: MimiUri,
        url: str,
        path: PrivatePath,
        trust: TrustAnchors,
        vault: Vault,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """As the vault has it, or not registered yet. `refused` collects what came and was no good, in words."""
        self.user = user
        self.device = device
        self.url = url
        self.path = path
        self.trust = trust
        self.refused: list[str] = []
        self._strange: dict[int, float] = {}
        self.notices = Notices(vault)
        self.vault = vault
        self._clock = clock
        self._queues = Queues(path)
        self._shared = SharedState(vault, device.name)
        self._me: DeviceIdentity | None = None
        saved = saved_account(vault)
        self._restore_account(saved) if saved else self._begin_account()
        self._packages = {
            key: SavedPackage.from_bytes(value).published()
            for key, value in self._shared.items(SharedKind.CONNECTION_PACKAGE)
        }
        self._outgoing_rows = vault.table("outgoing")
        self._settled = vault.table("settled requests")
        waiting = (SavedOutgoing.from_bytes(row).outgoing() for row in self._outgoing_rows.values())
        self.outgoing = {request.recipient.user: request for request in waiting}

    def _begin_account(self) -> None:
        self._keys = Keys(AccessToken.generate(), SigningKey.generate(), SigningKey.generate())
        self._keep_account(None)

    def _restore_account(self, saved: SavedAccount) -> None:
        identity, device = SigningKey.from_seed(saved.identity_seed), SigningKey.from_seed(saved.device_seed)
        self._keys = Keys(AccessToken(saved.token), identity, device)
        if saved.credential is not None:
            self._me = DeviceIdentity(self.user, self.device, device, saved.credential)

    def _keep_account(self, credential: RealCredential | None) -> None:
        keys = self._keys
        seeds = keys.token.reveal(), keys.identity.seed(), keys.device.seed()
        saved = SavedAccount(1, self.user, self.device, self.url, *seeds, credential)
        self.vault.table("account")[_ACCOUNT] = saved.to_bytes()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; the vault is its owner's to close."""
        await self.path.close()

    # --- account -------------------------------------------------------------------------------------

    @property
    def me(self) -> DeviceIdentity:
        """This device's real credential; raises `RoomError` before `register`."""
        if self._me is None:
            raise RoomError("register first")
        return self._me

    @property
    def registered(self) -> bool:
        """Whether there is an account, and this device one of its devices."""
        return self._me is not None

    @property
    def contact_code(self) -> ContactCode:
        """What to give to somebody who wants to connect."""
        return ContactCode(self.user, fingerprint(self._keys.identity.public))

    @property
    def only_contacts(self) -> bool:
        """Whether requests of people who are no contacts are refused, in silence."""
        return self._shared.get(SharedKind.SETTING, _ONLY_CONTACTS) == b"1"

    @only_contacts.setter
    def only_contacts(self, on: bool) -> None:
        self._shared.put(SharedKind.SETTING, _ONLY_CONTACTS, b"1" if on else b"0")

    async def register(self, packages: int = PACKAGES) -> None:
        """Open the account, get the device certified, publish connection packages (and one last resort).

        May be called again after an answer was lost.
        """
        tbs = RegisterTBS(self.user.domain, self.user.name, self.device.name)
        keys = self._keys
        proof = keys.device.sign("RegisterTBS", tbs.to_bytes())
        request = RegisterRequest(tbs.user, tbs.device, keys.device.public, proof, keys.token.reveal())
        answer = await self.path.account("POST", "/v1/account", request.to_bytes())
        await self._certified(CertificateChain.from_bytes(answer).certificates, packages)

    async def _certified(self, chain: tuple[bytes, ...], packages: int) -> None:
        await self.path.provider(self.user.domain)
        self._bind(chain)
        await self.publish_connection_packages(packages)

    def _bind(self, chain: tuple[bytes, ...]) -> None:
        """Take a certificate chain for this device, if it verifies, and put the user's binding beside it."""
        keys = self._keys
        credential = bind_device(keys.identity, self.user, self.device, chain, keys.device.public)
        credential.verify(self.trust, self._clock())
        self._me = DeviceIdentity(self.user, self.device, keys.device, credential)
        self._keep_account(credential)

    async def tend_certificate(self) -> None:
        """Have the device's certificate renewed before it expires."""
        certificate = x509.load_der_x509_certificate(self.me.credential.chain[0])
        if certificate.not_valid_after_utc.timestamp() < self._clock() + CERTIFICATE_RENEWAL:
            answer = await self._account("POST", "/certificate")
            self._bind(CertificateChain.from_bytes(answer).certificates)

    async def close_account(self) -> None:
        """Have the provider forget the account and all in it; nobody can take its name."""
        await self._account("DELETE", "")

    async def registered_devices(self) -> list[str]:
        """Names of the devices that the provider has of this account."""
        return list(DeviceList.from_bytes(await self._account("GET", "/devices")).devices)

    async def _account(self, method: str, what: str, body: bytes = b"") -> bytes:
        path = f"/v1/account/{self.user.name}{what}"
        return await self.path.account(method, path, body, self._keys.token)

    # --- connection packages -------------------------------------------------------------------------

    async def publish_connection_packages(self, count: int) -> None:
        """Publish `count` one-time packages (alternating X25519 and the hybrid) and a hybrid last resort."""
        kems = [Kem.X_WING if number % 2 else Kem.X25519 for number in range(count)]
        made = [self._make_package(kem, last_resort=False) for kem in kems]
        made.append(self._make_package(Kem.X_WING, last_resort=True))
        with self.vault.transaction():  # before anybody can use them
            for item in made:
                self._packages[item.package.hash] = item
                value = SavedPackage.of(item).to_bytes()
                self._shared.put(SharedKind.CONNECTION_PACKAGE, item.package.hash, value)
        await self._account(
            "POST", "/packages", PublishRequest(tuple(item.package for item in made)).to_bytes()
        )

    def _make_package(self, kem: Kem, *, last_resort: bool) -> PublishedPackage:
        key = SealingKey.generate(kem)
        expiry = int(self._clock()) // 86400 * 86400 + PACKAGE_LIFETIME
        package = make_connection_package(self.me, key.public, last_resort=last_resort, expiry=expiry)
        return PublishedPackage(package, key)

    async def tend_connection_packages(self) -> None:
        """Have enough connection packages published; forget the keys of those that have expired."""
        now = self._clock()
        for key, item in list(self._packages.items()):
            if item.package.content.expiry + PACKAGE_LIFETIME < now:  # requests to it have expired as well
                self._forget_package(key)
        for key, expiry in list(self._settled.items()):
            if int.from_bytes(expiry, "big") < now:
                del self._settled[key]
        left = PackagesLeft.from_bytes(await self._account("GET", "/packages")).device
        if left.one_time < PACKAGES_LEAST or not left.last_resorts or not self._has_fresh_package(now):
            await self.publish_connection_packages(PACKAGES)

    def _has_fresh_package(self, now: float) -> bool:
        """Whether this device has published lately. Its older packages lapse by themselves, and are no sign."""
        contents = [
            item.package.content
            for item in self._packages.values()
            if item.package.credential == self.me.credential
        ]
        return any(one.last_resort and one.expiry >= now + RENEW_BEFORE for one in contents)

    async def replace_connection_packages(self) -> None:
        """Withdraw all of the account's packages, whose keys somebody else may have, and publish new ones."""
        await self._account("DELETE", "/packages")
        for key in list(self._packages):
            self._forget_package(key)
        await self.publish_connection_packages(PACKAGES)

    def _forget_package(self, key: bytes) -> None:
        self._packages.pop(key, None)
        self._shared.put(SharedKind.CONNECTION_PACKAGE, key, None)

    # --- connecting ----------------------------------------------------------------------------------

    async def request_connection(self, to: ContactCode | MimiUri) -> OutgoingRequest:
        """Ask to connect. With a contact code, an identity key other than its fingerprint's is refused."""
        user, pin = (to.user, to.fingerprint) if isinstance(to, ContactCode) else (to, None)
        if user == self.user:
            raise ConnectionRefused("that is this very user")
        encoded = await self.path.call(user.domain, "POST", f"/v1/connectionPackage/{user.name}")
        package = ConnectionPackage.from_bytes(encoded)
        recipient = package.verify(user, pin, self.trust, self._clock())
        inbox, response_key = AccessToken.generate(), SealingKey.generate(Kem.X_WING)
        await self._queues.create(inbox, accepts_deposits=True)
        reply = ReplyInbox(self.user.domain, queue_id(inbox))
        rounded = int(self._clock()) // CLOCK_STEP * CLOCK_STEP  # a clock's error is a mark
        request = make_request(self.me, package, reply, response_key.public, rounded)
        outgoing = OutgoingRequest(request, package, recipient, pin is not None, response_key, inbox)
        previous = self.outgoing.get(user)
        self._keep_outgoing(outgoing)  # before it goes: its answer must find the key
        deposit = Deposit(package.hash, seal_request(request, package))
        await self.path.call(user.domain, "POST", f"/v1/connectionRequest/{user.name}", deposit.to_bytes())
        if previous is not None:  # this one asks the same: one answer will do
            await self._drop_outgoing(previous)
        return outgoing

    async def cancel_request(self, outgoing: OutgoingRequest) -> None:
        """Take a request back (-06, consent `cancel`). Who has answered it already will not be heard."""
        cancel = make_cancel(self.me, outgoing.request)
        deposit = Deposit(outgoing.package.hash, seal_cancel(cancel, outgoing.package))
        user = outgoing.recipient.user
        path = f"/v1/connectionRequest/{user.name}"
        await self.path.call(user.domain, "POST", path, deposit.to_bytes())
        await self._drop_outgoing(outgoing)

    def _keep_outgoing(self, outgoing: OutgoingRequest) -> None:
        self.outgoing[outgoing.recipient.user] = outgoing
        self._outgoing_rows[outgoing.request.hash] = SavedOutgoing.of(outgoing).to_bytes()

    async def _drop_outgoing(self, outgoing: OutgoingRequest) -> None:
        """A request is answered, or taken back, or too old."""
        if self.outgoing.get(outgoing.recipient.user) == outgoing:
            del self.outgoing[outgoing.recipient.user]
        self._outgoing_rows.pop(outgoing.request.hash, None)
        await self._queues.delete(outgoing.inbox)

    async def connection_requests(self) -> list[IncomingRequest]:
        """Who wants to connect. What does not open or verify is dropped, and noted in `refused`.

        A request that was cancelled is gone, together with its cancel.
        """
        inbox = Inbox.from_bytes(await self._account("GET", "/requests"))
        found: dict[bytes, IncomingRequest] = {}
        cancels: list[tuple[int, ConnectionCancel]] = []
        for waiting in inbox.deposits:
            try:
                opened = self._open_deposit(waiting.deposit)
                if isinstance(opened, ConnectionCancel):
                    cancels.append((waiting.number, opened))
                    continue
                device = opened.verify(self.user, waiting.deposit.package_hash, self.trust, self._clock())
            except (IdentityError, ConnectionRefused, SealedBoxRejected, ParseError) as error:
                await self._drop_strange(waiting, error)
                continue
            if opened.hash in self._settled or opened.hash in found:
                await self._forget_request(waiting.number)  # a provider may say a thing twice
            else:
                found[opened.hash] = IncomingRequest(waiting.number, opened, device)
        for number, cancel in cancels:
            await self._take_cancel(number, cancel, found)
        unwanted = [incoming for incoming in found.values() if not self._wanted(incoming)]
        for incoming in unwanted:
            await self.refuse(incoming)
        return [incoming for incoming in found.values() if incoming not in unwanted]

    def _open_deposit(self, deposit: Deposit) -> ConnectionRequest | ConnectionCancel:
        published = self._packages.get(deposit.package_hash)
        if published is None:
            raise UnknownPackage("sealed to a connection package that is not this user's")
        return open_deposit(deposit.request, published.key, deposit.package_hash)

    async def _take_cancel(
        self, number: int, cancel: ConnectionCancel, found: dict[bytes, IncomingRequest]
    ) -> None:
        incoming = found.get(cancel.content.request_hash)
        if incoming is not None:  # else it was answered, or refused, or its request never came
            try:
                cancel.verify(incoming.request, incoming.device)
            except (ConnectionRefused, IdentityError) as error:
                self.refused.append(f"cancel of a connection request: {error}")
            else:
                del found[cancel.content.request_hash]
                await self._settle(incoming)
        await self._forget_request(number)

    async def _drop_strange(self, waiting: WaitingDeposit, error: MmrError) -> None:
        """What can't be read goes; later, if it may be for a package that another device has just published."""
        seen = self._strange.setdefault(waiting.number, self._clock())
        if (
            isinstance(error, UnknownPackage)
            and self._clock() - seen < STRANGE_SECONDS
            and self._has_devices()
        ):
            return
        del self._strange[waiting.number]
        self.refused.append(f"connection request: {error}")
        await self._forget_request(waiting.number)

    def _has_devices(self) -> bool:
        """Whether the user has other devices than this one."""
        return False

    def _wanted(self, incoming: IncomingRequest) -> bool:
        """Whether a user wants to hear of a request at all."""
        return not self.only_contacts

    async def refuse(self, incoming: IncomingRequest) -> None:
        """Say nothing: the requester sees what it sees of somebody who is away."""
        await self._settle(incoming)

    async def _settle(self, incoming: IncomingRequest) -> None:
        """A request is dealt with: it goes, and with it the one-time key that it was sealed to."""
        content = incoming.request.content
        package_hash = content.package_hash
        self._settled[incoming.request.hash] = content.expiry.to_bytes(8, "big")
        published = self._packages.get(package_hash)  # None if another request was sealed to the same one
        if published is not None and not published.package.content.last_resort:
            self._forget_package(package_hash)
        await self._forget_request(incoming.number)

    async def _forget_request(self, number: int) -> None:
        await self._account("DELETE", f"/requests/{number}")
