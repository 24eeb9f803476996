"""A record of what each party saw, for tests of privacy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ohttp_relay.bhttp.fields import Field


@dataclass(frozen=True, slots=True)
class Seen:
    """What one party saw at one step: address of the peer, target, fields, body."""

    peer: str = ""
    method: str = ""
    target: str = ""
    status: int = 0
    fields: tuple[Field, ...] = ()
    body: bytes = field(default=b"", repr=False)


Observer = Callable[[str, Seen], None]
"""Called with the name of an event and what was seen.  The events:

`relay.keys`, `relay.received`, `relay.forwarded`, `relay.answered`; `gateway.keys`, `gateway.received`,
`gateway.decapsulated`, `gateway.fetched`; `download.fetched`.  A body that is streamed follows its
event as `relay.received.piece`, `relay.answered.piece`, `gateway.decapsulated.piece`.  The handshake of a
WebSocket is `relay.socket`, `gateway.socket`; its frames have the events of bodies.
"""
