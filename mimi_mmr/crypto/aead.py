"""AES-256-GCM (NIST SP 800-38D), for one-time keys and for keys that seal many plaintexts."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mimi_mmr.crypto.secret import Secret

__all__ = ["NONCE", "TAG", "InvalidTag", "OneTimeKey", "RandomNonceCipher", "open_once", "seal_once"]

NONCE = 12
TAG = 16
_FIXED_NONCE = bytes(NONCE)


class OneTimeKey(Secret):
    """A key for `seal_once`; it seals one plaintext only."""


def seal_once(key: Secret, plaintext: bytes, aad: bytes = b"") -> bytes:
    """Encrypt under a nonce of zeros; return the ciphertext with its tag, 16 bytes longer.

    `key` (32 bytes) must be drawn or derived for this one plaintext and never seal another.
    """
    return AESGCM(key.reveal()).encrypt(_FIXED_NONCE, plaintext, aad)


def open_once(key: Secret, ciphertext: bytes, aad: bytes = b"") -> bytes:
    """Decrypt what `seal_once` made; raise `InvalidTag`."""
    return AESGCM(key.reveal()).decrypt(_FIXED_NONCE, ciphertext, aad)


class RandomNonceCipher:
    """A key for many plaintexts; each gets a random 96-bit nonce, which is prepended to the ciphertext.

    After 2^32 seals two nonces are equal with a probability of 2^-32: replace the key by then.
    """

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Encrypt; return nonce, ciphertext and tag, 28 bytes longer."""
        nonce = secrets.token_bytes(NONCE)
        return nonce + self._aead.encrypt(nonce, plaintext, aad)

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Decrypt what `seal` made; raise `InvalidTag`."""
        if len(sealed) < NONCE + TAG:
            raise InvalidTag
        return self._aead.decrypt(sealed[:NONCE], sealed[NONCE:], aad)
