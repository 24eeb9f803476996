"""One device's account at its provider: keys, certificate, and the requests that need the account's token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast, overload

from cryptography import x509

from mimi_mmr.client.context import Context
from mimi_mmr.client.storage.records import SavedAccount
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import CertificateRejected, NotReached, PeerError, RoomError
from mimi_mmr.protocol.accounts import RegisterRequest, RegisterTBS
from mimi_mmr.protocol.connections import ContactCode
from mimi_mmr.protocol.credentials import DeviceIdentity, RealCredential, bind_device, fingerprint
from mimi_mmr.protocol.endpoints import (
    CLOSE_ACCOUNT,
    LIST_DEVICES,
    REGISTER,
    RENEW_CERTIFICATE,
    Ans,
    Endpoint,
    Req,
)
from mimi_mmr.uris import MimiUri

CERTIFICATE_RENEWAL = (
    80 * 86400
)  # of 90: an identity link made today stays valid for nearly as long as its credential
_ROW = b"account"


@dataclass(frozen=True, slots=True)
class AccountKeys:
    """A device's own keys: its account's token, the user's identity key, and the device's key."""

    token: AccessToken
    identity: SigningKey
    device: SigningKey


def saved_account(vault: Vault) -> SavedAccount | None:
    """Return the account that a vault holds; None if it holds none yet."""
    row = vault.table("account").get(_ROW)
    return SavedAccount.from_bytes(row) if row is not None else None


class Account:
    """A user's account as one device holds it."""

    def __init__(self, context: Context, url: str) -> None:
        """Restore the account from the vault; without a saved one, make keys for an account to be registered."""
        self._context = context
        self.url = url
        self._me: DeviceIdentity | None = None
        saved = saved_account(context.vault)
        if saved is None:
            self._keys = AccountKeys(AccessToken.generate(), SigningKey.generate(), SigningKey.generate())
            self._save(self._keys, context.device, None)
        else:
            identity, device = (
                SigningKey.from_seed(saved.identity_seed),
                SigningKey.from_seed(saved.device_seed),
            )
            self._keys = AccountKeys(AccessToken(saved.token), identity, device)
            if saved.credential is not None:
                self._me = DeviceIdentity(context.user, context.device, device, saved.credential)

    def _save(self, keys: AccountKeys, device: MimiUri, credential: RealCredential | None) -> None:
        context = self._context
        seeds = keys.token.reveal(), keys.identity.seed(), keys.device.seed()
        saved = SavedAccount(1, context.user, device, self.url, *seeds, credential)
        context.vault.table("account")[_ROW] = saved.to_bytes()

    # --- who this is ---------------------------------------------------------------------------------

    @property
    def keys(self) -> AccountKeys:
        """The device's keys.

        A further device has a placeholder identity key until an existing device gives it the user's.
        """
        return self._keys

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
        """The contact code to give to somebody who wants to connect."""
        return ContactCode(self._context.user, fingerprint(self._keys.identity.public))

    @property
    def person(self) -> tuple[MimiUri, bytes]:
        """The user, and the user's identity key."""
        return self._context.user, self._keys.identity.public

    # --- certificate ---------------------------------------------------------------------------------

    async def register(self) -> None:
        """Open the account and get the device certified. May be called again after an answer was lost.

        Raises `NotReached` only if the registration has not arrived at the provider.
        """
        user, device, keys = self._context.user, self._context.device, self._keys
        tbs = RegisterTBS(user.domain, user.name, device.name)
        proof = keys.device.sign("RegisterTBS", tbs.to_bytes())
        request = RegisterRequest(tbs.user, tbs.device, keys.device.public, proof, keys.token.reveal())
        answer = await self._context.path.ask_directly(REGISTER, request)
        await self.certify(answer.certificates)

    async def certify(self, chain: tuple[bytes, ...], identity: SigningKey | None = None) -> None:
        """Take a first certificate chain and, on a further device, the user's `identity` key.

        Raises `CertificateRejected` if the chain does not verify, `PeerError` without the provider's keys.
        """
        try:
            await self._context.path.provider(self._context.user.domain)
        except NotReached as error:
            raise PeerError(str(error)) from None  # what led to this chain has arrived
        self._bind(chain, identity or self._keys.identity)

    def _bind(self, chain: tuple[bytes, ...], identity: SigningKey) -> None:
        """Verify a certificate chain for this device, sign the user binding for it, and store both.

        The certificate decides which of its two forms the device's URI has: a provider of an earlier version, and a
        registration that began with one, has the form without the user.
        """
        context, keys = self._context, replace(self._keys, identity=identity)
        user, device, key = context.trust.verify_device(chain, context.clock())
        if (user, device.name, key) != (context.user, context.device.name, keys.device.public):
            raise CertificateRejected("the certificate is not the one of this device that was asked for")
        credential = bind_device(identity, user, device, chain, key)
        credential.verify(context.trust, context.clock())
        self._save(keys, device, credential)
        self._keys = keys
        self._me = DeviceIdentity(user, device, keys.device, credential)

    async def renew_certificate(self) -> None:
        """Have the device's certificate renewed, if it is time."""
        certificate = x509.load_der_x509_certificate(self.me.credential.chain[0])
        if certificate.not_valid_after_utc.timestamp() < self._context.clock() + CERTIFICATE_RENEWAL:
            answer = await self.ask(RENEW_CERTIFICATE)
            self._bind(answer.certificates, self._keys.identity)

    # --- by account ----------------------------------------------------------------------------------

    @overload
    async def ask(self, endpoint: Endpoint[None, Ans], /, **names: str) -> Ans: ...

    @overload
    async def ask(self, endpoint: Endpoint[Req, Ans], request: Req, /, **names: str) -> Ans: ...

    async def ask(self, endpoint: Endpoint[Req, Ans], request: Req | None = None, /, **names: str) -> Ans:
        """Send a request with the account's token; `names` fill the placeholders of the endpoint's path.

        Raises the error that the provider answered, or `PeerError`.
        """
        names = {"user": self._context.user.name, **names}
        return await self._context.path.ask_account(endpoint, self._keys.token, cast("Req", request), **names)

    async def registered_devices(self) -> list[str]:
        """Return the names of the devices that the provider has registered for this account."""
        return list((await self.ask(LIST_DEVICES)).devices)

    async def delete(self) -> None:
        """Have the provider delete the account with all its data; nobody can register its name again."""
        await self.ask(CLOSE_ACCOUNT)
