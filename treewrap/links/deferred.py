"""A leaf secret that a joiner leaves with the hub, for the next committer to set."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from treewrap.codec import Reader
from treewrap.errors import WrapError
from treewrap.geometry import LEAF_LIMIT
from treewrap.secret import SECRET_SIZE, EpochSecret, LeafSecret, Rng
from treewrap.suite import SALT_SIZE, TAG_SIZE, GroupContext, UpdateKeys, seal, unseal

WRAP_SIZE = SECRET_SIZE + TAG_SIZE
DEFERRED_LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class DeferredLeaf:
    """A joiner's leaf secret, wrapped under its first epoch's secret: 76 bytes."""

    leaf: int
    epoch: int
    salt: bytes
    wrapped: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """Encode it."""
        return self.leaf.to_bytes(4, "big") + self.epoch.to_bytes(8, "big") + self.salt + self.wrapped

    @classmethod
    def read(cls, reader: Reader) -> DeferredLeaf:
        """Read one. Raises ParseError."""
        leaf = reader.u32("deferred leaf")
        if leaf >= LEAF_LIMIT:
            raise reader.fail(f"deferred leaf: {leaf} is too high")
        epoch = reader.u64("deferred leaf's epoch")
        return cls(leaf, epoch, reader.take(SALT_SIZE, "salt"), reader.take(WRAP_SIZE, "wrapped leaf secret"))

    @classmethod
    def from_bytes(cls, content: bytes) -> DeferredLeaf:
        """Read it. Raises ParseError."""
        reader = Reader(content)
        deferred = cls.read(reader)
        reader.end("deferred leaf")
        return deferred

    @classmethod
    def make(
        cls,
        context: GroupContext,
        leaf: int,
        secret: LeafSecret,
        *,
        epoch: int,
        epoch_secret: EpochSecret,
        rng: Rng = secrets.token_bytes,
    ) -> DeferredLeaf:
        """Wrap a joiner's secret for the members of `epoch`, the one its joining began."""
        plaintext = secret.reveal()
        number = leaf.to_bytes(4, "big")
        keys = UpdateKeys.draw(context, epoch_secret, rng(SALT_SIZE), b"deferred", number + plaintext)
        wrapped = seal(keys.wrap(b"deferred", leaf), plaintext, context.leaf_aad(leaf, epoch))
        return cls(leaf, epoch, keys.salt, wrapped)

    def open(self, context: GroupContext, epoch_secret: EpochSecret) -> LeafSecret:
        """Unwrap it with the secret of its epoch. Raises WrapError: answer it with `Reject`."""
        key = UpdateKeys(context, epoch_secret, self.salt).wrap(b"deferred", self.leaf)
        plaintext = unseal(key, self.wrapped, context.leaf_aad(self.leaf, self.epoch))
        if plaintext is None:
            raise WrapError(
                f"deferred leaf {self.leaf}: does not open under the secret of epoch {self.epoch}"
            )
        return LeafSecret(plaintext)
