"""What a client keeps of the people it is connected to, and of connections under way."""

from __future__ import annotations

from dataclasses import dataclass, field

from mimi_mmr.connections import ConnectionKeyOffer, ConnectionPackage, ConnectionRequest
from mimi_mmr.credentials import VerifiedDevice
from mimi_mmr.labels import SigningKey
from mimi_mmr.sealing import SealingKey
from mimi_mmr.secret import AccessToken, ConnectionKey
from mimi_mmr.uris import MimiUri


@dataclass(slots=True)
class Contact:
    """Somebody one shares a connection room with.

    `pinned` says whether the identity key was checked against a contact code; otherwise it was trusted on first
    use. `own_key` is this side's connection key for them, `theirs` the one they sent; each names a shelf.
    """

    device: VerifiedDevice
    pinned: bool
    room: MimiUri | None = None
    own_key: ConnectionKey = field(default_factory=ConnectionKey.generate)
    upload_key: SigningKey = field(default_factory=SigningKey.generate)
    theirs: ConnectionKeyOffer | None = None

    @property
    def user(self) -> MimiUri:
        """Who."""
        return self.device.user

    def offer(self) -> ConnectionKeyOffer:
        """What this side sends into the connection room."""
        return ConnectionKeyOffer(1, self.own_key.reveal(), self.upload_key.public)


@dataclass(frozen=True, slots=True)
class PublishedPackage:
    """A connection package of one's own, and the key that opens requests sealed to it."""

    package: ConnectionPackage
    key: SealingKey


@dataclass(frozen=True, slots=True)
class OutgoingRequest:
    """A request that was deposited, and what its response will be opened with."""

    request: ConnectionRequest
    recipient: VerifiedDevice
    pinned: bool
    response_key: SealingKey
    inbox: AccessToken


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """A verified request of somebody who wants to connect."""

    number: int
    request: ConnectionRequest
    device: VerifiedDevice
