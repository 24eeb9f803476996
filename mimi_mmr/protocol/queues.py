"""Queues: a leaf's messages wait in one. Its address hides from everybody but its provider which queue it is.

A leaf carries a `QueueAddress`: the provider's domain, and the queue's id sealed to that provider's HPKE key. The
id is sealed again for every leaf and bound to the hash of the leaf's signature key, so it can't be copied into
another leaf. A queue's id is the hash of a random access token; any client with the token can collect. No account
is involved.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar

from mimi_mmr.crypto.sealing import SealedBox, SealingKey, SealingPublicKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import SealedBoxRejected, UnknownQueue
from mimi_mmr.presentation import BOOL, U16, U32, U64, Fixed, Nested, Opaque, Struct, Text, Vector
from mimi_mmr.uris import check_domain

QUEUE_ID_SIZE = 32
_PURPOSE = "queue id"


@dataclass(frozen=True, slots=True)
class QueueAddress(Struct):
    """A provider's domain, by which the hub routes, and an encrypted queue id, which the hub can't read."""

    domain: Annotated[str, Text(253)]
    encrypted_queue_id: SealedBox

    def __post_init__(self) -> None:
        """Refuse an invalid domain."""
        check_domain(self.domain)


def queue_id(token: AccessToken) -> bytes:
    """Return a queue's id (32 bytes): the hash of the token that collects from it."""
    return hashlib.sha256(b"MIMI-MMR 1.0 queue" + token.reveal()).digest()


def leaf_binding(leaf_signature_key: bytes) -> bytes:
    """Return the value that a queue address is bound to: the hash of the leaf's signature key (32 bytes)."""
    return hashlib.sha256(b"MIMI-MMR 1.0 queue leaf" + leaf_signature_key).digest()


def seal_queue_id(
    domain: str, key: SealingPublicKey, queue: bytes, leaf_signature_key: bytes
) -> QueueAddress:
    """Return the address of `queue` for one leaf; two addresses of one queue can't be linked."""
    return QueueAddress(domain, key.seal(_PURPOSE, leaf_binding(leaf_signature_key), queue))


def open_queue_id(key: SealingKey, box: SealedBox, binding: bytes) -> bytes:
    """Open the queue's id, as its provider; raise `UnknownQueue` for a copied or invented address."""
    try:
        queue = key.open(_PURPOSE, binding, box)
    except SealedBoxRejected:
        raise UnknownQueue("the queue address was not made for this leaf, or not for this provider") from None
    if len(queue) != QUEUE_ID_SIZE:
        raise UnknownQueue(f"expected a queue id of {QUEUE_ID_SIZE} bytes")
    return queue


@dataclass(frozen=True, slots=True)
class QueueOrder(Struct):
    """An order to create a queue, whose id is the hash of the token."""

    token: Annotated[bytes, Fixed(32)]
    accepts_deposits: Annotated[bool, BOOL]


@dataclass(frozen=True, slots=True)
class QueueRemoval(Struct):
    """An order to delete a queue and its messages, if it exists."""

    token: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class CollectRequest(Struct):
    """A request that acknowledges messages up to a sequence number and waits up to `wait_ms` for the next."""

    token: Annotated[bytes, Fixed(32)]
    acknowledged: Annotated[int, U64]
    limit: Annotated[int, U16]
    wait_ms: Annotated[int, U32]


@dataclass(frozen=True, slots=True)
class QueuedMessage(Struct):
    """One message and its sequence number in the queue."""

    sequence: Annotated[int, U64]
    message: Annotated[bytes, Opaque(1 << 26)]


@dataclass(frozen=True, slots=True)
class QueuePage(Struct):
    """The answer to a collection. `lost` counts messages that were refused by a full queue or expired.

    `acknowledged` is the number up to which the queue has no message any more: acknowledged, or expired.
    """

    LIMIT: ClassVar[int] = 1 << 28
    lost: Annotated[int, U64]
    messages: Annotated[tuple[QueuedMessage, ...], Vector(Nested(QueuedMessage), 1 << 27)]
    acknowledged: Annotated[int, U64] = 0
