"""Engine and clients over mls-rs."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import EngineError
from mimi_mmr.mls.mls_rs.binding import KEY_PACKAGE_HEADER, engine_errors, message, new_client, tree_extension
from mimi_mmr.mls.mls_rs.group import Library, MlsRsGroup, whereabouts
from mimi_mmr.mls.storage import GroupStorage


class MlsRsEngine:
    """`MlsEngine` over mls-rs; `storage` says where each client's groups are stored (in memory by default)."""

    def __init__(self, storage: Callable[[], MutableMapping[bytes, bytes]] = dict) -> None:
        """Give each client a mapping made by `storage`."""
        self._storage = storage

    def client(
        self, identity: bytes, key: SigningKey, rows: MutableMapping[bytes, bytes] | None = None
    ) -> MlsRsClient:
        """Make a client; with `rows` that an earlier client of this key filled, it can `load` its groups."""
        return MlsRsClient(identity, key, GroupStorage(self._storage() if rows is None else rows))


class MlsRsClient:
    """`MlsClient` over mls-rs."""

    def __init__(self, identity: bytes, key: SigningKey, storage: GroupStorage) -> None:
        """Make a client with this credential and key; its groups are in `storage`."""
        if not 0 < len(identity) < 1 << 16:
            raise EngineError(f"an identity has 1 to 65,535 bytes, got {len(identity)}")
        with engine_errors():
            self._client = new_client(identity, key.public, key.seed() + key.public, storage)
        self._library = Library(key.public, storage, self._client.load_group)

    def key_package(self) -> bytes:
        """Make a fresh KeyPackage; it is used up when the first group joined with it is stored."""
        with engine_errors():
            sealed = bytes(self._client.generate_key_package_message().to_bytes())
        return sealed.removeprefix(KEY_PACKAGE_HEADER)

    def create_group(self, group_id: bytes) -> MlsRsGroup:
        """Create a group with one member, in epoch 0, not yet stored."""
        with engine_errors():
            return MlsRsGroup(self._library, self._client.create_group(group_id), group_id, epoch=0)

    def join(self, welcome: bytes, ratchet_tree: bytes) -> MlsRsGroup:
        """Join a group. Nothing is stored until `store`, or the first commit or message."""
        with engine_errors():
            joined = self._client.join_group(tree_extension(ratchet_tree), message(welcome)).group
            return MlsRsGroup(self._library, joined, *whereabouts(joined))

    def load(self, group_id: bytes) -> MlsRsGroup:
        """Load the group as it was last stored."""
        with engine_errors():
            group = self._client.load_group(group_id)
            return MlsRsGroup(self._library, group, *whereabouts(group))
