"""What all hops share: HTTP, URLs, targets, WebSocket, streams, problem details, observation.

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.transport.causes import cause_of
from ohttp_relay.transport.http import AUTO_HEADERS, has_coding, hide_server, open_session, read_limited
from ohttp_relay.transport.observation import Observer, Seen
from ohttp_relay.transport.streams import AnyResponse, Handler, StreamedResponse, abort
from ohttp_relay.transport.targets import Origin, TargetPolicy, open_target_session
from ohttp_relay.transport.websocket import Close, SocketLimits

__all__ = [
    "AUTO_HEADERS",
    "AnyResponse",
    "Close",
    "Handler",
    "Observer",
    "Origin",
    "Seen",
    "SocketLimits",
    "StreamedResponse",
    "TargetPolicy",
    "abort",
    "cause_of",
    "has_coding",
    "hide_server",
    "open_session",
    "open_target_session",
    "read_limited",
]
