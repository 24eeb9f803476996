"""Queues: where a leaf's messages wait, named so that only the leaf's own provider knows which queue it is.

A leaf carries a `QueueAddress`: provider domain and the queue's id sealed to that provider's HPKE key, fresh
for every leaf and bound to the hash of the leaf's signature key, so that it can't be copied into another leaf.
A queue's id is the hash of a random token; whoever shows the token collects. No account is involved.
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
    """(provider domain, encrypted queue id); the hub routes by the one and can't read the other."""

    domain: Annotated[str, Text(253)]
    encrypted_queue_id: SealedBox

    def __post_init__(self) -> None:
        """Refuse what is not a domain."""
        check_domain(self.domain)


def queue_id(token: AccessToken) -> bytes:
    """Return a queue's id (32 bytes): the hash of the token that collects from it."""
    return hashlib.sha256(b"MIMI-MMR 1.0 queue" + token.reveal()).digest()


def leaf_binding(leaf_signature_key: bytes) -> bytes:
    """Return what a queue address is bound to: the hash of the leaf's signature key (32 bytes)."""
    return hashlib.sha256(b"MIMI-MMR 1.0 queue leaf" + leaf_signature_key).digest()


def seal_queue_id(
    domain: str, key: SealingPublicKey, queue: bytes, leaf_signature_key: bytes
) -> QueueAddress:
    """Return the address of `queue` for one leaf; two seals of one queue have nothing in common."""
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
