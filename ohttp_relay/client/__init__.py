"""The client: requests through a relay to the gateway behind it.

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.client.http_client import OhttpClient
from ohttp_relay.client.key_sources import AgreeingKeys, KeyList, KeySource, PinnedKeys, RelayKeys
from ohttp_relay.client.response import OhttpResponse
from ohttp_relay.client.websocket_client import OhttpSocket

__all__ = [
    "AgreeingKeys",
    "KeyList",
    "KeySource",
    "OhttpClient",
    "OhttpResponse",
    "OhttpSocket",
    "PinnedKeys",
    "RelayKeys",
]
