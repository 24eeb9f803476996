"""Peers: signed requests of one provider to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from mimi_mmr.presentation import U64, Fixed, Opaque, Struct, Text

MAX_NOTIFY = 1 << 25


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
    """`PeerRequestTBS`, signed by the key in the sending provider's certificate."""

    LIMIT: ClassVar[int] = MAX_NOTIFY + 4096
    content: PeerRequestTBS
    signature: Annotated[bytes, Fixed(64)]
