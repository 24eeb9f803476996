"""What all devices of one user know: contacts, settings, keys. Each entry's newest version wins.

Devices tell each other what changed through a room of their own; see `client.devices.sharing`. A device may be in a
thief's hands: what it says is checked before it is kept, so that it can neither stop the others nor have the last
word.
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
BATCH = 48 << 10  # what is certain to fit in one message of a room
MAX_STEP = 1 << 32  # that a version may grow at once: nobody can use up the numbers
MAX_FIRST = 1 << 63  # the version of what is heard of for the first time


class SharedKind(enum.IntEnum):
    """What an entry is about, by what, and what it says.

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
    """What one device does for all when another one is removed; of the last two there is one for each contact."""

    ACCOUNT = "account"
    PACKAGES = "packages"
    KEY = "key"
    TELL = "tell"


@dataclass(frozen=True, slots=True)
class Removal(Struct):
    """Since when (seconds) a part is to be done, and the removed device's key; "" if nobody knows it."""

    since: Annotated[int, U64]
    device_key: Annotated[bytes, Opaque(32)]


@dataclass(frozen=True, slots=True)
class DeviceKey(Struct):
    """What a DEVICE entry says."""

    key: Annotated[bytes, Fixed(32)]


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
        """Say whether this one wins. A removed device stays removed, in whatever version it is said to be back."""
        if other is None:
            return True
        if self.kind is SharedKind.DEVICE and (self.value is None) is not (other.value is None):
            return self.value is None
        return (self.version, self.device) > (other.version, other.device)

    def check(self) -> None:
        """Refuse what a reader of such an entry could not read; raises `StateError`."""
        try:
            check_name(self.device)
            fits = _CHECKS[self.kind](self.key.decode("latin-1"), self.value)
        except (MmrError, ValueError) as error:
            raise StateError(f"an entry of kind {self.kind.name} that can't be read: {error}") from None
        if not fits:
            raise StateError(f"an entry of kind {self.kind.name} that does not say what such a one says")

    def check_step(self, known: SharedEntry | None) -> None:
        """Refuse a version that nobody comes to by counting; raises `StateError`."""
        if self.version > (known.version + MAX_STEP if known else MAX_FIRST):
            raise StateError(
                f"an entry of kind {self.kind.name} in a version that is far ahead of all others"
            )


def _device(key: str, value: bytes | None) -> bool:
    check_name(key)
    return value is None or bool(DeviceKey.from_bytes(value))


def _contact(key: str, value: bytes | None) -> bool:
    if value is None:  # who is no contact any more is blocked: the identity key stays known
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
    """Some of them, as they go from device to device."""

    entries: Annotated[tuple[SharedEntry, ...], Vector(Nested(SharedEntry), 1 << 17)]


class SharedState:
    """The entries, kept in the vault, and which of them the other devices have not heard of yet."""

    def __init__(self, vault: Vault, device: str) -> None:
        """Read what the vault has, as `device` of the user. `unreadable` says what of it is passed over."""
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
        """Return what puts these entries back, if the change that is about to begin fails."""
        before = dict(self._entries)

        def put_back() -> None:
            self._entries = before

        return put_back

    def get(self, kind: SharedKind, key: bytes) -> bytes | None:
        """Return an entry's value; None if it is gone, or never was."""
        entry = self._entries.get(bytes([kind]) + key)
        return entry.value if entry else None

    def items(self, kind: SharedKind) -> Iterator[tuple[bytes, bytes]]:
        """Return keys and values of one kind."""
        for entry in list(self._entries.values()):
            if entry.kind is kind and entry.value is not None:
                yield entry.key, entry.value

    def entry(self, kind: SharedKind, key: bytes) -> SharedEntry | None:
        """Return an entry, also of what is gone; None if there never was one."""
        return self._entries.get(bytes([kind]) + key)

    def gone(self, kind: SharedKind) -> Iterator[bytes]:
        """Return the keys of one kind whose entries are without a value."""
        for entry in list(self._entries.values()):
            if entry.kind is kind and entry.value is None:
                yield entry.key

    def put(self, kind: SharedKind, key: bytes, value: bytes | None) -> None:
        """Make a new version, of which the other devices are to hear; nothing if it is what there was."""
        old = self._entries.get(bytes([kind]) + key)
        if old is not None and old.value == value:
            return
        entry = SharedEntry(kind, key, (old.version if old else 0) + 1, self._device, value)
        with self._vault.transaction():
            self._keep(entry)
            self._due[entry.place] = b""

    def apply(self, entry: SharedEntry) -> bool:
        """Take another device's entry, if it is newer than what is here; raises `StateError` if it is no good."""
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
        """Return what the other devices have not heard of."""
        return [self._entries[place] for place in self._due if place in self._entries]

    def all_unsent(self) -> None:
        """Note that a device knows nothing yet: it is to hear of everything."""
        with self._vault.transaction():
            for place in self._entries:
                self._due[place] = b""

    def sent(self, entries: Iterable[SharedEntry]) -> None:
        """Note that the other devices have heard of these; unless they have changed since."""
        with self._vault.transaction():
            for entry in entries:
                if self._entries[entry.place] == entry:
                    self._due.pop(entry.place, None)


def batches(entries: Iterable[SharedEntry]) -> Iterator[SharedEntries]:
    """Return entries in portions that fit a message."""
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
