"""The Python binding of mls-rs. It has no type stubs, so only this package uses it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Final

import mls_rs_uniffi as mls  # type: ignore[import-untyped]

from mimi_mmr.errors import EngineError, LifetimeRefused, OwnMessage
from mimi_mmr.mls.ratchet.node import identity, signature_key
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.storage import GroupStorage
from mimi_mmr.mls.wire.limits import MLS10, WireFormat

KEY_PACKAGE_HEADER: Final = MLS10.to_bytes(2, "big") + WireFormat.KEY_PACKAGE.to_bytes(2, "big")
_SUITE: Final = mls.CipherSuite.CURVE25519_AES128


_FROM_SELF = "message from self"
_LIFETIME = "not within key package lifetime"


@contextmanager
def engine_errors() -> Iterator[None]:
    """Convert the library's exceptions to `EngineError`, or to the subclass that says why.

    `OwnMessage` is for a message of this client's own, `LifetimeRefused` for a KeyPackage that is not valid now.
    The library checks lifetimes of KeyPackages that this client adds, not of those that another's commit adds.
    """
    try:
        yield
    except (mls.Error, mls.InternalError) as error:
        said = str(error)  # the binding has one class for all of these errors
        kinds = {_FROM_SELF: OwnMessage, _LIFETIME: LifetimeRefused}
        kind = next((kind for part, kind in kinds.items() if part in said), EngineError)
        raise kind(said) from None


class _Storage(mls.GroupStateStorage):  # type: ignore[misc]
    def __init__(self, storage: GroupStorage) -> None:
        self._storage = storage

    def state(self, group_id: bytes) -> bytes | None:
        return self._storage.state(group_id)

    def epoch(self, group_id: bytes, epoch_id: int) -> bytes | None:
        return self._storage.epoch(group_id, epoch_id)

    def write(
        self, group_id: bytes, group_state: bytes, epoch_inserts: list[Any], epoch_updates: list[Any]
    ) -> None:
        for record in (*epoch_inserts, *epoch_updates):
            self._storage.put_epoch(group_id, record.id, record.data)
        self._storage.put_state(group_id, group_state)

    def max_epoch_id(self, group_id: bytes) -> int | None:
        return self._storage.newest_epoch(group_id)


def new_client(identity: bytes, public: bytes, secret: bytes, storage: GroupStorage) -> Any:
    """Make a client object of the library; `public` is 32 bytes, `secret` is seed and public key, 64 bytes."""
    pair = mls.SignatureKeypair(
        cipher_suite=_SUITE,
        public_key=mls.SignaturePublicKey(bytes=public),
        secret_key=mls.SignatureSecretKey(bytes=secret),
    )
    config = mls.ClientConfig(group_state_storage=_Storage(storage), use_ratchet_tree_extension=False)
    return mls.Client(identity, pair, config)


def message(data: bytes) -> Any:
    """Convert an MLSMessage to the library's object."""
    return mls.Message.from_bytes(data)


def key_package_message(key_package: bytes) -> Any:
    """Convert a KeyPackage struct to the library's object."""
    return message(KEY_PACKAGE_HEADER + key_package)


def export(group: Any) -> bytes:
    """Encode the `ratchet_tree` extension of a group's current epoch."""
    return bytes(group.export_tree().bytes)


def tree_extension(data: bytes) -> Any:
    """Convert a `ratchet_tree` extension to the library's object."""
    return mls.RatchetTree(bytes=data)


class Identities:
    """The library's signing identities by leaf. The library can compare them but does not show their content."""

    __slots__ = ("_known", "_recent")

    def __init__(self) -> None:
        """Start with an empty cache."""
        self._known: dict[tuple[bytes, bytes], Any] = {}
        self._recent: dict[int, None] = {}

    def at(self, tree: RatchetTree, leaf: int) -> Any:
        """Return the signing identity of the member at this leaf; raise `EngineError` if there is none."""
        row = tree.node_bytes(2 * leaf)
        if row is None:
            raise EngineError(f"no member at leaf {leaf}")
        who = identity(row), signature_key(row)
        if who not in self._known:
            # The binding can make identities only with a client; this client's secret key is never used.
            self._known[who] = new_client(*who, bytes(64), GroupStorage()).signing_identity()
        return self._known[who]

    def leaf_of(self, tree: RatchetTree, signer: Any) -> int:
        """Return the leaf of this signing identity; the last sender is tried first."""
        candidates: Iterable[int] = chain(reversed(tuple(self._recent)), tree.occupied())
        for leaf in candidates:
            if tree.node_bytes(2 * leaf) is not None and self.at(tree, leaf) == signer:
                self._recent.pop(leaf, None)
                self._recent[leaf] = None
                return leaf
        raise EngineError("a message by somebody who is not in the tree")
