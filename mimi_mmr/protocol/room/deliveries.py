"""Fan-out from a hub to the providers of a room's members: one event for many queues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.presentation import Fixed, Nested, Opaque, Struct, Text, Vector

MAX_DELIVERIES = 4096


@dataclass(frozen=True, slots=True)
class Delivery(Struct):
    """One leaf's queue: its sealed id, and the leaf binding that the seal covers."""

    encrypted_queue_id: SealedBox
    leaf_binding: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class NotifyRequest(Struct):
    """The body of POST /notify: one event for queues of one provider. `transaction` is for deduplication."""

    LIMIT: ClassVar[int] = 1 << 27
    hub: Annotated[str, Text(253)]
    transaction: Annotated[bytes, Fixed(16)]
    deliveries: Annotated[tuple[Delivery, ...], Vector(Nested(Delivery), 1 << 26, MAX_DELIVERIES)]
    message: Annotated[bytes, Opaque(1 << 26)]
