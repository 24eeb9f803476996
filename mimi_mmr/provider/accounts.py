"""Endpoints of accounts, used directly by their owners, and of the directory, used by strangers obliviously."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from mimi_mmr.crypto.certificates import CertificateAuthority, TrustAnchors
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import verify
from mimi_mmr.errors import NoKeyPackages, NotAllowed, Unauthorized
from mimi_mmr.protocol.accounts import (
    AddDeviceRequest,
    AddDeviceTBS,
    CertificateChain,
    DeviceList,
    PublishRequest,
    RegisterRequest,
    RegisterTBS,
    access_token_hash,
)
from mimi_mmr.protocol.connections import request_size
from mimi_mmr.protocol.deposits import Deposit, Inbox, WaitingDeposit
from mimi_mmr.provider.http import Call, Reply, Router
from mimi_mmr.provider.store.accounts import AccountStore, Caller, Device
from mimi_mmr.uris import Kind, MimiUri

ROLE = "accounts"


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
        """Add what an account's owner calls over TLS, with the token of one of its devices."""
        account = "/v1/account/{user}"
        router.add("POST", "/v1/account", self.register, role=ROLE)
        router.add("DELETE", account, self.close, role=ROLE, limit=0)
        router.add("POST", f"{account}/devices", self.add_device, role=ROLE)
        router.add("GET", f"{account}/devices", self.devices, role=ROLE, limit=0)
        router.add("DELETE", f"{account}/devices/{{device}}", self.remove_device, role=ROLE, limit=0)
        router.add("POST", f"{account}/certificate", self.certificate, role=ROLE, limit=0)
        router.add("POST", f"{account}/packages", self.publish, role=ROLE, limit=PublishRequest.LIMIT)
        router.add("GET", f"{account}/packages", self.packages_left, role=ROLE, limit=0)
        router.add("DELETE", f"{account}/packages", self.withdraw_packages, role=ROLE, limit=0)
        router.add("GET", f"{account}/requests", self.requests, role=ROLE)
        router.add("DELETE", f"{account}/requests/{{number}}", self.forget, role=ROLE)

    def mount_oblivious(self, router: Router) -> None:
        """Add what strangers call through the gateway."""
        router.add("POST", "/v1/connectionPackage/{user}", self.package, role=ROLE)
        router.add("POST", "/v1/connectionRequest/{user}", self.deposit, role=ROLE)

    # --- owners --------------------------------------------------------------------------------------

    async def register(self, call: Call) -> Reply:
        """POST /v1/account: a new user with its first device; answers the device's certificate chain."""
        request = RegisterRequest.from_bytes(call.body)
        tbs = RegisterTBS(self._domain, request.user, request.device)
        verify(request.device_public_key, "RegisterTBS", tbs.to_bytes(), request.proof, by="registration")
        user, device = self._user(request.user), self._device(request.device)
        token = AccessToken(request.access_token)
        await self._store.register(user, Device(device, request.device_public_key, token))
        return self._certified(201, user, device, request.device_public_key)

    async def add_device(self, call: Call) -> Reply:
        """POST /v1/account/{user}/devices: one more device, vouched for by one that is there."""
        caller = await self._authenticated(call)
        request = AddDeviceRequest.from_bytes(call.body)
        device, key = self._device(request.device), request.device_public_key
        token = AccessToken(request.access_token)
        tbs = AddDeviceTBS(self._domain, caller.user.name, device.name, key, access_token_hash(token))
        verify(key, "AddDeviceTBS", tbs.to_bytes(), request.proof, by="addition of a device")
        await self._store.add_device(caller, Device(device, key, token))
        return self._certified(201, caller.user, device, key)

    async def devices(self, call: Call) -> Reply:
        """GET /v1/account/{user}/devices."""
        caller = await self._authenticated(call)
        names = tuple(device.name for device in await self._store.devices(caller.user))
        return Reply(body=DeviceList(names).to_bytes())

    async def remove_device(self, call: Call) -> Reply:
        """DELETE /v1/account/{user}/devices/{device}: from now on its token opens nothing."""
        caller = await self._authenticated(call)
        await self._store.remove_device(caller, self._device(call.names["device"]))
        return Reply(200)

    async def close(self, call: Call) -> Reply:
        """DELETE /v1/account/{user}: all of it goes; the name is nobody's, and nobody's again."""
        await self._store.close_account(await self._authenticated(call))
        return Reply(200)

    async def certificate(self, call: Call) -> Reply:
        """POST /v1/account/{user}/certificate: a new one for the calling device, before the old one expires."""
        caller = await self._authenticated(call)
        return self._certified(200, caller.user, caller.device, caller.public_key)

    def _certified(self, status: int, user: MimiUri, device: MimiUri, key: bytes) -> Reply:
        certificate = self._ca.issue_device(user, device, key, self._clock())
        return Reply(status, CertificateChain((certificate,)).to_bytes())

    async def publish(self, call: Call) -> Reply:
        """POST /v1/account/{user}/packages."""
        caller = await self._authenticated(call)
        packages = PublishRequest.from_bytes(call.body).packages
        for package in packages:
            if package.verify(caller.user, None, self._trust, self._clock()).device != caller.device:
                raise NotAllowed("a device publishes connection packages of its own only")
        await self._store.publish(caller, packages)
        return Reply(201)

    async def packages_left(self, call: Call) -> Reply:
        """GET /v1/account/{user}/packages: how many are left, so that a device can make more in time."""
        caller = await self._authenticated(call)
        return Reply(body=(await self._store.packages_left(caller, self._clock())).to_bytes())

    async def withdraw_packages(self, call: Call) -> Reply:
        """DELETE /v1/account/{user}/packages: nobody is given what any device has published so far."""
        await self._store.withdraw_packages(await self._authenticated(call))
        return Reply(200)

    async def requests(self, call: Call) -> Reply:
        """GET /v1/account/{user}/requests."""
        caller = await self._authenticated(call)
        waiting = await self._store.requests(caller.user)
        deposits = (WaitingDeposit(item.id, Deposit.from_bytes(item.deposit)) for item in waiting)
        return Reply(body=Inbox(tuple(deposits)).to_bytes())

    async def forget(self, call: Call) -> Reply:
        """DELETE /v1/account/{user}/requests/{number}: dealt with, accepted or not."""
        caller = await self._authenticated(call)
        number = call.names["number"]
        if not number.isdecimal() or len(number) > 15:
            raise NotAllowed("expected the number of a request")
        await self._store.forget_request(caller.user, int(number))
        return Reply(200)

    async def _authenticated(self, call: Call) -> Caller:
        try:
            token = AccessToken(base64.urlsafe_b64decode(call.bearer + "=" * (-len(call.bearer) % 4)))
        except ValueError:
            raise Unauthorized("expected a device's access token as Bearer") from None
        return await self._store.authenticate(self._user(call.names["user"]), token)

    def _user(self, name: str) -> MimiUri:
        return MimiUri(self._domain, Kind.USER, name)

    def _device(self, name: str) -> MimiUri:
        return MimiUri(self._domain, Kind.DEVICE, name)

    # --- strangers -----------------------------------------------------------------------------------

    async def package(self, call: Call) -> Reply:
        """POST /v1/connectionPackage/{user}: take one; POST, since a one-time package is gone afterwards."""
        package = await self._store.take_package(self._user(call.names["user"]), self._clock())
        if package is None:
            raise NoKeyPackages("no such user, or no connection package of theirs is left")
        return Reply(body=package)

    async def deposit(self, call: Call) -> Reply:
        """POST /v1/connectionRequest/{user}: the same answer whoever it is for, and whatever becomes of it."""
        deposit = Deposit.from_bytes(call.body)
        if len(deposit.request.ciphertext) != request_size(deposit.request.kem):
            raise NotAllowed("a sealed connection request has one size")
        await self._store.deposit(self._user(call.names["user"]), deposit.to_bytes())
        return Reply(202)
