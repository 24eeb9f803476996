"""HPKE base mode (RFC 9180): suites, the key schedule, and contexts that seal, open and export.

The part of the key schedule that depends on suite and info alone is computed once (`Schedule`), so that
what remains for a request is one KEM operation, seven HMACs and the AEAD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from .errors import OpenFailed
from .hkdf import HASH_SIZE, labeled, labeled_extract, labeled_info, prf, prf_three

NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
HKDF_SHA256: Final = 0x0001
OPEN_FAILED: Final = "authentication failed: wrong key, or changed on its way"
_MAX_SEQUENCE: Final = (1 << (8 * NONCE_SIZE)) - 1


class AeadId(IntEnum):
    """HPKE AEAD identifiers (RFC 9180, section 7.3)."""

    AES_128_GCM = 0x0001
    AES_256_GCM = 0x0002
    CHACHA20_POLY1305 = 0x0003


class Cipher(Protocol):
    """A keyed AEAD with 12-byte nonces and 16-byte tags."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Return ciphertext and tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
        """Return the plaintext.  Raises InvalidTag."""


class _CipherMaker(Protocol):
    def __call__(self, key: bytes, /) -> Cipher: ...


@dataclass(frozen=True, slots=True)
class Aead:
    """An AEAD: identifier, key size in bytes, and what makes a cipher of a key.

    `entropy_size` is max(Nn, Nk), the size of OHTTP's exported secret and response nonce (RFC 9458,
    section 4.4).
    """

    id: AeadId
    key_size: int
    make: _CipherMaker
    entropy_size: int


AEADS: Final[Mapping[int, Aead]] = MappingProxyType(
    {
        int(aead.id): aead
        for aead in (
            Aead(AeadId.AES_128_GCM, 16, AESGCM, 16),
            Aead(AeadId.AES_256_GCM, 32, AESGCM, 32),
            Aead(AeadId.CHACHA20_POLY1305, 32, ChaCha20Poly1305, 32),
        )
    }
)
"""The AEADs of this package by identifier."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A pair of KDF and AEAD identifiers, as a key configuration lists them."""

    kdf: int
    aead: int

    @property
    def supported(self) -> bool:
        """Whether this package can use the pair: HKDF-SHA256 with any AEAD of `AEADS`."""
        return self.kdf == HKDF_SHA256 and self.aead in AEADS


def open_sealed(cipher: Cipher, nonce: bytes, data: bytes, aad: bytes) -> bytes:
    """Decrypt or raise OpenFailed."""
    try:
        return cipher.decrypt(nonce, data, aad or None)
    except InvalidTag:
        raise OpenFailed(OPEN_FAILED) from None


class Sequence:
    """Nonces of a context: the base nonce XOR a counter, big-endian (RFC 9180, section 5.2)."""

    __slots__ = ("_base", "_next")

    def __init__(self, base: bytes) -> None:
        self._base = base
        self._next = 0

    def take(self) -> bytes:
        """Return the next nonce, 12 bytes.  Raises OverflowError rather than use one twice."""
        count = self._next
        if count > _MAX_SEQUENCE:
            raise OverflowError("the context's nonces are used up")
        self._next = count + 1
        if not count:
            return self._base
        return (int.from_bytes(self._base, "big") ^ count).to_bytes(NONCE_SIZE, "big")


class Context(Sequence):
    """One end of an HPKE context: seals (sender) or opens (recipient) in sequence, exports secrets."""

    __slots__ = ("_cipher", "_exporter", "_schedule", "aead")

    def __init__(self, schedule: Schedule, key: bytes, nonce: bytes, exporter: bytes) -> None:
        self._base = nonce
        self._next = 0
        self.aead = aead = schedule.aead
        self._cipher = aead.make(key)
        self._exporter = exporter
        self._schedule = schedule

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Return the next ciphertext, 16 bytes longer than the plaintext."""
        return self._cipher.encrypt(self.take(), plaintext, aad or None)

    def open(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """Return the next plaintext.  Raises OpenFailed."""
        try:
            return self._cipher.decrypt(self.take(), ciphertext, aad or None)
        except InvalidTag:
            raise OpenFailed(OPEN_FAILED) from None

    def export(self, context: bytes, length: int) -> bytes:
        """Return a secret of `length` <= 32 bytes (RFC 9180, section 5.3)."""
        return prf(self._exporter, self._schedule.export_info(context, length))[:length]


class Schedule:
    """The key schedule of one suite and one info (RFC 9180, section 5.1), its constant half done."""

    __slots__ = ("_expanded", "_exports", "_secret", "_suite_id", "aead")

    def __init__(self, kem: int, suite: Suite, info: bytes) -> None:
        if not suite.supported:
            raise ValueError("the schedule is made for HKDF-SHA256 and a known AEAD")
        self.aead = AEADS[suite.aead]
        suite_id = b"HPKE" + b"".join(part.to_bytes(2, "big") for part in (kem, suite.kdf, suite.aead))
        psk_id_hash = labeled_extract(b"", suite_id, b"psk_id_hash", b"")
        context = b"\x00" + psk_id_hash + labeled_extract(b"", suite_id, b"info_hash", info)
        self._suite_id = suite_id
        self._exports: dict[tuple[bytes, int], bytes] = {}
        self._secret = labeled(suite_id, b"secret")
        self._expanded = (
            labeled_info(self.aead.key_size, suite_id, b"key", context),
            labeled_info(NONCE_SIZE, suite_id, b"base_nonce", context),
            labeled_info(HASH_SIZE, suite_id, b"exp", context),
        )

    def context(self, shared_secret: bytes) -> Context:
        """Return the context that follows from a KEM's shared secret."""
        key, nonce, exporter = prf_three(prf(shared_secret, self._secret), *self._expanded)
        return Context(self, key[: self.aead.key_size], nonce[:NONCE_SIZE], exporter)

    def export_info(self, context: bytes, length: int) -> bytes:
        """Return what an export of `length` <= 32 bytes feeds to HMAC; computed once for each context."""
        found = self._exports.get((context, length))
        if found is None:
            found = self._exports[context, length] = labeled_info(length, self._suite_id, b"sec", context)
        return found
