"""Connecting two users, who then share a room: connection package, request, response, contact code.

After draft-kohbrok-mimi-metadata-minimalization, with pinned identity keys, signed requests of one fixed size,
and connection keys that are exchanged only inside the room that the two users then share.

-06's consent operations exist here, without its consent entries, which would name both users to both providers:

- *request*: a `ConnectionRequest`, sealed to a connection package;
- *cancel*: a `ConnectionCancel`, sealed and deposited in the same way, so that no provider can tell them apart;
- *grant*: a `ConnectionResponse`, sealed to the request's one-time key;
- *revoke*: every other contact gets a new connection key (a `ConnectionKeyOffer` with a larger version), and the
  revoked contact's shelf is closed: its token then gets the same answer as an unknown token.

A denial is never revealed: there is no message for it, and a revocation looks like an empty shelf.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey, SealingPublicKey, pad, pad_to, unpad
from mimi_mmr.crypto.secret import ConnectionKey
from mimi_mmr.crypto.signing import verify
from mimi_mmr.errors import BindingRejected, ConnectionRefused, CredentialExpired, InvalidUri
from mimi_mmr.presentation import BOOL, U8, U64, Code, Fixed, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.credentials import DeviceIdentity, RealCredential, VerifiedDevice, fingerprint
from mimi_mmr.protocol.key_packages import MAX_CLIENTS, OpenKeyPackage
from mimi_mmr.uris import USER, Kind, MimiUri

VERSION = 1
REQUEST_SIZE = 4096
MAX_KEY_STEP = 1 << 20  # by which the version of a connection key may grow at once
RESPONSE_MULTIPLE = 8192
REQUEST_LIFETIME = 14 * 86400
_ENCAPSULATION = {Kem.X25519: 32, Kem.X_WING: 1120}
_DEPOSIT = "connection deposit"
_RESPONSE = "connection response"
_CONTACT_CODE = re.compile(r"mimi-connect:([^?]*)\?f=(.*)", re.DOTALL)
_FINGERPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


# --- contact codes -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContactCode:
    """A `mimi-connect:<user uri>?f=<fingerprint>`: the user to connect to, and the expected identity key."""

    user: MimiUri
    fingerprint: bytes

    def __str__(self) -> str:
        pin = base64.urlsafe_b64encode(self.fingerprint).rstrip(b"=").decode()
        return f"mimi-connect:{self.user}?f={pin}"

    @classmethod
    def parse(cls, text: str) -> ContactCode:
        """Parse a contact code in its one spelling, the one that `str` returns; raise `InvalidUri`.

        What pasting adds around a code, and the case of its scheme, is for the caller to remove.
        """
        match = _CONTACT_CODE.fullmatch(text)
        if match is None:
            raise InvalidUri("expected a contact code, mimi-connect:…?f=…, whole as it was shown")
        user, pin = MimiUri.parse(match[1], Kind.USER), match[2]
        if not _FINGERPRINT.fullmatch(pin):
            raise InvalidUri(
                "the contact code is altered or cut off: its fingerprint has 43 letters, digits, - and _"
            )
        code = cls(user, base64.urlsafe_b64decode(pin + "="))
        if str(code) != text:  # the fingerprint's last letter has unused bits
            raise InvalidUri("the contact code is altered: the last letter of its fingerprint does not fit")
        return code


def check_pin(device: VerifiedDevice, pin: bytes | None) -> None:
    """Check that an identity key is the pinned one; raise `BindingRejected`."""
    if pin is not None and not hmac.compare_digest(fingerprint(device.identity_key), pin):
        raise BindingRejected("the identity key is not the one the contact code names")


# --- connection packages -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectionPackageTBS(Struct):
    """A key to seal a connection request to; `expiry` in seconds."""

    version: Annotated[int, U8]
    user_uri: Annotated[MimiUri, USER]
    public_key: SealingPublicKey
    last_resort: Annotated[bool, BOOL]
    expiry: Annotated[int, U64]


@dataclass(frozen=True, slots=True)
class ConnectionPackage(Struct):
    """A package that a user's device publishes, signed by its real key; fetched once, without authentication."""

    LIMIT: ClassVar[int] = 24576
    content: ConnectionPackageTBS
    credential: RealCredential
    signature: Annotated[bytes, Fixed(64)]

    @property
    def hash(self) -> bytes:
        """The hash by which a request names this package (32 bytes)."""
        return hashlib.sha256(self.to_bytes()).digest()

    def verify(self, user: MimiUri, pin: bytes | None, trust: TrustAnchors, now: float) -> VerifiedDevice:
        """Return the publishing device; raise a subclass of `IdentityError`, or `ConnectionRefused`."""
        device = self.credential.verify(trust, now)
        check_pin(device, pin)
        if device.user != user or self.content.user_uri != user:
            raise ConnectionRefused("the connection package is another user's")
        _check(self.content, device, self.signature, "ConnectionPackageTBS")
        if self.content.version != VERSION or self.content.expiry <= now:
            raise CredentialExpired("the connection package has expired, or is of an unknown version")
        return device


def make_connection_package(
    device: DeviceIdentity, key: SealingPublicKey, *, last_resort: bool, expiry: int
) -> ConnectionPackage:
    """Sign one."""
    content = ConnectionPackageTBS(VERSION, device.user, key, last_resort, expiry)
    signature = device.key.sign("ConnectionPackageTBS", content.to_bytes())
    return ConnectionPackage(content, device.credential, signature)


# --- requests ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplyInbox(Struct):
    """The queue for the response: it is at the requester's provider and linked to no account."""

    domain: Annotated[str, Text(253)]
    queue: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class ConnectionRequestTBS(Struct):
    """The content that the requester's device signs: addressee, package, expiry, reply inbox and key."""

    version: Annotated[int, U8]
    recipient: Annotated[MimiUri, USER]
    package_hash: Annotated[bytes, Fixed(32)]
    expiry: Annotated[int, U64]
    reply_inbox: ReplyInbox
    connection_response_key: SealingPublicKey
    credential: RealCredential


@dataclass(frozen=True, slots=True)
class ConnectionRequest(Struct):
    """A request to connect; all sealed requests have the same size."""

    content: ConnectionRequestTBS
    signature: Annotated[bytes, Fixed(64)]

    @property
    def hash(self) -> bytes:
        """The hash by which a response names this request (32 bytes)."""
        return hashlib.sha256(self.to_bytes()).digest()

    def verify(
        self, recipient: MimiUri, package_hash: bytes, trust: TrustAnchors, now: float
    ) -> VerifiedDevice:
        """Return the requesting device; raise a subclass of `IdentityError`, or `ConnectionRefused`."""
        content = self.content
        device = content.credential.verify(trust, now)
        _check(content, device, self.signature, "ConnectionRequestTBS")
        if content.recipient != recipient or content.package_hash != package_hash:
            raise ConnectionRefused("the request was made for another user or another connection package")
        if content.version != VERSION or not now < content.expiry <= now + REQUEST_LIFETIME + 86400:
            raise CredentialExpired("the connection request has expired, or is of an unknown version")
        if content.reply_inbox.domain != device.user.domain:
            raise ConnectionRefused("the reply inbox is not at the requester's provider")
        return device


def make_request(
    device: DeviceIdentity,
    package: ConnectionPackage,
    inbox: ReplyInbox,
    response_key: SealingPublicKey,
    now: float,
) -> ConnectionRequest:
    """Sign a request for the user of a verified package."""
    content = ConnectionRequestTBS(
        VERSION,
        package.content.user_uri,
        package.hash,
        int(now) + REQUEST_LIFETIME,
        inbox,
        response_key,
        device.credential,
    )
    return ConnectionRequest(content, device.key.sign("ConnectionRequestTBS", content.to_bytes()))


# --- cancelling a request ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectionCancelTBS(Struct):
    """The request that is cancelled, and the user that it was sent to."""

    version: Annotated[int, U8]
    recipient: Annotated[MimiUri, USER]
    request_hash: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class ConnectionCancel(Struct):
    """A device's cancellation of its own request; the request itself names the device.

    A repeated cancel is harmless: it names one request, by its unique hash.
    """

    content: ConnectionCancelTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, request: ConnectionRequest, requester: VerifiedDevice) -> None:
        """Check that `requester`, which verifying `request` returned, signed this cancel.

        Raises `ConnectionRefused` if it names another request, `SignatureRejected` if another device signed it.
        """
        content = self.content
        if (content.request_hash, content.recipient) != (request.hash, request.content.recipient):
            raise ConnectionRefused("the cancel is about another request")
        if content.version != VERSION:
            raise ConnectionRefused(f"expected a cancel of version {VERSION}, got {content.version}")
        _check(content, requester, self.signature, "ConnectionCancelTBS")


def make_cancel(device: DeviceIdentity, request: ConnectionRequest) -> ConnectionCancel:
    """Sign a cancel of this device's own request."""
    content = ConnectionCancelTBS(VERSION, request.content.recipient, request.hash)
    return ConnectionCancel(content, device.key.sign("ConnectionCancelTBS", content.to_bytes()))


# --- deposits ----------------------------------------------------------------------------------------


class DepositKind(enum.IntEnum):
    """The type of a deposit's content; only the recipient sees it."""

    REQUEST = 1
    CANCEL = 2


@dataclass(frozen=True, slots=True)
class ConnectionDeposit(Struct):
    """The plaintext of a deposit for a connection package, before padding to the fixed size."""

    kind: Annotated[DepositKind, Code(DepositKind)]
    content: Annotated[bytes, Opaque(REQUEST_SIZE)]


def seal_request(request: ConnectionRequest, package: ConnectionPackage) -> SealedBox:
    """Seal a request to the package it names, at the fixed size."""
    return _seal_deposit(DepositKind.REQUEST, request, package)


def seal_cancel(cancel: ConnectionCancel, package: ConnectionPackage) -> SealedBox:
    """Seal a cancel to its request's package; only the recipient can tell it from a request."""
    return _seal_deposit(DepositKind.CANCEL, cancel, package)


def _seal_deposit(kind: DepositKind, content: Struct, package: ConnectionPackage) -> SealedBox:
    padded = pad_to(ConnectionDeposit(kind, content.to_bytes()).to_bytes(), REQUEST_SIZE)
    return package.content.public_key.seal(_DEPOSIT, package.hash, padded)


def request_size(kem: Kem) -> int:
    """Return the size of every sealed deposit for a package of this KEM: encapsulation, padded deposit, tag."""
    return _ENCAPSULATION[kem] + REQUEST_SIZE + 16


def open_deposit(
    box: SealedBox, key: SealingKey, package_hash: bytes
) -> ConnectionRequest | ConnectionCancel:
    """Open a deposit with the private key of one package; raise `SealedBoxRejected` or `ParseError`.

    The caller must verify the content.
    """
    deposit = ConnectionDeposit.from_bytes(unpad(key.open(_DEPOSIT, package_hash, box)))
    if deposit.kind is DepositKind.CANCEL:
        return ConnectionCancel.from_bytes(deposit.content)
    return ConnectionRequest.from_bytes(deposit.content)


def open_request(box: SealedBox, key: SealingKey, package_hash: bytes) -> ConnectionRequest:
    """Open a deposit that must hold a request; raise what `open_deposit` raises, or `ConnectionRefused`."""
    opened = open_deposit(box, key, package_hash)
    if not isinstance(opened, ConnectionRequest):
        raise ConnectionRefused("expected a request to connect, got a cancel")
    return opened


# --- responses ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectionResponseTBS(Struct):
    """An acceptance: the request it answers, and KeyPackages with their link keys for the connection room."""

    version: Annotated[int, U8]
    request_hash: Annotated[bytes, Fixed(32)]
    credential: RealCredential
    key_packages: Annotated[tuple[OpenKeyPackage, ...], Vector(Nested(OpenKeyPackage), count=MAX_CLIENTS)]


@dataclass(frozen=True, slots=True)
class ConnectionResponse(Struct):
    """A signed acceptance, sealed to the request's one-time key. A refusal sends nothing."""

    content: ConnectionResponseTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(
        self, request_hash: bytes, recipient: VerifiedDevice, trust: TrustAnchors, now: float
    ) -> VerifiedDevice:
        """Return the accepting device, if it has the requested user and identity key and names this request."""
        device = self.content.credential.verify(trust, now)
        _check(self.content, device, self.signature, "ConnectionResponseTBS")
        if self.content.version != VERSION or self.content.request_hash != request_hash:
            raise ConnectionRefused("the response answers another request, or is of an unknown version")
        if (device.user, device.identity_key) != (recipient.user, recipient.identity_key):
            raise BindingRejected("the response is by another user, or another identity key, than was asked")
        return device


def make_response(
    device: DeviceIdentity, request_hash: bytes, packages: Sequence[OpenKeyPackage]
) -> ConnectionResponse:
    """Sign an acceptance."""
    content = ConnectionResponseTBS(VERSION, request_hash, device.credential, tuple(packages))
    return ConnectionResponse(content, device.key.sign("ConnectionResponseTBS", content.to_bytes()))


def seal_response(response: ConnectionResponse, key: SealingPublicKey) -> SealedBox:
    """Seal a response to the requester's one-time key."""
    context = response.content.request_hash
    return key.seal(_RESPONSE, context, pad(response.to_bytes(), RESPONSE_MULTIPLE))


def open_response(box: SealedBox, key: SealingKey, request_hash: bytes) -> ConnectionResponse:
    """Open a response from a reply inbox; raise `SealedBoxRejected` or `ParseError`."""
    return ConnectionResponse.from_bytes(unpad(key.open(_RESPONSE, request_hash, box)))


# --- inside the connection room ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConnectionKeyOffer(Struct):
    """The connection key that one user makes for the other, with its version and the shelf's upload key.

    A rotation sends a new key with a larger version. Late, repeated or replayed offers change nothing.
    """

    key_version: Annotated[int, U64]
    connection_key: Annotated[bytes, Fixed(32)]
    upload_public_key: Annotated[bytes, Fixed(32)]

    @property
    def key(self) -> ConnectionKey:
        """The connection key as a secret type."""
        return ConnectionKey(self.connection_key)

    def replaces(self, known: ConnectionKeyOffer | None) -> bool:
        """Return whether this offer replaces the known one: its version must be strictly larger."""
        return known is None or self.key_version > known.key_version

    def check_step(self, known: ConnectionKeyOffer | None) -> None:
        """Raise `ConnectionRefused` for a version that counting can't reach: it would use up the numbers."""
        if self.key_version > (known.key_version if known is not None else 0) + MAX_KEY_STEP:
            raise ConnectionRefused("a connection key in a version that is far ahead of the last one")


def newest_offer(known: ConnectionKeyOffer | None, came: ConnectionKeyOffer) -> ConnectionKeyOffer:
    """Return the newer of the known offer of a contact and the received one."""
    return came if known is None or came.replaces(known) else known


def _check(content: Struct, device: VerifiedDevice, signature: bytes, label: str) -> None:
    verify(device.device_key, label, content.to_bytes(), signature, by=label.removesuffix("TBS"))
