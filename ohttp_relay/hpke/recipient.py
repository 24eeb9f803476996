"""The recipient's end of HPKE base mode (RFC 9180, section 5), built to be fast.

A gateway spends most of its time here, so this project has its own code instead of a library (docs/adr/0004).
The part of the key schedule that depends only on suite and info is computed once (`Schedule`).  Each request then
costs one KEM operation, seven HMACs and the AEAD.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag

from ohttp_relay.errors import OpenFailed
from ohttp_relay.hpke.hkdf import HASH_SIZE, labeled, labeled_extract, labeled_info, prf, prf_three
from ohttp_relay.hpke.suites import AEADS, NONCE_SIZE, OPEN_FAILED, Sequence, Suite


class RecipientContext(Sequence):
    """The recipient's end of one HPKE context: opens in sequence, exports secrets."""

    __slots__ = ("_cipher", "_exporter", "_schedule", "aead")

    def __init__(self, schedule: Schedule, key: bytes, nonce: bytes, exporter: bytes) -> None:
        self._base = nonce
        self._next = 0
        self.aead = aead = schedule.aead
        self._cipher = aead.make(key)
        self._exporter = exporter
        self._schedule = schedule

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
    """The key schedule of one suite and one info (RFC 9180, section 5.1), with its constant part precomputed."""

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

    def context(self, shared_secret: bytes) -> RecipientContext:
        """Return the context that follows from a KEM's shared secret."""
        key, nonce, exporter = prf_three(prf(shared_secret, self._secret), *self._expanded)
        return RecipientContext(self, key[: self.aead.key_size], nonce[:NONCE_SIZE], exporter)

    def export_info(self, context: bytes, length: int) -> bytes:
        """Return the input of HMAC in an export of `length` <= 32 bytes; computed once for each `context`."""
        found = self._exports.get((context, length))
        if found is None:
            found = self._exports[context, length] = labeled_info(length, self._suite_id, b"sec", context)
        return found
