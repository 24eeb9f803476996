"""What a client keeps of the people it is connected to, and of connections under way."""

from __future__ import annotations

from dataclasses import dataclass, field

from mimi_mmr.crypto.sealing import SealingKey
from mimi_mmr.crypto.secret import AccessToken, ConnectionKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.protocol.connections import ConnectionKeyOffer, ConnectionPackage, ConnectionRequest
from mimi_mmr.protocol.credentials import VerifiedDevice
from mimi_mmr.protocol.key_packages import fetch_token, shelf_id
from mimi_mmr.uris import MimiUri

MAX_REMOVED = 64  # devices of one contact that are known to be lost


@dataclass(slots=True)
class Contact:
    """Somebody one shares a connection room with.

    `pinned` says whether the identity key was checked against a contact code; otherwise it was trusted on first
    use. `own_key` is this side's connection key for them, in its `key_version`, `theirs` the one they sent; each
    names a shelf. Of one who is `blocked` nothing is taken any more, and nothing is told. `removed_devices` are the
    keys of devices that they have lost.
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
        """Where KeyPackage sets for them lie (32 bytes)."""
        return shelf_id(fetch_token(self.own_key), self.upload_key.public)

    @property
    def user(self) -> MimiUri:
        """Who."""
        return self.device.user

    def offer(self) -> ConnectionKeyOffer:
        """Return what this side sends into the connection room."""
        return ConnectionKeyOffer(self.key_version, self.own_key.reveal(), self.upload_key.public)

    def take(self, offer: ConnectionKeyOffer) -> bool:
        """Take their connection key, if it is newer than what is known; whether it was."""
        newer = self.theirs is None or offer.key_version > self.theirs.key_version
        if newer:
            self.theirs = offer
        return newer

    def rotate(self) -> None:
        """Make a new connection key with a new shelf; the old shelf is for the caller to close."""
        self.key_version += 1
        self.own_key, self.upload_key = ConnectionKey.generate(), SigningKey.generate()


@dataclass(frozen=True, slots=True)
class PublishedPackage:
    """A connection package of one's own, and the key that opens requests sealed to it."""

    package: ConnectionPackage
    key: SealingKey


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """A request that was deposited, and what its response will be opened with; its `room`, once it was answered."""

    request: ConnectionRequest
    package: ConnectionPackage
    recipient: VerifiedDevice
    pinned: bool
    response_key: SealingKey
    inbox: AccessToken
    room: MimiUri | None = None


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """A verified request of somebody who wants to connect."""

    number: int
    request: ConnectionRequest
    device: VerifiedDevice
