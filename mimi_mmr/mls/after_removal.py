"""A group that this client was removed from: its id and last epoch, without keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mimi_mmr.errors import RemovedFromRoom
from mimi_mmr.mls.engine import Applied, StagedCommit
from mimi_mmr.mls.wire import LeafNode, PrivateMessage, PublicCommit


@dataclass(frozen=True, slots=True)
class GroupAfterRemoval:
    """The `MlsGroup` of a removed client: it knows no members; most methods raise `RemovedFromRoom`."""

    group_id: bytes
    epoch: int
    own_leaf: int

    def ratchet_tree(self) -> bytes:
        """Raise `RemovedFromRoom`."""
        self._refuse()

    def leaf(self, index: int) -> LeafNode | None:
        """Return None."""
        return None

    def leaves(self) -> dict[int, LeafNode]:
        """Return no members."""
        return {}

    def credentials(self) -> Mapping[int, tuple[bytes, bytes]]:
        """Return no members."""
        return {}

    def stage_commit(self, add: Sequence[bytes] = (), remove: Sequence[int] = ()) -> StagedCommit:
        """Raise `RemovedFromRoom`."""
        self._refuse()

    def staged_commit(self, commit: bytes, welcome: bytes | None = None) -> StagedCommit:
        """Raise `RemovedFromRoom`."""
        self._refuse()

    def process_commit(self, commit: PublicCommit) -> Applied:
        """Raise `RemovedFromRoom`."""
        self._refuse()

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        """Raise `RemovedFromRoom`."""
        self._refuse()

    def store(self) -> None:
        """Do nothing: there is nothing to store."""

    def encrypt(self, plaintext: bytes) -> bytes:
        """Raise `RemovedFromRoom`."""
        self._refuse()

    def decrypt(self, message: PrivateMessage) -> tuple[int, bytes]:
        """Raise `RemovedFromRoom`."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise RemovedFromRoom("this client was removed from the group")
