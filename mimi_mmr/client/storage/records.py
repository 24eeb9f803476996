"""The structs that a client stores in its vault. All of them hold secrets, and must be stored nowhere else."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Annotated

from mimi_mmr.client.people.contacts import Contact, OutgoingRequest, PublishedPackage
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.secret import AccessToken, ConnectionKey, IdentityLinkKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.mls.engine import MlsEngine
from mimi_mmr.presentation import BOOL, U8, U64, Code, Fixed, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.connections import ConnectionKeyOffer, ConnectionPackage, ConnectionRequest
from mimi_mmr.protocol.credentials import LeafIdentity, RealCredential, VerifiedDevice
from mimi_mmr.protocol.room.departures import Departure
from mimi_mmr.protocol.room.requests import UpdateRequest
from mimi_mmr.uris import DEVICE, ROOM, USER, MimiUri

VERSION = 1


@dataclass(frozen=True, slots=True)
class SavedPerson(Struct):
    """A `VerifiedDevice`."""

    user: Annotated[MimiUri, USER]
    device_uri: Annotated[MimiUri, DEVICE]
    device_key: Annotated[bytes, Fixed(32)]
    identity_key: Annotated[bytes, Fixed(32)]

    @classmethod
    def of(cls, device: VerifiedDevice) -> SavedPerson:
        """Make the stored form."""
        return cls(device.user, device.device, device.device_key, device.identity_key)

    def device(self) -> VerifiedDevice:
        """Return the original value."""
        return VerifiedDevice(self.user, self.device_uri, self.device_key, self.identity_key)


@dataclass(frozen=True, slots=True)
class SavedKey(Struct):
    """A `SealingKey`."""

    kem: Annotated[Kem, Code(Kem, 2)]
    seed: Annotated[bytes, Opaque(96)] = field(repr=False)

    @classmethod
    def of(cls, key: SealingKey) -> SavedKey:
        """Make the stored form."""
        return cls(key.kem, key.seed)

    def key(self) -> SealingKey:
        """Return the original value."""
        return SealingKey(self.kem, self.seed)


@dataclass(frozen=True, slots=True)
class SavedAccount(Struct):
    """This device's identity, and how it reaches its provider. Without a credential it is not registered yet."""

    version: Annotated[int, U8]
    user: Annotated[MimiUri, USER]
    device: Annotated[MimiUri, DEVICE]
    url: Annotated[str, Text(1024)]
    token: Annotated[bytes, Fixed(32)] = field(repr=False)
    identity_seed: Annotated[bytes, Fixed(32)] = field(repr=False)
    device_seed: Annotated[bytes, Fixed(32)] = field(repr=False)
    credential: Annotated[RealCredential | None, Maybe(Nested(RealCredential))] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SavedPackage(Struct):
    """A `PublishedPackage`."""

    package: ConnectionPackage
    key: SavedKey

    @classmethod
    def of(cls, published: PublishedPackage) -> SavedPackage:
        """Make the stored form."""
        return cls(published.package, SavedKey.of(published.key))

    def published(self) -> PublishedPackage:
        """Return the original value."""
        return PublishedPackage(self.package, self.key.key())


@dataclass(frozen=True, slots=True)
class SavedOutgoing(Struct):
    """An `OutgoingRequest`."""

    request: ConnectionRequest
    package: ConnectionPackage
    recipient: SavedPerson
    pinned: Annotated[bool, BOOL]
    response_key: SavedKey
    inbox: Annotated[bytes, Fixed(32)] = field(repr=False)
    room: Annotated[MimiUri | None, Maybe(ROOM)]

    @classmethod
    def of(cls, outgoing: OutgoingRequest) -> SavedOutgoing:
        """Make the stored form."""
        return cls(
            outgoing.request,
            outgoing.package,
            SavedPerson.of(outgoing.recipient),
            outgoing.pinned,
            SavedKey.of(outgoing.response_key),
            outgoing.inbox.reveal(),
            outgoing.room,
        )

    def outgoing(self) -> OutgoingRequest:
        """Return the original value."""
        return OutgoingRequest(
            self.request,
            self.package,
            self.recipient.device(),
            self.pinned,
            self.response_key.key(),
            AccessToken(self.inbox),
            self.room,
        )


@dataclass(frozen=True, slots=True)
class SavedContact(Struct):
    """A `Contact`, shared among all of a user's devices."""

    person: SavedPerson
    pinned: Annotated[bool, BOOL]
    blocked: Annotated[bool, BOOL]
    room: Annotated[MimiUri | None, Maybe(ROOM)]
    key_version: Annotated[int, U64]
    own_key: Annotated[bytes, Fixed(32)] = field(repr=False)
    upload_seed: Annotated[bytes, Fixed(32)] = field(repr=False)
    theirs: Annotated[ConnectionKeyOffer | None, Maybe(Nested(ConnectionKeyOffer))] = field(repr=False)
    removed_devices: Annotated[tuple[bytes, ...], Vector(Fixed(32), count=64)]

    @classmethod
    def of(cls, contact: Contact) -> SavedContact:
        """Make the stored form."""
        return cls(
            SavedPerson.of(contact.device),
            contact.pinned,
            contact.blocked,
            contact.room,
            contact.key_version,
            contact.own_key.reveal(),
            contact.upload_key.seed(),
            contact.theirs,
            contact.removed_devices,
        )

    def update(self, contact: Contact) -> None:
        """Copy all fields into a contact."""
        contact.device, contact.pinned, contact.blocked = self.person.device(), self.pinned, self.blocked
        contact.room, contact.key_version, contact.theirs = self.room, self.key_version, self.theirs
        contact.own_key = ConnectionKey(self.own_key)
        contact.upload_key = SigningKey.from_seed(self.upload_seed)
        contact.removed_devices = self.removed_devices

    def contact(self) -> Contact:
        """Return the original value."""
        contact = Contact(self.person.device(), self.pinned)
        self.update(contact)
        return contact


@dataclass(frozen=True, slots=True)
class SavedShelf(Struct):
    """A shelf that has to be closed, and the upload key that signs the order."""

    shelf: Annotated[bytes, Fixed(32)]
    upload_seed: Annotated[bytes, Fixed(32)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SavedLeaf(Struct):
    """A `PreparedLeaf`; what its MLS client holds lies in a table of its own."""

    seed: Annotated[bytes, Fixed(32)] = field(repr=False)
    set_seed: Annotated[bytes, Fixed(32)] = field(repr=False)
    identity: LeafIdentity = field(repr=False)
    ilk: Annotated[bytes, Fixed(32)] = field(repr=False)
    queue: Annotated[bytes, Fixed(32)] = field(repr=False)

    @classmethod
    def of(cls, leaf: PreparedLeaf) -> SavedLeaf:
        """Make the stored form."""
        return cls(
            leaf.key.seed(), leaf.set_key.seed(), leaf.identity, leaf.ilk.reveal(), leaf.queue.reveal()
        )

    def key(self) -> SigningKey:
        """Return the leaf's signature key."""
        return SigningKey.from_seed(self.seed)

    def leaf(self, engine: MlsEngine, rows: MutableMapping[bytes, bytes]) -> PreparedLeaf:
        """Return the leaf, without the private keys of unused KeyPackages, which the MLS engine does not store."""
        key = self.key()
        client = engine.client(self.identity.to_bytes(), key, rows)
        set_key = SigningKey.from_seed(self.set_seed)
        ilk, queue = IdentityLinkKey(self.ilk), AccessToken(self.queue)
        return PreparedLeaf(client, key, set_key, self.identity, ilk, queue)


@dataclass(frozen=True, slots=True)
class SavedKeyPackage(Struct):
    """An outstanding KeyPackage: what is needed to notice its use, and to join or ask to be added again."""

    key_package: Annotated[bytes, Opaque(1 << 16)] = field(repr=False)
    leaf: SavedLeaf
    user: Annotated[MimiUri | None, Maybe(USER)]
    serial: Annotated[bytes, Opaque(16)]
    last_resort: Annotated[bool, BOOL]
    room: Annotated[MimiUri | None, Maybe(ROOM)]
    expiry: Annotated[int, U64]


@dataclass(frozen=True, slots=True)
class SavedReadQueue(Struct):
    """The read position of a queue."""

    token: Annotated[bytes, Fixed(32)] = field(repr=False)
    acknowledged: Annotated[int, U64]
    lost: Annotated[int, U64]


@dataclass(frozen=True, slots=True)
class SavedMembership(Struct):
    """A membership, without what changes with epochs only: that is in `SavedRoom`."""

    leaf: SavedLeaf
    last_sequence: Annotated[int, U64]
    desynchronised: Annotated[bool, BOOL]
    rotate: Annotated[bool, BOOL]
    unprocessed: Annotated[bytes | None, Maybe(Opaque(1 << 24))]
    unanswered: Annotated[UpdateRequest | None, Maybe(Nested(UpdateRequest))]
    departures: Annotated[tuple[Departure, ...], Vector(Nested(Departure), 1 << 24)]
    invited_by: Annotated[MimiUri | None, Maybe(USER)]
    last_resort: Annotated[bool, BOOL]
    problems: Annotated[tuple[str, ...], Vector(Text(4096), 1 << 22, 1000)]


__all__ = [
    "SavedAccount",
    "SavedContact",
    "SavedKeyPackage",
    "SavedLeaf",
    "SavedMembership",
    "SavedOutgoing",
    "SavedPackage",
    "SavedPerson",
    "SavedReadQueue",
]
