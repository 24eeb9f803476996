"""Real and pseudonymous credentials, and the identity link between them.

Sources: draft-ietf-mimi-protocol-06, "Minimal metadata rooms"; RFC 9420, section 5.3; and, for the user
binding, the self-certifying user pseudonym and the random identity link key, this project's README.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, Self, TypeAlias, cast

from mimi_mmr.crypto.aead import InvalidTag, open_once, seal_once
from mimi_mmr.crypto.certificates import (
    MAX_CERTIFICATE,
    MAX_CHAIN,
    CertifiedDevice,
    DeviceChain,
    TrustAnchors,
)
from mimi_mmr.crypto.sealing import pad, unpad
from mimi_mmr.crypto.secret import IdentityLinkKey
from mimi_mmr.crypto.signing import MLS, SigningKey, verify
from mimi_mmr.errors import (
    BindingRejected,
    CredentialExpired,
    IdentityError,
    LinkRejected,
    ParseError,
    PseudonymProofRejected,
    SealedBoxRejected,
    SignatureRejected,
)
from mimi_mmr.presentation import (
    U8,
    U64,
    Fixed,
    Opaque,
    Reader,
    Struct,
    Vector,
    encode,
    read_struct,
    slot,
    vec,
    vec_size,
)
from mimi_mmr.protocol.queues import QueueAddress
from mimi_mmr.uris import (
    CLIENT_PSEUDONYM,
    DEVICE,
    USER,
    USER_PSEUDONYM,
    Kind,
    MimiUri,
    is_self_certifying,
    random_uri,
    self_certifying_pseudonym,
)

VERSION = 1
LINK_MULTIPLE = 256
LINK_LEAST = 1024
MAX_LINK = 16384
CREDENTIAL_LIFETIME = 90 * 86400
# The link's plaintext is padded to a multiple of 256, since the length of a name or chain is metadata.


# --- the real credential -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UserBindingTBS(Struct):
    """The content that the user's identity key signs, to bind a device to the user."""

    user_uri: Annotated[MimiUri, USER]
    device_uri: Annotated[MimiUri, DEVICE]
    device_public_key: Annotated[bytes, Fixed(32)]

    @staticmethod
    def encoded(user: MimiUri, device: MimiUri, key: bytes) -> bytes:
        """Return `UserBindingTBS(user, device, key).to_bytes()`, but faster, for rooms with many members."""
        return vec(str(user).encode()) + vec(str(device).encode()) + key


@dataclass(frozen=True, slots=True)
class RealCredential(Struct):
    """X.509 chain (RFC 9420's `x509` credential), the user's identity key, and its binding signature.

    A client that has pinned the identity key refuses a hostile provider's certificate for a device that is not
    the user's, because the binding is missing.
    """

    chain: Annotated[tuple[bytes, ...], Vector(Opaque(MAX_CERTIFICATE), count=MAX_CHAIN)]
    identity_key: Annotated[bytes, Fixed(32)]
    binding_signature: Annotated[bytes, Fixed(64)]

    def verify(self, trust: TrustAnchors, now: float) -> VerifiedDevice:
        """Verify the chain, then the binding. Raises `CertificateRejected` or `BindingRejected`."""
        return ClaimedDevice.read(self).verify(trust, now)


@dataclass(slots=True)
class ClaimedDevice:
    """A parsed real credential and its state of verification: nothing, then its chain, then its binding too.

    A credential that was verified before, for example in another room, stays verified while its chain is valid:
    the result depends on nothing else that can change.
    """

    credential: RealCredential
    chain: DeviceChain
    certified: CertifiedDevice | None = None
    is_bound: bool = False
    _content: tuple[object, ...] = ()

    @classmethod
    def read(cls, credential: RealCredential) -> ClaimedDevice:
        """Parse a credential."""
        return cls(credential, DeviceChain.read(credential.chain))

    def verify(self, trust: TrustAnchors, now: float) -> VerifiedDevice:
        """Verify the chain, then the binding. Raises `CertificateRejected` or `BindingRejected`."""
        self.verify_chain(trust, now)
        return self.verify_binding(trust)

    def verify_chain(self, trust: TrustAnchors, now: float) -> None:
        """Verify the chain, unless this credential was verified before; raise `CertificateRejected`."""
        real = self.credential
        self._content = real.identity_key, real.binding_signature, real.chain
        known = trust.devices.get(self._content, now)
        self.is_bound = known is not None
        self.certified = trust.certified(self.chain, now) if known is None else known[1]

    def verify_binding(self, trust: TrustAnchors) -> VerifiedDevice:
        """Verify, after the chain, that the user's identity key signed for this device; raise `BindingRejected`."""
        real, certified = self.credential, self.certified
        if certified is None:
            raise BindingRejected("the chain of the user binding is not verified")
        if not self.is_bound:
            content = UserBindingTBS.encoded(certified.user, certified.device, certified.key)
            try:
                verify(
                    real.identity_key, "UserBindingTBS", content, real.binding_signature, by="user binding"
                )
            except SignatureRejected as error:
                raise BindingRejected(str(error)) from None
            trust.devices.put(self._content, certified.span, certified)
        return VerifiedDevice(certified.user, certified.device, certified.key, real.identity_key)


class VerifiedDevice(NamedTuple):
    """The content of a verified real credential."""

    user: MimiUri
    device: MimiUri
    device_key: bytes
    identity_key: bytes


def bind_device(
    identity: SigningKey, user: MimiUri, device: MimiUri, chain: Sequence[bytes], device_key: bytes
) -> RealCredential:
    """Make a real credential: the user's identity key signs the device's URIs and key."""
    content = UserBindingTBS(user, device, device_key).to_bytes()
    return RealCredential(tuple(chain), identity.public, identity.sign("UserBindingTBS", content))


def fingerprint(identity_key: bytes) -> bytes:
    """Return the fingerprint in a contact code: SHA-256 of the user's identity key."""
    return hashlib.sha256(identity_key).digest()


# --- the pseudonymous credential ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PseudonymousCredentialTBS(Struct):
    """-06's struct with version, expiry (seconds, the start of a day) and the set key that makes the pseudonym."""

    version: Annotated[int, U8]
    client_pseudonym: Annotated[MimiUri, CLIENT_PSEUDONYM]
    user_pseudonym: Annotated[MimiUri, USER_PSEUDONYM]
    signature_public_key: Annotated[bytes, Opaque(32, 32)]
    set_public_key: Annotated[bytes, Opaque(32, 32)]
    expiry: Annotated[int, U64]


class _AsItTravelled:
    """A slot for the bytes that both signatures cover, if the credential was parsed. They repeat the fields."""

    __slots__ = ("_content",)
    _content: bytes


_put_content = slot(_AsItTravelled, "_content")


@dataclass(frozen=True, slots=True)
class PseudonymousCredential(_AsItTravelled, Struct):
    """The credential that hub and providers see in place of a name: one per KeyPackage, for one room only."""

    LIMIT: ClassVar[int] = 20000
    version: Annotated[int, U8]
    client_pseudonym: Annotated[MimiUri, CLIENT_PSEUDONYM]
    user_pseudonym: Annotated[MimiUri, USER_PSEUDONYM]
    signature_public_key: Annotated[bytes, Opaque(32, 32)]
    set_public_key: Annotated[bytes, Opaque(32, 32)]
    expiry: Annotated[int, U64]
    set_signature: Annotated[bytes, Opaque(64, 64)]
    identity_link_ciphertext: Annotated[bytes, Opaque(MAX_LINK)]

    @classmethod
    def read_from(cls, reader: Reader) -> Self:
        """Read every field, and keep the received bytes that both signatures cover."""
        start = reader.offset
        made = read_struct(cls, reader)
        behind = vec_size(made.set_signature) + vec_size(made.identity_link_ciphertext)
        _put_content(made, reader.data[start : reader.offset - behind])
        return made

    @property
    def tbs(self) -> PseudonymousCredentialTBS:
        """The part that both signatures cover."""
        return PseudonymousCredentialTBS(*self._covered)

    @property
    def content(self) -> bytes:
        """The encoding of `tbs`; the received bytes if the credential was parsed."""
        try:
            return self._content
        except AttributeError:
            return encode(PseudonymousCredentialTBS, *self._covered)

    @property
    def _covered(self) -> tuple[int, MimiUri, MimiUri, bytes, bytes, int]:
        return (
            self.version,
            self.client_pseudonym,
            self.user_pseudonym,
            self.signature_public_key,
            self.set_public_key,
            self.expiry,
        )

    def verify(self, now: float) -> None:
        """Check what needs no secret key: version, expiry, and that the pseudonym belongs to its set key.

        Raises `CredentialExpired` or `PseudonymProofRejected`.
        """
        self.check(now)
        self.verify_proof(self.content)

    def verify_pseudonym(self) -> None:
        """Check that the user pseudonym belongs to its set key, at any time; raise `PseudonymProofRejected`."""
        self.check_pseudonym()
        self.verify_proof(self.content)

    def check(self, now: float) -> None:
        """Check what `verify` checks, except the signature."""
        if self.version != VERSION:
            raise PseudonymProofRejected(f"expected credential version {VERSION}, got {self.version}")
        if self.expiry <= now:
            raise CredentialExpired("the pseudonymous credential has expired")
        self.check_pseudonym()

    def check_pseudonym(self) -> None:
        """Check what `verify_pseudonym` checks, except the signature."""
        if not is_self_certifying(self.user_pseudonym, self.set_public_key):
            raise PseudonymProofRejected("the user pseudonym is not the hash of the credential's set key")
        if self.client_pseudonym.domain != self.user_pseudonym.domain:
            raise PseudonymProofRejected("client and user pseudonym are of different providers")

    def verify_proof(self, content: bytes) -> None:
        """Verify the set key's signature over `content`, which is this credential's TBS, encoded."""
        try:
            verify(self.set_public_key, "PseudonymSetTBS", content, self.set_signature)
        except SignatureRejected:
            raise PseudonymProofRejected(
                "the set key of the user pseudonym did not sign this credential"
            ) from None


@dataclass(frozen=True, slots=True)
class IdentityLinkTBE(Struct):
    """-06's struct: the real credential, and its signature over the pseudonymous credential's TBS."""

    pseudonymous_credential_signature: Annotated[bytes, Opaque(64, 64)]
    client_credential: RealCredential


@dataclass(frozen=True, slots=True)
class LeafIdentity(Struct):
    """The identity in an MLS leaf's BasicCredential: pseudonymous credential and queue address.

    The leaf node's own signature binds both to the leaf's key.
    """

    LIMIT: ClassVar[int] = 24000
    credential: PseudonymousCredential
    queue: QueueAddress

    def check_place(self, signature_key: bytes) -> None:
        """Check that the identity is for this leaf's key and names one provider; raise an `IdentityError`."""
        if self.credential.signature_public_key != signature_key:
            raise LinkRejected("the pseudonymous credential is for another key than the leaf's")
        if self.queue.domain != self.credential.user_pseudonym.domain:
            raise IdentityError("the leaf's queue is at another provider than its pseudonym")


def pad_link(content: bytes) -> bytes:
    """Pad to a multiple of 256 bytes, at least 1,024: all but the longest names and chains then have one length."""
    padded = pad(content, LINK_MULTIPLE)
    return padded + bytes(max(0, LINK_LEAST - len(padded)))


class DeviceIdentity:
    """A device's key and real credential, which sign identity links; only the client holds them."""

    __slots__ = ("credential", "device", "key", "user")

    def __init__(self, user: MimiUri, device: MimiUri, key: SigningKey, credential: RealCredential) -> None:
        """Store the device key and the credential over it."""
        self.user = user
        self.device = device
        self.key = key
        self.credential = credential

    def seal_link(self, tbs: PseudonymousCredentialTBS, ilk: IdentityLinkKey) -> bytes:
        """Seal the identity link: AES-256-GCM, aad = TBS, plaintext padded (`pad_link`)."""
        content = tbs.to_bytes()
        signature = self.key.sign("PseudonymousCredentialTBS", content, prefix=MLS)
        plaintext = pad_link(IdentityLinkTBE(signature, self.credential).to_bytes())
        return seal_once(ilk, plaintext, content)


def make_credential(
    device: DeviceIdentity, set_key: SigningKey, leaf_key: SigningKey, expiry: int
) -> tuple[PseudonymousCredential, IdentityLinkKey]:
    """Make a fresh pseudonymous credential over `leaf_key`, and the key that opens its link."""
    domain = device.user.domain
    tbs = PseudonymousCredentialTBS(
        VERSION,
        random_uri(domain, Kind.CLIENT_PSEUDONYM, secrets.token_bytes(16)),
        self_certifying_pseudonym(domain, set_key.public),
        leaf_key.public,
        set_key.public,
        expiry,
    )
    ilk = IdentityLinkKey.generate()
    proof = set_key.sign("PseudonymSetTBS", tbs.to_bytes())
    credential = PseudonymousCredential(
        tbs.version,
        tbs.client_pseudonym,
        tbs.user_pseudonym,
        tbs.signature_public_key,
        tbs.set_public_key,
        tbs.expiry,
        proof,
        device.seal_link(tbs, ilk),
    )
    return credential, ilk


# --- resolving ---------------------------------------------------------------------------------------


class ResolvedMember(NamedTuple):
    """A pseudonym and the person behind it, fully verified."""

    pseudonym: MimiUri
    device: VerifiedDevice


@dataclass(slots=True)
class Claim:
    """The identity that a member claims: its identity link opened, everything checked except the signatures."""

    credential: PseudonymousCredential
    content: bytes
    signature: bytes
    device: ClaimedDevice
    verified: VerifiedDevice | None = None

    def verify(self, trust: TrustAnchors, now: float) -> ResolvedMember:
        """Verify all signatures; raise a subclass of `IdentityError`."""
        [found] = verify_in_step([self], trust, now)
        if isinstance(found, ResolvedMember):
            return found
        raise cast("IdentityError", found)

    def verify_pseudonym(self) -> None:
        """Verify the pseudonym's proof; raise `PseudonymProofRejected`."""
        self.credential.verify_proof(self.content)

    def verify_link(self) -> ResolvedMember:
        """Verify the link, after the device; raise `LinkRejected`.

        Checks that the provider domains are equal, that the real and pseudonymous keys differ, and the device's
        signature.
        """
        credential, device = self.credential, self.verified
        if device is None:
            raise LinkRejected("the device of the identity link is not verified")
        if device.user.domain != credential.user_pseudonym.domain:
            raise LinkRejected("the pseudonym is of another provider than the identity behind it")
        pseudonymous = (credential.signature_public_key, credential.set_public_key)
        if device.device_key in pseudonymous or device.identity_key in pseudonymous:
            raise LinkRejected("real and pseudonymous key are the same: all rooms of this device are linked")
        key, label = device.device_key, "PseudonymousCredentialTBS"
        try:
            verify(key, label, self.content, self.signature, prefix=MLS, by="identity link")
        except SignatureRejected as error:
            raise LinkRejected(str(error)) from None
        return ResolvedMember(credential.user_pseudonym, device)


_Found: TypeAlias = "ResolvedMember | IdentityError | None"


def verify_in_step(
    claims: Sequence[Claim | IdentityError | None], trust: TrustAnchors, now: float
) -> list[_Found]:
    """Return what `Claim.verify` returns or raises for each claim; other items stay as they are.

    The order is: the pseudonym's proof, the real credential's chain, its binding, the identity link. All signatures
    of one kind are verified before those of the next kind, since code of different curves competes for the
    processor's caches.
    """

    def prove(claim: Claim) -> Claim:
        claim.verify_pseudonym()
        return claim

    def certify(claim: Claim) -> Claim:
        claim.device.verify_chain(trust, now)
        return claim

    def bind(claim: Claim) -> Claim:
        claim.verified = claim.device.verify_binding(trust)
        return claim

    found: list[Claim | _Found] = list(claims)
    for step in (prove, certify, bind, Claim.verify_link):
        for at, claim in enumerate(found):
            if isinstance(claim, Claim):
                try:
                    found[at] = step(claim)
                except IdentityError as error:
                    found[at] = error
    return cast("list[_Found]", found)


def open_claim(
    credential: PseudonymousCredential, ilk: IdentityLinkKey, leaf_signature_key: bytes, now: float
) -> Claim:
    """Open a member's identity link; raise a subclass of `IdentityError`.

    Checks in this order: the leaf's key, the credential's version, expiry and pseudonym, the link.
    """
    if credential.signature_public_key != leaf_signature_key:
        raise LinkRejected("the credential is for another leaf's signature key")
    credential.check(now)
    content = credential.content
    try:
        link = _open_link(credential, ilk, content)
    except LinkRejected:
        credential.verify_proof(content)  # if the proof fails too, its error says more
        raise
    device = ClaimedDevice.read(link.client_credential)
    return Claim(credential, content, link.pseudonymous_credential_signature, device)


def resolve(
    credential: PseudonymousCredential,
    ilk: IdentityLinkKey,
    leaf_signature_key: bytes,
    trust: TrustAnchors,
    now: float,
) -> ResolvedMember:
    """Open an identity link and verify everything in it; raise a subclass of `IdentityError`."""
    return open_claim(credential, ilk, leaf_signature_key, now).verify(trust, now)


def open_link(credential: PseudonymousCredential, ilk: IdentityLinkKey) -> IdentityLinkTBE:
    """Decrypt and parse an identity link; raises `LinkRejected`."""
    return _open_link(credential, ilk, credential.content)


def _open_link(credential: PseudonymousCredential, ilk: IdentityLinkKey, content: bytes) -> IdentityLinkTBE:
    try:
        padded = open_once(ilk, credential.identity_link_ciphertext, content)
        return IdentityLinkTBE.from_bytes(unpad(padded))
    except InvalidTag:
        raise LinkRejected("the identity link does not open with this key for this credential") from None
    except (ParseError, SealedBoxRejected) as error:
        raise LinkRejected(f"the identity link is malformed: {error}") from None


__all__ = [
    "Claim",
    "DeviceIdentity",
    "IdentityError",
    "IdentityLinkTBE",
    "LeafIdentity",
    "PseudonymousCredential",
    "RealCredential",
    "ResolvedMember",
    "VerifiedDevice",
    "bind_device",
    "fingerprint",
    "make_credential",
    "open_claim",
    "open_link",
    "resolve",
    "verify_in_step",
]
