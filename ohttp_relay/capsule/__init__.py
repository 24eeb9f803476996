"""Encapsulated messages (RFC 9458, section 4; draft-ietf-ohai-chunked-ohttp).  Bytes in, bytes out.

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.capsule.client import ResponseOpener, encapsulate_request
from ohttp_relay.capsule.format import REQUEST_TYPE, RESPONSE_TYPE
from ohttp_relay.capsule.gateway import OpenedRequest, decapsulate_request

__all__ = [
    "REQUEST_TYPE",
    "RESPONSE_TYPE",
    "OpenedRequest",
    "ResponseOpener",
    "decapsulate_request",
    "encapsulate_request",
]
