"""Storage for a client's groups between commits: a mapping from bytes to bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final

from mimi_mmr.presentation import vec

RETAINED_EPOCHS: Final = 3  # for messages that arrive after a commit; older epochs' keys are deleted

_STATE, _STAGED, _EPOCH, _NEWEST, _HANDOVERS = b"s", b"c", b"e", b"n", b"h"


class GroupStorage:
    """Group states by group id, over any mapping; all values are secret.

    The state after a waiting commit has a row of its own, next to the state before it, so that neither overwrites
    the other. Only the last `RETAINED_EPOCHS` past epochs are kept.
    """

    __slots__ = ("_rows", "_state")

    def __init__(self, rows: MutableMapping[bytes, bytes] | None = None) -> None:
        """Keep groups in `rows`; in memory if it is None."""
        self._rows: MutableMapping[bytes, bytes] = {} if rows is None else rows
        self._state = _STATE

    @contextmanager
    def staged(self) -> Iterator[None]:
        """Read and write the waiting commit's state inside this context."""
        self._state = _STAGED
        try:
            yield
        finally:
            self._state = _STATE

    def has_staged(self, group_id: bytes) -> bool:
        """Return whether a commit waits for the hub."""
        return _STAGED + vec(group_id) in self._rows

    def drop_staged(self, group_id: bytes) -> None:
        """Delete the waiting commit."""
        self._rows.pop(_STAGED + vec(group_id), None)

    def forget(self, group_id: bytes) -> None:
        """Delete everything about a group."""
        newest = self.newest_epoch(group_id) or 0
        for epoch in range(max(newest - RETAINED_EPOCHS, 0), newest + 1):
            self._rows.pop(_epoch_key(group_id, epoch), None)
            self._rows.pop(_epoch_key(group_id, epoch, _HANDOVERS), None)
        for kind in (_STATE, _STAGED, _NEWEST):
            self._rows.pop(kind + vec(group_id), None)

    def state(self, group_id: bytes) -> bytes | None:
        """Return the group's state."""
        return self._rows.get(self._state + vec(group_id))

    def put_state(self, group_id: bytes, state: bytes) -> None:
        """Store the group's state."""
        self._rows[self._state + vec(group_id)] = state

    def epoch(self, group_id: bytes, epoch: int) -> bytes | None:
        """Return the stored data of a past epoch."""
        return self._rows.get(_epoch_key(group_id, epoch))

    def put_epoch(self, group_id: bytes, epoch: int, data: bytes) -> None:
        """Store a past epoch, and delete the one that is now too old."""
        self._rows[_epoch_key(group_id, epoch)] = data
        newest = max(epoch, self.newest_epoch(group_id) or 0)
        self._rows[_NEWEST + vec(group_id)] = newest.to_bytes(8, "big")
        if newest >= RETAINED_EPOCHS:
            self._rows.pop(_epoch_key(group_id, newest - RETAINED_EPOCHS), None)

    def handovers(self, group_id: bytes, epoch: int) -> tuple[int, ...] | None:
        """Return the leaves that changed hands with the commit that ended an epoch; None if that is not known."""
        row = self._rows.get(_epoch_key(group_id, epoch, _HANDOVERS))
        if row is None:
            return None
        return tuple(int.from_bytes(row[at : at + 4], "big") for at in range(0, len(row), 4))

    def put_handovers(self, group_id: bytes, epoch: int, leaves: Iterable[int]) -> None:
        """Store which leaves changed hands when `epoch` ended, for as long as that epoch is stored."""
        row = b"".join(leaf.to_bytes(4, "big") for leaf in leaves)
        self._rows[_epoch_key(group_id, epoch, _HANDOVERS)] = row
        if epoch >= RETAINED_EPOCHS:
            self._rows.pop(_epoch_key(group_id, epoch - RETAINED_EPOCHS, _HANDOVERS), None)

    def newest_epoch(self, group_id: bytes) -> int | None:
        """Return the newest past epoch that is stored."""
        newest = self._rows.get(_NEWEST + vec(group_id))
        return None if newest is None else int.from_bytes(newest, "big")


def _epoch_key(group_id: bytes, epoch: int, kind: bytes = _EPOCH) -> bytes:
    return kind + vec(group_id) + epoch.to_bytes(8, "big")
