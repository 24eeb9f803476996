"""Arity, labels, keys, and how one node is sealed, opened and hashed."""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from treewrap.codec import vector
from treewrap.secret import EpochSecret

ARITIES = (2, 4, 8, 16, 32, 64)
HASH_SIZE = 32
KEY_SIZE = 32
SALT_SIZE = 16
TAG_SIZE = 16
GROUP_ID_LIMIT = 255
PREFIX = b"TreeWrap 1.0 "

# Safe for one reason only: no key ever seals two plaintexts. Each node key is derived from the epoch's
# secret, a fresh salt and the node's place; see treewrap/README.md, "Keys".
_NONCE = bytes(12)
_PLACE = struct.Struct(">BI")
_U32 = struct.Struct(">I")
_EPOCH = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Suite:
    """The tree's arity, with AES-256-GCM, HKDF-SHA256 and SHA-256. Raises ValueError for other arities."""

    arity: int = 16

    def __post_init__(self) -> None:
        if self.arity not in ARITIES:
            raise ValueError(f"arity: expected one of {ARITIES}, got {self.arity}")

    @classmethod
    def from_id(cls, number: int) -> Suite:
        """Find the suite of a wire number, 1 for arity 2 up to 6 for arity 64. Raises ValueError."""
        if not 1 <= number <= len(ARITIES):
            raise ValueError(f"suite: expected 1 to {len(ARITIES)}, got {number}")
        return cls(ARITIES[number - 1])

    @property
    def id(self) -> int:
        """The uint16 that stands for the suite on the wire: log2 of the arity."""
        return self.arity.bit_length() - 1

    @property
    def bitmap_size(self) -> int:
        """Bytes of an occupancy bitmap: bit s of byte s // 8, lowest bit first, is slot s."""
        return (self.arity + 7) // 8


def seal(key: bytes, plaintext: bytes, aad: bytes) -> bytes:
    """Seal one plaintext under a key used for nothing else: AES-256-GCM, nonce zero."""
    return AESGCM(key).encrypt(_NONCE, plaintext, aad)


def unseal(key: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
    """Open what `seal` made; None if it does not authenticate."""
    try:
        return AESGCM(key).decrypt(_NONCE, ciphertext, aad)
    except InvalidTag:
        return None


class GroupContext:
    """The suite and group id in every key, AAD and hash: one room's nodes mean nothing in another."""

    __slots__ = ("_tree_hash", "aad_prefix", "group", "group_id", "own_prefix", "suite")

    def __init__(self, suite: Suite, group_id: bytes) -> None:
        if not 0 < len(group_id) <= GROUP_ID_LIMIT:
            raise ValueError(f"group id: expected 1 to {GROUP_ID_LIMIT} bytes, got {len(group_id)}")
        self.suite = suite
        self.group_id = bytes(group_id)
        self.group = vector(group_id)
        self.aad_prefix = suite.id.to_bytes(2, "big") + self.group
        self.own_prefix = PREFIX + b"node"
        self._tree_hash = PREFIX + b"tree" + self.group

    def node_head(self, epoch: int, bitmap: int) -> bytes:
        """Encode epoch and bitmap: how a stored node begins."""
        return _EPOCH.pack(epoch) + bitmap.to_bytes(self.suite.bitmap_size, "little")

    def node_aad(self, level: int, index: int, head: bytes) -> bytes:
        """Encode NodeAAD: suite, group id, level, index, epoch, bitmap."""
        return self.aad_prefix + _PLACE.pack(level, index) + head

    def leaf_aad(self, number: int, epoch: int) -> bytes:
        """Encode WrapAAD: suite, group id, leaf index or position, epoch."""
        return self.aad_prefix + _U32.pack(number) + _EPOCH.pack(epoch)

    def own_hash(self, level: int, index: int, head: bytes, ciphertext: bytes) -> bytes:
        """Hash what a node holds itself."""
        return hashlib.sha256(self.own_prefix + _PLACE.pack(level, index) + head + ciphertext).digest()

    def tree_hash(self, header: bytes, root_hash: bytes) -> bytes:
        """Hash the root's hash, its header and the group id: the hash that members compare."""
        return hashlib.sha256(self._tree_hash + header + root_hash).digest()


def join_hashes(own: bytes, children: bytes) -> bytes:
    """Hash a node with its children's hashes, in order; at level 1 the own hash stands alone."""
    return hashlib.sha256(PREFIX + b"children" + own + children).digest() if children else own


def expand_with_label(secret: bytes, label: bytes, context: bytes) -> bytes:
    """Derive 32 bytes: ExpandWithLabel of RFC 9420, section 8, with the prefix "TreeWrap 1.0 "."""
    return hmac.digest(secret, _kdf_label(label) + vector(context) + b"\x01", "sha256")


def _kdf_label(label: bytes) -> bytes:
    return KEY_SIZE.to_bytes(2, "big") + vector(PREFIX + label)


class UpdateKeys:
    """All the keys of one update: derived from its epoch's secret and its salt."""

    __slots__ = ("_group_salt", "_node", "_secret")

    def __init__(self, context: GroupContext, epoch_secret: EpochSecret, salt: bytes) -> None:
        self._secret = epoch_secret.reveal()
        self._group_salt = context.group + salt
        size = len(self._group_salt) + _PLACE.size
        self._node = _kdf_label(b"node") + vector(bytes(size))[:-size] + self._group_salt

    def node(self, level: int, index: int) -> bytes:
        """Derive the key of a node."""
        # HKDF-Expand to 32 bytes is one HMAC over the info and a final 1 (RFC 5869, section 2.3).
        return hmac.digest(self._secret, self._node + _PLACE.pack(level, index) + b"\x01", "sha256")

    def wrap(self, label: bytes, number: int) -> bytes:
        """Derive the key of a wrapped secret: label "leaf", "room" or "deferred"."""
        return expand_with_label(self._secret, label, self._group_salt + _U32.pack(number))

    def confirm(self, content: bytes) -> bytes:
        """Make the confirmation tag over the tree hash and the changes as sent."""
        key = expand_with_label(self._secret, b"confirm", self._group_salt)
        return hmac.digest(key, content, "sha256")


def make_salt(epoch_secret: EpochSecret, fresh: bytes, tree_hash: bytes, changes: bytes) -> bytes:
    """Mix fresh bytes with all that the update depends on, so that a repeating source repeats no key."""
    content = b"salt" + fresh + tree_hash + changes
    return hmac.digest(epoch_secret.reveal(), content, "sha256")[:SALT_SIZE]
