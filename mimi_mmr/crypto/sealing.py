"""HPKE (RFC 9180, base mode) for sealing to a user's or a provider's key, and padding of plaintexts.

One message per encapsulation, by `pyhpke`. There is no AAD: purpose and context go into HPKE's `info`, which the
key schedule hashes, so that a box opens only for its purpose and context.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from pyhpke import KEMKey, KEMKeyInterface, PyHPKEError

from mimi_mmr.crypto.signing import MMR
from mimi_mmr.errors import SealedBoxRejected
from mimi_mmr.presentation import Code, Opaque, Struct, vec
from ohttp_relay.hpke import AeadId, KemId, XWingPair, XWingPrivateKey, cipher_suite


class Kem(enum.IntEnum):
    """HPKE KEM ids (IANA): classical, and the post-quantum hybrid."""

    X25519 = KemId.X25519
    X_WING = KemId.X_WING


_SUITES: Final = {kem: cipher_suite(KemId(kem), AeadId.AES_256_GCM) for kem in Kem}
_PUBLIC_SIZE: Final = {Kem.X25519: 32, Kem.X_WING: 1184 + 32}
_ENC_SIZE: Final = {Kem.X25519: 32, Kem.X_WING: 1088 + 32}


@dataclass(frozen=True, slots=True)
class SealingPublicKey(Struct):
    """An HPKE public key with its KEM: 32 bytes (X25519) or 1,216 (ML-KEM-768 followed by X25519)."""

    kem: Annotated[Kem, Code(Kem, 2)]
    public_key: Annotated[bytes, Opaque(1216)]

    def __post_init__(self) -> None:
        """Refuse a key of another KEM's size."""
        if len(self.public_key) != _PUBLIC_SIZE[self.kem]:
            raise ValueError(f"a {self.kem.name} key has {_PUBLIC_SIZE[self.kem]} bytes")

    def seal(self, purpose: str, context: bytes, plaintext: bytes) -> SealedBox:
        """Encrypt to this key, bound to `purpose` and `context`; `SealedBoxRejected` if the key is invalid."""
        suite = _SUITES[self.kem]
        try:
            recipient = suite.kem.deserialize_public_key(self.public_key)
            enc, sender = suite.create_sender_context(recipient, hpke_info(purpose, context))
        except ValueError:  # a low-order point, or an ML-KEM coefficient out of range
            raise SealedBoxRejected(f"the {self.kem.name} key to seal to is not a sound one") from None
        return SealedBox(self.kem, enc + sender.seal(plaintext))


@dataclass(frozen=True, slots=True)
class SealedBox(Struct):
    """`enc || ct` of one HPKE message, with the KEM it was made for."""

    LIMIT: ClassVar[int] = 1 << 20
    kem: Annotated[Kem, Code(Kem, 2)]
    ciphertext: Annotated[bytes, Opaque(1 << 20)]


class SealingKey:
    """An HPKE key pair; `seed` is the whole private key (32 bytes, or 96 for the hybrid KEM)."""

    __slots__ = ("_private", "kem", "public", "seed")

    def __init__(self, kem: Kem, seed: bytes) -> None:
        """Derive the key pair from the seed."""
        self.kem = kem
        self.seed = seed
        if kem is Kem.X25519:
            private = X25519PrivateKey.from_private_bytes(seed)
            self._private: KEMKeyInterface = KEMKey.from_pyca_cryptography_key(private)
            self.public = SealingPublicKey(kem, private.public_key().public_bytes_raw())
            return
        pair = XWingPair.of(seed)
        self._private = XWingPrivateKey(pair)
        self.public = SealingPublicKey(kem, pair.public)

    @classmethod
    def generate(cls, kem: Kem = Kem.X25519) -> SealingKey:
        """Make a fresh pair from the library's generator."""
        curve = X25519PrivateKey.generate().private_bytes_raw()
        if kem is Kem.X25519:
            return cls(kem, curve)
        return cls(kem, MLKEM768PrivateKey.generate().private_bytes_raw() + curve)

    def open(self, purpose: str, context: bytes, box: SealedBox) -> bytes:
        """Decrypt a box; raise `SealedBoxRejected` for another key, purpose or context, or a changed byte."""
        if box.kem is not self.kem:
            raise SealedBoxRejected(f"sealed with KEM {box.kem.name}, this key is for {self.kem.name}")
        enc, ciphertext = _split(box)
        try:
            recipient = _SUITES[self.kem].create_recipient_context(
                enc, self._private, hpke_info(purpose, context)
            )
            return recipient.open(ciphertext)
        except (PyHPKEError, ValueError):
            raise SealedBoxRejected(f"does not open as {purpose} with this key") from None

    def __repr__(self) -> str:
        return f"<SealingKey {self.kem.name}>"


def _split(box: SealedBox) -> tuple[bytes, bytes]:
    size = _ENC_SIZE[box.kem]
    return box.ciphertext[:size], box.ciphertext[size:]


def hpke_info(purpose: str, context: bytes) -> bytes:
    """Return HPKE's `info`, made of a labelled purpose and a context; a box is bound to it."""
    return vec(MMR + purpose.encode()) + vec(context)


def pad(content: bytes, multiple: int) -> bytes:
    """Return length (4 bytes), content, and zeros up to a multiple; an observer learns the size bucket only."""
    framed = len(content).to_bytes(4, "big") + content
    return framed + bytes(-len(framed) % multiple)


def pad_to(content: bytes, size: int) -> bytes:
    """Pad like `pad`, but to a fixed size; raise `ValueError` if the content is too long."""
    if len(content) + 4 > size:
        raise ValueError(f"content of {len(content)} bytes does not fit the fixed size {size}")
    return pad(content, size)


def unpad(padded: bytes) -> bytes:
    """Return the content; raise `SealedBoxRejected` if other bytes than zeros follow it."""
    end = 4 + int.from_bytes(padded[:4], "big")
    if not 4 <= end <= len(padded) or not padded.endswith(bytes(len(padded) - end)):
        raise SealedBoxRejected("padding is not as specified")
    return padded[4:end]
