"""KeyPackages (RFC 9420, section 10)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from mimi_mmr.crypto.signing import MLS, key_package_ref, verify
from mimi_mmr.errors import InvalidCommit, ParseError
from mimi_mmr.mls.wire.leaf import LeafNode, LeafNodeSource
from mimi_mmr.mls.wire.limits import (
    CIPHER_SUITE,
    KEY,
    MAX_MESSAGE,
    MLS10,
    SIGNATURE,
    Extension,
    read_extensions,
)
from mimi_mmr.presentation import Reader, read_whole


@dataclass(frozen=True, slots=True)
class KeyPackage:
    """A client's offer to be added: a 32-byte HPKE key for the Welcome, and the leaf it will have.

    Only cipher suite 0x0001 is accepted. `encoded` holds the received bytes of the struct.
    """

    version: int
    cipher_suite: int
    init_key: bytes
    leaf_node: LeafNode
    extensions: tuple[Extension, ...]
    signature: bytes = field(repr=False)
    encoded: bytes = field(repr=False)
    _signed: int = field(repr=False)

    @property
    def ref(self) -> bytes:
        """The KeyPackageRef, 32 bytes (RFC 9420, section 5.2)."""
        return key_package_ref(self.encoded)

    @classmethod
    def read_from(cls, reader: Reader) -> Self:
        """Read a KeyPackage, without the bytes after it; raise `ParseError`."""
        start = reader.offset
        version, cipher_suite = _read_suite(reader)
        init_key = KEY.read(reader, "KeyPackage.init_key")
        leaf_node = LeafNode.read_from(reader)
        extensions = read_extensions(reader, "KeyPackage.extensions")
        signed = reader.offset - start
        signature = SIGNATURE.read(reader, "KeyPackage.signature")
        return cls(
            version=version,
            cipher_suite=cipher_suite,
            init_key=init_key,
            leaf_node=leaf_node,
            extensions=extensions,
            signature=signature,
            encoded=reader.data[start : reader.offset],
            _signed=signed,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse a KeyPackage struct (not an MLSMessage); no bytes may follow it."""
        return read_whole(data, MAX_MESSAGE, "KeyPackage", cls.read_from)

    @property
    def signed(self) -> bytes:
        """KeyPackageTBS."""
        return self.encoded[: self._signed]


def verify_key_package(key_package: KeyPackage) -> None:
    """Make the checks of RFC 9420, section 10.1, except the lifetime, which needs a clock.

    Raises `SignatureRejected` or `InvalidCommit`, naming the part that is wrong.
    """
    leaf = key_package.leaf_node
    if leaf.source is not LeafNodeSource.KEY_PACKAGE:
        raise InvalidCommit(f"KeyPackage: leaf from {leaf.source.name}, expected KEY_PACKAGE")
    if key_package.init_key == leaf.encryption_key:
        raise InvalidCommit("KeyPackage: init_key and encryption_key are the same")
    leaf.verify(by="KeyPackage's leaf")
    signed = key_package.signed
    verify(leaf.signature_key, "KeyPackageTBS", signed, key_package.signature, prefix=MLS, by="KeyPackage")


def _read_suite(reader: Reader) -> tuple[int, int]:
    start = reader.offset
    version = reader.uint(2, "KeyPackage.version")
    cipher_suite = reader.uint(2, "KeyPackage.cipher_suite")
    if (version, cipher_suite) != (MLS10, CIPHER_SUITE):
        raise ParseError(
            f"KeyPackage of version {version}, cipher suite {cipher_suite}; only 1 and 1 are spoken", start
        )
    return version, cipher_suite
