"""Bodies of endpoints that no draft has: accounts, queues, deposits, assets, requests between providers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from mimi_mmr.crypto.certificates import MAX_CERTIFICATE, MAX_CHAIN
from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.presentation import BOOL, U16, U32, U64, Fixed, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.connections import ConnectionPackage
from mimi_mmr.protocol.key_packages import MAX_CLIENTS
from mimi_mmr.protocol.provider_keys import ProviderKeys

PROBLEM = "application/problem+json"
PROBLEM_URN = "urn:mimi-mmr:error:"
MAX_NOTIFY = 1 << 25
MAX_ASSET = 64 << 20


def access_token_hash(token: AccessToken) -> bytes:
    """What a provider keeps of a device's token, and what the device signs of it (32 bytes)."""
    return hashlib.sha256(b"MIMI-MMR 1.0 account" + token.reveal()).digest()


@dataclass(frozen=True, slots=True)
class RegisterRequest(Struct):
    """A new account: names, its first device's key, proof that it is held, and the device's access token.

    The very same request again is answered as the first one was; with anything else in it the name is taken.
    """

    user: Annotated[str, Text(128)]
    device: Annotated[str, Text(128)]
    device_public_key: Annotated[bytes, Fixed(32)]
    proof: Annotated[bytes, Fixed(64)]
    access_token: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class RegisterTBS(Struct):
    """What `proof` signs, with the device's key."""

    domain: Annotated[str, Text(253)]
    user: Annotated[str, Text(128)]
    device: Annotated[str, Text(128)]


@dataclass(frozen=True, slots=True)
class AddDeviceRequest(Struct):
    """A further device of an account, sent with the token of one that it has already."""

    device: Annotated[str, Text(128)]
    device_public_key: Annotated[bytes, Fixed(32)]
    proof: Annotated[bytes, Fixed(64)]
    access_token: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class AddDeviceTBS(Struct):
    """What `proof` signs, with the new device's key: an old device can't give it a token that it did not choose."""

    domain: Annotated[str, Text(253)]
    user: Annotated[str, Text(128)]
    device: Annotated[str, Text(128)]
    device_public_key: Annotated[bytes, Fixed(32)]
    access_token_hash: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class DeviceList(Struct):
    """Names of an account's devices, in alphabetical order."""

    devices: Annotated[tuple[str, ...], Vector(Text(128), count=MAX_CLIENTS)]


@dataclass(frozen=True, slots=True)
class CertificateChain(Struct):
    """The device's certificate and what leads to the root, DER, the device's first."""

    certificates: Annotated[tuple[bytes, ...], Vector(Opaque(MAX_CERTIFICATE), count=MAX_CHAIN)]


@dataclass(frozen=True, slots=True)
class PublishRequest(Struct):
    """Connection packages for the account's directory."""

    LIMIT: ClassVar[int] = 1 << 22
    packages: Annotated[tuple[ConnectionPackage, ...], Vector(Nested(ConnectionPackage), 1 << 22, 200)]


@dataclass(frozen=True, slots=True)
class PackageCount(Struct):
    """Connection packages that are left and have not expired; when the first of them does (seconds)."""

    one_time: Annotated[int, U32]
    last_resorts: Annotated[int, U32]
    earliest_expiry: Annotated[int | None, Maybe(U64)]


@dataclass(frozen=True, slots=True)
class PackagesLeft(Struct):
    """What is left of the asking device's packages, and of all of its account's."""

    device: PackageCount
    account: PackageCount


@dataclass(frozen=True, slots=True)
class Deposit(Struct):
    """A sealed connection request, and the package whose key it is sealed to."""

    package_hash: Annotated[bytes, Fixed(32)]
    request: SealedBox


@dataclass(frozen=True, slots=True)
class WaitingDeposit(Struct):
    """A deposit and its number, for the account it is for."""

    number: Annotated[int, U64]
    deposit: Deposit


@dataclass(frozen=True, slots=True)
class Inbox(Struct):
    """Deposits that wait."""

    deposits: Annotated[tuple[WaitingDeposit, ...], Vector(Nested(WaitingDeposit), 1 << 24)]


@dataclass(frozen=True, slots=True)
class QueueOrder(Struct):
    """Make a queue, whose id is the hash of the token."""

    token: Annotated[bytes, Fixed(32)]
    accepts_deposits: Annotated[bool, BOOL]


@dataclass(frozen=True, slots=True)
class QueueRemoval(Struct):
    """Forget a queue and what is in it; if there is none, nothing is to do."""

    token: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class CollectRequest(Struct):
    """Acknowledge up to a sequence number, and get what follows; wait up to `wait_ms` if there is nothing."""

    token: Annotated[bytes, Fixed(32)]
    acknowledged: Annotated[int, U64]
    limit: Annotated[int, U16]
    wait_ms: Annotated[int, U32]


@dataclass(frozen=True, slots=True)
class QueuedMessage(Struct):
    """One message and its place in the queue."""

    sequence: Annotated[int, U64]
    message: Annotated[bytes, Opaque(1 << 26)]


@dataclass(frozen=True, slots=True)
class QueuePage(Struct):
    """What a collector gets. `lost` counts messages that were refused when the queue was full, or grew too old."""

    LIMIT: ClassVar[int] = 1 << 28
    lost: Annotated[int, U64]
    messages: Annotated[tuple[QueuedMessage, ...], Vector(Nested(QueuedMessage), 1 << 27)]


@dataclass(frozen=True, slots=True)
class ReplyDeposit(Struct):
    """A sealed connection response, for a reply inbox."""

    queue: Annotated[bytes, Fixed(32)]
    response: SealedBox


@dataclass(frozen=True, slots=True)
class ProviderList(Struct):
    """Signed keys of every provider that this one knows, itself included: the same list for everybody."""

    providers: Annotated[tuple[ProviderKeys, ...], Vector(Nested(ProviderKeys), 1 << 22, 1024)]


@dataclass(frozen=True, slots=True)
class AssetLocation(Struct):
    """Where an asset was put."""

    url: Annotated[str, Text(1024)]


@dataclass(frozen=True, slots=True)
class PeerRequestTBS(Struct):
    """A request of one provider to another; `issued` in seconds."""

    sender: Annotated[str, Text(253)]
    recipient: Annotated[str, Text(253)]
    endpoint: Annotated[str, Text(64)]
    issued: Annotated[int, U64]
    body: Annotated[bytes, Opaque(MAX_NOTIFY)]


@dataclass(frozen=True, slots=True)
class PeerRequest(Struct):
    """Signed by the key in the sending provider's certificate."""

    LIMIT: ClassVar[int] = MAX_NOTIFY + 4096
    content: PeerRequestTBS
    signature: Annotated[bytes, Fixed(64)]
