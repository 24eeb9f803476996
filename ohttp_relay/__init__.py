"""Oblivious HTTP (RFC 9458) over Binary HTTP (RFC 9292): client, relay, gateway, download proxy.

`bhttp`, `hpke`, `keys` and `capsule` are the protocol: bytes in, bytes out, no network library.  `client`,
`relay`, `gateway` and `download` put it on aiohttp, over what `transport` and `server` give them.  The names
of `__all__` are the public ones; each is loaded at its first use, so that the protocol loads without aiohttp.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ohttp_relay.bhttp import Request, Response
    from ohttp_relay.client import (
        AgreeingKeys,
        OhttpClient,
        OhttpResponse,
        OhttpSocket,
        PinnedKeys,
        RelayKeys,
    )
    from ohttp_relay.download import DownloadLimits, DownloadProxy
    from ohttp_relay.errors import OhttpError
    from ohttp_relay.gateway import (
        DEFAULT_PATH,
        Gateway,
        GatewayLimits,
        KeyKeeper,
        ReplayGuard,
        SharedReplayCache,
    )
    from ohttp_relay.keys import KeyConfig, KeyRing, choose_config, decode_key_list, encode_key_list
    from ohttp_relay.relay import RateLimit, Relay, RelayLimits
    from ohttp_relay.transport import SocketLimits, StreamedResponse, TargetPolicy

_HOMES = {
    "bhttp": ("Request", "Response"),
    "client": ("AgreeingKeys", "OhttpClient", "OhttpResponse", "OhttpSocket", "PinnedKeys", "RelayKeys"),
    "download": ("DownloadLimits", "DownloadProxy"),
    "errors": ("OhttpError",),
    "gateway": ("DEFAULT_PATH", "Gateway", "GatewayLimits", "KeyKeeper", "ReplayGuard", "SharedReplayCache"),
    "keys": ("KeyConfig", "KeyRing", "choose_config", "decode_key_list", "encode_key_list"),
    "relay": ("RateLimit", "Relay", "RelayLimits"),
    "transport": ("SocketLimits", "StreamedResponse", "TargetPolicy"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DEFAULT_PATH",
    "AgreeingKeys",
    "DownloadLimits",
    "DownloadProxy",
    "Gateway",
    "GatewayLimits",
    "KeyConfig",
    "KeyKeeper",
    "KeyRing",
    "OhttpClient",
    "OhttpError",
    "OhttpResponse",
    "OhttpSocket",
    "PinnedKeys",
    "RateLimit",
    "Relay",
    "RelayKeys",
    "RelayLimits",
    "ReplayGuard",
    "Request",
    "Response",
    "SharedReplayCache",
    "SocketLimits",
    "StreamedResponse",
    "TargetPolicy",
    "choose_config",
    "decode_key_list",
    "encode_key_list",
]


def __getattr__(name: str) -> object:
    """Load a public name from its package."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
