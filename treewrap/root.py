"""The parts that only the root has: its public header, and its plaintext after the slots."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from treewrap.codec import Reader, vector
from treewrap.errors import StaleEpoch, UpdateRefused
from treewrap.links.records import LINKS_LIMIT, LiveLink
from treewrap.secret import ROOM_NAME_LIMIT, ROOM_SECRETS_LIMIT, SECRET_SIZE, RoomSecret
from treewrap.suite import ARITIES, SALT_SIZE, Suite

EXTRA_LIMIT = 0xFFFF
_HEADER = struct.Struct(">HBQ16sH")
MAX_HEIGHT = 24


@dataclass(frozen=True, slots=True)
class RootHeader:
    """29 public bytes, from which a member of `epoch` derives the root key.

    Height 0 means that nothing was ever sealed; then every other field but the suite is 0.
    """

    suite: Suite
    height: int
    epoch: int
    salt: bytes
    extra_length: int

    @classmethod
    def fresh(cls, suite: Suite) -> RootHeader:
        """Return the header of a tree without any update."""
        return cls(suite, 0, 0, bytes(SALT_SIZE), 0)

    def check_next(self, other: RootHeader, epoch: int | None) -> None:
        """Check that an update with another header can follow; with `epoch`, that it is of this very epoch.

        Raises UpdateRefused, StaleEpoch.
        """
        if other.suite != self.suite:
            raise UpdateRefused(f"suite: the tree's is {self.suite}, the update's {other.suite}")
        if self.height and other.epoch <= self.epoch:
            raise StaleEpoch("update", tree=self.epoch, offered=other.epoch)
        if epoch is not None and other.epoch != epoch:
            raise UpdateRefused(f"epoch: expected {epoch}, got {other.epoch}")

    def to_bytes(self) -> bytes:
        """Encode it."""
        return _HEADER.pack(self.suite.id, self.height, self.epoch, self.salt, self.extra_length)

    @classmethod
    def read(cls, reader: Reader) -> RootHeader:
        """Read one. Raises ParseError."""
        suite_id = reader.u16("suite")
        if not 1 <= suite_id <= len(ARITIES):
            raise reader.fail(f"suite: {suite_id} is not known")
        suite = Suite.from_id(suite_id)
        header = cls(
            suite,
            reader.u8("height"),
            reader.u64("epoch"),
            reader.take(SALT_SIZE, "salt"),
            reader.u16("extra"),
        )
        if header.height > -(-MAX_HEIGHT // suite.bits):
            raise reader.fail(f"height: {header.height} is too much for arity {suite.arity}")
        if header.height == 0 and header != cls.fresh(suite):
            raise reader.fail("header of a fresh tree: must be zero")
        return header


@dataclass(frozen=True, slots=True)
class RootExtra:
    """Room secrets by name and live links by id, in the root's plaintext: members and link holders read them."""

    rooms: dict[str, RoomSecret] = field(default_factory=dict)
    links: tuple[LiveLink, ...] = ()

    def to_bytes(self) -> bytes:
        """Encode it: at least 2 bytes, at most 65,535."""
        if not (self.rooms or self.links):
            return b"\0\0"
        rooms = b"".join(named_secret_to_bytes(name, secret) for name, secret in self.rooms.items())
        return vector(rooms) + vector(b"".join(link.to_bytes() for link in self.links))

    @classmethod
    def from_bytes(cls, content: bytes) -> RootExtra:
        """Read it. Raises ParseError, also for names or links out of order."""
        reader = Reader(content)
        names: list[bytes] = []
        rooms: dict[str, RoomSecret] = {}
        items = reader.items("room secrets", EXTRA_LIMIT)
        while items.more():
            name, secret = read_named_secret(items)
            names.append(name.encode())
            rooms[name] = secret
        if names != sorted(set(names)) or len(names) > ROOM_SECRETS_LIMIT:
            raise items.fail("room secrets: not in order, or too many")
        links: list[LiveLink] = []
        items = reader.items("links", EXTRA_LIMIT)
        while items.more():
            links.append(LiveLink.read(items))
        ids = [link.link.id for link in links]
        if ids != sorted(set(ids)) or len(ids) > LINKS_LIMIT:
            raise items.fail("links: not in order, or too many")
        reader.end("root")
        return cls(rooms, tuple(links))


def named_secret_to_bytes(name: str, secret: RoomSecret) -> bytes:
    """Encode NamedSecret: the name as <V>, then 32 bytes."""
    return vector(name.encode()) + secret.reveal()


def read_named_secret(reader: Reader) -> tuple[str, RoomSecret]:
    """Read NamedSecret. Raises ParseError."""
    raw = reader.vector("room secret's name", ROOM_NAME_LIMIT)
    secret = RoomSecret(reader.take(SECRET_SIZE, "room secret"))
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise reader.fail("room secret's name: not UTF-8") from None
    if not name:
        raise reader.fail("room secret's name: empty")
    return name, secret
