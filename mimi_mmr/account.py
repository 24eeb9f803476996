"""One device's account at its provider: registration, connection packages, requests to connect in and out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from mimi_mmr.certificates import TrustAnchors
from mimi_mmr.connections import (
    ConnectionPackage,
    ContactCode,
    ReplyInbox,
    make_connection_package,
    make_request,
    open_request,
    seal_request,
)
from mimi_mmr.contacts import IncomingRequest, OutgoingRequest, PublishedPackage
from mimi_mmr.credentials import DeviceIdentity, bind_device, fingerprint
from mimi_mmr.endpoints import (
    CertificateChain,
    Deposit,
    Inbox,
    PublishRequest,
    RegisterRequest,
    RegisterTBS,
)
from mimi_mmr.errors import (
    ConnectionRefused,
    IdentityError,
    ParseError,
    RoomError,
    SealedBoxRejected,
)
from mimi_mmr.labels import SigningKey
from mimi_mmr.private_path import PrivatePath
from mimi_mmr.queues import queue_id
from mimi_mmr.sealing import Kem, SealingKey
from mimi_mmr.secret import AccessToken
from mimi_mmr.stock import Queues
from mimi_mmr.uris import MimiUri

PACKAGE_LIFETIME = 30 * 86400


class Account:
    """A user's account as one device holds it; `Client` adds contacts and rooms."""

    def __init__(
        self,
        user: MimiUri,
        device: MimiUri,
        path: PrivatePath,
        trust: TrustAnchors,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Not registered yet. `refused` collects what came and was no good, in words."""
        self.user = user
        self.device = device
        self.path = path
        self.trust = trust
        self.refused: list[str] = []
        self._clock = clock
        self._queues = Queues(path)
        self._token = AccessToken.generate()
        self._identity_key = SigningKey.generate()
        self._device_key = SigningKey.generate()
        self._me: DeviceIdentity | None = None
        self._packages: dict[bytes, PublishedPackage] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self.path.close()

    # --- account -------------------------------------------------------------------------------------

    @property
    def me(self) -> DeviceIdentity:
        """This device's real credential; raises `RoomError` before `register`."""
        if self._me is None:
            raise RoomError("register first")
        return self._me

    @property
    def contact_code(self) -> ContactCode:
        """What to give to somebody who wants to connect."""
        return ContactCode(self.user, fingerprint(self._identity_key.public))

    async def register(self, packages: int = 4) -> None:
        """Open the account, get the device certified, publish connection packages (and one last resort)."""
        domain = self.user.domain
        tbs = RegisterTBS(domain, self.user.name, self.device.name)
        proof = self._device_key.sign("RegisterTBS", tbs.to_bytes())
        request = RegisterRequest(tbs.user, tbs.device, self._device_key.public, proof, self._token.reveal())
        answer = await self.path.account("POST", "/v1/account", request.to_bytes())
        chain = CertificateChain.from_bytes(answer).certificates
        credential = bind_device(self._identity_key, self.user, self.device, chain, self._device_key.public)
        credential.verify(self.trust, self._clock())
        self._me = DeviceIdentity(self.user, self.device, self._device_key, credential)
        await self.path.provider(domain)
        await self.publish_connection_packages(packages)

    async def publish_connection_packages(self, count: int) -> None:
        """Publish `count` one-time packages (alternating X25519 and the hybrid) and a hybrid last resort."""
        kems = [Kem.X_WING if number % 2 else Kem.X25519 for number in range(count)]
        made = [self._make_package(kem, last_resort=False) for kem in kems]
        made.append(self._make_package(Kem.X_WING, last_resort=True))
        body = PublishRequest(tuple(item.package for item in made)).to_bytes()
        await self.path.account("POST", f"/v1/account/{self.user.name}/packages", body, self._token)
        self._packages |= {item.package.hash: item for item in made}

    def _make_package(self, kem: Kem, *, last_resort: bool) -> PublishedPackage:
        key = SealingKey.generate(kem)
        expiry = int(self._clock()) // 86400 * 86400 + PACKAGE_LIFETIME
        package = make_connection_package(self.me, key.public, last_resort=last_resort, expiry=expiry)
        return PublishedPackage(package, key)

    # --- connecting ----------------------------------------------------------------------------------

    async def request_connection(self, to: ContactCode | MimiUri) -> OutgoingRequest:
        """Ask to connect. With a contact code, an identity key other than its fingerprint's is refused."""
        user, pin = (to.user, to.fingerprint) if isinstance(to, ContactCode) else (to, None)
        encoded = await self.path.call(user.domain, "POST", f"/v1/connectionPackage/{user.name}")
        package = ConnectionPackage.from_bytes(encoded)
        recipient = package.verify(user, pin, self.trust, self._clock())
        inbox, response_key = AccessToken.generate(), SealingKey.generate(Kem.X_WING)
        await self._queues.create(inbox, accepts_deposits=True)
        reply = ReplyInbox(self.user.domain, queue_id(inbox))
        request = make_request(self.me, package, reply, response_key.public, self._clock())
        deposit = Deposit(package.hash, seal_request(request, package))
        path = f"/v1/connectionRequest/{user.name}"
        await self.path.call(user.domain, "POST", path, deposit.to_bytes())
        return OutgoingRequest(request, recipient, pin is not None, response_key, inbox)

    async def connection_requests(self) -> list[IncomingRequest]:
        """Who wants to connect. What does not open or verify is dropped, and noted in `refused`."""
        path = f"/v1/account/{self.user.name}/requests"
        inbox = Inbox.from_bytes(await self.path.account("GET", path, b"", self._token))
        found = []
        for waiting in inbox.deposits:
            try:
                found.append(self._open_request(waiting.number, waiting.deposit))
            except (IdentityError, ConnectionRefused, SealedBoxRejected, ParseError) as error:
                self.refused.append(f"connection request: {error}")
                await self._forget_request(waiting.number)
        return found

    def _open_request(self, number: int, deposit: Deposit) -> IncomingRequest:
        published = self._packages.get(deposit.package_hash)
        if published is None:
            raise ConnectionRefused("sealed to a connection package that is not this device's")
        request = open_request(deposit.request, published.key, deposit.package_hash)
        device = request.verify(self.user, deposit.package_hash, self.trust, self._clock())
        return IncomingRequest(number, request, device)

    async def refuse(self, incoming: IncomingRequest) -> None:
        """Say nothing: the requester sees what it sees of somebody who is away."""
        await self._settle(incoming)

    async def _settle(self, incoming: IncomingRequest) -> None:
        """A request is dealt with: it goes, and with it the one-time key that it was sealed to."""
        package_hash = incoming.request.content.package_hash
        published = self._packages.get(package_hash)  # None if another request was sealed to the same one
        if published is not None and not published.package.content.last_resort:
            del self._packages[package_hash]
        await self._forget_request(incoming.number)

    async def _forget_request(self, number: int) -> None:
        path = f"/v1/account/{self.user.name}/requests/{number}"
        await self.path.account("DELETE", path, b"", self._token)
