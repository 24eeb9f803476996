"""HPKE's KDF and AEAD: identifiers, ciphers, nonces (RFC 9180, sections 5.2 and 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ohttp_relay.errors import OpenFailed

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
    """An AEAD: identifier, key size in bytes, and the function that makes a cipher of a key.

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
    """Return the plaintext.  Raises OpenFailed."""
    try:
        return cipher.decrypt(nonce, data, aad or None)
    except InvalidTag:
        raise OpenFailed(OPEN_FAILED) from None


class Exporter(Protocol):
    """An HPKE context as far as it exports secrets."""

    @property
    def aead(self) -> Aead:
        """The AEAD of the context's suite."""

    def export(self, context: bytes, length: int) -> bytes:
        """Return a secret of `length` bytes (RFC 9180, section 5.3)."""


class Sequence:
    """The nonces of a context: the base nonce XOR a counter, big-endian (RFC 9180, section 5.2)."""

    __slots__ = ("_base", "_next")

    def __init__(self, base: bytes) -> None:
        self._base = base
        self._next = 0

    def take(self) -> bytes:
        """Return the next nonce, 12 bytes.  Raises OverflowError when all are used."""
        count = self._next
        if count > _MAX_SEQUENCE:
            raise OverflowError("the context's nonces are used up")
        self._next = count + 1
        if not count:
            return self._base
        return (int.from_bytes(self._base, "big") ^ count).to_bytes(NONCE_SIZE, "big")
