"""HKDF-SHA256 (RFC 5869) and HPKE's labelled forms of it (RFC 9180, section 4), built to be quick.

HMAC over `hashlib` blocks costs two thirds of any library's HMAC object for inputs of one block, and a
request needs ten of them.  Everything here is held to the RFC's vectors and to two other libraries.
"""

from __future__ import annotations

from hashlib import sha256

HASH_SIZE = 32
_BLOCK = 64
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))
_INNER_REST = b"\x36" * (_BLOCK - HASH_SIZE)  # how the pads go on after a key of 32 bytes
_OUTER_REST = b"\x5c" * (_BLOCK - HASH_SIZE)
_VERSION = b"HPKE-v1"


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA256, 32 bytes."""
    block = (key if len(key) <= _BLOCK else sha256(key).digest()).ljust(_BLOCK, b"\0")
    return sha256(block.translate(_OUTER) + sha256(block.translate(_INNER) + message).digest()).digest()


class HmacKey:
    """One HMAC-SHA256 key of at most 64 bytes used for several messages, all of which start with `prefix`."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes, prefix: bytes = b"") -> None:
        block = key.ljust(_BLOCK, b"\0")
        self._inner = block.translate(_INNER) + prefix
        self._outer = block.translate(_OUTER)

    def digest(self, message: bytes) -> bytes:
        """Return HMAC-SHA256 of the prefix and `message`, 32 bytes."""
        return sha256(self._outer + sha256(self._inner + message).digest()).digest()


def prf(secret: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA256 under a derived secret, whose 32 bytes need no look at their length."""
    inner = sha256(secret.translate(_INNER) + _INNER_REST + message).digest()
    return sha256(secret.translate(_OUTER) + _OUTER_REST + inner).digest()


def prf_two(secret: bytes, first: bytes, second: bytes) -> tuple[bytes, bytes]:
    """Return `prf` of two messages."""
    inner, outer = secret.translate(_INNER) + _INNER_REST, secret.translate(_OUTER) + _OUTER_REST
    return (
        sha256(outer + sha256(inner + first).digest()).digest(),
        sha256(outer + sha256(inner + second).digest()).digest(),
    )


def prf_three(secret: bytes, first: bytes, second: bytes, third: bytes) -> tuple[bytes, bytes, bytes]:
    """Return `prf` of three messages."""
    inner, outer = secret.translate(_INNER) + _INNER_REST, secret.translate(_OUTER) + _OUTER_REST
    return (
        sha256(outer + sha256(inner + first).digest()).digest(),
        sha256(outer + sha256(inner + second).digest()).digest(),
        sha256(outer + sha256(inner + third).digest()).digest(),
    )


extract = hmac_sha256
"""HKDF-Extract(salt, ikm): HMAC with the salt as key."""


def expand_info(info: bytes) -> bytes:
    """Return what HMAC is fed in HKDF-Expand's only round, for outputs of at most 32 bytes."""
    return info + b"\x01"


def labeled(suite_id: bytes, label: bytes, rest: bytes = b"") -> bytes:
    """Return LabeledExtract's input keying material (RFC 9180, section 4)."""
    return _VERSION + suite_id + label + rest


def labeled_info(length: int, suite_id: bytes, label: bytes, info: bytes = b"") -> bytes:
    """Return what HMAC is fed in LabeledExpand for `length` <= 32 bytes of output."""
    return expand_info(length.to_bytes(2, "big") + labeled(suite_id, label, info))


def labeled_extract(salt: bytes, suite_id: bytes, label: bytes, ikm: bytes) -> bytes:
    """Return LabeledExtract(salt, label, ikm), 32 bytes."""
    return hmac_sha256(salt, labeled(suite_id, label, ikm))


def labeled_expand(prk: bytes, suite_id: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """Return LabeledExpand(prk, label, info, length) for `length` <= 32."""
    return prf(prk, labeled_info(length, suite_id, label, info))[:length]
