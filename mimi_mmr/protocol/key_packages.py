"""KeyPackage sets: one KeyPackage per client of a user, all under one user pseudonym, for one room.

A set lies on a *shelf* of the user's provider. The shelf's id is SHA-256(fetch token || upload key). The token is
derived from a pairwise connection key and gives access to the sets. The upload key signs uploads and orders.
Neither is linked to an account. Each KeyPackage travels with its identity link key, wrapped under the connection
key, so provider and hub never hold it.
"""

from __future__ import annotations

import enum
import hashlib
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeAlias

from mimi_mmr.crypto.aead import InvalidTag, OneTimeKey, open_once, seal_once
from mimi_mmr.crypto.sealing import SealedBox, SealingKey, SealingPublicKey, pad, unpad
from mimi_mmr.crypto.secret import ConnectionKey, FetchToken, IdentityLinkKey, WelcomeKey
from mimi_mmr.crypto.signing import SigningKey, expand_with_label, key_package_ref, verify
from mimi_mmr.errors import (
    CredentialExpired,
    LinkRejected,
    NoKeyPackages,
    NotYet,
    PseudonymProofRejected,
)
from mimi_mmr.mls.wire import KeyPackage, LeafNode, verify_key_package
from mimi_mmr.presentation import BOOL, U8, U32, U64, Code, Fixed, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.uris import MimiUri

VERSION = 1
MAX_KEY_PACKAGE = 32768
MAX_CLIENTS = 32
MAX_SETS = 200
MAX_SET_LIFETIME = 92 * 86400
RESPONSE_MULTIPLE = 8192
CLAIM_MULTIPLE = 512
CLAIM_LIFETIME = 300
LIFETIME_SKEW = 3600
REQUEST_SKEW = LIFETIME_SKEW + 300  # seconds; clients round the time of a request down to as much as 300
CLAIM_MEMORY = 2 * CLAIM_LIFETIME + 2 * LIFETIME_SKEW
_CLAIM = "key material claim"
_RESPONSE = "key material response"


@dataclass(frozen=True, slots=True)
class SetEntry(Struct):
    """One client's KeyPackage and its wrapped identity link key (48 bytes)."""

    key_package: Annotated[bytes, Opaque(MAX_KEY_PACKAGE)]
    wrapped_ilk: Annotated[bytes, Opaque(48, 48)]


@dataclass(frozen=True, slots=True)
class KeyPackageSet(Struct):
    """One KeyPackage set; a claim takes all of it."""

    entries: Annotated[tuple[SetEntry, ...], Vector(Nested(SetEntry), count=MAX_CLIENTS)]


@dataclass(frozen=True, slots=True)
class OpenKeyPackage(Struct):
    """A KeyPackage whose identity link key the reader holds."""

    key_package: Annotated[bytes, Opaque(MAX_KEY_PACKAGE)]
    identity_link_key: Annotated[bytes, Fixed(32)]

    @property
    def ilk(self) -> IdentityLinkKey:
        """The identity link key as a secret type."""
        return IdentityLinkKey(self.identity_link_key)

    @property
    def welcome_key(self) -> WelcomeKey:
        """The key of the Welcome's proof, for whoever adds this client."""
        return derive_welcome_key(self.ilk, key_package_ref(self.key_package))

    def without_name(self) -> NamelessKeyPackage:
        """Return the form for somebody who may add this client, but not learn who it is."""
        return NamelessKeyPackage(self.key_package, self.welcome_key.reveal())


@dataclass(frozen=True, slots=True)
class NamelessKeyPackage(Struct):
    """A KeyPackage whose reader may add the client without learning whose it is: with the welcome key only."""

    key_package: Annotated[bytes, Opaque(MAX_KEY_PACKAGE)]
    key: Annotated[bytes, Fixed(32)] = field(repr=False)

    @property
    def welcome_key(self) -> WelcomeKey:
        """The key of the Welcome's proof, for whoever adds this client."""
        return WelcomeKey(self.key)


AddableKeyPackage: TypeAlias = OpenKeyPackage | NamelessKeyPackage


def derive_welcome_key(ilk: IdentityLinkKey, reference: bytes) -> WelcomeKey:
    """Derive the key of a Welcome's proof from the link key of the KeyPackage with this KeyPackageRef.

    The link key still seals once: as an AEAD key it encrypts the identity link and nothing else. This derivation is
    a separate use, and gives nothing about the link key to whoever has the derived key only.
    """
    return WelcomeKey(expand_with_label(ilk, "welcome", reference))


def fetch_token(key: ConnectionKey) -> FetchToken:
    """Derive the token for claiming sets: the draft's friendship token, under this project's label."""
    return FetchToken(expand_with_label(key, "key package token", b""))


def shelf_id(token: FetchToken, upload_public_key: bytes) -> bytes:
    """Return the id of the shelf with the sets for one contact (32 bytes)."""
    return hashlib.sha256(token.reveal() + upload_public_key).digest()


def _wrapping_key(key: ConnectionKey, key_package: bytes) -> OneTimeKey:
    # This key wraps once: it depends on the KeyPackage's reference, and each KeyPackage has one link key.
    reference = KeyPackage.from_bytes(key_package).ref
    return OneTimeKey(expand_with_label(key, "identity link wrap", reference))


def wrap(package: OpenKeyPackage, key: ConnectionKey) -> SetEntry:
    """Wrap an identity link key for the holder of the connection key."""
    wrapped = seal_once(_wrapping_key(key, package.key_package), package.identity_link_key)
    return SetEntry(package.key_package, wrapped)


def unwrap(entry: SetEntry, key: ConnectionKey) -> OpenKeyPackage:
    """Unwrap what `wrap` made; raise `LinkRejected`."""
    try:
        ilk = open_once(_wrapping_key(key, entry.key_package), entry.wrapped_ilk)
    except InvalidTag:
        raise LinkRejected("the identity link key was not wrapped under this connection's key") from None
    return OpenKeyPackage(entry.key_package, ilk)


def check_set(packages: Sequence[bytes], now: float) -> tuple[LeafIdentity, ...]:
    """Check what needs no secret in a set's KeyPackages; raise a subclass of `IdentityError` or `InvalidCommit`.

    Checks signatures, pseudonym proofs and expiry; that all have one user pseudonym; and that no client pseudonym
    or signature key occurs twice. A queue address can't occur twice then, since it opens for one key only.
    """
    identities = tuple(_check_package(package, now) for package in packages)
    users = {identity.credential.user_pseudonym for identity in identities}
    if len(users) != 1:
        raise PseudonymProofRejected(f"expected one user pseudonym in a KeyPackage set, got {len(users)}")
    clients = {identity.credential.client_pseudonym for identity in identities}
    if len(clients) != len(identities):
        raise PseudonymProofRejected("a client pseudonym stands twice in a KeyPackage set")
    if len({identity.credential.signature_public_key for identity in identities}) != len(identities):
        raise PseudonymProofRejected("a signature key stands twice in a KeyPackage set")
    return identities


def _check_package(encoded: bytes, now: float) -> LeafIdentity:
    package = KeyPackage.from_bytes(encoded)
    verify_key_package(package)
    check_lifetime(package.leaf_node, now)
    return check_leaf(package.leaf_node.identity, package.leaf_node.signature_key, now)


def check_lifetime(leaf: LeafNode, now: float) -> None:
    """Check that a KeyPackage's leaf is within its lifetime (RFC 9420, section 7.3); raise `CredentialExpired`.

    The lifetime may begin up to `LIFETIME_SKEW` seconds from now, since clocks differ. An MLS library may take such
    a KeyPackage only when its lifetime has begun: see `check_begun`.
    """
    if leaf.lifetime is None or now > leaf.lifetime[1]:
        raise CredentialExpired("the KeyPackage is outside its lifetime")
    if leaf.lifetime[0] - LIFETIME_SKEW > now:
        minutes = round((leaf.lifetime[0] - now) / 60)
        raise CredentialExpired(
            f"the KeyPackage is outside its lifetime, which begins in {minutes} minutes by this clock: it, or the "
            "clock of the device that made it, is off"
        )


def check_begun(leaves: Iterable[LeafNode], now: float) -> None:
    """Check that the lifetimes of checked KeyPackages' leaves have begun; raise `NotYet`.

    Does nothing for a lifetime that begins later than `check_lifetime` allows.
    """
    begins = [leaf.lifetime[0] for leaf in leaves if leaf.lifetime is not None]
    due = max((begin for begin in begins if begin <= now + LIFETIME_SKEW), default=0)
    if due > now:
        raise NotYet(due, now)


def has_begun(leaf: LeafNode, now: float) -> bool:
    """Return whether the lifetime of a KeyPackage's leaf has begun."""
    return leaf.lifetime is None or leaf.lifetime[0] <= now


def leaf_of(package: AddableKeyPackage) -> LeafNode:
    """Return the leaf of a KeyPackage; raise `ParseError`."""
    return KeyPackage.from_bytes(package.key_package).leaf_node


def check_leaf(identity: bytes, signature_key: bytes, now: float) -> LeafIdentity:
    """Check all of a leaf's identity; raise a subclass of `IdentityError` or `ParseError`."""
    leaf = read_leaf(identity, signature_key)
    leaf.credential.verify(now)
    return leaf


def read_leaf(identity: bytes, signature_key: bytes) -> LeafIdentity:
    """Read a leaf's identity and check it against the leaf's key. The credential's `verify` checks its claims."""
    leaf = LeafIdentity.from_bytes(identity)
    leaf.check_place(signature_key)
    return leaf


# --- putting on a shelf ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetUploadTBS(Struct):
    """What the upload key signs."""

    shelf: Annotated[bytes, Fixed(32)]
    serial: Annotated[bytes, Fixed(16)]
    last_resort: Annotated[bool, BOOL]
    expiry: Annotated[int, U64]
    key_packages: KeyPackageSet


@dataclass(frozen=True, slots=True)
class SetUpload(Struct):
    """A set for a shelf. The first upload fixes the shelf's key."""

    LIMIT: ClassVar[int] = MAX_CLIENTS * (MAX_KEY_PACKAGE + 64)
    content: SetUploadTBS
    upload_public_key: Annotated[bytes, Fixed(32)]
    signature: Annotated[bytes, Fixed(64)]

    def verify(self) -> None:
        """Verify the signature; raise `SignatureRejected`."""
        verify(
            self.upload_public_key,
            "SetUploadTBS",
            self.content.to_bytes(),
            self.signature,
            by="upload of a KeyPackage set",
        )


def sign_upload(content: SetUploadTBS, key: SigningKey) -> SetUpload:
    """Sign an upload with the shelf's key."""
    return SetUpload(content, key.public, key.sign("SetUploadTBS", content.to_bytes()))


# --- orders for a shelf ------------------------------------------------------------------------------


class ShelfOrderKind(enum.IntEnum):
    """An action that the owner of a shelf orders."""

    REPORT = 0
    TAKE_BACK = 1
    CLOSE = 2


@dataclass(frozen=True, slots=True)
class ShelfOrderTBS(Struct):
    """What the upload key signs of an order.

    REPORT lists the sets; TAKE_BACK removes the sets with the named serials; CLOSE removes all sets and refuses
    later uploads, which is how a contact is blocked. `serials` is empty except for TAKE_BACK. `issued` is in
    seconds; `nonce` is fresh for every order, so that a replayed order can be refused.
    """

    shelf: Annotated[bytes, Fixed(32)]
    issued: Annotated[int, U64]
    kind: Annotated[ShelfOrderKind, Code(ShelfOrderKind)]
    serials: Annotated[tuple[bytes, ...], Vector(Fixed(16), count=MAX_SETS)]
    nonce: Annotated[bytes, Fixed(16)] = field(default_factory=lambda: secrets.token_bytes(16))


@dataclass(frozen=True, slots=True)
class ShelfOrder(Struct):
    """A signed order; after a lost answer the owner signs another."""

    LIMIT: ClassVar[int] = 16 * MAX_SETS + 256
    content: ShelfOrderTBS
    upload_public_key: Annotated[bytes, Fixed(32)]
    signature: Annotated[bytes, Fixed(64)]

    def verify(self) -> None:
        """Verify the signature; raise `SignatureRejected`."""
        content = self.content.to_bytes()
        verify(self.upload_public_key, "ShelfOrderTBS", content, self.signature, by="order to a shelf")


def sign_order(content: ShelfOrderTBS, key: SigningKey) -> ShelfOrder:
    """Sign an order with the shelf's key."""
    return ShelfOrder(content, key.public, key.sign("ShelfOrderTBS", content.to_bytes()))


@dataclass(frozen=True, slots=True)
class ShelfEntry(Struct):
    """One set without its KeyPackages. `uses` counts how often a last resort was given out."""

    serial: Annotated[bytes, Fixed(16)]
    last_resort: Annotated[bool, BOOL]
    uses: Annotated[int, U32]
    expiry: Annotated[int, U64]


@dataclass(frozen=True, slots=True)
class ShelfReport(Struct):
    """The answer to an order: the sets on the shelf, and the sets that the order removed.

    If a serial named by TAKE_BACK is in neither list, its set was given out, expired, or never uploaded.
    """

    sets: Annotated[tuple[ShelfEntry, ...], Vector(Nested(ShelfEntry), count=MAX_SETS)]
    taken_back: Annotated[tuple[ShelfEntry, ...], Vector(Nested(ShelfEntry), count=MAX_SETS)]


# --- claiming through a hub --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KeyMaterialClaim(Struct):
    """The plaintext of a sealed claim: its hub and provider, the fetch token, and the key to seal the answer to."""

    version: Annotated[int, U8]
    hub: Annotated[str, Text(253)]
    provider: Annotated[str, Text(253)]
    token: Annotated[bytes, Fixed(32)]
    upload_public_key: Annotated[bytes, Fixed(32)]
    response_key: SealingPublicKey
    expiry: Annotated[int, U64]


@dataclass(frozen=True, slots=True)
class KeyMaterialRequest(Struct):
    """A claim as the hub sees it: the provider that it is for. -06's requester, target and room are left out."""

    provider: Annotated[str, Text(253)]
    claim: SealedBox


class ClaimStatus(enum.IntEnum):
    """The result of a claim, one byte; unknown, closed and empty shelves all give NOTHING."""

    TAKEN = 0
    NOTHING = 1


@dataclass(frozen=True, slots=True)
class KeyMaterialAnswer(Struct):
    """The plaintext of a sealed answer."""

    status: Annotated[ClaimStatus, Code(ClaimStatus)]
    last_resort: Annotated[bool, BOOL]
    key_packages: Annotated[KeyPackageSet | None, Maybe(Nested(KeyPackageSet))]


def seal_claim(claim: KeyMaterialClaim, key: SealingPublicKey) -> KeyMaterialRequest:
    """Seal a claim to the target's provider, bound to the hub that forwards it."""
    context = (claim.hub + "\0" + claim.provider).encode()
    return KeyMaterialRequest(
        claim.provider, key.seal(_CLAIM, context, pad(claim.to_bytes(), CLAIM_MULTIPLE))
    )


def open_claim(request: KeyMaterialRequest, key: SealingKey, hub: str, now: float) -> KeyMaterialClaim:
    """Open a claim that `hub` forwarded; raise `SealedBoxRejected`, or `NoKeyPackages` if it is too old.

    The caller must refuse a box that it has seen before, for `CLAIM_MEMORY` seconds.
    """
    context = (hub + "\0" + request.provider).encode()
    claim = KeyMaterialClaim.from_bytes(unpad(key.open(_CLAIM, context, request.claim)))
    if (claim.hub, claim.provider) != (hub, request.provider):
        raise NoKeyPackages("the claim was made for another hub or provider")
    if claim.version != VERSION:
        raise NoKeyPackages(f"expected a claim of version {VERSION}, got {claim.version}")
    if not now - LIFETIME_SKEW < claim.expiry <= now + 2 * CLAIM_LIFETIME + LIFETIME_SKEW:
        raise NoKeyPackages("the claim has expired, or claims to live too long")
    return claim


def seal_answer(answer: KeyMaterialAnswer, key: SealingPublicKey) -> SealedBox:
    """Seal an answer to the requester's one-time key; both kinds of answer are padded to the same size buckets."""
    return key.seal(_RESPONSE, b"", pad(answer.to_bytes(), RESPONSE_MULTIPLE))


def open_answer(box: SealedBox, key: SealingKey) -> KeyPackageSet:
    """Open the answer and return the claimed set; raise `NoKeyPackages` or `SealedBoxRejected`."""
    answer = KeyMaterialAnswer.from_bytes(unpad(key.open(_RESPONSE, b"", box)))
    if answer.status is not ClaimStatus.TAKEN or answer.key_packages is None:
        raise NoKeyPackages("nothing to claim: no such connection, or its KeyPackages are used up")
    return answer.key_packages


def pseudonym_of(packages: Sequence[AddableKeyPackage]) -> MimiUri:
    """Return the user pseudonym of a checked set."""
    return identity_of(packages[0]).credential.user_pseudonym


def client_of(package: AddableKeyPackage) -> MimiUri:
    """Return the client pseudonym of a checked KeyPackage."""
    return identity_of(package).credential.client_pseudonym


def identity_of(package: AddableKeyPackage) -> LeafIdentity:
    """Return the identity in the leaf of a checked KeyPackage."""
    return LeafIdentity.from_bytes(leaf_of(package).identity)
