"""What is left of a group that this client was removed from: where it was, and nothing to read or write with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mimi_mmr.errors import RemovedFromRoom
from mimi_mmr.mls.engine import Applied, StagedCommit
from mimi_mmr.mls.wire import LeafNode, PrivateMessage, PublicCommit


@dataclass(frozen=True, slots=True)
class FormerGroup:
    """`MlsGroup` of a client that was removed: it knows no members, and refuses with `RemovedFromRoom`."""

    group_id: bytes
    epoch: int
    own_leaf: int

    def ratchet_tree(self) -> bytes:
        """No tree."""
        self._refuse()

    def leaf(self, index: int) -> LeafNode | None:
        """Nobody."""
        return None

    def leaves(self) -> dict[int, LeafNode]:
        """Nobody."""
        return {}

    def credentials(self) -> Mapping[int, tuple[bytes, bytes]]:
        """Nobody's."""
        return {}

    def stage_commit(self, add: Sequence[bytes] = (), remove: Sequence[int] = ()) -> StagedCommit:
        """No commit."""
        self._refuse()

    def staged_commit(self, commit: bytes, welcome: bytes | None = None) -> StagedCommit:
        """No commit."""
        self._refuse()

    def process_commit(self, commit: PublicCommit) -> Applied:
        """No commit."""
        self._refuse()

    def export_secret(self, label: bytes, context: bytes, length: int) -> bytes:
        """No secret."""
        self._refuse()

    def store(self) -> None:
        """Nothing to store."""

    def encrypt(self, plaintext: bytes) -> bytes:
        """No message."""
        self._refuse()

    def decrypt(self, message: PrivateMessage) -> tuple[int, bytes]:
        """No message."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise RemovedFromRoom("this client was removed from the group")
