"""KEMs of HPKE, the recipient's end: DHKEM(X25519), DHKEM(P-256) and X-Wing (ML-KEM-768 with X25519).

Senders encapsulate by `pyhpke`, to which `sender` adds the X-Wing of this module.

Sources: RFC 9180, section 4.1, for the two DHKEMs; draft-connolly-cfrg-xwing-kem and
draft-ietf-hpke-pq for X-Wing (HPKE KEM 0x647a).
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.bindings import crypto_scalarmult
from nacl.exceptions import CryptoError
from nacl.exceptions import ValueError as NaClValueError

from ohttp_relay.errors import OpenFailed
from ohttp_relay.hpke.hkdf import HmacKey, labeled, labeled_expand, labeled_extract, labeled_info, prf
from ohttp_relay.secret import Secret


class KemId(IntEnum):
    """HPKE KEM identifiers (IANA, "HPKE KEM Identifiers")."""

    P256 = 0x0010
    X25519 = 0x0020
    X_WING = 0x647A


class KemSecret(Secret):
    """A KEM's private key in its serialized form (Nsk bytes)."""


class PrivateKey(Protocol):
    """A KEM's private key, ready for use."""

    @property
    def public(self) -> bytes:
        """The public key, Npk bytes."""

    def decapsulate(self, enc: bytes) -> bytes:
        """Return the shared secret, 32 bytes.  Raises OpenFailed for an impossible `enc`."""

    def secret(self) -> KemSecret:
        """Return the serialized private key."""


class Kem(Protocol):
    """One KEM at the recipient's end: sizes in bytes, making and loading keys."""

    @property
    def id(self) -> KemId:
        """The HPKE KEM identifier."""

    @property
    def enc_size(self) -> int:
        """Nenc, bytes of an encapsulated key."""

    @property
    def public_size(self) -> int:
        """Npk, bytes of a public key."""

    def generate(self) -> PrivateKey:
        """Return a fresh private key."""

    def load(self, secret: KemSecret) -> PrivateKey:
        """Return the key of a serialized private key.  Raises ValueError."""

    def derive(self, ikm: bytes) -> PrivateKey:
        """Return the private key that follows from `ikm` (RFC 9180, section 7.1.3)."""


_X25519_SUITE: Final = b"KEM\x00\x20"
_X25519_EAE: Final = HmacKey(b"", labeled(_X25519_SUITE, b"eae_prk"))
_X25519_SHARED: Final = labeled_info(32, _X25519_SUITE, b"shared_secret")[:-1]
_P256_SUITE: Final = b"KEM\x00\x10"


@dataclass(frozen=True, slots=True)
class X25519Key:
    """A DHKEM(X25519, HKDF-SHA256) private key."""

    scalar: KemSecret
    public: bytes

    def decapsulate(self, enc: bytes) -> bytes:
        """Return the shared secret (RFC 9180, section 4.1, Decap)."""
        if len(enc) != 32:  # libsodium's binding would not notice
            raise OpenFailed(f"an encapsulated X25519 key has 32 bytes, got {len(enc)}")
        try:
            # libsodium takes the point as bytes, without a key object for each.
            shared = crypto_scalarmult(self.scalar.reveal(), enc)
        except (CryptoError, NaClValueError):
            raise OpenFailed("encapsulated key is not a usable X25519 point") from None
        prk = _X25519_EAE.digest(shared)
        return prf(prk, _X25519_SHARED + enc + self.public + b"\x01")

    def secret(self) -> KemSecret:
        """Return the scalar, 32 bytes."""
        return self.scalar


class X25519Kem:
    """DHKEM(X25519, HKDF-SHA256): enc 32 bytes, public key 32, private key 32."""

    id: Final = KemId.X25519
    enc_size: Final = 32
    public_size: Final = 32

    def generate(self) -> X25519Key:
        """Return a fresh private key."""
        return self.load(KemSecret(secrets.token_bytes(32)))

    def load(self, secret: KemSecret) -> X25519Key:
        """Return the key of a scalar of 32 bytes."""
        key = X25519PrivateKey.from_private_bytes(secret.reveal())
        return X25519Key(secret, key.public_key().public_bytes_raw())

    def derive(self, ikm: bytes) -> X25519Key:
        """Return the private key that follows from `ikm` (RFC 9180, section 7.1.3)."""
        prk = labeled_extract(b"", _X25519_SUITE, b"dkp_prk", ikm)
        return self.load(KemSecret(labeled_expand(prk, _X25519_SUITE, b"sk", b"", 32)))


def _p256_shared(shared: bytes, enc: bytes, public: bytes) -> bytes:
    prk = labeled_extract(b"", _P256_SUITE, b"eae_prk", shared)
    return labeled_expand(prk, _P256_SUITE, b"shared_secret", enc + public, 32)


@dataclass(frozen=True, slots=True)
class P256Key:
    """A DHKEM(P-256, HKDF-SHA256) private key."""

    key: ec.EllipticCurvePrivateKey
    public: bytes

    def decapsulate(self, enc: bytes) -> bytes:
        """Return the shared secret (RFC 9180, section 4.1, Decap)."""
        try:
            shared = self.key.exchange(ec.ECDH(), _p256_point(enc))
        except ValueError:
            raise OpenFailed("encapsulated key is not a point of P-256") from None
        return _p256_shared(shared, enc, self.public)

    def secret(self) -> KemSecret:
        """Return the scalar, 32 bytes."""
        return KemSecret(self.key.private_numbers().private_value.to_bytes(32, "big"))


def _p256_point(data: bytes) -> ec.EllipticCurvePublicKey:
    if (
        len(data) != P256Kem.public_size or data[0] != 4
    ):  # only the uncompressed form: RFC 9180, section 7.1.1
        raise ValueError("a P-256 public key is 65 bytes, uncompressed")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data)


class P256Kem:
    """DHKEM(P-256, HKDF-SHA256): enc 65 bytes, public key 65, private key 32."""

    id: Final = KemId.P256
    enc_size: Final = 65
    public_size: Final = 65

    def generate(self) -> P256Key:
        """Return a fresh private key."""
        return self._wrap(ec.generate_private_key(ec.SECP256R1()))

    def load(self, secret: KemSecret) -> P256Key:
        """Return the key of a scalar of 32 bytes."""
        if len(secret.reveal()) != 32:
            raise ValueError("a P-256 private key is a scalar of 32 bytes")
        scalar = int.from_bytes(secret.reveal(), "big")
        return self._wrap(ec.derive_private_key(scalar, ec.SECP256R1()))

    def derive(self, ikm: bytes) -> P256Key:
        """Return the private key that follows from `ikm` (RFC 9180, section 7.1.3), by rejection sampling."""
        prk = labeled_extract(b"", _P256_SUITE, b"dkp_prk", ikm)
        for counter in range(256):
            candidate = labeled_expand(prk, _P256_SUITE, b"candidate", bytes([counter]), 32)
            try:
                return self.load(KemSecret(candidate))
            except ValueError:  # zero, or not below the order
                continue
        raise ValueError("no P-256 key derives from this input")

    @staticmethod
    def _wrap(key: ec.EllipticCurvePrivateKey) -> P256Key:
        return P256Key(key, key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))


_X_WING_LABEL: Final = rb"\.//^" + b"\\"
_MLKEM_PUBLIC, _MLKEM_CIPHERTEXT = 1184, 1088


def _xwing_combine(mlkem_shared: bytes, x_shared: bytes, x_enc: bytes, x_public: bytes) -> bytes:
    return hashlib.sha3_256(mlkem_shared + x_shared + x_enc + x_public + _X_WING_LABEL).digest()


@dataclass(frozen=True, slots=True)
class XWingPair:
    """The two private keys of an X-Wing key, and its public key of 1216 bytes."""

    lattice: mlkem.MLKEM768PrivateKey
    curve: X25519PrivateKey
    public: bytes

    @classmethod
    def of(cls, expanded: bytes) -> XWingPair:
        """Return the pair of an ML-KEM-768 seed (64 bytes) and an X25519 scalar (32).  Raises ValueError."""
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        curve = X25519PrivateKey.from_private_bytes(expanded[64:])
        public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        return cls(lattice, curve, public)

    def decapsulate(self, enc: bytes) -> bytes:
        """Return the shared secret (draft-connolly-cfrg-xwing-kem, Decapsulate).

        Raises ValueError if `enc` is not 1120 bytes or its point is of low order.
        """
        ciphertext, x_enc = enc[:_MLKEM_CIPHERTEXT], enc[_MLKEM_CIPHERTEXT:]
        lattice_shared = self.lattice.decapsulate(ciphertext)
        curve_shared = self.curve.exchange(X25519PublicKey.from_public_bytes(x_enc))
        return _xwing_combine(lattice_shared, curve_shared, x_enc, self.public[_MLKEM_PUBLIC:])


@dataclass(frozen=True, slots=True)
class XWingKey:
    """An X-Wing private key: its seed, and the pair that follows from it."""

    seed: KemSecret
    pair: XWingPair

    @property
    def public(self) -> bytes:
        """The public key, 1216 bytes."""
        return self.pair.public

    def decapsulate(self, enc: bytes) -> bytes:
        """Return the shared secret (draft-connolly-cfrg-xwing-kem, Decapsulate)."""
        try:
            return self.pair.decapsulate(enc)
        except ValueError:
            raise OpenFailed("encapsulated key is not a usable X-Wing ciphertext") from None

    def secret(self) -> KemSecret:
        """Return the seed, 32 bytes."""
        return self.seed


class XWingKem:
    """X-Wing: enc 1120 bytes, public key 1216, private key a seed of 32."""

    id: Final = KemId.X_WING
    enc_size: Final = 1120
    public_size: Final = 1216

    def generate(self) -> XWingKey:
        """Return a fresh private key."""
        return self.load(KemSecret(secrets.token_bytes(32)))

    def load(self, secret: KemSecret) -> XWingKey:
        """Return the key of a seed of 32 bytes."""
        seed = secret.reveal()
        if len(seed) != 32:
            raise ValueError("an X-Wing private key is a seed of 32 bytes")
        return XWingKey(secret, XWingPair.of(hashlib.shake_256(seed).digest(96)))

    def derive(self, ikm: bytes) -> XWingKey:
        """Return the private key that follows from `ikm` by SHAKE256 (draft-connolly-cfrg-xwing-kem)."""
        return self.load(KemSecret(hashlib.shake_256(ikm).digest(32)))

    def encapsulate(self, public: bytes) -> tuple[bytes, bytes]:
        """Return (shared secret, enc) for a public key of 1216 bytes.  Raises ValueError for a bad one."""
        x_public = public[_MLKEM_PUBLIC:]
        lattice = mlkem.MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC])
        lattice_shared, ciphertext = lattice.encapsulate()
        mine = X25519PrivateKey.generate()
        x_enc = mine.public_key().public_bytes_raw()
        x_shared = mine.exchange(X25519PublicKey.from_public_bytes(x_public))
        return _xwing_combine(lattice_shared, x_shared, x_enc, x_public), ciphertext + x_enc


_ALL: tuple[Kem, ...] = (XWingKem(), X25519Kem(), P256Kem())
KEMS: Final[Mapping[int, Kem]] = MappingProxyType({int(kem.id): kem for kem in _ALL})
"""The KEMs of this package by identifier, the preferred one first."""
