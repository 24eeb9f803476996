"""The Oblivious Gateway Resource (RFC 9458, section 5): opens requests, has them answered, refuses replays.

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.gateway.replay import ReplayCache, ReplayGuard, ReplayStore
from ohttp_relay.gateway.resource import DEFAULT_PATH, UNDATED_WINDOW, Gateway, GatewayLimits
from ohttp_relay.gateway.rotation import KeyKeeper
from ohttp_relay.gateway.shared_replay import SharedReplayCache

__all__ = [
    "DEFAULT_PATH",
    "UNDATED_WINDOW",
    "Gateway",
    "GatewayLimits",
    "KeyKeeper",
    "ReplayCache",
    "ReplayGuard",
    "ReplayStore",
    "SharedReplayCache",
]
