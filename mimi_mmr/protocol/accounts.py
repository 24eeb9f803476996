"""Requests about accounts, which a device sends to its own provider."""

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
    """Return the hash of a device's token (32 bytes): the provider stores it, the device signs it."""
    return hashlib.sha256(b"MIMI-MMR 1.0 account" + token.reveal()).digest()


@dataclass(frozen=True, slots=True)
class RegisterRequest(Struct):
    """A new account: its names, its first device's key, the proof of possession, and the device's access token.

    A repeated identical request gets the same answer; a different request for the same name is refused as taken.
    """

    user: Annotated[str, Text(128)]
    device: Annotated[str, Text(128)]
    device_public_key: Annotated[bytes, Fixed(32)]
    proof: Annotated[bytes, Fixed(64)]
    access_token: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class RegisterTBS(Struct):
    """The content that `proof` signs with the device's key."""

    domain: Annotated[str, Text(253)]
    user: Annotated[str, Text(128)]
    device: Annotated[str, Text(128)]


@dataclass(frozen=True, slots=True)
class AddDeviceRequest(Struct):
    """A further device for an account, sent with the access token of a device that the account already has."""

    device: Annotated[str, Text(128)]
    device_public_key: Annotated[bytes, Fixed(32)]
    proof: Annotated[bytes, Fixed(64)]
    access_token: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class AddDeviceTBS(Struct):
    """The content that `proof` signs with the new device's key, so that the new device itself chooses its token."""

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
    """The device's certificate (first) and its intermediate certificates, in DER."""

    certificates: Annotated[tuple[bytes, ...], Vector(Opaque(MAX_CERTIFICATE), count=MAX_CHAIN)]


@dataclass(frozen=True, slots=True)
class PublishRequest(Struct):
    """Connection packages for the account's directory."""

    LIMIT: ClassVar[int] = 1 << 22
    packages: Annotated[tuple[ConnectionPackage, ...], Vector(Nested(ConnectionPackage), 1 << 22, 200)]


@dataclass(frozen=True, slots=True)
class PackageCount(Struct):
    """The number of connection packages left and not expired, and when the first of them expires (seconds)."""

    one_time: Annotated[int, U32]
    last_resorts: Annotated[int, U32]
    earliest_expiry: Annotated[int | None, Maybe(U64)]


@dataclass(frozen=True, slots=True)
class PackagesLeft(Struct):
    """Counts of the packages left: the asking device's, and all of its account's."""

    device: PackageCount
    account: PackageCount
