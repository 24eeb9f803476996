"""What all devices of one user know: contacts, settings, keys. Each entry's newest version wins.

Devices tell each other what changed through a room of their own; see `devices`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

from mimi_mmr.tls import U64, Code, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.vault import Vault

MAX_VALUE = 1 << 15
BATCH = 48 << 10  # what is certain to fit in one message of a room


class SharedKind(enum.IntEnum):
    """What an entry is about."""

    DEVICE = 1
    CONTACT = 2
    SETTING = 3
    CONNECTION_PACKAGE = 4
    LEAF = 5


@dataclass(frozen=True, slots=True)
class SharedEntry(Struct):
    """One thing, in one version; without a value it is gone. Of two with one version, the later device's wins."""

    kind: Annotated[SharedKind, Code(SharedKind)]
    key: Annotated[bytes, Opaque(1024)]
    version: Annotated[int, U64]
    device: Annotated[str, Text(128)]
    value: Annotated[bytes | None, Maybe(Opaque(MAX_VALUE))] = field(repr=False)

    @property
    def place(self) -> bytes:
        """What it is an entry for."""
        return bytes([self.kind]) + self.key

    def newer_than(self, other: SharedEntry | None) -> bool:
        """Whether this one wins."""
        return other is None or (self.version, self.device) > (other.version, other.device)


@dataclass(frozen=True, slots=True)
class SharedEntries(Struct):
    """Some of them, as they go from device to device."""

    entries: Annotated[tuple[SharedEntry, ...], Vector(Nested(SharedEntry), 1 << 17)]


class SharedState:
    """The entries, kept in the vault, and which of them the other devices have not been told yet."""

    def __init__(self, vault: Vault, device: str) -> None:
        """As `device` of the user; with what the vault holds."""
        self._device = device
        self._vault = vault
        self._rows = vault.table("shared")
        self._due = vault.table("shared-unsent")
        loaded = (SharedEntry.from_bytes(row) for row in self._rows.values())
        self._entries = {entry.place: entry for entry in loaded}

    def get(self, kind: SharedKind, key: bytes) -> bytes | None:
        """An entry's value."""
        entry = self._entries.get(bytes([kind]) + key)
        return entry.value if entry else None

    def items(self, kind: SharedKind) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of one kind."""
        for entry in list(self._entries.values()):
            if entry.kind is kind and entry.value is not None:
                yield entry.key, entry.value

    def put(self, kind: SharedKind, key: bytes, value: bytes | None) -> None:
        """A new version, to be told to the other devices; nothing if it is what there was."""
        old = self._entries.get(bytes([kind]) + key)
        if (old.value if old else None) == value:
            return
        entry = SharedEntry(kind, key, (old.version if old else 0) + 1, self._device, value)
        with self._vault.transaction():
            self._keep(entry)
            self._due[entry.place] = b""

    def apply(self, entry: SharedEntry) -> bool:
        """Take another device's entry, if it is newer than what is here."""
        if not entry.newer_than(self._entries.get(entry.place)):
            return False
        with self._vault.transaction():
            self._keep(entry)
            self._due.pop(entry.place, None)
        return True

    def _keep(self, entry: SharedEntry) -> None:
        self._entries[entry.place] = entry
        self._rows[entry.place] = entry.to_bytes()

    def unsent(self) -> list[SharedEntry]:
        """What the other devices have not been told."""
        return [self._entries[place] for place in self._due]

    def all_unsent(self) -> None:
        """There is a device that knows nothing yet: everything is to be told."""
        with self._vault.transaction():
            for place in self._entries:
                self._due[place] = b""

    def sent(self, entries: Iterable[SharedEntry]) -> None:
        """These have been told; unless they have changed since."""
        with self._vault.transaction():
            for entry in entries:
                if self._entries[entry.place] == entry:
                    self._due.pop(entry.place, None)


def batches(entries: Iterable[SharedEntry]) -> Iterator[SharedEntries]:
    """Entries in portions that fit a message."""
    batch: list[SharedEntry] = []
    size = 0
    for entry in entries:
        weight = len(entry.to_bytes())
        if batch and size + weight > BATCH:
            yield SharedEntries(tuple(batch))
            batch, size = [], 0
        batch.append(entry)
        size += weight
    if batch:
        yield SharedEntries(tuple(batch))
