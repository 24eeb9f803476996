"""A leaf secret that a joiner sends to the hub, for the next committer to set."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from treewrap.codec import Reader
from treewrap.errors import WrapError
from treewrap.geometry import LEAF_LIMIT
from treewrap.labels import DEFERRED_WRAP
from treewrap.secret import EpochSecret, LeafSecret, Rng
from treewrap.suite import SALT_SIZE, WRAP_SIZE, GroupContext, UpdateKeys, seal, unseal

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
        """Wrap a joiner's secret for the members of `epoch`, the first one that the joiner is a member of."""
        plaintext = secret.reveal()
        keys = UpdateKeys.draw_deferred(context, epoch_secret, rng(SALT_SIZE), leaf, secret)
        wrapped = seal(keys.wrap(DEFERRED_WRAP, leaf), plaintext, context.wrap_aad(leaf, epoch))
        return cls(leaf, epoch, keys.salt, wrapped)

    def open(self, context: GroupContext, epoch_secret: EpochSecret) -> LeafSecret:
        """Unwrap it with the secret of its epoch. Raises WrapError; then answer it with `Reject`."""
        key = UpdateKeys(context, epoch_secret, self.salt).wrap(DEFERRED_WRAP, self.leaf)
        plaintext = unseal(key, self.wrapped, context.wrap_aad(self.leaf, self.epoch))
        if plaintext is None:
            raise WrapError(
                f"deferred leaf {self.leaf}: does not open under the secret of epoch {self.epoch}"
            )
        return LeafSecret(plaintext)
