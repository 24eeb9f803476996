"""The Oblivious Relay Resource (RFC 9458, sections 5 and 6.2).

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.relay.rate_limit import RateLimit
from ohttp_relay.relay.resource import Authenticate, Relay, RelayLimits

__all__ = ["Authenticate", "RateLimit", "Relay", "RelayLimits"]
