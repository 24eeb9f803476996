"""The data that a client stores about contacts and open connection requests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from mimi_mmr.crypto.sealing import SealingKey
from mimi_mmr.crypto.secret import AccessToken, ConnectionKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.protocol.connections import (
    ConnectionKeyOffer,
    ConnectionPackage,
    ConnectionRequest,
    newest_offer,
)
from mimi_mmr.protocol.credentials import VerifiedDevice
from mimi_mmr.protocol.key_packages import fetch_token, shelf_id
from mimi_mmr.uris import MimiUri

MAX_REMOVED = 64  # lost devices that are remembered for one contact


@dataclass(slots=True)
class Contact:
    """The other user of a connection.

    `pinned` says whether the identity key was checked against a contact code; otherwise it was trusted on first
    use. `own_key` is this side's connection key for them, with its `key_version`, and `theirs` is the one they
    sent; each connection key names a shelf. A client takes nothing from a `blocked` contact, and sends them
    nothing. `removed_devices` are the keys of devices that they have lost.
    """

    device: VerifiedDevice
    pinned: bool
    room: MimiUri | None = None
    own_key: ConnectionKey = field(default_factory=ConnectionKey.generate)
    upload_key: SigningKey = field(default_factory=SigningKey.generate)
    theirs: ConnectionKeyOffer | None = None
    key_version: int = 1
    blocked: bool = False
    removed_devices: tuple[bytes, ...] = ()

    @property
    def shelf(self) -> bytes:
        """The id of the shelf with the KeyPackage sets for them (32 bytes)."""
        return shelf_id(fetch_token(self.own_key), self.upload_key.public)

    @property
    def user(self) -> MimiUri:
        """The contact's user URI."""
        return self.device.user

    def offer(self) -> ConnectionKeyOffer:
        """Return the message with this side's connection key, for the connection room."""
        return ConnectionKeyOffer(self.key_version, self.own_key.reveal(), self.upload_key.public)

    def take(self, offer: ConnectionKeyOffer) -> None:
        """Store their connection key if it is newer; raise `ConnectionRefused` if it is far ahead."""
        offer.check_step(self.theirs)
        self.theirs = newest_offer(self.theirs, offer)

    def lose_device(self, device_key: bytes) -> None:
        """Note that they have lost a device. Whatever version it gave their connection key, the next one counts."""
        self.removed_devices = (*self.removed_devices, device_key)[-MAX_REMOVED:]
        if self.theirs is not None:
            self.theirs = replace(self.theirs, key_version=0)

    def rotate(self) -> None:
        """Make a new connection key, which names a new shelf. The caller closes the old shelf."""
        self.key_version += 1
        self.own_key, self.upload_key = ConnectionKey.generate(), SigningKey.generate()


@dataclass(frozen=True, slots=True)
class PublishedPackage:
    """A connection package of this user, and the key that opens requests sealed to it."""

    package: ConnectionPackage
    key: SealingKey


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """A request that was deposited, and the keys that open its response; `room` is set once it was answered."""

    request: ConnectionRequest
    package: ConnectionPackage
    recipient: VerifiedDevice
    pinned: bool
    response_key: SealingKey
    inbox: AccessToken
    room: MimiUri | None = None


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """A verified connection request of another user."""

    number: int
    request: ConnectionRequest
    device: VerifiedDevice
