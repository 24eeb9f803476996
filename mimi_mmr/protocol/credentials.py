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
# The length of a name or a chain is metadata; 256 is the multiple that the link's plaintext is padded to.


# --- the real credential -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UserBindingTBS(Struct):
    """What the user's long-term identity key signs: this device is mine."""

    user_uri: Annotated[MimiUri, USER]
    device_uri: Annotated[MimiUri, DEVICE]
    device_public_key: Annotated[bytes, Fixed(32)]

    @staticmethod
    def encoded(user: MimiUri, device: MimiUri, key: bytes) -> bytes:
        """`UserBindingTBS(user, device, key).to_bytes()`, the shortest way: rooms have many members."""
        return vec(str(user).encode()) + vec(str(device).encode()) + key


@dataclass(frozen=True, slots=True)
class RealCredential(Struct):
    """X.509 chain (RFC 9420's `x509` credential), the user's identity key, and its binding signature.

    The binding refuses a hostile provider's certificate for a device that is not the user's, to whoever has
    pinned the identity key.
    """

    chain: Annotated[tuple[bytes, ...], Vector(Opaque(MAX_CERTIFICATE), count=MAX_CHAIN)]
    identity_key: Annotated[bytes, Fixed(32)]
    binding_signature: Annotated[bytes, Fixed(64)]

    def verify(self, trust: TrustAnchors, now: float) -> VerifiedDevice:
        """Chain, then binding. Raises `CertificateRejected` or `BindingRejected`."""
        return ClaimedDevice.read(self).verify(trust, now)


@dataclass(slots=True)
class ClaimedDevice:
    """A real credential taken apart, and what of it is verified: nothing, then its chain, then its binding too.

    One that was found good before, as for a device that is in several rooms, is so for as long as its chain is
    valid: nothing else that the verdict depends on can change.
    """

    credential: RealCredential
    chain: DeviceChain
    certified: CertifiedDevice | None = None
    is_bound: bool = False
    _content: tuple[object, ...] = ()

    @classmethod
    def read(cls, credential: RealCredential) -> ClaimedDevice:
        """Take a credential apart."""
        return cls(credential, DeviceChain.read(credential.chain))

    def verify(self, trust: TrustAnchors, now: float) -> VerifiedDevice:
        """Chain, then binding. Raises `CertificateRejected` or `BindingRejected`."""
        self.verify_chain(trust, now)
        return self.verify_binding(trust)

    def verify_chain(self, trust: TrustAnchors, now: float) -> None:
        """Verify the chain, unless all of it was found good before; raise `CertificateRejected`."""
        real = self.credential
        self._content = real.identity_key, real.binding_signature, real.chain
        known = trust.devices.get(self._content, now)
        self.is_bound = known is not None
        self.certified = trust.certified(self.chain, now) if known is None else known[1]

    def verify_binding(self, trust: TrustAnchors) -> VerifiedDevice:
        """After the chain: that the user's identity key signed for this device; raises `BindingRejected`."""
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
    """What a verified real credential says."""

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
    """Return what a contact code carries: SHA-256 of the user's identity key."""
    return hashlib.sha256(identity_key).digest()


# --- the pseudonymous credential ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PseudonymousCredentialTBS(Struct):
    """-06's struct with version, expiry (seconds, a day's start) and the key that makes the pseudonym."""

    version: Annotated[int, U8]
    client_pseudonym: Annotated[MimiUri, CLIENT_PSEUDONYM]
    user_pseudonym: Annotated[MimiUri, USER_PSEUDONYM]
    signature_public_key: Annotated[bytes, Opaque(32, 32)]
    set_public_key: Annotated[bytes, Opaque(32, 32)]
    expiry: Annotated[int, U64]


class _AsItTravelled:
    """Room for what both signatures cover, if it was read. It is no field: it says nothing that they don't."""

    __slots__ = ("_content",)
    _content: bytes


_put_content = slot(_AsItTravelled, "_content")


@dataclass(frozen=True, slots=True)
class PseudonymousCredential(_AsItTravelled, Struct):
    """What the hub and every provider see in place of a name. One per KeyPackage, one room only."""

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
        """Read every field, and keep what both signatures cover as it travelled."""
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
        """`tbs`, encoded; as it travelled, if it did."""
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
        """Check what anyone can without a key: version, expiry, and that the pseudonym is its set key's.

        Raises `CredentialExpired` or `PseudonymProofRejected`.
        """
        self.check(now)
        self.verify_proof(self.content)

    def verify_pseudonym(self) -> None:
        """Check that the user pseudonym is its set key's, whenever; raise `PseudonymProofRejected`."""
        self.check_pseudonym()
        self.verify_proof(self.content)

    def check(self, now: float) -> None:
        """Check all that `verify` does but for the signature."""
        if self.version != VERSION:
            raise PseudonymProofRejected(f"expected credential version {VERSION}, got {self.version}")
        if self.expiry <= now:
            raise CredentialExpired("the pseudonymous credential has expired")
        self.check_pseudonym()

    def check_pseudonym(self) -> None:
        """Check all that `verify_pseudonym` does but for the signature."""
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
    """-06: the real credential, and its signature over the pseudonymous one's TBS."""

    pseudonymous_credential_signature: Annotated[bytes, Opaque(64, 64)]
    client_credential: RealCredential


@dataclass(frozen=True, slots=True)
class LeafIdentity(Struct):
    """The identity of an MLS leaf's BasicCredential: pseudonymous credential, and where to deliver.

    The leaf node's own signature binds both to the leaf's key.
    """

    LIMIT: ClassVar[int] = 24000
    credential: PseudonymousCredential
    queue: QueueAddress

    def check_place(self, signature_key: bytes) -> None:
        """Check that it is of the leaf with this signature key, and of one provider; raise an `IdentityError`."""
        if self.credential.signature_public_key != signature_key:
            raise LinkRejected("the pseudonymous credential is for another key than the leaf's")
        if self.queue.domain != self.credential.user_pseudonym.domain:
            raise IdentityError("the leaf's queue is at another provider than its pseudonym")


def pad_link(content: bytes) -> bytes:
    """Pad to a multiple of 256 bytes, 1,024 at least: all but the longest names and chains are of one length."""
    padded = pad(content, LINK_MULTIPLE)
    return padded + bytes(max(0, LINK_LEAST - len(padded)))


class DeviceIdentity:
    """A device's real side: what signs identity links. Held by the client alone."""

    __slots__ = ("credential", "device", "key", "user")

    def __init__(self, user: MimiUri, device: MimiUri, key: SigningKey, credential: RealCredential) -> None:
        """Hold the device key and the credential over it."""
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
    """A pseudonym and who is behind it, everything verified."""

    pseudonym: MimiUri
    device: VerifiedDevice


@dataclass(slots=True)
class Claim:
    """Who a member says it is: its identity link opened, all of it checked but the signatures."""

    credential: PseudonymousCredential
    content: bytes
    signature: bytes
    device: ClaimedDevice
    verified: VerifiedDevice | None = None

    def verify(self, trust: TrustAnchors, now: float) -> ResolvedMember:
        """Verify all of it; raises a subclass of `IdentityError`."""
        [found] = verify_in_step([self], trust, now)
        if isinstance(found, ResolvedMember):
            return found
        raise cast("IdentityError", found)

    def verify_pseudonym(self) -> None:
        """Verify the pseudonym's proof; raise `PseudonymProofRejected`."""
        self.credential.verify_proof(self.content)

    def verify_link(self) -> ResolvedMember:
        """After the device: the provider domain, that real and pseudonymous keys differ, the device's signature.

        Raises `LinkRejected`.
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
    """Return what `Claim.verify` returns or raises, for each of them; what is no claim stays what it is.

    In order: the pseudonym's proof, the real credential's chain and binding, the link of the two. All signatures of
    one kind are verified before those of the next: curves push each other out of a processor's caches.
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
    """Open what a member claims; raise a subclass of `IdentityError`.

    In order: the leaf's key, the credential's version, expiry and pseudonym, the link.
    """
    if credential.signature_public_key != leaf_signature_key:
        raise LinkRejected("the credential is for another leaf's signature key")
    credential.check(now)
    content = credential.content
    try:
        link = _open_link(credential, ilk, content)
    except LinkRejected:
        credential.verify_proof(content)  # if that fails too, it is the better reason of the two
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
    """Open an identity link and verify all of it; raises a subclass of `IdentityError`."""
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
