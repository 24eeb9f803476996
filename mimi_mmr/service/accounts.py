"""Endpoints of accounts, used directly by their owners, and of the directory, used by strangers obliviously."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from mimi_mmr.certificates import CertificateAuthority, TrustAnchors
from mimi_mmr.connections import request_size
from mimi_mmr.endpoints import (
    CertificateChain,
    Deposit,
    Inbox,
    PublishRequest,
    RegisterRequest,
    RegisterTBS,
    WaitingDeposit,
)
from mimi_mmr.errors import NoKeyPackages, NotAllowed, Unauthorized
from mimi_mmr.labels import verify
from mimi_mmr.secret import AccessToken
from mimi_mmr.service.router import Call, Reply, Router
from mimi_mmr.store.accounts import AccountStore
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
        """Add what an account's owner calls over TLS, with its token."""
        router.add("POST", "/v1/account", self.register, role=ROLE)
        router.add("POST", "/v1/account/{user}/packages", self.publish, role=ROLE, limit=1 << 22)
        router.add("GET", "/v1/account/{user}/requests", self.requests, role=ROLE)
        router.add("DELETE", "/v1/account/{user}/requests/{number}", self.forget, role=ROLE)

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
        user = self._user(request.user)
        device = MimiUri(self._domain, Kind.DEVICE, request.device)
        await self._store.register(user, AccessToken(request.access_token))
        certificate = self._ca.issue_device(user, device, request.device_public_key, self._clock())
        return Reply(201, CertificateChain((certificate,)).to_bytes())

    async def publish(self, call: Call) -> Reply:
        """POST /v1/account/{user}/packages."""
        user = await self._authenticated(call)
        packages = PublishRequest.from_bytes(call.body).packages
        for package in packages:
            package.verify(user, None, self._trust, self._clock())
        await self._store.publish(user, packages)
        return Reply(201)

    async def requests(self, call: Call) -> Reply:
        """GET /v1/account/{user}/requests."""
        user = await self._authenticated(call)
        waiting = await self._store.requests(user)
        deposits = (WaitingDeposit(item.id, Deposit.from_bytes(item.deposit)) for item in waiting)
        return Reply(body=Inbox(tuple(deposits)).to_bytes())

    async def forget(self, call: Call) -> Reply:
        """DELETE /v1/account/{user}/requests/{number}: dealt with, accepted or not."""
        user = await self._authenticated(call)
        number = call.names["number"]
        if not number.isdecimal() or len(number) > 15:
            raise NotAllowed("expected the number of a request")
        await self._store.forget_request(user, int(number))
        return Reply(200)

    async def _authenticated(self, call: Call) -> MimiUri:
        try:
            token = AccessToken(base64.urlsafe_b64decode(call.bearer + "=" * (-len(call.bearer) % 4)))
        except ValueError:
            raise Unauthorized("expected the account's access token as Bearer") from None
        user = self._user(call.names["user"])
        await self._store.authenticate(user, token)
        return user

    def _user(self, name: str) -> MimiUri:
        return MimiUri(self._domain, Kind.USER, name)

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
