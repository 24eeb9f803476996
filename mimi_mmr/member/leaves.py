"""Leaves before they are in a room: for each one a fresh MLS client, signature key, credential and queue.

Nothing in two leaves of one device is equal, so nothing links its rooms.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field

from mimi_mmr.crypto.sealing import SealingPublicKey
from mimi_mmr.crypto.secret import AccessToken, IdentityLinkKey
from mimi_mmr.crypto.signing import SigningKey, key_package_ref
from mimi_mmr.mls.engine import MlsClient, MlsEngine
from mimi_mmr.protocol.credentials import CREDENTIAL_LIFETIME, DeviceIdentity, LeafIdentity, make_credential
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.queues import queue_id, seal_queue_id

DAY = 86400


@dataclass(frozen=True, slots=True)
class PreparedLeaf:
    """What a device holds of a leaf before (and after) it is in a room.

    `set_key` proves the user pseudonym, which the leaves of all of a user's devices in one room share.
    """

    client: MlsClient = field(repr=False)
    key: SigningKey
    set_key: SigningKey
    identity: LeafIdentity = field(repr=False)
    ilk: IdentityLinkKey
    queue: AccessToken


@dataclass(frozen=True, slots=True)
class PreparedKeyPackage:
    """A leaf with its KeyPackage; the private keys stay in the leaf's MLS client."""

    leaf: PreparedLeaf
    key_package: bytes = field(repr=False)

    @property
    def ref(self) -> bytes:
        """KeyPackageRef, by which a Welcome finds it."""
        return key_package_ref(self.key_package)

    @property
    def open(self) -> OpenKeyPackage:
        """With its link key, to be wrapped or sealed for a contact."""
        return OpenKeyPackage(self.key_package, self.leaf.ilk.reveal())


def prepare_leaf(
    engine: MlsEngine,
    device: DeviceIdentity,
    set_key: SigningKey,
    queue_key: SealingPublicKey,
    now: float,
    rows: Callable[[SigningKey], MutableMapping[bytes, bytes]] = lambda _: {},
) -> PreparedLeaf:
    """Make a leaf for one room, under the user pseudonym of `set_key`; its groups are stored in `rows(leaf key)`.

    The credential's expiry is a day's start, so that it doesn't say when in the day it was made.
    """
    key = SigningKey.generate()
    expiry = int(now + CREDENTIAL_LIFETIME) // DAY * DAY
    credential, ilk = make_credential(device, set_key, key, expiry)
    token = AccessToken.generate()
    address = seal_queue_id(device.user.domain, queue_key, queue_id(token), key.public)
    identity = LeafIdentity(credential, address)
    client = engine.client(identity.to_bytes(), key, rows(key))
    return PreparedLeaf(client, key, set_key, identity, ilk, token)


def prepare_key_package(leaf: PreparedLeaf) -> PreparedKeyPackage:
    """Make the leaf's one KeyPackage."""
    return PreparedKeyPackage(leaf, leaf.client.key_package())
