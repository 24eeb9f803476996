"""The sender's end of HPKE base mode (RFC 9180, section 5), by `pyhpke`, with X-Wing plugged in as a KEM."""

from __future__ import annotations

from functools import cache
from typing import Final, cast

from pyhpke import (
    AEADId,
    CipherSuite,
    ContextInterface,
    KDFId,
    KEMId,
    KEMInterface,
    KEMKey,
    KEMKeyInterface,
    KEMKeyPair,
)

from ohttp_relay.hpke.kem import KEMS, KemId, KemSecret, XWingKem, XWingKey, XWingPair
from ohttp_relay.hpke.suites import AEADS, Aead, AeadId

_PYHPKE_KEMS: Final = {
    KemId.X25519: KEMId.DHKEM_X25519_HKDF_SHA256,
    KemId.P256: KEMId.DHKEM_P256_HKDF_SHA256,
}


class XWingPublicKey(KEMKeyInterface):
    """An X-Wing public key, 1216 bytes, in pyhpke's key interface."""

    def to_public_bytes(self) -> bytes:
        """Return the key, 1216 bytes."""
        return cast(bytes, self.raw)


class XWingPrivateKey(KEMKeyInterface):
    """An X-Wing private key in pyhpke's key interface; `raw` is an `XWingPair`."""

    def __init__(self, pair: XWingPair, seed: KemSecret | None = None) -> None:
        super().__init__(pair)
        self._seed = seed

    def to_private_bytes(self) -> bytes:
        """Return the seed, 32 bytes.  Raises ValueError for a key that was not made from one."""
        if self._seed is None:
            raise ValueError("this X-Wing key was not made from a seed")
        return self._seed.reveal()

    def to_public_bytes(self) -> bytes:
        """Return the public key, 1216 bytes."""
        return cast(XWingPair, self.raw).public


class XWing(KEMInterface):
    """X-Wing (KEM 0x647a, draft-connolly-cfrg-xwing-kem) behind pyhpke's KEM interface.

    Base mode only: X-Wing has no authenticated encapsulation, and takes no fixed ephemeral key.  All methods
    raise ValueError for bytes that are no key, or no encapsulated key, as pyhpke's own KEMs do.
    """

    @property
    def id(self) -> KEMId:
        """The identifier 0x647a; pyhpke's enumeration lacks it, and pyhpke reads `.value` only."""
        return cast(KEMId, KemId.X_WING)

    def deserialize_private_key(self, key: bytes) -> KEMKeyInterface:
        """Return the private key of a seed of 32 bytes."""
        return _private(XWingKem().load(KemSecret(key)))

    def deserialize_public_key(self, key: bytes) -> KEMKeyInterface:
        """Return a public key of 1216 bytes."""
        if len(key) != XWingKem.public_size:
            raise ValueError(f"an X-Wing public key has {XWingKem.public_size} bytes, got {len(key)}")
        return XWingPublicKey(key)

    def derive_key_pair(self, ikm: bytes) -> KEMKeyPair:
        """Return the key pair that follows from `ikm`."""
        private = _private(XWingKem().derive(ikm))
        return KEMKeyPair(private, XWingPublicKey(private.to_public_bytes()))

    def encap(
        self, pkr: KEMKeyInterface, sks: KEMKeyInterface | None = None, eks: KEMKeyPair | None = None
    ) -> tuple[bytes, bytes]:
        """Return (shared secret, enc) for a public key."""
        if sks is not None or eks is not None:
            raise ValueError("X-Wing has no authenticated mode and takes no fixed ephemeral key")
        return XWingKem().encapsulate(pkr.to_public_bytes())

    def decap(self, enc: bytes, skr: KEMKeyInterface, pks: KEMKeyInterface | None = None) -> bytes:
        """Return the shared secret of an encapsulated key of 1120 bytes."""
        if pks is not None:
            raise ValueError("X-Wing has no authenticated mode")
        return cast(XWingPair, skr.raw).decapsulate(enc)


def _private(key: XWingKey) -> XWingPrivateKey:
    return XWingPrivateKey(key.pair, key.seed)


@cache
def cipher_suite(kem: KemId, aead: AeadId) -> CipherSuite:
    """Return pyhpke's cipher suite of a KEM, HKDF-SHA256 and an AEAD."""
    known = _PYHPKE_KEMS.get(kem, KEMId.DHKEM_X25519_HKDF_SHA256)
    suite = CipherSuite.new(known, KDFId.HKDF_SHA256, AEADId(int(aead)))
    return suite if kem in _PYHPKE_KEMS else CipherSuite(XWing(), suite.kdf, suite.aead)


class SenderContext:
    """The sender's end of one HPKE context: seals in sequence, exports secrets."""

    __slots__ = ("_context", "aead")

    def __init__(self, context: ContextInterface, aead: Aead) -> None:
        self._context = context
        self.aead = aead

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Return the next ciphertext, 16 bytes longer than the plaintext."""
        return self._context.seal(plaintext, aad)

    def export(self, context: bytes, length: int) -> bytes:
        """Return a secret of `length` bytes (RFC 9180, section 5.3)."""
        return self._context.export(context, length)


def start_sending(
    kem: KemId, aead: AeadId, public: bytes, info: bytes, ephemeral: KemSecret | None = None
) -> tuple[bytes, SenderContext]:
    """Return (enc, fresh context) for messages to `public`, Npk bytes.

    `ephemeral` is for vectors only.  Raises ValueError if `public` is no key of this KEM.
    """
    if len(public) != KEMS[kem].public_size:
        raise ValueError(f"a public key has {KEMS[kem].public_size} bytes here, got {len(public)}")
    suite = cipher_suite(kem, aead)
    recipient = suite.kem.deserialize_public_key(public)
    enc, context = suite.create_sender_context(recipient, info=info, eks=_fixed(kem, suite, ephemeral))
    return enc, SenderContext(context, AEADS[aead])


def _fixed(kem: KemId, suite: CipherSuite, ephemeral: KemSecret | None) -> KEMKeyPair | None:
    if ephemeral is None:
        return None
    if kem is KemId.X_WING:
        raise ValueError("X-Wing encapsulation takes no fixed ephemeral key")
    private = suite.kem.deserialize_private_key(ephemeral.reveal())
    return KEMKeyPair(private, KEMKey.from_pyca_cryptography_key(private.raw.public_key()))
