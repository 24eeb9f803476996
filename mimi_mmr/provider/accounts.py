"""Endpoints of accounts, which owners call directly, and of the directory, which strangers call obliviously."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from mimi_mmr.crypto.certificates import CertificateAuthority, TrustAnchors
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import verify
from mimi_mmr.errors import NoKeyPackages, NotAllowed, SignatureRejected, Unauthorized
from mimi_mmr.protocol.accounts import (
    AddDeviceRequest,
    AddDeviceTBS,
    CertificateChain,
    DeviceList,
    PackagesLeft,
    PublishRequest,
    RegisterRequest,
    RegisterTBS,
    access_token_hash,
)
from mimi_mmr.protocol.connections import ConnectionPackage, request_size
from mimi_mmr.protocol.deposits import Deposit, Inbox, WaitingDeposit
from mimi_mmr.protocol.endpoints import (
    ADD_DEVICE,
    CLOSE_ACCOUNT,
    COUNT_CONNECTION_PACKAGES,
    FORGET_CONNECTION_REQUEST,
    LIST_CONNECTION_REQUESTS,
    LIST_DEVICES,
    PUBLISH_CONNECTION_PACKAGES,
    REGISTER,
    REMOVE_DEVICE,
    RENEW_CERTIFICATE,
    REQUEST_CONNECTION,
    TAKE_CONNECTION_PACKAGE,
    WITHDRAW_CONNECTION_PACKAGES,
)
from mimi_mmr.provider.http import Arrival, Call, Encoded, Router
from mimi_mmr.provider.store.accounts import AccountStore, Caller, Device
from mimi_mmr.uris import Kind, MimiUri


class AccountService:
    """Accounts of one provider domain."""

    def __init__(
        self,
        domain: str,
        store: AccountStore,
        ca: CertificateAuthority,
        trust: TrustAnchors,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Certify devices with `ca`."""
        self._domain = domain
        self._store = store
        self._ca = ca
        self._trust = trust
        self._clock = clock

    def mount_direct(self, router: Router) -> None:
        """Mount the endpoints that an account's owner calls over TLS, with a device's access token."""
        router.serve(REGISTER, self.register)
        router.serve(CLOSE_ACCOUNT, self.close, admit=self._caller)
        router.serve(ADD_DEVICE, self.add_device, admit=self._caller)
        router.serve(LIST_DEVICES, self.devices, admit=self._caller)
        router.serve(REMOVE_DEVICE, self.remove_device, admit=self._caller)
        router.serve(RENEW_CERTIFICATE, self.certificate, admit=self._caller)
        router.serve(PUBLISH_CONNECTION_PACKAGES, self.publish, admit=self._caller)
        router.serve(COUNT_CONNECTION_PACKAGES, self.packages_left, admit=self._caller)
        router.serve(WITHDRAW_CONNECTION_PACKAGES, self.withdraw_packages, admit=self._caller)
        router.serve(LIST_CONNECTION_REQUESTS, self.requests, admit=self._caller)
        router.serve(FORGET_CONNECTION_REQUEST, self.forget, admit=self._caller)

    def mount_oblivious(self, router: Router) -> None:
        """Mount the endpoints that strangers call through the gateway."""
        router.serve(TAKE_CONNECTION_PACKAGE, self.package)
        router.serve(REQUEST_CONNECTION, self.deposit)

    # --- owners --------------------------------------------------------------------------------------

    async def register(self, call: Call[None, RegisterRequest]) -> CertificateChain:
        """Open an account for a new user with its first device; return the device's certificate chain."""
        request = call.request
        tbs = RegisterTBS(self._domain, request.user, request.device)
        try:
            verify(request.device_public_key, "RegisterTBS", tbs.to_bytes(), request.proof, by="registration")
        except SignatureRejected:
            raise SignatureRejected(
                f"this provider is {self._domain}'s: expected a registration there, signed by the device"
            ) from None
        user = self._user(request.user)
        key, token = request.device_public_key, AccessToken(request.access_token)
        device = Device(MimiUri.of_device(user, request.device), key, token)
        return self._certified(user, await self._store.register(user, device), key)

    async def add_device(self, call: Call[Caller, AddDeviceRequest]) -> CertificateChain:
        """Add a device; the request carries the access token of a device that the account already has."""
        caller, request = call.subject, call.request
        device, key = MimiUri.of_device(caller.user, request.device), request.device_public_key
        token = AccessToken(request.access_token)
        tbs = AddDeviceTBS(self._domain, caller.user.name, device.name, key, access_token_hash(token))
        verify(key, "AddDeviceTBS", tbs.to_bytes(), request.proof, by="addition of a device")
        added = await self._store.add_device(caller, Device(device, key, token))
        return self._certified(caller.user, added, key)

    async def devices(self, call: Call[Caller, None]) -> DeviceList:
        """List the account's devices."""
        return DeviceList(tuple(device.name for device in await self._store.devices(call.subject.user)))

    async def remove_device(self, call: Call[Caller, None]) -> None:
        """Remove a device; its access token is no longer accepted."""
        await self._store.remove_device(call.subject, call.names["device"])

    async def close(self, call: Call[Caller, None]) -> None:
        """Delete the account. Only its name stays reserved: nobody can register it again."""
        await self._store.close_account(call.subject)

    async def certificate(self, call: Call[Caller, None]) -> CertificateChain:
        """Issue a new certificate for the calling device, before the old one expires."""
        caller = call.subject
        return self._certified(caller.user, caller.device, caller.public_key)

    def _certified(self, user: MimiUri, device: MimiUri, key: bytes) -> CertificateChain:
        return CertificateChain((self._ca.issue_device(user, device, key, self._clock()),))

    async def publish(self, call: Call[Caller, PublishRequest]) -> None:
        """Put connection packages of the calling device into the directory."""
        caller, packages = call.subject, call.request.packages
        for package in packages:
            if package.verify(caller.user, None, self._trust, self._clock()).device != caller.device:
                raise NotAllowed("a device publishes connection packages of its own only")
        await self._store.publish(caller, packages)

    async def packages_left(self, call: Call[Caller, None]) -> PackagesLeft:
        """Count the connection packages that are left, so that a device can publish more in time."""
        return await self._store.packages_left(call.subject, self._clock())

    async def withdraw_packages(self, call: Call[Caller, None]) -> None:
        """Delete all connection packages of the account, whichever device published them."""
        await self._store.withdraw_packages(call.subject)

    async def requests(self, call: Call[Caller, None]) -> Inbox:
        """List the waiting connection requests."""
        waiting = await self._store.requests(call.subject.user)
        return Inbox(tuple(WaitingDeposit(item.id, Deposit.from_bytes(item.deposit)) for item in waiting))

    async def forget(self, call: Call[Caller, None]) -> None:
        """Delete a connection request that the user has accepted or refused."""
        number = call.names["number"]
        if not number.isdecimal() or len(number) > 15:
            raise NotAllowed("expected the number of a request")
        await self._store.forget_request(call.subject.user, int(number))

    async def _caller(self, arrival: Arrival) -> tuple[Caller, bytes]:
        """Admit a request whose access token belongs to a device of the account that the path names."""
        bearer = arrival.bearer
        try:
            token = AccessToken(base64.urlsafe_b64decode(bearer + "=" * (-len(bearer) % 4)))
        except ValueError:
            raise Unauthorized("expected a device's access token as Bearer") from None
        caller = await self._store.authenticate(self._user(arrival.names["user"]), token)
        return caller, await arrival.body()

    def _user(self, name: str) -> MimiUri:
        return MimiUri(self._domain, Kind.USER, name)

    # --- strangers -----------------------------------------------------------------------------------

    async def package(self, call: Call[None, None]) -> Encoded[ConnectionPackage]:
        """Return one of the user's connection packages; delete it if it is a one-time package."""
        package = await self._store.take_package(self._user(call.names["user"]), self._clock())
        if package is None:
            raise NoKeyPackages("no such user, or no connection package of theirs is left")
        return Encoded(package)

    async def deposit(self, call: Call[None, Deposit]) -> None:
        """Store a request for the user. The answer is the same for unknown users and full inboxes."""
        deposit = call.request
        if len(deposit.request.ciphertext) != request_size(deposit.request.kem):
            raise NotAllowed("a sealed connection request has one size")
        await self._store.deposit(self._user(call.names["user"]), deposit.to_bytes())
