"""Arity, keys, and how one node is sealed, opened and hashed."""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from treewrap.codec import varint, vector
from treewrap.labels import (
    CHILDREN_HASH,
    CONFIRM_KEY,
    DEFERRED_SALT,
    NODE_HASH,
    NODE_KEY,
    PREFIX,
    SALT,
    TREE_HASH,
    WRAPS,
)
from treewrap.secret import SECRET_SIZE, EpochSecret, LeafSecret

ARITIES = (2, 4, 8, 16, 32, 64)
DEFAULT_ARITY = 32
_NUMBERS = {arity: number for number, arity in enumerate(ARITIES, 1)}
HASH_SIZE = 32
KEY_SIZE = 32
SALT_SIZE = 16
TAG_SIZE = 16
WRAP_SIZE = SECRET_SIZE + TAG_SIZE
GROUP_ID_LIMIT = 255

# This nonce is safe because no key ever seals two plaintexts: each node key is derived from the epoch's
# secret, a fresh salt and the node's place. See docs/specs/treewrap.md, section 4.3.
_NONCE = bytes(12)
_BLOCK_SIZE = 64
_INNER_PAD, _OUTER_PAD = (int.from_bytes(bytes((pad,)) * _BLOCK_SIZE, "big") for pad in (0x36, 0x5C))
pack_place = struct.Struct(">BI").pack
PLACE_SIZE = 5
_sha256 = hashlib.sha256
_U32 = struct.Struct(">I")
_EPOCH = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Suite:
    """The tree's arity, with AES-256-GCM, HKDF-SHA256 and SHA-256. Raises ValueError for other arities."""

    arity: int = DEFAULT_ARITY

    def __post_init__(self) -> None:
        if self.arity not in ARITIES:
            raise ValueError(f"arity: expected one of {ARITIES}, got {self.arity}")

    @classmethod
    def from_id(cls, number: int) -> Suite:
        """Return the suite of a wire number, 1 for arity 2 up to 6 for arity 64. Raises ValueError."""
        if not 1 <= number <= len(ARITIES):
            raise ValueError(f"suite: expected 1 to {len(ARITIES)}, got {number}")
        return cls(ARITIES[number - 1])

    @property
    def id(self) -> int:
        """The uint16 that stands for the suite on the wire, 1 to 6."""
        return _NUMBERS[self.arity]

    @property
    def bits(self) -> int:
        """The logarithm of the arity to base 2, 1 to 6: how many bits of an index choose a slot."""
        return self.arity.bit_length() - 1

    @property
    def bitmap_size(self) -> int:
        """Bytes of an occupancy bitmap: bit s of byte s // 8, lowest bit first, is slot s."""
        return (self.arity + 7) // 8


def seal(key: bytes, plaintext: bytes | bytearray, aad: bytes) -> bytes:
    """Seal one plaintext with AES-256-GCM and nonce zero, under a key that seals nothing else."""
    return AESGCM(key).encrypt(_NONCE, plaintext, aad)


def unseal(key: bytes, ciphertext: bytes, aad: bytes) -> bytes | None:
    """Open what `seal` returned. Return None if it does not authenticate."""
    try:
        return AESGCM(key).decrypt(_NONCE, ciphertext, aad)
    except InvalidTag:
        return None


class GroupContext:
    """The suite and group id. Both go into every key, AAD and hash, so no two rooms share any of these."""

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
        self.bits = suite.bits
        self.mask = suite.arity - 1
        self._bitmap_size = suite.bitmap_size
        self.group_id = bytes(group_id)
        self.group = vector(group_id)
        self.aad_prefix = suite.id.to_bytes(2, "big") + self.group
        self.own_prefix = NODE_HASH
        self._tree_hash = TREE_HASH + self.group
        # KDFLabel of a node key up to the length of its context, which is the same for all nodes.
        self.node_label = _kdf_label(NODE_KEY) + varint(len(self.group) + SALT_SIZE + PLACE_SIZE)
        wrap_size = varint(len(self.group) + SALT_SIZE + _U32.size)
        self.wrap_label = {label: _kdf_label(label) + wrap_size for label in WRAPS}

    def node_head(self, epoch: int, bitmap: int) -> bytes:
        """Encode epoch and bitmap: the first two fields of NodeRow."""
        return _EPOCH.pack(epoch) + bitmap.to_bytes(self._bitmap_size, "little")

    def wrap_aad(self, number: int, epoch: int) -> bytes:
        """Encode WrapAAD: suite, group id, leaf index or position, epoch."""
        return self.aad_prefix + _U32.pack(number) + _EPOCH.pack(epoch)

    def node_hash(self, place: bytes, head: bytes, ciphertext: bytes, children: bytes | bytearray) -> bytes:
        """Hash a node: its own row (`ciphertext` with tag), then its children's hashes."""
        return join_hashes(_sha256(self.own_prefix + place + head + ciphertext).digest(), children)

    def tree_hash(self, header: bytes, root_hash: bytes) -> bytes:
        """Hash the group id, the root header and the root's hash: the hash that members compare."""
        return _sha256(self._tree_hash + header + root_hash).digest()


def join_hashes(own: bytes, children: bytes | bytearray) -> bytes:
    """Hash a node's own hash with its children's, in order. At level 1, return the own hash."""
    return _sha256(CHILDREN_HASH + own + children).digest() if children else own


class Hmac:
    """HMAC-SHA256 (RFC 2104) under one key of at most 64 bytes.

    It hashes the key's two blocks once, which takes half the time of `hmac.digest` for each further message. The
    pads are XORed as integers: no table is indexed by a byte of the key.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > _BLOCK_SIZE:
            raise ValueError(f"HMAC key: expected at most {_BLOCK_SIZE} bytes, got {len(key)}")
        block = int.from_bytes(key.ljust(_BLOCK_SIZE, b"\0"), "big")
        self._inner = _sha256((block ^ _INNER_PAD).to_bytes(_BLOCK_SIZE, "big"))
        self._outer = _sha256((block ^ _OUTER_PAD).to_bytes(_BLOCK_SIZE, "big"))

    def digest(self, content: bytes) -> bytes:
        """Return the 32-byte tag of a message."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(content)
        outer.update(inner.digest())
        return outer.digest()


class UpdateKeys:
    """All keys of one update, derived from its epoch's secret and its salt."""

    __slots__ = ("_group_salt", "_hmac", "_node", "_wrap", "salt")

    def __init__(self, context: GroupContext, epoch_secret: EpochSecret, salt: bytes) -> None:
        self._bind(context, Hmac(epoch_secret.reveal()), salt)

    @classmethod
    def draw(
        cls, context: GroupContext, epoch_secret: EpochSecret, fresh: bytes, tree_hash: bytes, changes: bytes
    ) -> UpdateKeys:
        """Start an update with a salt of its own, from 16 fresh random bytes and all that the update depends on.

        Even if the random source repeats its output, no key repeats for different changes, since the salt depends
        on the changes, too. `changes` are CanonicalChanges.
        """
        return cls._salted(context, epoch_secret, fresh + tree_hash + changes)

    @classmethod
    def draw_deferred(
        cls, context: GroupContext, epoch_secret: EpochSecret, fresh: bytes, leaf: int, secret: LeafSecret
    ) -> UpdateKeys:
        """Start a deferred leaf with a salt of its own, from 16 fresh random bytes, leaf index and secret."""
        content = fresh + DEFERRED_SALT + _U32.pack(leaf) + secret.reveal()
        return cls._salted(context, epoch_secret, content)

    @classmethod
    def _salted(cls, context: GroupContext, epoch_secret: EpochSecret, content: bytes) -> UpdateKeys:
        hmac_ = Hmac(epoch_secret.reveal())
        keys = cls.__new__(cls)
        keys._bind(context, hmac_, hmac_.digest(SALT + content)[:SALT_SIZE])
        return keys

    def _bind(self, context: GroupContext, hmac_: Hmac, salt: bytes) -> None:
        self._hmac = hmac_
        self.salt = salt
        self._group_salt = context.group + salt
        self._node = context.node_label + self._group_salt
        self._wrap = context.wrap_label

    def node(self, place: bytes) -> bytes:
        """Derive the key of the node at a place, encoded by `pack_place`."""
        # HKDF-Expand to 32 bytes is one HMAC over the info and a final 1 (RFC 5869, section 2.3).
        return self._hmac.digest(self._node + place + b"\x01")

    def wrap(self, label: bytes, number: int) -> bytes:
        """Derive the key of a wrapped secret; the label is one of `labels.WRAPS`."""
        return self._hmac.digest(self._wrap[label] + self._group_salt + _U32.pack(number) + b"\x01")

    def confirm(self, content: bytes) -> bytes:
        """Return the 32-byte confirmation tag over a member update without its tag."""
        key = self._hmac.digest(_CONFIRM_LABEL + vector(self._group_salt) + b"\x01")
        return hmac.digest(key, content, "sha256")


def _kdf_label(label: bytes) -> bytes:
    """Encode KDFLabel up to its context: ExpandWithLabel of RFC 9420, section 8, with our prefix."""
    return KEY_SIZE.to_bytes(2, "big") + vector(PREFIX + label)


_CONFIRM_LABEL = _kdf_label(CONFIRM_KEY)
