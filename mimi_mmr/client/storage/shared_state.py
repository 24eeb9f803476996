"""The state that all devices of one user share: contacts, settings, keys. Each entry's newest version wins.

Devices send each other changes through the devices' room; see `client.devices.sharing`. A device may be stolen. So
an entry is checked before it is stored: a stolen device can neither stop the others nor use up the version numbers.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated

from mimi_mmr.client.storage.records import SavedContact, SavedPackage
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.errors import MmrError, StateError
from mimi_mmr.presentation import U64, Code, Fixed, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.uris import Kind, MimiUri, check_name

MAX_VALUE = 1 << 15
BATCH = 48 << 10  # bytes; always fits in one message of a room
MAX_STEP = 1 << 32  # by which a version may grow at once, so that no device can use up the numbers
MAX_FIRST = 1 << 63  # highest version of an entry that is received for the first time


class SharedKind(enum.IntEnum):
    """The kinds of entries, each with its key and its value.

    DEVICE: a name; the device's key, or nothing once it was removed, which stays so. CONTACT: a user;
    `SavedContact`. SETTING: a name; 0 or 1. CONNECTION_PACKAGE: its hash; `SavedPackage`. LEAF: room and device;
    the client pseudonym. REMOVAL: a removed device and a `Part`; `Removal`, or nothing once it is done.
    """

    DEVICE = 1
    CONTACT = 2
    SETTING = 3
    CONNECTION_PACKAGE = 4
    LEAF = 5
    REMOVAL = 6


class Part(enum.StrEnum):
    """The parts of a removal that one device does for all; of the last two there is one for each contact."""

    ACCOUNT = "account"
    PACKAGES = "packages"
    KEY = "key"
    TELL = "tell"


@dataclass(frozen=True, slots=True)
class Removal(Struct):
    """The time (seconds since 1970) since which a part is due, and the removed device's key; empty if unknown."""

    since: Annotated[int, U64]
    device_key: Annotated[bytes, Opaque(32)]


@dataclass(frozen=True, slots=True)
class DeviceKey(Struct):
    """The value of a DEVICE entry."""

    key: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class SharedEntry(Struct):
    """One version of an entry; without a value it is deleted.

    Of two equal versions the greater device name wins.
    """

    kind: Annotated[SharedKind, Code(SharedKind)]
    key: Annotated[bytes, Opaque(1024)]
    version: Annotated[int, U64]
    device: Annotated[str, Text(128)]
    value: Annotated[bytes | None, Maybe(Opaque(MAX_VALUE))] = field(repr=False)

    @property
    def place(self) -> bytes:
        """The entry's kind and key."""
        return bytes([self.kind]) + self.key

    def newer_than(self, other: SharedEntry | None) -> bool:
        """Say whether this entry wins. A removed device stays removed, whatever later versions say."""
        if other is None:
            return True
        if self.kind is SharedKind.DEVICE and (self.value is None) is not (other.value is None):
            return self.value is None
        return (self.version, self.device) > (other.version, other.device)

    def check(self) -> None:
        """Refuse an entry whose key or value can't be parsed; raises `StateError`."""
        try:
            check_name(self.device)
            fits = _CHECKS[self.kind](self.key.decode("latin-1"), self.value)
        except (MmrError, ValueError) as error:
            raise StateError(f"an entry of kind {self.kind.name} that can't be read: {error}") from None
        if not fits:
            raise StateError(f"an entry of kind {self.kind.name} that does not say what such a one says")

    def check_step(self, known: SharedEntry | None) -> None:
        """Refuse a version too far ahead to be reached by counting; raises `StateError`."""
        if self.version > (known.version + MAX_STEP if known else MAX_FIRST):
            raise StateError(
                f"an entry of kind {self.kind.name} in a version that is far ahead of all others"
            )


def _device(key: str, value: bytes | None) -> bool:
    check_name(key)
    return value is None or bool(DeviceKey.from_bytes(value))


def _contact(key: str, value: bytes | None) -> bool:
    if value is None:  # a CONTACT is never deleted but blocked, so the identity key stays known
        return False
    saved = SavedContact.from_bytes(value)
    versions = saved.key_version, saved.theirs.key_version if saved.theirs else 0
    return saved.contact().user == MimiUri.parse(key, Kind.USER) and max(versions) < MAX_FIRST


def _setting(key: str, value: bytes | None) -> bool:
    check_name(key)
    return value in (b"0", b"1")


def _package(key: str, value: bytes | None) -> bool:
    return value is None or SavedPackage.from_bytes(value).published().package.hash == key.encode("latin-1")


def _leaf(key: str, value: bytes | None) -> bool:
    room, device = key.split(" ")
    check_name(device)
    MimiUri.parse(room, Kind.ROOM)
    return value is None or bool(MimiUri.parse(value.decode(), Kind.CLIENT_PSEUDONYM))


def _removal(key: str, value: bytes | None) -> bool:
    device, part, *user = key.split(" ")
    check_name(device)
    users = [MimiUri.parse(one, Kind.USER) for one in user]
    per_contact = Part(part) in (Part.KEY, Part.TELL)
    return len(users) == per_contact and (value is None or bool(Removal.from_bytes(value)))


_CHECKS: dict[SharedKind, Callable[[str, bytes | None], bool]] = {
    SharedKind.DEVICE: _device,
    SharedKind.CONTACT: _contact,
    SharedKind.SETTING: _setting,
    SharedKind.CONNECTION_PACKAGE: _package,
    SharedKind.LEAF: _leaf,
    SharedKind.REMOVAL: _removal,
}


@dataclass(frozen=True, slots=True)
class SharedEntries(Struct):
    """Entries in a message from device to device."""

    entries: Annotated[tuple[SharedEntry, ...], Vector(Nested(SharedEntry), 1 << 17)]


class SharedState:
    """The entries, stored in the vault, and which of them the other devices have not received yet."""

    def __init__(self, vault: Vault, device: str) -> None:
        """Read from the vault, as `device` of the user. `unreadable` lists the entries that were skipped."""
        self._device = device
        self._vault = vault
        self._rows = vault.table("shared")
        self._due = vault.table("shared-unsent")
        self._entries: dict[bytes, SharedEntry] = {}
        self.unreadable: list[str] = []
        for row in self._rows.values():
            try:
                entry = SharedEntry.from_bytes(row)
                entry.check()
            except MmrError as error:
                self.unreadable.append(str(error))
            else:
                self._entries[entry.place] = entry

    def remember(self) -> Callable[[], None]:
        """Return a function that restores the entries, for use if the next change fails."""
        before = dict(self._entries)

        def put_back() -> None:
            self._entries = before

        return put_back

    def get(self, kind: SharedKind, key: bytes) -> bytes | None:
        """Return an entry's value; None if it was deleted, or never existed."""
        entry = self._entries.get(bytes([kind]) + key)
        return entry.value if entry else None

    def items(self, kind: SharedKind) -> Iterator[tuple[bytes, bytes]]:
        """Return keys and values of one kind."""
        for entry in list(self._entries.values()):
            if entry.kind is kind and entry.value is not None:
                yield entry.key, entry.value

    def entry(self, kind: SharedKind, key: bytes) -> SharedEntry | None:
        """Return an entry, also a deleted one; None if there never was one."""
        return self._entries.get(bytes([kind]) + key)

    def gone(self, kind: SharedKind) -> Iterator[bytes]:
        """Return the keys of one kind whose entries are deleted."""
        for entry in list(self._entries.values()):
            if entry.kind is kind and entry.value is None:
                yield entry.key

    def put(self, kind: SharedKind, key: bytes, value: bytes | None) -> None:
        """Make a new version, to be sent to the other devices; do nothing if the value is unchanged.

        Raises `StateError` for what could not be read again.
        """
        old = self._entries.get(bytes([kind]) + key)
        if old is not None and old.value == value:
            return
        entry = SharedEntry(kind, key, (old.version if old else 0) + 1, self._device, value)
        entry.check()
        with self._vault.transaction():
            self._keep(entry)
            self._due[entry.place] = b""

    def apply(self, entry: SharedEntry) -> bool:
        """Take another device's entry if it is newer than the stored one; raises `StateError` if it is invalid."""
        known = self._entries.get(entry.place)
        entry.check()
        entry.check_step(known)
        if not entry.newer_than(known):
            return False
        with self._vault.transaction():
            self._keep(entry)
            self._due.pop(entry.place, None)
        return True

    def _keep(self, entry: SharedEntry) -> None:
        self._rows[entry.place] = entry.to_bytes()
        self._entries[entry.place] = entry

    def unsent(self) -> list[SharedEntry]:
        """Return the entries that the other devices have not received yet."""
        return [self._entries[place] for place in self._due if place in self._entries]

    def all_unsent(self) -> None:
        """Mark all entries as unsent, since a new device knows none."""
        with self._vault.transaction():
            for place in self._entries:
                self._due[place] = b""

    def sent(self, entries: Iterable[SharedEntry]) -> None:
        """Mark these entries as sent, unless they have changed since."""
        with self._vault.transaction():
            for entry in entries:
                if self._entries[entry.place] == entry:
                    self._due.pop(entry.place, None)


def batches(entries: Iterable[SharedEntry]) -> Iterator[SharedEntries]:
    """Return entries in batches that fit in one message each."""
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
