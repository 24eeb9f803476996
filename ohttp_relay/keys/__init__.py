"""Key configurations (RFC 9458, section 3), and the keys a gateway holds.

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.keys.configuration import (
    DEFAULT_SUITES,
    MEDIA_TYPE,
    KeyConfig,
    choose_config,
    decode_key_list,
    encode_key_list,
)
from ohttp_relay.keys.ring import GatewayKey, KeyRing

__all__ = [
    "DEFAULT_SUITES",
    "MEDIA_TYPE",
    "GatewayKey",
    "KeyConfig",
    "KeyRing",
    "choose_config",
    "decode_key_list",
    "encode_key_list",
]
