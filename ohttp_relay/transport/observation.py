"""A record of what each party saw, for tests of privacy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ohttp_relay.bhttp.fields import Field


@dataclass(frozen=True, slots=True)
class Seen:
    """What one party saw at one step: the peer's address, the target, fields, body."""

    peer: str = ""
    method: str = ""
    target: str = ""
    status: int = 0
    fields: tuple[Field, ...] = ()
    body: bytes = field(default=b"", repr=False)


Observer = Callable[[str, Seen], None]
"""Called with an event name and what was seen, for a record of exactly what each party saw.

`relay.keys`, `relay.received`, `relay.forwarded`, `relay.answered`; `gateway.keys`, `gateway.received`,
`gateway.decapsulated`, `gateway.fetched`; `download.fetched`.  A body that passes in pieces comes after its
event as `relay.received.piece`, `relay.answered.piece`, `gateway.decapsulated.piece`.  A WebSocket's handshake
is `relay.socket`, `gateway.socket`; its frames come as bodies do.
"""
