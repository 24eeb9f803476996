"""Leaves before they are in a room: each gets a fresh MLS client, signature key, credential and queue.

Two leaves of one device have no value in common, so nothing links the device's rooms.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field

from mimi_mmr.crypto.sealing import SealingPublicKey
from mimi_mmr.crypto.secret import AccessToken, EchoKey, IdentityLinkKey, Secret, WelcomeKey
from mimi_mmr.crypto.signing import SigningKey, expand_with_label, key_package_ref
from mimi_mmr.mls.engine import MlsClient, MlsEngine
from mimi_mmr.protocol.credentials import CREDENTIAL_LIFETIME, DeviceIdentity, LeafIdentity, make_credential
from mimi_mmr.protocol.key_packages import OpenKeyPackage, derive_welcome_key
from mimi_mmr.protocol.queues import queue_id, seal_queue_id

DAY = 86400


@dataclass(frozen=True, slots=True)
class PreparedLeaf:
    """What a device stores for a leaf, before it is in a room and afterwards.

    `set_key` proves the user pseudonym, which the leaves of all of a user's devices in one room share.
    """

    client: MlsClient = field(repr=False)
    key: SigningKey
    set_key: SigningKey
    identity: LeafIdentity = field(repr=False)
    ilk: IdentityLinkKey
    queue: AccessToken

    @property
    def echo_key(self) -> EchoKey:
        """The key by which this client recognises its own messages, whichever copy of its state has sent them."""
        return EchoKey(expand_with_label(Secret(self.key.seed()), "message echo", b""))


@dataclass(frozen=True, slots=True)
class PreparedKeyPackage:
    """A leaf with its KeyPackage; the private keys stay in the leaf's MLS client."""

    leaf: PreparedLeaf
    key_package: bytes = field(repr=False)

    @property
    def ref(self) -> bytes:
        """The KeyPackageRef, by which a Welcome names it."""
        return key_package_ref(self.key_package)

    @property
    def welcome_key(self) -> WelcomeKey:
        """The key of the proof that a Welcome for it comes with."""
        return derive_welcome_key(self.leaf.ilk, self.ref)

    @property
    def open(self) -> OpenKeyPackage:
        """The KeyPackage with its link key, to be wrapped or sealed for a contact."""
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

    The credential expires at the start of a day, so that it does not show at what time of day it was made.
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
