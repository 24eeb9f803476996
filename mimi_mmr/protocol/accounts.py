"""Accounts: what a device asks of its own provider, which knows the account."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from mimi_mmr.crypto.certificates import MAX_CERTIFICATE, MAX_CHAIN
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.presentation import U32, U64, Fixed, Maybe, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.protocol.connections import ConnectionPackage
from mimi_mmr.protocol.key_packages import MAX_CLIENTS


def access_token_hash(token: AccessToken) -> bytes:
    """Return what a provider keeps of a device's token, and what the device signs of it (32 bytes)."""
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
