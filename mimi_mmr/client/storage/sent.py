"""The messages that this client sent to a room in its current epoch.

The hub sends each message to all members, its sender too. If a copy comes back of a message that this vault did not
send, a newer copy of the vault did: keys for sending were used that this vault counts as unused.
"""

from __future__ import annotations

from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.uris import MimiUri

MAX_SENT = 1 << 13
_OLDER = b"older copy"
_FULL = b"full"
_CAME = b"\x01"  # behind the epoch of a message whose copy has come back


class SentMessages:
    """The hashes of sent messages, and whether this vault is an older copy of itself.

    A hash stays noted after its copy has come back, until the epoch ends: any member can submit the same message
    again, and that copy is no sign of a newer vault either.

    Nothing is held in memory, so a failed transaction needs no undo.
    """

    def __init__(self, vault: Vault, room: MimiUri) -> None:
        self._vault = vault
        self._rows = vault.table(f"sent {room}")

    def add(self, message: bytes, epoch: int) -> None:
        """Note a message's hash before it is sent.

        Above `MAX_SENT` hashes those of earlier epochs are dropped; if that is not enough, no hash of this epoch is
        known any more, and every copy counts as this vault's.
        """
        if len(self._rows) >= MAX_SENT:
            for earlier in [key for key, noted in self._rows.items() if noted and noted[:8] < _epoch(epoch)]:
                del self._rows[earlier]
        if len(self._rows) >= MAX_SENT:
            self._rows[_FULL] = _epoch(epoch)
        else:
            self._rows[message] = _epoch(epoch)

    def came_back(self, message: bytes, epoch: int) -> bool:
        """Return whether this vault sent the message of this hash, in an epoch that has not ended."""
        if message in self._rows:
            self._rows[message] = _epoch(epoch) + _CAME
            return True
        return self._rows.get(_FULL) == _epoch(epoch)

    @property
    def older_copy(self) -> bool:
        """Whether a newer copy of this vault was used in this room, and no commit has replaced its keys since."""
        return _OLDER in self._rows

    def note_older_copy(self) -> None:
        """Note that a newer copy of this vault was used in this room."""
        self._rows[_OLDER] = b""

    def note_new_epoch(self) -> None:
        """Note that a commit was followed or accepted: no key of the new epoch was used by anybody.

        The copies of earlier messages that are still on their way stay noted.
        """
        self._rows.pop(_OLDER, None)
        for came in [key for key, noted in self._rows.items() if noted[8:] == _CAME]:
            del self._rows[came]


def _epoch(epoch: int) -> bytes:
    return epoch.to_bytes(8, "big")
