"""Binary HTTP (RFC 9292): messages as values, and in pieces.  Bytes in, bytes out.

Internal but for the names of `__all__`.
"""

from __future__ import annotations

from ohttp_relay.bhttp.fields import Field, Fields
from ohttp_relay.bhttp.message import Request, Response
from ohttp_relay.bhttp.padding import Padding, buckets, stream_buckets, unpadded
from ohttp_relay.bhttp.parts import Informational, Limits
from ohttp_relay.bhttp.stream import Decoder

__all__ = [
    "Decoder",
    "Field",
    "Fields",
    "Informational",
    "Limits",
    "Padding",
    "Request",
    "Response",
    "buckets",
    "stream_buckets",
    "unpadded",
]
