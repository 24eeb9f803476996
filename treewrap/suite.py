"""Arity, labels, keys, and how one node is sealed, opened and hashed."""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from treewrap.codec import varint, vector
from treewrap.secret import EpochSecret

ARITIES = (2, 4, 8, 16, 32, 64)
HASH_SIZE = 32
KEY_SIZE = 32
SALT_SIZE = 16
TAG_SIZE = 16
GROUP_ID_LIMIT = 255
PREFIX = b"TreeWrap 1.0 "
_CHILDREN = PREFIX + b"children"

# Safe for one reason only: no key ever seals two plaintexts. Each node key is derived from the epoch's
# secret, a fresh salt and the node's place; see treewrap/README.md, "Keys".
_NONCE = bytes(12)
_INNER_PAD, _OUTER_PAD = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))
pack_place = struct.Struct(">BI").pack
PLACE_SIZE = 5
_sha256 = hashlib.sha256
_BLOCK_SIZE = 64
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


def seal(key: bytes, plaintext: bytes | bytearray, aad: bytes) -> bytes:
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

    __slots__ = (
        "_bitmap_size",
        "_tree_hash",
        "aad_prefix",
        "bits",
        "group",
        "group_id",
        "mask",
        "node_label",
        "own_prefix",
        "suite",
        "wrap_label",
    )

    def __init__(self, suite: Suite, group_id: bytes) -> None:
        if not 0 < len(group_id) <= GROUP_ID_LIMIT:
            raise ValueError(f"group id: expected 1 to {GROUP_ID_LIMIT} bytes, got {len(group_id)}")
        self.suite = suite
        self.bits = suite.id
        self.mask = suite.arity - 1
        self._bitmap_size = suite.bitmap_size
        self.group_id = bytes(group_id)
        self.group = vector(group_id)
        self.aad_prefix = suite.id.to_bytes(2, "big") + self.group
        self.own_prefix = PREFIX + b"node"
        self._tree_hash = PREFIX + b"tree" + self.group
        # KDFLabel of a node key up to the length of its context, which is the same for all nodes.
        self.node_label = _kdf_label(b"node") + varint(len(self.group) + SALT_SIZE + PLACE_SIZE)
        wrap_size = varint(len(self.group) + SALT_SIZE + _U32.size)
        self.wrap_label = {
            label: _kdf_label(label) + wrap_size for label in (b"leaf", b"room", b"links", b"deferred")
        }

    def node_head(self, epoch: int, bitmap: int) -> bytes:
        """Encode epoch and bitmap: how a stored node begins."""
        return _EPOCH.pack(epoch) + bitmap.to_bytes(self._bitmap_size, "little")

    def leaf_aad(self, number: int, epoch: int) -> bytes:
        """Encode WrapAAD: suite, group id, leaf index or position, epoch."""
        return self.aad_prefix + _U32.pack(number) + _EPOCH.pack(epoch)

    def node_hash(self, place: bytes, head: bytes, ciphertext: bytes, children: bytes | bytearray) -> bytes:
        """Hash a node: what it holds itself, and its children's hashes."""
        return join_hashes(_sha256(self.own_prefix + place + head + ciphertext).digest(), children)

    def tree_hash(self, header: bytes, root_hash: bytes) -> bytes:
        """Hash the root's hash, its header and the group id: the hash that members compare."""
        return _sha256(self._tree_hash + header + root_hash).digest()


def join_hashes(own: bytes, children: bytes | bytearray) -> bytes:
    """Hash a node with its children's hashes, in order; at level 1 the own hash stands alone."""
    return _sha256(_CHILDREN + own + children).digest() if children else own


class _Hmac:
    """HMAC-SHA256 under one key, with the key's two blocks hashed once (RFC 2104, section 4): half the time."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(_BLOCK_SIZE, b"\0")
        self._inner = _sha256(block.translate(_INNER_PAD))
        self._outer = _sha256(block.translate(_OUTER_PAD))

    def digest(self, content: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(content)
        outer.update(inner.digest())
        return outer.digest()


class UpdateKeys:
    """All the keys of one update: derived from its epoch's secret and its salt."""

    __slots__ = ("_group_salt", "_hmac", "_node", "_wrap", "salt")

    def __init__(self, context: GroupContext, epoch_secret: EpochSecret, salt: bytes) -> None:
        self._bind(context, _Hmac(epoch_secret.reveal()), salt)

    @classmethod
    def draw(
        cls, context: GroupContext, epoch_secret: EpochSecret, fresh: bytes, tree_hash: bytes, changes: bytes
    ) -> UpdateKeys:
        """Start an update with a salt of its own: treewrap/README.md, "Keys".

        It mixes fresh bytes with all that the update depends on, so that a source that repeats itself
        repeats no key.
        """
        hmac_ = _Hmac(epoch_secret.reveal())
        salt = hmac_.digest(b"salt" + fresh + tree_hash + changes)[:SALT_SIZE]
        keys = cls.__new__(cls)
        keys._bind(context, hmac_, salt)
        return keys

    def _bind(self, context: GroupContext, hmac_: _Hmac, salt: bytes) -> None:
        self._hmac = hmac_
        self.salt = salt
        self._group_salt = context.group + salt
        self._node = context.node_label + self._group_salt
        self._wrap = context.wrap_label

    def node(self, place: bytes) -> bytes:
        """Derive the key of the node at a place, as `pack_place` encodes it."""
        # HKDF-Expand to 32 bytes is one HMAC over the info and a final 1 (RFC 5869, section 2.3).
        return self._hmac.digest(self._node + place + b"\x01")

    def wrap(self, label: bytes, number: int) -> bytes:
        """Derive the key of a wrapped secret: label "leaf", "room", "links" or "deferred"."""
        return self._hmac.digest(self._wrap[label] + self._group_salt + _U32.pack(number) + b"\x01")

    def confirm(self, content: bytes) -> bytes:
        """Make the confirmation tag over the tree hash and the changes as sent."""
        key = self._hmac.digest(_CONFIRM_LABEL + vector(self._group_salt) + b"\x01")
        return hmac.digest(key, content, "sha256")


def _kdf_label(label: bytes) -> bytes:
    """Encode KDFLabel up to its context: ExpandWithLabel of RFC 9420, section 8, with our prefix."""
    return KEY_SIZE.to_bytes(2, "big") + vector(PREFIX + label)


_CONFIRM_LABEL = _kdf_label(b"confirm")
