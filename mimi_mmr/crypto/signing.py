"""RFC 9420's labelled functions, over Ed25519 and SHA-256: SignWithLabel, ExpandWithLabel, RefHash.

Structs of -06 use MLS's prefix "MLS 1.0 "; this project's own structs use "MIMI-MMR 1.0 ", so that a signature or
key of one kind is never valid as the other.
"""

from __future__ import annotations

import hashlib
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError

from mimi_mmr.crypto.secret import Secret
from mimi_mmr.errors import SignatureRejected
from mimi_mmr.presentation import vec

MLS = b"MLS 1.0 "
MMR = b"MIMI-MMR 1.0 "
SIGNATURE_SIZE = 64
PUBLIC_KEY_SIZE = 32


class SigningKey:
    """An Ed25519 key pair (RFC 8032)."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        """Wrap a private key of `cryptography`."""
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Make the key from a 32-byte seed."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def private(self) -> Ed25519PrivateKey:
        """The private key as an object for `cryptography`'s builders."""
        return self._private

    def seed(self) -> bytes:
        """Return the 32-byte private key."""
        return self._private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())

    def sign(self, label: str, content: bytes, *, prefix: bytes = MMR) -> bytes:
        """Sign by SignWithLabel (RFC 9420, section 5.1.2); 64 bytes."""
        return self._private.sign(sign_content(label, content, prefix))

    def __repr__(self) -> str:
        return f"<SigningKey {self.public.hex()[:8]}>"


def sign_content(label: str, content: bytes, prefix: bytes = MMR) -> bytes:
    """Encode the SignContent struct of RFC 9420, section 5.1.2."""
    return _label(label, prefix) + vec(content)


@cache
def _label(label: str, prefix: bytes) -> bytes:
    return vec(prefix + label.encode())


def verify(
    public_key: bytes,
    label: str,
    content: bytes,
    signature: bytes,
    *,
    prefix: bytes = MMR,
    by: str = "signature",
) -> None:
    """Verify a signature (VerifyWithLabel), by libsodium (twice as fast as OpenSSL); raise `SignatureRejected`."""
    if len(public_key) != PUBLIC_KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        raise SignatureRejected(f"{by}: expected a 32-byte key and a 64-byte signature")
    try:
        crypto_sign_open(signature + _label(label, prefix) + vec(content), public_key)
    except BadSignatureError:
        raise SignatureRejected(f"{by}: the signature over {label} is not by the expected key") from None


def expand_with_label(secret: Secret, label: str, context: bytes, length: int = 32) -> bytes:
    """Derive by ExpandWithLabel (RFC 9420, section 8), with this project's prefix and HKDF-SHA256."""
    info = length.to_bytes(2, "big") + vec(MMR + label.encode()) + vec(context)
    return HKDFExpand(hashes.SHA256(), length, info).derive(secret.reveal())


def ref_hash(label: str, value: bytes, *, prefix: bytes = MMR) -> bytes:
    """Hash label and value by RefHash (RFC 9420, section 5.2): SHA-256."""
    return hashlib.sha256(vec(prefix + label.encode()) + vec(value)).digest()


def key_package_ref(key_package: bytes) -> bytes:
    """Return the KeyPackageRef of an encoded KeyPackage (RFC 9420, section 5.2)."""
    return ref_hash("KeyPackage Reference", key_package, prefix=MLS)
