"""Leaf nodes of the ratchet tree (RFC 9420, sections 5.3 and 7.2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, Self

from mimi_mmr.crypto.signing import MLS, verify
from mimi_mmr.errors import InvalidCommit, ParseError
from mimi_mmr.mls.wire.limits import (
    BASIC,
    CIPHER_SUITE,
    HASH,
    KEY,
    MAX_IDENTITY,
    MAX_MESSAGE,
    MLS10,
    SIGNATURE,
    CodePoints,
    Extension,
    read_extensions,
)
from mimi_mmr.presentation import Code, Opaque, Reader, Struct, read_whole, vec

_IDENTITY = Opaque(MAX_IDENTITY)
_PARENT_HASH = Opaque(32)
_DEFAULT_EXTENSIONS = frozenset(range(1, 6))  # RFC 9420, section 7.2: never listed in capabilities


class LeafNodeSource(enum.IntEnum):
    """The origin of a leaf in the tree (RFC 9420, section 7.2)."""

    KEY_PACKAGE = 1
    UPDATE = 2
    COMMIT = 3


@dataclass(frozen=True, slots=True)
class Capabilities(Struct):
    """A client's capabilities, as IANA code points (RFC 9420, section 7.2)."""

    versions: Annotated[tuple[int, ...], CodePoints()]
    cipher_suites: Annotated[tuple[int, ...], CodePoints()]
    extensions: Annotated[tuple[int, ...], CodePoints()]
    proposals: Annotated[tuple[int, ...], CodePoints()]
    credentials: Annotated[tuple[int, ...], CodePoints()]


@dataclass(frozen=True, slots=True)
class LeafNode:
    """One member's leaf: two 32-byte keys, a BasicCredential's identity, and the leaf's signature over them.

    `lifetime` (Unix seconds) is present exactly if `source` is KEY_PACKAGE, `parent_hash` (32 bytes, or none in a
    group of one) exactly if it is COMMIT. `encoded` holds the received bytes of the struct.
    """

    encryption_key: bytes
    signature_key: bytes
    identity: bytes
    capabilities: Capabilities
    source: LeafNodeSource
    lifetime: tuple[int, int] | None
    parent_hash: bytes | None
    extensions: tuple[Extension, ...]
    signature: bytes = field(repr=False)
    encoded: bytes = field(repr=False)
    _signed: int = field(repr=False)

    @classmethod
    def read_from(cls, reader: Reader) -> Self:
        """Read a LeafNode, without the bytes after it; raise `ParseError`."""
        start = reader.offset
        encryption_key = KEY.read(reader, "LeafNode.encryption_key")
        signature_key = KEY.read(reader, "LeafNode.signature_key")
        identity = _read_credential(reader)
        capabilities = Capabilities.read_from(reader)
        source, lifetime, parent_hash = _read_source(reader)
        extensions = read_extensions(reader, "LeafNode.extensions")
        signed = reader.offset - start
        signature = SIGNATURE.read(reader, "LeafNode.signature")
        return cls(
            encryption_key=encryption_key,
            signature_key=signature_key,
            identity=identity,
            capabilities=capabilities,
            source=source,
            lifetime=lifetime,
            parent_hash=parent_hash,
            extensions=extensions,
            signature=signature,
            encoded=reader.data[start : reader.offset],
            _signed=signed,
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Parse a LeafNode; no bytes may follow it. Raise `ParseError`."""
        return read_whole(data, MAX_MESSAGE, "LeafNode", cls.read_from)

    def verify(self, group_id: bytes = b"", leaf_index: int = 0, *, by: str = "leaf") -> None:
        """Check the signature over LeafNodeTBS (RFC 9420, section 7.2) and the rules of section 7.3 for every leaf.

        A leaf from an update or a commit is bound to its group and leaf index; one from a KeyPackage is not.
        Raises `SignatureRejected` or `InvalidCommit`, naming `by`.
        """
        self._check_capabilities(by)
        content = self.encoded[: self._signed]
        if self.source is not LeafNodeSource.KEY_PACKAGE:
            content += vec(group_id) + leaf_index.to_bytes(4, "big")
        verify(self.signature_key, "LeafNodeTBS", content, self.signature, prefix=MLS, by=by)

    def _check_capabilities(self, by: str) -> None:
        able = self.capabilities
        if MLS10 not in able.versions or CIPHER_SUITE not in able.cipher_suites:
            raise InvalidCommit(f"{by}: its capabilities leave out the group's version or cipher suite")
        if BASIC not in able.credentials:
            raise InvalidCommit(f"{by}: its capabilities leave out its own credential type")
        used = {extension.extension_type for extension in self.extensions}
        if missing := used - _DEFAULT_EXTENSIONS - set(able.extensions):
            raise InvalidCommit(
                f"{by}: its capabilities leave out extension {min(missing)}, which it carries"
            )


def _read_credential(reader: Reader) -> bytes:
    start = reader.offset
    kind = reader.uint(2, "Credential.credential_type")
    if kind != BASIC:
        raise ParseError(f"credential type {kind}, expected basic ({BASIC})", start)
    return _IDENTITY.read(reader, "BasicCredential.identity")


def _read_source(reader: Reader) -> tuple[LeafNodeSource, tuple[int, int] | None, bytes | None]:
    source = LeafNodeSource(Code(LeafNodeSource).read(reader, "LeafNode.leaf_node_source"))
    if source is LeafNodeSource.KEY_PACKAGE:
        return source, (reader.uint(8, "Lifetime.not_before"), reader.uint(8, "Lifetime.not_after")), None
    if source is LeafNodeSource.UPDATE:
        return source, None, None
    start = reader.offset
    parent_hash = _PARENT_HASH.read(reader, "LeafNode.parent_hash")
    if len(parent_hash) not in (0, HASH.limit):
        raise ParseError(f"LeafNode.parent_hash of {len(parent_hash)} bytes, expected 32 or none", start)
    return source, None, parent_hash
