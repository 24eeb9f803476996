"""Queues: where a leaf's messages wait, named so that only the leaf's own provider knows which queue it is.

A leaf carries a `QueueAddress`: provider domain and the queue's id sealed to that provider's HPKE key, fresh
for every leaf and bound to the hash of the leaf's signature key, so that it can't be copied into another leaf.
A queue's id is the hash of a random token; whoever shows the token collects. No account is involved.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from mimi_mmr.crypto.sealing import SealedBox, SealingKey, SealingPublicKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.errors import SealedBoxRejected, UnknownQueue
from mimi_mmr.presentation import Struct, Text
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
    """A queue's id (32 bytes): the hash of the token that collects from it."""
    return hashlib.sha256(b"MIMI-MMR 1.0 queue" + token.reveal()).digest()


def leaf_binding(leaf_signature_key: bytes) -> bytes:
    """What a queue address is bound to: the hash of the leaf's signature key (32 bytes)."""
    return hashlib.sha256(b"MIMI-MMR 1.0 queue leaf" + leaf_signature_key).digest()


def seal_queue_id(
    domain: str, key: SealingPublicKey, queue: bytes, leaf_signature_key: bytes
) -> QueueAddress:
    """The address of `queue` for one leaf; two seals of one queue have nothing in common."""
    return QueueAddress(domain, key.seal(_PURPOSE, leaf_binding(leaf_signature_key), queue))


def open_queue_id(key: SealingKey, box: SealedBox, binding: bytes) -> bytes:
    """The queue's id, by its provider; raises `UnknownQueue` for a copied or invented address."""
    try:
        queue = key.open(_PURPOSE, binding, box)
    except SealedBoxRejected:
        raise UnknownQueue("the queue address was not made for this leaf, or not for this provider") from None
    if len(queue) != QUEUE_ID_SIZE:
        raise UnknownQueue(f"expected a queue id of {QUEUE_ID_SIZE} bytes")
    return queue
